//! The checked-in documents: one file a service, and one for what all of them share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zbus_xml::Interface;

const HEAD: &str = "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"
 \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">
<!-- What the services say of themselves, written by 'make blessed'. -->
<node>
";
const TAIL: &str = "</node>\n";

/// Where they are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/introspection")
}

/// The document that an interface is in: `dev.banger.Vms1.Vm` is in that of `dev.banger.Vms1`.
pub(crate) fn file_of(interface: &str) -> String {
    let service: Vec<&str> = interface.split('.').take(3).collect();
    format!("{}.xml", service.join("."))
}

/// Interfaces by name, put together to documents by file name.
pub(crate) fn render<'a>(interfaces: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for (name, xml) in interfaces {
        files.entry(file_of(name)).or_insert_with(|| HEAD.to_owned()).push_str(xml);
    }
    files.values_mut().for_each(|text| text.push_str(TAIL));
    files
}

/// The documents as they are checked in, by file name.
pub(crate) fn stored() -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder()).into_iter().flatten();
    let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "xml"));
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The interfaces of the checked-in documents.
pub(crate) fn interfaces() -> Vec<Interface<'static>> {
    let nodes = stored().into_values().map(|text| zbus_xml::Node::from_reader(text.as_bytes()).unwrap());
    nodes.flat_map(|node| node.interfaces().iter().map(Interface::to_owned).collect::<Vec<_>>()).collect()
}
