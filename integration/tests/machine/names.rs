//! Names and references: what is refused, what is found, and that a repeated request makes no second machine.

use std::collections::HashSet;

use banger_integration::{Banger, Who};
use banger_schemas::options::DictBuilder;
use banger_schemas::vms::{ManagerProxy, Spec};
use serde_json::Value;

/// Makes a machine that is not booted.
fn make(banger: &Banger, name: &str) {
    banger.ok(["vm", "create", "--image", "debian-tiny", "--no-start", "--name", name]);
}

fn field(vm: &Value, name: &str) -> String {
    vm[name].as_str().unwrap().to_owned()
}

#[test]
fn a_name_that_is_no_label_is_refused_before_anything_is_made() {
    let banger = Banger::bare(Who::Me);
    let long = "a".repeat(64);
    for name in ["", "-a", "a-", "A", "a.b", "a_b", "a b", "ü", "../a", "a\n", &long] {
        let refused = banger.run(["vm", "create", "--image", "debian-tiny", &format!("--name={name}")]);
        assert_eq!(refused.code, 2, "{name:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("--name"), "{name:?}: {}", refused.stderr);
    }
    assert!(banger.services().is_none(), "nothing was even started for it");
}

#[test]
fn of_two_creates_of_one_name_one_wins() {
    let banger = Banger::new(Who::Me);
    let arguments = ["vm", "create", "--image", "debian-tiny", "--no-start", "--name", "box"];
    let both: Vec<_> = (0..6).map(|_| banger.start(arguments)).collect();
    let (won, lost): (Vec<_>, Vec<_>) = both.into_iter().map(|r| r.end()).partition(|output| output.code == 0);
    assert_eq!((won.len(), won[0].stdout.as_str()), (1, "box\n"));
    for output in &lost {
        assert_eq!(output.code, 125);
        assert!(output.stderr.contains("the name 'box' is taken: choose another, or delete"), "{}", output.stderr);
    }
    assert_eq!((banger.list().len(), banger.on_the_disk().len()), (1, 1), "the losers left nothing");
    assert!(banger.fails(arguments).contains("is taken"));
    banger.ok(["vm", "delete", "box"]);
    banger.has_nothing_left();
    make(&banger, "box");
}

#[test]
fn machines_are_found_by_name_id_and_the_beginning_of_an_id() {
    let banger = Banger::new(Who::Me);
    // Enough ids for two to begin alike: there are 32 letters and digits at most.
    for n in 0..34 {
        make(&banger, &format!("m{n}"));
    }
    let all = banger.list();
    let ids: Vec<String> = all.iter().map(|vm| field(vm, "id")).collect();
    let name_of = |id: &str| field(all.iter().find(|vm| vm["id"] == id).unwrap(), "name");
    let alike = |length: usize, id: &str| ids.iter().filter(|other| other.starts_with(&id[..length])).count();
    let id = &ids[0];
    assert_eq!(field(&banger.show(id), "name"), name_of(id));
    let unique = (1..id.len()).find(|n| alike(*n, id) == 1).unwrap();
    let beginning = &id[..unique];
    if all.iter().all(|vm| vm["name"] != beginning) {
        assert_eq!(field(&banger.show(beginning), "id"), *id);
    }
    let shared = ids.iter().find(|id| alike(1, id) > 1 && !name_is(&all, &id[..1])).unwrap();
    let complaint = banger.fails(["vm", "show", &shared[..1]]);
    for candidate in ids.iter().filter(|id| id.starts_with(&shared[..1])) {
        let shown = format!("{} ({candidate})", name_of(candidate));
        assert!(complaint.contains(&shown), "{shown} is a candidate: {complaint}");
    }
    for reference in ["none", "", "0-no-id"] {
        let complaint = banger.fails(["vm", "show", reference]);
        assert!(complaint.contains(&format!("there is no VM '{reference}': 'banger vm list -a'")), "{complaint}");
    }
    let some = banger.run(["vm", "delete", "m0", "none", "m1"]);
    assert_eq!((some.code, some.stdout.as_str()), (125, "m0 deleted\nm1 deleted\n"), "{}", some.stderr);
    assert!(some.stderr.contains("banger: none: there is no VM 'none'"), "{}", some.stderr);
}

fn name_is(all: &[Value], name: &str) -> bool {
    all.iter().any(|vm| vm["name"] == name)
}

#[test]
fn a_repeated_token_finds_the_same_machine_and_job() {
    let banger = Banger::new(Who::Me);
    let create = |token: &str, name: &str| {
        let spec = Spec {
            name: Some(name.parse().unwrap()),
            image: Some("debian-tiny".parse().unwrap()),
            network: true,
            nat: true,
            ..Spec::default()
        };
        let options = DictBuilder::default().set("token", token).build();
        banger.ask(async |bus| ManagerProxy::new(&bus).await?.create(spec.to_dict(), options).await)
    };
    let (vm, job) = create("once", "box").unwrap();
    assert_eq!(create("once", "box").unwrap(), (vm.clone(), job), "a lost reply is asked for again");
    let taken = create("other", "box").unwrap_err().to_string();
    assert!(taken.contains("is taken"), "another request is another machine: {taken}");
    banger_integration::eventually("it is made", || banger.show("box")["state"] == "stopped");
    banger.kill_services();
    banger.list();
    assert_eq!(create("once", "box").unwrap().0, vm, "the token outlives the services");
    let (second, _) = create("other", "two").unwrap();
    assert_ne!(second, vm);
    let names: HashSet<String> = banger.list().iter().map(|vm| field(vm, "name")).collect();
    assert_eq!(names, HashSet::from(["box".to_owned(), "two".to_owned()]));
}
