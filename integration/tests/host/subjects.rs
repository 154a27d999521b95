//! Each kind of subject is to polkit what it is on a real host: its own `pkcheck` says so.

use banger_integration::host::{Bus, Host, Options, User, Who};

/// One action as banger's for one's own machines, one as for changes of the host.
const ACTIONS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/PolicyKit/1/policyconfig.dtd">
<policyconfig>
  <action id="org.example.own">
    <message>Try one's own</message>
    <defaults><allow_any>no</allow_any><allow_inactive>auth_admin</allow_inactive><allow_active>yes</allow_active></defaults>
  </action>
  <action id="org.example.host">
    <message>Try the host's</message>
    <defaults><allow_any>auth_admin</allow_any><allow_inactive>auth_admin</allow_inactive><allow_active>auth_admin_keep</allow_active></defaults>
  </action>
</policyconfig>
"#;

const RULES: &str = r#"polkit.addRule(function(action, subject) {
    if (action.id == "org.example.own" && subject.isInGroup("members")) return polkit.Result.YES;
});
"#;

#[derive(Debug, PartialEq)]
enum Answer {
    Yes,
    No,
    /// Only with an administrator's password.
    Challenge,
}

fn ask(host: &Host, who: Who, action: &str) -> Answer {
    let output = host.run_as(who, ["sh", "-c", r#"exec pkcheck --action-id "$0" --process $$"#, action]);
    match output.code {
        0 => Answer::Yes,
        1 => Answer::No,
        2 => Answer::Challenge,
        code => panic!("{who}: {code}: {}", output.stderr),
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn every_subject_is_what_it_says_to_polkit() {
    use Answer::{Challenge, No, Yes};
    let table = [
        (Who::Root, Yes, Yes),
        (Who::NoSession(User::Alice), Yes, Challenge),
        (Who::Seatless(User::Alice), Yes, Challenge),
        (Who::NoSession(User::Bob), No, Challenge),
        (Who::Seatless(User::Bob), No, Challenge),
        (Who::Active(User::Bob), Yes, Challenge),
        (Who::Inactive(User::Bob), Challenge, Challenge),
        (Who::Inactive(User::Carol), Challenge, Challenge),
        // Who came second sits there.
        (Who::Active(User::Carol), Yes, Challenge),
        (Who::Nobody, No, Challenge),
    ];
    for bus in [Bus::Daemon, Bus::Broker] {
        let host = Host::boot(Options { bus, ..Options::default() });
        host.write("/usr/share/polkit-1/actions/org.example.policy", ACTIONS);
        host.write("/etc/polkit-1/rules.d/10-example.rules", RULES);
        host.sh("groupadd members; usermod --append --groups members alice");
        for (who, own, hosts) in &table {
            let answers = (ask(&host, *who, "org.example.own"), ask(&host, *who, "org.example.host"));
            assert_eq!((&answers.0, &answers.1), (own, hosts), "{bus:?}: {who}");
        }
    }
}
