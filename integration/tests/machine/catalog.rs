//! What is in the catalog stays as it is until somebody asks for it as it is made now.

use std::fs;
use std::path::Path;

use banger_integration::{Banger, Who, eventually};
use serde_json::Value;

const KERNEL: &str = "debian-bookworm-cloud";

fn kernels(banger: &Banger) -> Vec<Value> {
    serde_json::from_str(&banger.ok(["kernel", "list", "--json"])).unwrap()
}

/// Says of a build that it was made by another recipe than today's.
fn backdate(folder: &Path, recipe: Option<&str>) {
    let path = folder.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(manifest["recipe_digest"].is_string(), "{manifest}");
    match recipe {
        Some(digest) => manifest["recipe_digest"] = digest.into(),
        None => drop(manifest.as_object_mut().unwrap().remove("recipe_digest")),
    }
    fs::remove_file(&path).unwrap();
    fs::write(&path, manifest.to_string()).unwrap();
}

#[test]
fn a_kernel_of_an_older_recipe_is_used_and_told_of_and_made_anew_for_who_asks_for_it() {
    let banger = Banger::with_image(Who::Me, "debian-tiny").own_catalog();
    let pull = "'banger kernel pull debian-bookworm-cloud'";
    let doctor = || {
        let said = banger.run(["doctor"]).stdout;
        said.lines().find(|line| line.contains(" images ")).unwrap().to_owned()
    };
    let [now] = kernels(&banger).try_into().unwrap();
    assert_eq!(now["outdated"], false);
    assert!(!doctor().contains(pull), "{}", doctor());
    banger.stop_services();
    let folder = banger.catalog().join("kernels");
    let (current, older) =
        (folder.join(&now["digest"].as_str().unwrap()["sha256:".len()..]), folder.join("ff".repeat(32)));
    fs::rename(&current, &older).unwrap();
    backdate(&older, None);

    banger.boot("box");
    assert_eq!(kernels(&banger)[0]["outdated"], true);
    let told = doctor();
    assert!(told.starts_with("warn") && told.contains(" made by an older banger's recipe"), "{told}");
    assert!(told.contains(pull), "{told}");
    assert!(!current.exists(), "a machine's start makes nothing anew");

    banger.ok(["kernel", "pull", KERNEL]);
    let both: Vec<bool> = kernels(&banger).iter().map(|row| row["outdated"].as_bool().unwrap()).collect();
    assert_eq!(both, [true, false]);
    assert!(!doctor().contains(pull), "{}", doctor());
    banger.ok(["vm", "stop", "box"]);
    banger.ok(["vm", "start", "box"]);
    banger.ok(["vm", "delete", "box"]);
    eventually("what nobody stands on goes", || !older.exists());
    assert_eq!(kernels(&banger).len(), 1);

    // Another recipe that comes to the same bytes.
    banger.stop_services();
    backdate(&current, Some(&"00".repeat(32)));
    assert_eq!(kernels(&banger)[0]["outdated"], true);
    banger.ok(["kernel", "pull", KERNEL]);
    let [again] = kernels(&banger).try_into().unwrap();
    assert_eq!((&again["digest"], &again["outdated"]), (&now["digest"], &false.into()));
    let created = again["created"].clone();
    banger.ok(["kernel", "pull", KERNEL]);
    assert_eq!(kernels(&banger)[0]["created"], created, "there is nothing to do");
}
