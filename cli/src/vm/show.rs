//! `banger vm show`: every property of a machine.

use std::collections::HashMap;

use banger_schemas::vms;
use serde_json::{Map, Value, json};
use zbus::fdo::PropertiesProxy;
use zbus::names::InterfaceName;
use zbus::wire::OwnedVariant;

use crate::client::Client;
use crate::error::Failure;
use crate::view::{ago, json_value, print_fields};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name or id of the machine
    vm: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(client: &Client, args: Args) -> Result<(), Failure> {
    let vm = client.vm(&args.vm).await?;
    print_fields(&fields(&vm).await?, args.json)
}

/// All properties of a VM.
pub(super) async fn fields(vm: &vms::VmProxy<'_>) -> Result<Map<String, Value>, Failure> {
    let proxy = vm.inner();
    let properties = PropertiesProxy::builder(proxy.connection())
        .destination(vms::NAME)
        .path(proxy.path().to_owned())
        .build()
        .await?;
    let interface = InterfaceName::from_static_str_unchecked(vms::VM);
    Ok(fields_of(&properties.get_all(interface).await.map_err(zbus::Error::from)?))
}

/// Properties as fields: `HostAddress` is `host_address`.
pub(super) fn fields_of<K: AsRef<str>>(properties: &HashMap<K, OwnedVariant>) -> Map<String, Value> {
    let mut fields: Map<String, Value> =
        properties.iter().map(|(name, value)| (snake(name.as_ref()), json_value(value))).collect();
    let created = fields.get("created").and_then(Value::as_u64).unwrap_or(0);
    fields.insert("age".into(), json!(ago(created)));
    fields
}

fn snake(camel: &str) -> String {
    let mut snake = String::new();
    for c in camel.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    #[test]
    fn property_names_become_field_names() {
        assert_eq!(super::snake("HostAddress"), "host_address");
        assert_eq!(super::snake("Id"), "id");
        assert_eq!(super::snake("MemoryMib"), "memory_mib");
    }
}
