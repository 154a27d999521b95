//! Who may do what: every method that the documents have, called by everybody. A method without a row here fails.

use std::collections::BTreeMap;
use std::path::Path;

use banger_integration::host::{Host, Options, User, Who};
use banger_schemas::action::{
    Action, CHANNEL, CLAIMS, DISKS, Defaults, IMAGE_DELETE, IMAGE_PULL, IMAGE_VIEW, LEASES, TEMPLATE_PRUNE, VIEW,
    VIEW_ALL, VM_CREATE, VM_MANAGE,
};
use zbus_xml::{ArgDirection, Node};

/// What a method asks for.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// An action, whoever owns what.
    Ask(&'static Action),
    /// The machine is the caller's, and an action.
    Own(&'static Action),
    /// The object is the caller's, and nothing else.
    Owned,
}

use Rule::{Ask, Own, Owned};

const RULES: &[(&str, &str, Rule)] = &[
    ("dev.banger.Dns1.Manager", "List", Ask(VIEW_ALL)),
    ("dev.banger.Dns1.Manager", "Notes", Ask(VIEW)),
    ("dev.banger.Images1.Manager", "Pull", Ask(IMAGE_PULL)),
    ("dev.banger.Images1.Manager", "PullKernel", Ask(IMAGE_PULL)),
    ("dev.banger.Images1.Manager", "List", Ask(IMAGE_VIEW)),
    ("dev.banger.Images1.Manager", "ListKernels", Ask(IMAGE_VIEW)),
    ("dev.banger.Images1.Manager", "Show", Ask(IMAGE_VIEW)),
    ("dev.banger.Images1.Manager", "Delete", Ask(IMAGE_DELETE)),
    ("dev.banger.Images1.Manager", "DeleteKernel", Ask(IMAGE_DELETE)),
    ("dev.banger.Images1.Manager", "Claim", Ask(CLAIMS)),
    ("dev.banger.Images1.Manager", "Open", Ask(CLAIMS)),
    ("dev.banger.Images1.Manager", "Release", Ask(CLAIMS)),
    ("dev.banger.Images1.Manager", "Holders", Ask(CLAIMS)),
    ("dev.banger.Job1", "Cancel", Owned),
    ("dev.banger.Job1", "Wait", Owned),
    ("dev.banger.Network1.Manager", "Reserve", Ask(LEASES)),
    ("dev.banger.Network1.Manager", "OpenTap", Ask(LEASES)),
    ("dev.banger.Network1.Manager", "CloseTap", Ask(LEASES)),
    ("dev.banger.Network1.Manager", "Release", Ask(LEASES)),
    ("dev.banger.Network1.Manager", "Holders", Ask(LEASES)),
    ("dev.banger.Network1.Manager", "Probe", Ask(VIEW)),
    ("dev.banger.Network1.Manager", "SetNat", Ask(LEASES)),
    ("dev.banger.Network1.Manager", "Notes", Ask(VIEW)),
    ("dev.banger.Network1.Manager", "Retract", Ask(LEASES)),
    ("dev.banger.Observe1", "Spans", Ask(VIEW)),
    ("dev.banger.Observe1", "Metrics", Ask(VIEW)),
    ("dev.banger.Sessions1.Manager", "Exec", Own(VM_MANAGE)),
    ("dev.banger.Storage1.Manager", "Create", Ask(DISKS)),
    ("dev.banger.Storage1.Manager", "Copy", Ask(DISKS)),
    ("dev.banger.Storage1.Manager", "Open", Ask(DISKS)),
    ("dev.banger.Storage1.Manager", "Delete", Ask(DISKS)),
    ("dev.banger.Storage1.Manager", "Usage", Ask(DISKS)),
    ("dev.banger.Storage1.Manager", "Room", Ask(VIEW)),
    ("dev.banger.Vms1.Manager", "Create", Ask(VM_CREATE)),
    ("dev.banger.Vms1.Manager", "Get", Owned),
    ("dev.banger.Vms1.Manager", "ListTemplates", Ask(VIEW)),
    ("dev.banger.Vms1.Manager", "PruneTemplates", Ask(TEMPLATE_PRUNE)),
    ("dev.banger.Vms1.Vm", "Start", Own(VM_MANAGE)),
    ("dev.banger.Vms1.Vm", "Stop", Own(VM_MANAGE)),
    ("dev.banger.Vms1.Vm", "Set", Own(VM_MANAGE)),
    ("dev.banger.Vms1.Vm", "Delete", Own(VM_MANAGE)),
    ("dev.banger.Vms1.Vm", "Console", Own(VM_MANAGE)),
    ("dev.banger.Vms1.Vm", "OpenChannel", Own(CHANNEL)),
];

/// Alice is in the group banger; the machine is Bob's.
const EVERYBODY: &[Who] = &[
    Who::Root,
    Who::NoSession(User::Alice),
    Who::Active(User::Carol),
    Who::Active(User::Bob),
    Who::Inactive(User::Bob),
    Who::Seatless(User::Bob),
    Who::NoSession(User::Bob),
    Who::Nobody,
];

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// It is done, or fails for what it asks.
    Passed,
    /// For want of this action.
    Refused(String),
    /// There is no such object, or no such machine.
    Absent,
}

fn expected(rule: Rule, who: Who) -> Outcome {
    let is_bob = matches!(who, Who::Active(User::Bob) | Who::Inactive(User::Bob))
        || matches!(who, Who::Seatless(User::Bob) | Who::NoSession(User::Bob));
    match (rule, who) {
        (_, Who::Root) => Outcome::Passed,
        (Ask(action), _) => asked(action, who),
        (Own(_) | Owned, _) if !is_bob => Outcome::Absent,
        (Own(action), _) => asked(action, who),
        (Owned, _) => Outcome::Passed,
    }
}

fn asked(action: &Action, who: Who) -> Outcome {
    let defaults = action.policy.as_ref().map(|policy| policy.defaults);
    let may = defaults == Some(Defaults::Sandbox) && matches!(who, Who::Active(_) | Who::NoSession(User::Alice));
    if may { Outcome::Passed } else { Outcome::Refused(action.id.to_owned()) }
}

/// As busctl tells it: a refusal names its action in brackets.
fn outcome(code: &str, said: &str) -> Outcome {
    let action = said.split_once("(dev.banger.").and_then(|(_, rest)| Some(rest.split_once(')')?.0));
    match action {
        _ if code == "0" => Outcome::Passed,
        Some(action) => Outcome::Refused(format!("dev.banger.{action}")),
        None if said.contains("Unknown object") || said.contains("there is no VM") => Outcome::Absent,
        None => Outcome::Passed,
    }
}

/// A method as the documents have it: interface, name, types of what it takes.
struct Method {
    interface: String,
    name: String,
    takes: Vec<String>,
}

fn methods() -> Vec<Method> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/introspection");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut methods = Vec::new();
    for file in files {
        let node = Node::from_reader(std::fs::read_to_string(file).unwrap().as_bytes()).unwrap();
        for interface in node.interfaces() {
            methods.extend(interface.methods().map(|method| Method {
                interface: interface.name().to_string(),
                name: method.name().to_string(),
                takes: {
                    let takes = method.args().iter().filter(|arg| arg.direction() != Some(ArgDirection::Out));
                    takes.map(|arg| arg.ty().to_string()).collect()
                },
            }));
        }
    }
    methods
}

/// A host with banger, and the small image.
fn seeded() -> Host {
    let host = Host::boot(Options::default());
    host.install();
    host.seed_images();
    host
}

/// A machine of Bob's that is not started, and the job that made it.
struct Machine {
    name: String,
    vm: String,
    job: String,
}

fn machine(host: &Host, name: String) -> Machine {
    let spec = format!("4 name s {name} image s debian-tiny start b false network b false");
    let call =
        format!("exec busctl call dev.banger.Vms1 {ROOT} dev.banger.Vms1.Manager Create a{{sv}}a{{sv}} {spec} 0");
    let made = host.ok_as(Who::Active(User::Bob), ["sh", "-ec", &call]);
    let mut paths = made.split('"').filter(|word| word.starts_with('/')).map(str::to_owned);
    let (vm, job) = (paths.next().unwrap(), paths.next().unwrap());
    let wait = format!("exec busctl call dev.banger.Vms1 {job} dev.banger.Job1 Wait");
    let end = host.ok_as(Who::Active(User::Bob), ["sh", "-ec", &wait]);
    assert!(end.contains("\"done\""), "{end}");
    Machine { name, vm, job }
}

const ROOT: &str = "/dev/banger/Vms1";

/// Written without quotes of the shell's.
const WITH_FILES: &str = include_str!("with_files.py");

impl Method {
    /// A call that has no effect worth mentioning, if it is let through.
    fn call(&self, machine: &Machine) -> String {
        let service: String = self.interface.splitn(4, '.').take(3).collect::<Vec<_>>().join(".");
        let (service, path) = match self.interface.as_str() {
            "dev.banger.Job1" => ("dev.banger.Vms1".to_owned(), machine.job.clone()),
            "dev.banger.Vms1.Vm" => (service, machine.vm.clone()),
            "dev.banger.Observe1" => ("dev.banger.Vms1".to_owned(), format!("{ROOT}/observe")),
            _ => (service.clone(), format!("/{}", service.replace('.', "/"))),
        };
        let values: Vec<&str> = self.takes.iter().enumerate().map(|(at, ty)| self.value(at, ty, machine)).collect();
        let (interface, name) = (&self.interface, &self.name);
        if self.takes.iter().any(|ty| ty == "h") {
            let values = values.join(" ");
            let types = self.takes.concat();
            return format!("python3 -c '{WITH_FILES}' {service} {path} {interface} {name} '{types}' {values}");
        }
        format!("busctl call {service} {path} {interface} {name} '{}' {}", self.takes.concat(), values.join(" "))
    }

    fn value<'a>(&self, place: usize, signature: &str, machine: &'a Machine) -> &'a str {
        match (self.name.as_str(), signature) {
            ("Get" | "Exec", "s") => &machine.name,
            ("Create", "a{sv}") if place == 0 => "3 image s debian-tiny start b false network b false",
            (_, "s") => "x",
            (_, "t" | "u") => "1",
            (_, "b") => "false",
            // Given by the program that calls.
            (_, "h") => "",
            (_, "a{sv}") if self.takes.iter().any(|ty| ty == "h") => "",
            (_, "a{sv}") => "0",
            (name, other) => panic!("{name} takes a '{other}': say here what to give it"),
        }
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn every_method_asks_everybody_for_what_it_says() {
    let rules: BTreeMap<(&str, &str), Rule> = RULES.iter().map(|(i, m, rule)| ((*i, *m), *rule)).collect();
    let methods = methods();
    let documented: Vec<_> = methods.iter().map(|m| (m.interface.as_str(), m.name.as_str())).collect();
    for method in &documented {
        assert!(rules.contains_key(method), "{method:?} has no row: say here what it asks for");
    }
    for row in rules.keys() {
        assert!(documented.contains(row), "{row:?} is not documented");
    }
    let host = seeded();
    let mut wrong = Vec::new();
    for (number, who) in EVERYBODY.iter().enumerate() {
        let machine = machine(&host, format!("bobs-{number}"));
        let calls = methods.iter().map(|m| format!("{} 2>&1; echo \"= $?\"\n", m.call(&machine)));
        let said = host.ok_as(*who, ["sh", "-c", &calls.collect::<String>()]);
        let mut answers = said.split_inclusive('\n').fold(vec![String::new()], |mut answers, line| {
            answers.last_mut().unwrap().push_str(line);
            if line.starts_with("= ") {
                answers.push(String::new());
            }
            answers
        });
        answers.pop();
        assert_eq!(answers.len(), methods.len(), "{who}: {said}");
        for (method, answer) in methods.iter().zip(&answers) {
            let (text, code) = answer.rsplit_once("= ").unwrap();
            let rule = rules[&(method.interface.as_str(), method.name.as_str())];
            let (is, should) = (outcome(code.trim(), text), expected(rule, *who));
            if is != should {
                wrong.push(format!("{who}: {}.{}: {is:?}, not {should:?}: {text}", method.interface, method.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} methods x {} subjects", methods.len(), EVERYBODY.len());
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn what_is_anothers_is_not_there() {
    let host = seeded();
    let machine = machine(&host, "bobs".to_owned());
    let id = machine.vm.rsplit('/').next().unwrap();
    let job = machine.job.rsplit('/').next().unwrap();
    let script = format!(
        "busctl tree dev.banger.Vms1; busctl call dev.banger.Vms1 {ROOT} org.freedesktop.DBus.ObjectManager GetManagedObjects; \
         for o in {} {}; do busctl call dev.banger.Vms1 $o org.freedesktop.DBus.Properties GetAll s dev.banger.Vms1.Vm; \
         busctl get-property dev.banger.Vms1 $o dev.banger.Vms1.Vm Name; \
         busctl get-property dev.banger.Vms1 $o dev.banger.Job1 State; done 2>&1",
        machine.vm, machine.job
    );
    let sees = |who: Who| host.run_as(who, ["sh", "-c", &script]).stdout;
    for stranger in [Who::NoSession(User::Alice), Who::Active(User::Carol), Who::Nobody] {
        let seen = sees(stranger);
        // The paths that it asked for come back in the errors.
        let seen = seen.replace(&format!("Unknown object '{}'", machine.vm), "absent");
        let seen = seen.replace(&format!("Unknown object '{}'", machine.job), "absent");
        assert!(!seen.contains(id) && !seen.contains(job) && !seen.contains("bobs"), "{stranger}: {seen}");
        assert!(seen.contains("/dev/banger/Vms1") && seen.contains("absent"), "{stranger}: {seen}");
    }
    for who in [Who::Seatless(User::Bob), Who::Root] {
        let seen = sees(who);
        assert!(seen.contains(id) && seen.contains(job) && seen.contains("bobs"), "{who}: {seen}");
    }
}

#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn signals_say_nothing_of_a_machine_but_that_it_changed() {
    let host = seeded();
    let match_rule = "type='signal',path_namespace='/dev/banger/Vms1'";
    // Without the right to monitor it hears what is said to all.
    let mut stranger = host.start_as(Who::Active(User::Carol), ["dbus-monitor", "--system", match_rule]);
    stranger.says("NameAcquired");
    let machine = machine(&host, "bobs-secret".to_owned());
    let delete = format!("exec busctl call dev.banger.Vms1 {} dev.banger.Vms1.Vm Delete a{{sv}} 0", machine.vm);
    host.ok_as(Who::Active(User::Bob), ["sh", "-ec", &delete]);
    stranger.says("InterfacesRemoved").signal(nix::sys::signal::Signal::SIGTERM);
    let heard = stranger.end().stdout;
    assert!(heard.contains("PropertiesChanged") && heard.contains("InterfacesAdded"), "{heard}");
    for secret in ["bobs-secret", "debian-tiny", "\"stopped\"", "\"done\"", "uint32 1001"] {
        assert!(!heard.contains(secret), "{secret}: {heard}");
    }
}

/// An administrator at a terminal, and somebody who never wants to be asked.
#[test]
#[cfg_attr(not(root), ignore = "needs root")]
fn a_password_is_asked_for_in_the_terminal_and_not_where_nobody_is_to_be_asked() {
    let host = Host::boot(Options::default());
    host.install();
    let ask = |line: &str, password: &str| {
        // The agent throws away what was typed before it had switched the echo off, after its prompt.
        let script = format!(
            "set timeout 20\nspawn {line}\nexpect {{\n  Password: {{ sleep 0.5; send \"{password}\\r\"; exp_continue }}\n  \
             timeout {{ puts \"nothing was said\"; exit 99 }}\n  eof\n}}\n\
             catch wait result\nexit [lindex $result 3]\n"
        );
        host.run_as(Who::Seatless(User::Dave), ["expect", "-c", &script])
    };
    // Refused for another reason than that nobody was asked.
    let right = ask("banger image delete nothing", User::Dave.name());
    assert!(right.stdout.contains("Password:") && right.stdout.contains("there is no image"), "{}", right.stdout);
    let wrong = ask("banger image delete nothing", "wrong");
    assert!(wrong.stdout.contains("Password:") && wrong.stdout.contains("images.delete"), "{}", wrong.stdout);
    let unasked = ask("banger --no-ask image delete nothing", User::Dave.name());
    assert!(!unasked.stdout.contains("Password:"), "{}", unasked.stdout);
    assert!(unasked.stdout.contains("it takes an administrator"), "{}", unasked.stdout);
    let no_agent = host.run(["pgrep", "pkttyagent"]);
    assert_eq!(no_agent.code, 1, "an agent ends with the program that started it: {}", no_agent.stdout);
}
