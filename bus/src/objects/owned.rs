//! An object behind its gate: to who may not see it, it is not there.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use async_trait::async_trait;
use zbus::message::Header;
use zbus::names::{InterfaceName, MemberName};
use zbus::object_server::{DispatchResult, Interface, SignalEmitter};
use zbus::wire::{OwnedVariant, Variant};
use zbus::{BoxDBusError, Connection, Message, ObjectServer, fdo};

use super::Tree;
use crate::watched::watched;

pub(super) struct Owned<I> {
    pub(super) tree: Tree,
    pub(super) owner: Option<u32>,
    pub(super) face: Arc<I>,
}

/// In the words of the bus for a path where nothing is.
fn absent(header: &Header<'_>) -> fdo::Error {
    let path = header.path().map(ToString::to_string).unwrap_or_default();
    fdo::Error::UnknownObject(format!("Unknown object '{path}'"))
}

impl<I> Owned<I> {
    async fn reads(&self, header: &Header<'_>) -> fdo::Result<()> {
        match self.tree.shows_at_once(self.owner, header).await {
            Ok(true) => Ok(()),
            _ => Err(absent(header)),
        }
    }

    async fn calls(&self, header: &Header<'_>) -> fdo::Result<()> {
        match self.tree.shows(self.owner, header).await {
            Ok(true) => Ok(()),
            _ => Err(absent(header)),
        }
    }
}

#[async_trait]
impl<I: Interface> Interface for Owned<I> {
    fn name() -> InterfaceName<'static> {
        I::name()
    }

    fn spawn_tasks_for_methods(&self) -> bool {
        self.face.spawn_tasks_for_methods()
    }

    async fn get(
        &self,
        property_name: &str,
        server: &ObjectServer,
        connection: &Connection,
        header: Option<&Header<'_>>,
        emitter: &SignalEmitter<'_>,
    ) -> Option<Result<OwnedVariant, BoxDBusError>> {
        if let Some(header) = header
            && let Err(error) = self.reads(header).await
        {
            return Some(Err(error.into()));
        }
        self.face.get(property_name, server, connection, header, emitter).await
    }

    async fn get_all(
        &self,
        server: &ObjectServer,
        connection: &Connection,
        header: Option<&Header<'_>>,
        emitter: &SignalEmitter<'_>,
    ) -> fdo::Result<HashMap<String, OwnedVariant>> {
        // Without a message it is for a signal, which everybody can hear.
        let Some(header) = header else { return Ok(HashMap::new()) };
        self.reads(header).await?;
        self.face.get_all(server, connection, Some(header), emitter).await
    }

    /// Nothing is changed by way of a property.
    fn set<'call>(
        &'call self,
        _property_name: &'call str,
        _value: &'call Variant<'_>,
        _server: &'call ObjectServer,
        _connection: &'call Connection,
        _header: Option<&'call Header<'_>>,
        _emitter: &'call SignalEmitter<'_>,
    ) -> DispatchResult<'call> {
        DispatchResult::NotFound
    }

    async fn set_mut(
        &mut self,
        _property_name: &str,
        _value: &Variant<'_>,
        _server: &ObjectServer,
        _connection: &Connection,
        _header: Option<&Header<'_>>,
        _emitter: &SignalEmitter<'_>,
    ) -> Option<Result<(), BoxDBusError>> {
        None
    }

    fn call<'call>(
        &'call self,
        server: &'call ObjectServer,
        connection: &'call Connection,
        msg: &'call Message,
        name: MemberName<'call>,
    ) -> DispatchResult<'call> {
        DispatchResult::Async(Box::pin(async move {
            self.calls(&msg.header()).await?;
            // Methods take `&self`: none requires more.
            let unknown = fdo::Error::UnknownMethod(format!("Unknown method '{name}'"));
            match self.face.call(server, connection, msg, name.clone()) {
                DispatchResult::Async(answer) => watched(&I::name(), &name, msg, answer).await,
                DispatchResult::NotFound | DispatchResult::RequiresMut => Err(unknown.into()),
            }
        }))
    }

    fn call_mut<'call>(
        &'call mut self,
        _server: &'call ObjectServer,
        _connection: &'call Connection,
        _msg: &'call Message,
        _name: MemberName<'call>,
    ) -> DispatchResult<'call> {
        DispatchResult::NotFound
    }

    fn introspect_to_writer(&self, writer: &mut dyn Write, level: usize) {
        self.face.introspect_to_writer(writer, level);
    }
}
