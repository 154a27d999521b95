//! The two interfaces that list objects, answered for each caller: instead of zbus's own, which list everything.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;

use banger_schemas::error::{Error, Result};
use zbus::fdo::{ManagedObjects, Properties};
use zbus::message::Header;
use zbus::names::InterfaceName;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::wire::{ObjectPath, OwnedObjectPath, Variant};
use zbus::{Connection, ObjectServer, interface};

use super::Tree;
use super::tree::children;

/// At the root of a service.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) tree: Tree,
}

#[interface(name = "org.freedesktop.DBus.ObjectManager", introspection_docs = false)]
impl Objects {
    async fn get_managed_objects(
        &self,
        #[zbus(object_server)] server: &ObjectServer,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<ManagedObjects> {
        let mut objects = ManagedObjects::new();
        for (path, entry) in self.tree.seen(self.tree.root(), &header).await? {
            if path == self.tree.root() {
                continue;
            }
            let emitter = SignalEmitter::new(connection, path.as_str())?;
            let mut interfaces = HashMap::new();
            for (name, face) in entry.faces {
                let properties = face.get_all(server, connection, Some(&header), &emitter).await?;
                interfaces.insert(name.into(), properties);
            }
            objects.insert(OwnedObjectPath::try_from(path).map_err(Error::internal)?, interfaces);
        }
        Ok(objects)
    }

    // zbus emits both by itself, since this interface has the name that it looks for.
    #[zbus(signal)]
    async fn interfaces_added(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces_and_properties: HashMap<InterfaceName<'_>, HashMap<&str, Variant<'_>>>,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn interfaces_removed(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces: Cow<'_, [InterfaceName<'_>]>,
    ) -> zbus::Result<()>;
}

/// At every path that owned objects are below.
#[derive(Debug)]
pub(super) struct Outline {
    pub(super) tree: Tree,
    pub(super) path: String,
}

#[interface(name = "org.freedesktop.DBus.Introspectable", introspection_docs = false)]
impl Outline {
    #[zbus(out_args("xml_data"))]
    async fn introspect(&self, #[zbus(header)] header: Header<'_>) -> Result<String> {
        let seen = self.tree.seen(&self.path, &header).await?;
        let mut xml = HEAD.to_owned();
        self.introspect_to_writer(&mut xml, 2);
        Properties.introspect_to_writer(&mut xml, 2);
        for face in seen.get(&self.path).iter().flat_map(|entry| entry.faces.values()) {
            face.introspect_to_writer(&mut xml, 2);
        }
        if self.path == self.tree.root() {
            Objects { tree: self.tree.clone() }.introspect_to_writer(&mut xml, 2);
        }
        for name in children(seen.keys(), &self.path) {
            writeln!(xml, "  <node name=\"{name}\"/>").map_err(Error::internal)?;
        }
        Ok(xml + "</node>\n")
    }
}

const HEAD: &str = "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"
 \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">
<node>
";

/// Keeps a path on the bus while there is nothing below it: zbus would drop it, and what lists it with it.
#[derive(Debug)]
pub(super) struct Folder;

#[interface(name = "dev.banger.Folder")]
impl Folder {}
