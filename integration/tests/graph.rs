//! Who may know whom: the rules of the architecture that a dependency would break.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// What cargo says, without the network.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(arguments).args(["--locked", "--offline"]).current_dir(root()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A crate of the workspace, and what it names as its dependencies.
struct Package {
    name: String,
    folder: PathBuf,
    /// For its own code.
    uses: BTreeSet<String>,
    /// Only for its tests and its build.
    tests_use: BTreeSet<String>,
}

fn packages() -> Vec<Package> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version=1", "--no-deps"])).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(package).collect()
}

fn package(json: &Value) -> Package {
    let dependencies = json["dependencies"].as_array().unwrap();
    let names = |own: bool| {
        let of_kind = dependencies.iter().filter(|d| d["kind"].is_null() == own);
        of_kind.map(|d| d["name"].as_str().unwrap().to_owned()).collect()
    };
    let folder = Path::new(json["manifest_path"].as_str().unwrap()).parent().unwrap();
    Package {
        name: json["name"].as_str().unwrap().to_owned(),
        folder: folder.strip_prefix(root()).unwrap().to_owned(),
        uses: names(true),
        tests_use: names(false),
    }
}

/// All that a crate is built of when nothing else of the workspace is.
fn closure(package: &str, features: &[&str]) -> BTreeSet<String> {
    let features = features.join(",");
    let arguments = ["tree", "--package", package, "--edges=normal", "--prefix=none", "--format={p}"];
    let tree = cargo(&[arguments.as_slice(), &["--no-default-features", "--features", &features]].concat());
    let names: BTreeSet<String> = tree.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect();
    assert!(names.contains(package), "{tree}");
    names
}

fn assert_without(package: &str, features: &[&str], forbidden: &[&str]) {
    let closure = closure(package, features);
    for name in forbidden {
        assert!(
            !closure.contains(*name),
            "{package} is built with {name}: 'cargo tree -p {package} -i {name}' says why"
        );
    }
}

#[test]
fn no_service_knows_another_one() {
    let packages = packages();
    let services: BTreeSet<&str> =
        packages.iter().filter(|p| p.folder.starts_with("services")).map(|p| p.name.as_str()).collect();
    assert!(services.len() >= 6, "{services:?}");
    for package in packages.iter().filter(|p| services.contains(p.name.as_str())) {
        let other = package.uses.iter().chain(&package.tests_use).find(|d| services.contains(d.as_str()));
        assert_eq!(other, None, "{} meets it on the bus, or the code moves to bus or schemas", package.name);
    }
}

#[test]
fn the_guest_and_the_keeper_know_no_bus() {
    assert_without("banger-guest", &[], &["zbus", "busd", "actix", "banger-bus"]);
    assert_without("banger-keeper", &[], &["zbus", "busd", "actix", "banger-bus"]);
}

#[test]
fn the_words_of_the_mesh_need_no_runtime() {
    assert_without("banger-schemas", &[], &["tokio", "nix", "zbus", "actix", "bolero"]);
    // zbus brings a runtime of its own choice; our words stay without system calls.
    assert_without("banger-schemas", &["bus"], &["nix", "actix", "bolero"]);
}

#[test]
fn only_the_bus_and_the_services_have_actors() {
    for package in packages().iter().filter(|p| p.uses.contains("actix")) {
        let may = package.name == "banger-bus" || package.folder.starts_with("services");
        assert!(may, "{} uses actix", package.name);
    }
}

#[test]
fn the_program_knows_the_services_only_to_host_them() {
    let services = packages().into_iter().filter(|p| p.folder.starts_with("services"));
    let words: Vec<String> = services.map(|p| p.name.replace('-', "_")).collect();
    let mut folders = vec![root().join("cli/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.extend((!path.ends_with("cli/src/embedded")).then_some(path));
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let named = words.iter().find(|word| text.contains(word.as_str()));
            assert_eq!(named, None, "{}: the command line speaks to services over the bus", path.display());
        }
    }
}
