//! A client of the bus that means harm, in the way that its first argument names. It says what came of it, a line each.
//! `integration/tests/host/load.rs` runs it on a host, and looks at what becomes of others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "whatever fails here fails a test")]
#![allow(clippy::print_stdout, reason = "its report")]

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use banger_integration::host::NAMES;
use futures_util::StreamExt;
use futures_util::future::join_all;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, raise};
use zbus::fdo::DBusProxy;
use zbus::message::{Builder, Message};
use zbus::names::OwnedUniqueName;
use zbus::wire::{DynamicType, Fd, ObjectPath, Variant};
use zbus::{Connection, MatchRule, MessageStream};

const BUS: &str = "org.freedesktop.DBus";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

type Options<'a> = HashMap<&'a str, Variant<'a>>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |word: &str| word.parse().unwrap();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["calls", connections, each] => calls(number(connections), number(each)).await,
        ["long", mib] => long(number(mib)).await,
        ["listens", rules] => listens(number(rules)).await,
        ["works", jobs] => works(number(jobs)).await,
        ["hands", rounds] => hands(number(rounds)).await,
        ["copies", holder] => copies(holder).await,
        ["forges", vm] => forges(vm).await,
        _ => panic!("which harm?"),
    }
    println!("done");
}

async fn connect() -> Connection {
    #[allow(clippy::disallowed_methods, reason = "no service of ours, and on the system's bus alone")]
    Connection::system().await.unwrap()
}

/// Calls a method of a service's manager: `Vms1` is `dev.banger.Vms1.Manager` of `dev.banger.Vms1` at `/dev/banger/Vms1`.
async fn ask(
    bus: &Connection,
    service: &str,
    method: &str,
    body: &(impl serde::Serialize + DynamicType),
) -> zbus::Result<Message> {
    let name = format!("dev.banger.{service}");
    let path = format!("/dev/banger/{service}");
    bus.call_method(Some(name.as_str()), path, Some(format!("{name}.Manager")), method, body).await
}

/// What an answer is, without its words: an error's name, and how long it is.
fn outcome(answer: &zbus::Result<Message>) -> String {
    match answer {
        Ok(_) => "an answer".to_owned(),
        Err(zbus::Error::MethodError(name, ..)) => name.to_string(),
        Err(zbus::Error::FDO(error)) => zbus::DBusError::name(&**error).to_string(),
        Err(error) => error.to_string(),
    }
}

fn length(answer: &zbus::Result<Message>) -> usize {
    match answer {
        Ok(message) => message.data().len(),
        Err(error) => error.to_string().len(),
    }
}

/// Calls at once, from so many connections, so many each: all are under way before the first answer is taken.
async fn calls(connections: usize, each: usize) {
    let peers: Vec<Connection> = join_all((0..connections).map(|_| connect())).await;
    let all = peers.iter().flat_map(|peer| (0..each).map(move |n| (peer, format!("none-{n}"))));
    let answers = join_all(
        all.map(|(peer, name)| async move { outcome(&ask(peer, "Vms1", "Get", &(name, Options::new())).await) }),
    );
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for answer in answers.await {
        *counted.entry(answer).or_default() += 1;
    }
    for (answer, times) in counted {
        println!("{times} {answer}");
    }
}

/// Names, keys and values of so many MiB. What is said of one is told with its length.
async fn long(mib: usize) {
    let bus = connect().await;
    let long = "x".repeat(mib << 20);
    let none = Options::new;
    let key = || Options::from([(long.as_str(), Variant::from(1u32))]);
    let value = |name| Options::from([(name, Variant::from(long.as_str()))]);
    let tell = |what: &str, answer: zbus::Result<Message>| {
        println!("{what}: {} {}", length(&answer), outcome(&answer));
    };
    for service in NAMES {
        let (name, path) = (format!("dev.banger.{service}"), format!("/dev/banger/{service}"));
        let face = format!("{name}.Manager");
        let body = (face.as_str(), long.as_str());
        tell(service, bus.call_method(Some(name.as_str()), path, Some(PROPERTIES), "Get", &body).await);
        tell(service, ask(&bus, service, "Nothing", &long.as_str()).await);
    }
    for (service, method) in [("Vms1", "Get"), ("Images1", "Pull")] {
        tell(service, ask(&bus, service, method, &(long.as_str(), none())).await);
        tell(service, ask(&bus, service, method, &("x", key())).await);
        tell(service, ask(&bus, service, method, &("x", value("traceparent"))).await);
    }
    tell("Sessions1", ask(&bus, "Sessions1", "Exec", &(long.as_str(), none(), none())).await);
    tell("Sessions1", ask(&bus, "Sessions1", "Exec", &("x", key(), none())).await);
    for spec in [key(), value("name"), value("image"), value("start")] {
        tell("Vms1", ask(&bus, "Vms1", "Create", &(spec, none())).await);
    }
    tell("Vms1", ask(&bus, "Vms1", "Create", &(none(), value("token"))).await);
}

/// Asks for every signal of the mesh by so many rules, and reads no more: the process stands still from then on.
async fn listens(rules: usize) {
    // A connection may have 512 rules.
    let peers = join_all((0..rules.div_ceil(500)).map(|_| connect())).await;
    for peer in &peers {
        let all = MatchRule::builder().path_namespace("/dev/banger").build().unwrap();
        DBusProxy::new(peer).await.unwrap().add_match_rule(all).await.unwrap();
    }
    for (n, peer) in (0..rules).zip(peers.iter().cycle()) {
        let service = NAMES[n % NAMES.len()];
        let rule = MatchRule::builder().path_namespace(format!("/dev/banger/{service}"));
        let rule = rule.add_arg(format!("never-{n}")).build().unwrap();
        DBusProxy::new(peer).await.unwrap().add_match_rule(rule).await.unwrap();
    }
    println!("listens by {rules} rules");
    raise(Signal::SIGSTOP).unwrap();
}

/// Has so many machines made and not started, waits for no job, and reads no more.
async fn works(jobs: usize) {
    let bus = connect().await;
    let all = MatchRule::builder().path_namespace("/dev/banger").build().unwrap();
    DBusProxy::new(&bus).await.unwrap().add_match_rule(all).await.unwrap();
    for n in 0..jobs {
        let name = format!("made-{n}");
        let spec = Options::from([
            ("name", Variant::from(name.as_str())),
            ("image", Variant::from("debian-tiny")),
            ("start", Variant::from(false)),
        ]);
        ask(&bus, "Vms1", "Create", &(spec, Options::new())).await.unwrap();
    }
    println!("works on {jobs} jobs");
    raise(Signal::SIGSTOP).unwrap();
}

/// Files where none are wanted: in options, in place of other arguments, in signals; as many as a message may have.
async fn hands(rounds: usize) {
    let bus = connect().await;
    let file = File::open("/dev/null").unwrap();
    let sixteen = || (0..16).map(|_| Fd::from(file.as_fd())).collect::<Vec<_>>();
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..rounds {
        for service in NAMES {
            let options = Options::from([("token", Variant::from(Fd::from(file.as_fd())))]);
            let answers = [
                ask(&bus, service, "Nothing", &sixteen()).await,
                ask(&bus, service, "List", &options).await,
                ask(&bus, service, "List", &sixteen()).await,
            ];
            for answer in answers {
                *counted.entry(outcome(&answer)).or_default() += 1;
            }
            let signal = signal(service, "dev.banger.Nothing", "Happened").build(&sixteen()).unwrap();
            bus.send(&signal).await.unwrap();
        }
    }
    for (answer, times) in counted {
        println!("{times} {answer}");
    }
}

/// A signal to a service alone, which has not asked for it.
fn signal<'a>(service: &str, interface: &'a str, member: &'a str) -> Builder<'a> {
    let signal = Message::signal(format!("/dev/banger/{service}"), interface, member);
    signal.destination(format!("dev.banger.{service}"))
}

/// Has disks copied that are none, of each kind that a descriptor can be of.
async fn copies(holder: &str) {
    let bus = connect().await;
    let regular = || {
        let file = tempfile();
        file.set_len(64 << 20).unwrap();
        OwnedFd::from(file)
    };
    let (pipe, _other) = nix::unistd::pipe().unwrap();
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let odd = tempfile();
    odd.set_len((64 << 20) + 1).unwrap();
    let path_only =
        nix::fcntl::open("/etc/hostname", nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty()).unwrap();
    let write_only = {
        let mut file = File::options().write(true).create_new(true).open("/tmp/write-only").unwrap();
        file.write_all(b"not to be read").unwrap();
        file.set_len(64 << 20).unwrap();
        OwnedFd::from(file)
    };
    let kinds: [(&str, OwnedFd); 9] = [
        ("a folder", File::open("/").unwrap().into()),
        ("an endless device", File::open("/dev/zero").unwrap().into()),
        ("a pipe", pipe),
        ("a socket", socket.into()),
        ("an event file", nix::sys::eventfd::EventFd::new().unwrap().into()),
        ("an odd file", odd.into()),
        ("an empty file", tempfile().into()),
        ("a path", path_only),
        ("a file for writing", write_only),
    ];
    for (kind, wrong) in &kinds {
        for pair in [[wrong.as_fd(), regular().as_fd()], [regular().as_fd(), wrong.as_fd()]] {
            let [system, work] = pair.map(Fd::from);
            let answer = ask(&bus, "Storage1", "Copy", &(holder, system, work, Options::new())).await;
            println!("{kind}: {}", outcome(&answer));
        }
    }
}

fn tempfile() -> File {
    memfd_create("disk", MFdFlags::empty()).unwrap().into()
}

/// Says in others' names, again and again, what would end their work if it were believed: the bus writes who it was that
/// sent it.
async fn forges(vm: &str) -> ! {
    let bus = connect().await;
    println!("it is delivered: {}", is_delivered(&bus).await);
    let names = DBusProxy::new(&bus).await.unwrap().list_names().await.unwrap();
    let peers = names.iter().filter_map(|name| OwnedUniqueName::try_from(name.as_str()).ok());
    let peers: Vec<OwnedUniqueName> = peers.collect();
    for round in 0.. {
        for peer in &peers {
            for lie in lies(vm, round, &peers, peer) {
                // The bus may have cut off whom it was for.
                drop(bus.send(&lie).await);
            }
            answer_in_anothers_name(&bus, peer).await;
        }
        if round == 0 {
            println!("told {} peers", peers.len());
        }
    }
    unreachable!("it goes on until it is killed")
}

/// Whether one connection can send another what looks like the word of systemd.
async fn is_delivered(bus: &Connection) -> bool {
    let other = connect().await;
    let mut heard = MessageStream::from(&other);
    let lie = ended_job(1, other.unique_name().unwrap());
    bus.send(&lie).await.unwrap();
    let arrives = async {
        while let Some(Ok(message)) = heard.next().await {
            if message.header().member() == lie.header().member() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), arrives).await.is_ok()
}

/// For this peer: jobs of systemd's have failed, everybody has left the bus, the machine is gone.
fn lies(vm: &str, round: u32, peers: &[OwnedUniqueName], peer: &OwnedUniqueName) -> Vec<Message> {
    let to = |path: &'static str, interface: &'static str, member: &'static str| {
        Message::signal(path, interface, member).destination(peer.clone())
    };
    let mut lies: Vec<Message> = (round * 20..).take(20).map(|job| ended_job(job, peer)).collect();
    let services = NAMES.map(|service| format!("dev.banger.{service}"));
    for name in services.iter().map(String::as_str).chain(peers.iter().map(|peer| peer.as_str())) {
        let owner = if name.starts_with(':') { name } else { peers[0].as_str() };
        lies.push(to("/org/freedesktop/DBus", BUS, "NameOwnerChanged").build(&(name, owner, "")).unwrap());
    }
    let machine = ObjectPath::try_from(format!("/dev/banger/Vms1/vm/{vm}")).unwrap();
    let body = (machine, ["dev.banger.Vms1.Vm"].as_slice());
    lies.push(to("/dev/banger/Vms1", "org.freedesktop.DBus.ObjectManager", "InterfacesRemoved").build(&body).unwrap());
    lies
}

fn ended_job(number: u32, peer: &OwnedUniqueName) -> Message {
    let job = ObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{number}")).unwrap();
    let signal = Message::signal("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "JobRemoved");
    signal.destination(peer.clone()).build(&(number, job, "banger-vm@aaaaaaaaaa.service", "failed")).unwrap()
}

/// Answers that nobody has asked this connection for, to the questions that a peer is likely to have open.
async fn answer_in_anothers_name(bus: &Connection, peer: &OwnedUniqueName) {
    for serial in 1..200u32 {
        let question = Message::method_call("/", "Nothing");
        let question = question.serial(serial.try_into().unwrap()).build(&()).unwrap();
        let answer = Message::method_return(&question.header()).destination(peer.clone());
        drop(bus.send(&answer.build(&("done", Options::new(), "", "")).unwrap()).await);
    }
}
