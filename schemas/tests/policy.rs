//! polkit's files are what the table of actions says. `make blessed` writes the policy anew; the rules are written by
//! hand, since they are code.
#![cfg(feature = "bus")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use banger_schemas::action::{ALL, Action, Defaults, Policy};

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/PolicyKit/1.0/policyconfig.dtd">
<!-- What services ask polkit for: schemas/src/action.rs as a file, written by 'make blessed'. -->
<policyconfig>
  <vendor>banger</vendor>
  <vendor_url>https://github.com/banger-vm/banger</vendor_url>
"#;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dbus-policy").join(name)
}

/// What polkit answers by itself to a subject anywhere, in an inactive session, and in an active one.
fn answers(defaults: Defaults) -> [&'static str; 3] {
    match defaults {
        Defaults::Sandbox => ["auth_admin", "auth_admin", "yes"],
        Defaults::Host => ["auth_admin", "auth_admin", "auth_admin_keep"],
    }
}

fn annotate(text: &mut String, key: &str, value: &str) {
    writeln!(text, r#"    <annotate key="org.freedesktop.policykit.{key}">{value}</annotate>"#).unwrap();
}

fn element(action: &Action, policy: &Policy) -> String {
    let [any, inactive, active] = answers(policy.defaults);
    let mut text = format!(
        r#"  <action id="{}">
    <description>{}</description>
    <message>{}</message>
    <defaults>
      <allow_any>{any}</allow_any>
      <allow_inactive>{inactive}</allow_inactive>
      <allow_active>{active}</allow_active>
    </defaults>
"#,
        action.id, policy.description, policy.message
    );
    let users: Vec<String> = policy.asked_by.iter().map(|user| format!("unix-user:{user}")).collect();
    annotate(&mut text, "owner", &users.join(" "));
    if let Some(implied) = policy.imply {
        annotate(&mut text, "imply", implied.id);
    }
    text + "  </action>\n"
}

#[test]
fn the_policy_is_the_table_of_actions() {
    let asked = ALL.iter().filter_map(|action| Some(element(action, action.policy.as_ref()?)));
    let said = HEAD.to_owned() + &asked.collect::<String>() + "</policyconfig>\n";
    let path = file("actions/dev.banger.policy");
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &said).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), said, "'make blessed' writes it anew");
}

#[test]
fn the_rule_for_the_group_is_about_own_sandboxes_and_nothing_else() {
    let rules = std::fs::read_to_string(file("rules.d/50-banger.rules")).unwrap();
    let named: BTreeSet<&str> = rules.split('"').filter(|word| word.starts_with("dev.banger.")).collect();
    let sandbox = |action: &&&Action| action.policy.as_ref().is_some_and(|p| p.defaults == Defaults::Sandbox);
    assert_eq!(named, ALL.iter().filter(sandbox).map(|action| action.id).collect());
}

#[test]
fn every_action_has_a_name_of_its_own_and_somebody_who_may() {
    let ids: BTreeSet<&str> = ALL.iter().map(|action| action.id).collect();
    assert_eq!(ids.len(), ALL.len());
    for action in ALL {
        assert!(action.id.starts_with("dev.banger."), "{action:?}");
        assert!(!action.peers.is_empty() || action.policy.is_some(), "{action:?}");
    }
}

#[test]
fn users_are_those_that_the_host_makes() {
    let made = std::fs::read_to_string(file("../systemd/sysusers.d/banger.conf")).unwrap();
    let made: BTreeSet<&str> =
        made.lines().filter(|l| l.starts_with("u ")).filter_map(|l| l.split(' ').nth(1)).collect();
    let asked_by = |action: &&Action| action.policy.as_ref().map_or(&[][..], |p| p.asked_by);
    for user in ALL.iter().flat_map(|action| action.peers.iter().chain(asked_by(action))) {
        assert!(made.contains(user), "{user} is not made by systemd/sysusers.d/banger.conf");
    }
}
