//! Every object of a banger that has one of each kind: six managers, a machine, a job.

use std::collections::BTreeMap;

use banger_integration::{Banger, Who};
use banger_schemas::job::JobProxy;
use banger_schemas::options::Dict;
use banger_schemas::vms::{ManagerProxy, Spec};
use zbus::Connection;
use zbus::fdo::{DBusProxy, IntrospectableProxy};

/// What the names of all services, and of all interfaces that are ours, begin with.
pub(crate) const OURS: &str = "dev.banger.";

/// An interface of an object on the bus.
#[derive(Debug, Clone)]
pub(crate) struct Face {
    pub(crate) service: String,
    pub(crate) path: String,
    /// The `<interface>` element as the object introspects.
    pub(crate) xml: String,
}

/// A banger at work, and a connection to its bus.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) bus: Connection,
    /// By name of the interface; those that many objects have, once.
    pub(crate) faces: BTreeMap<String, Face>,
    _banger: Banger,
}

impl Live {
    pub(crate) async fn start() -> Self {
        let banger = Banger::new(Who::Me);
        banger.ok(["vm", "list"]);
        let bus = zbus::connection::Builder::address(banger.bus().as_str()).build().await.unwrap();
        make_machine(&bus).await;
        let faces = faces(&bus).await;
        Live { bus, faces, _banger: banger }
    }
}

/// A machine that is not started, and the job that made it.
async fn make_machine(bus: &Connection) {
    let spec = Spec {
        name: Some("specimen".parse().unwrap()),
        image: Some("debian-tiny".parse().unwrap()),
        start: false,
        network: false,
        ..Spec::default()
    };
    let (_, job) = ManagerProxy::new(bus).await.unwrap().create(spec.to_dict(), Dict::new()).await.unwrap();
    let job = JobProxy::builder(bus).destination(banger_schemas::vms::NAME).path(job).build().await.unwrap();
    banger_schemas::job::outcome(job.wait().await.unwrap()).unwrap();
}

async fn faces(bus: &Connection) -> BTreeMap<String, Face> {
    let names = DBusProxy::new(bus).await.unwrap().list_names().await.unwrap();
    let mut faces: BTreeMap<String, Face> = BTreeMap::new();
    for service in names.iter().map(|n| n.as_str()).filter(|n| n.starts_with(OURS)) {
        let mut paths = vec!["/".to_owned()];
        while let Some(path) = paths.pop() {
            let object = IntrospectableProxy::builder(bus).destination(service).path(path.as_str()).build().await;
            let document = object.unwrap().introspect().await.unwrap();
            let node = zbus_xml::Node::from_reader(document.as_bytes()).unwrap();
            let below = |name: &str| format!("{}/{name}", path.trim_end_matches('/'));
            paths.extend(node.nodes().iter().filter_map(|child| child.name()).map(below));
            for (name, xml) in elements(&document) {
                let face = Face { service: service.to_owned(), path: path.clone(), xml };
                let first = faces.entry(name).or_insert_with(|| face.clone());
                assert_eq!(first.xml, face.xml, "{path} and {} differ in one interface", first.path);
            }
        }
    }
    faces
}

/// The `<interface>` elements of the object itself that are ours, with the comments that a parser would drop. Those
/// of the objects below it are in the same document, further to the right.
fn elements(document: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in document.lines() {
        if let Some(rest) = line.strip_prefix("  <interface name=\"") {
            let name = rest.split('"').next().unwrap_or_default();
            open = name.starts_with(OURS);
            if open {
                found.push((name.to_owned(), String::new()));
            }
        }
        if let Some((_, text)) = found.last_mut().filter(|_| open) {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        open &= !line.starts_with("  </interface>");
    }
    found
}
