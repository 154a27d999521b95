//! The proxies of `schemas` fit the documents: the same members, arguments, results and change signals, none more
//! and none less.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use banger_schemas::options::Dict;
use banger_schemas::{dns, images, job, network, observe, sessions, storage, vms};
use zbus::proxy::CacheProperties;
use zbus::wire::Fd;

use crate::documents;
use crate::mirror::Mirror;

/// Members by `interface.Member`; of a property, how it says that it changed.
type Members = BTreeMap<String, Option<String>>;

fn documented() -> Members {
    const CHANGES: &str = "org.freedesktop.DBus.Property.EmitsChangedSignal";
    let mut members = Members::new();
    for interface in documents::interfaces() {
        let full = |name: &str| format!("{}.{name}", interface.name());
        members.extend(interface.methods().map(|m| (full(m.name().as_str()), None)));
        for property in interface.properties() {
            let changes = property.annotations().iter().find(|a| a.name() == CHANGES);
            let changes = changes.map_or("true", |a| a.value()).to_owned();
            members.insert(full(property.name().as_str()), Some(changes));
        }
    }
    members
}

/// The members of all proxies, read from their source: the macro leaves no list behind.
fn declared() -> Members {
    let mut members = Members::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/src");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "rs") {
            read_traits(&std::fs::read_to_string(path).unwrap(), &mut members);
        }
    }
    members
}

fn read_traits(source: &str, members: &mut Members) {
    let between = |line: &str, from: &str, to: &str| {
        line.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map(|(found, _)| found.to_owned())
    };
    let (mut interface, mut changes) = (None, None);
    for line in source.lines() {
        if line.starts_with('}') {
            interface = None;
        } else if line.contains("interface = \"") {
            interface = between(line, "interface = \"", "\"");
        } else if line.trim().starts_with("#[zbus(property") {
            changes = Some(between(line, "emits_changed_signal = \"", "\"").unwrap_or("true".to_owned()));
        } else if let (Some(interface), Some(name)) = (&interface, between(line, "    fn ", "(&self")) {
            members.insert(format!("{interface}.{}", pascal_case(&name)), changes.take());
        }
    }
}

fn pascal_case(name: &str) -> String {
    let words = name.split('_').filter_map(|word| Some((word.get(..1)?, word.get(1..)?)));
    words.map(|(first, rest)| first.to_uppercase() + rest).collect()
}

#[test]
fn the_proxies_have_what_the_documents_have() {
    let (declared, documented) = (declared(), documented());
    for (member, changes) in &documented {
        assert_eq!(declared.get(member), Some(changes), "{member}: the proxy and the service differ");
    }
    for member in declared.keys() {
        assert!(documented.contains_key(member), "{member}: the proxy has it, the service does not");
    }
}

/// Calls members of a proxy, each of which must succeed.
macro_rules! call {
    ($mirror:ident, $proxy:ty, $($member:ident($($argument:expr),*)),+ $(,)?) => {{
        let proxy = <$proxy>::builder(&$mirror.connection).destination("dev.banger.Mirror").path("/");
        let proxy = proxy.cache_properties(CacheProperties::No).build().await.unwrap();
        $(if let Err(error) = proxy.$member($($argument),*).await {
            panic!("{}.{}: {error}", stringify!($proxy), stringify!($member));
        })+
    }};
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one line for each member of each interface")]
async fn the_proxies_ask_and_understand_what_the_documents_say() {
    let mirror = Mirror::new().await;
    let none = Dict::new;
    call!(mirror, dns::ManagerProxy<'_>, list(), listen(), notes());
    call!(
        mirror,
        images::ManagerProxy<'_>,
        pull("", none()),
        pull_kernel("", none()),
        list(none()),
        list_kernels(none()),
        show(""),
        delete("", none()),
        delete_kernel("", none()),
        claim("", "", "", none()),
        open("", none()),
        release("", none()),
        holders(),
    );
    call!(mirror, job::JobProxy<'_>, cancel(), wait(), kind(), owner(), state(), progress());
    call!(
        mirror,
        network::ManagerProxy<'_>,
        reserve("", none()),
        open_tap("", none()),
        close_tap("", none()),
        set_nat("", true, none()),
        release("", none()),
        holders(),
        probe(),
        notes(),
        retract(none()),
        mode(),
    );
    call!(mirror, observe::ObserveProxy<'_>, spans("", none()), metrics());
    call!(mirror, sessions::ManagerProxy<'_>, exec("", none(), none()));
    let file = File::open("/dev/null").unwrap();
    call!(
        mirror,
        storage::ManagerProxy<'_>,
        create("", 0, none()),
        copy("", Fd::from(&file), Fd::from(&file), none()),
        open("", none()),
        delete("", none()),
        usage(),
        room(),
    );
    call!(
        mirror,
        vms::ManagerProxy<'_>,
        create(none(), none()),
        get("", none()),
        list_templates(none()),
        prune_templates(none()),
        backend(),
        backend_reason(),
        backends(),
        version(),
    );
    call!(
        mirror,
        vms::VmProxy<'_>,
        start(none()),
        stop(none()),
        set(none()),
        delete(none()),
        console(none()),
        open_channel(none()),
        id(),
        name(),
        owner(),
        state(),
        detail(),
        image(),
        kernel(),
        vcpus(),
        memory_mib(),
        disk_mib(),
        address(),
        host_address(),
        ports(),
        nat(),
        backend(),
        backend_reason(),
        backend_wanted(),
        ephemeral(),
        notes(),
        created(),
        boot_id(),
        started(),
        started_reason(),
        ssh_host_key(),
    );
    let known: Vec<String> = documented().into_keys().collect();
    assert_eq!(mirror.asked().into_iter().collect::<Vec<_>>(), known, "this test calls every member");
}
