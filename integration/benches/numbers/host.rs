//! A host: the services as units of their own on the system's bus. Only root can boot one.

use std::time::{Duration, Instant};

use banger_integration::Banger;
use banger_integration::host::{Host, NAMES, Options, SERVICES, User, Who, units};
use futures_util::future::join_all;

use crate::bus;
use crate::client;
use crate::idle::pause;
use crate::stats::Samples;
use crate::table::{Goal, Table};

/// The argument that makes this program a client on the host.
pub(crate) const ON_THE_HOST: &str = "--on-the-host";
const BUS: &str = "unix:path=/run/dbus/system_bus_socket";
const ALICE: Who = Who::NoSession(User::Alice);

/// Machines that have records and do not run.
const CROWD: u64 = 200;
const QUIET: Duration = Duration::from_secs(60);
/// Each says twice in its minute (`WatchdogSec=`) that it takes its turns.
const WATCHDOGS: f64 = 12.0;

pub(crate) fn measure(_: &Banger, rounds: usize, table: &mut Table) {
    if !nix::unistd::geteuid().is_root() {
        return table.note("The numbers of a host are left out: only root can boot one.".to_owned());
    }
    let host = Host::boot(Options::default());
    host.install();
    host.seed_images();
    let program = host.program(&std::env::current_exe().unwrap(), "numbers");
    table.section("a host's services");
    activation(&host, &program, rounds, table);
    rest(&host, table);
    crowd(&host, table);
    table.section("a call over the system's bus");
    calls(&host, &program, table);
}

/// What this program does as a client on the host; it says what it measured, in nanoseconds.
pub(crate) fn client(words: &[&str]) {
    match words {
        ["activate"] => println!("{}", crate::block_on(activate()).as_nanos()),
        ["calls", vm] => {
            let samples = crate::block_on(async { bus::calls(&client::to(BUS).await, vm).await });
            samples.iter().for_each(|samples| println!("{samples}"));
        }
        _ => panic!("{words:?}?"),
    }
}

/// Asks all six at once, so that the bus has them all started.
async fn activate() -> Duration {
    let bus = client::to(BUS).await;
    let begun = Instant::now();
    let peer = Some("org.freedesktop.DBus.Peer");
    let pings = NAMES.map(|name| {
        let (service, path) = (format!("dev.banger.{name}"), format!("/dev/banger/{name}"));
        let bus = &bus;
        async move { bus.call_method(Some(service), path, peer, "Ping", &()).await.unwrap() }
    });
    join_all(pings).await;
    begun.elapsed()
}

/// What a file below each of the services' places in /proc says.
fn processes(host: &Host, file: &str) -> String {
    let pids = units().join(" ");
    host.sh(&format!("for p in $(systemctl show --value -p MainPID {pids}); do cat /proc/$p/{file}; done"))
}

fn activation(host: &Host, program: &str, rounds: usize, table: &mut Table) {
    let mut samples = Samples::default();
    for _ in 0..rounds {
        let stop = ["systemctl".to_owned(), "stop".to_owned()].into_iter().chain(units());
        host.ok(stop);
        samples.add(nanoseconds(&host.ok([program, ON_THE_HOST, "activate"])));
    }
    let milliseconds = samples.median().as_secs_f64() * 1e3;
    table.value("all six started by the bus, at once", milliseconds, "ms", Some(Goal::AtMost(300.0)));
}

fn nanoseconds(said: &str) -> Duration {
    Duration::from_nanos(said.trim().parse().unwrap())
}

/// Wake-ups and memory of services that nobody asks anything of.
fn rest(host: &Host, table: &mut Table) {
    let woken = || {
        let counts = processes(host, "task/*/status");
        let of_each = counts.lines().filter_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        of_each.map(|count| count.trim().parse::<u64>().unwrap()).sum::<u64>()
    };
    // Threads that have nothing to do end after ten seconds.
    pause(Duration::from_secs(15));
    let before = woken();
    pause(QUIET);
    let woken = woken().saturating_sub(before) as f64;
    let what = "all six at rest: voluntary context switches in 60 s (12 are the watchdogs')";
    table.value(what, woken, "", Some(Goal::AtMost(WATCHDOGS)));
    let resident: u64 = SERVICES.map(|service| host.memory_kib(service, "VmRSS")).iter().sum();
    table.value("the same: resident, together", resident as f64 / 1024.0, "MiB", Some(Goal::AtMost(60.0)));
}

/// What machines that are only records cost.
fn crowd(host: &Host, table: &mut Table) {
    let median = |who: Who, times: usize, script: &str| {
        let timed = format!("s=$(date +%s%N); {script} >/dev/null; echo $(( $(date +%s%N) - s ))");
        let mut samples = Samples::default();
        for _ in 0..times {
            samples.add(nanoseconds(&host.errand(who, ["sh", "-ec", &timed]).ok()));
        }
        samples.median()
    };
    let list = || median(ALICE, 9, "banger vm list --all --json");
    let restart = || median(Who::Root, 5, "systemctl restart banger-vms");
    let create = |name: &str| format!("banger vm create --no-start --image debian-tiny --name {name}");
    host.errand(ALICE, ["sh", "-ec", &create("first")]).ok();
    let (one, started) = (list(), restart());
    host.ok_as(ALICE, ["banger", "vm", "list"]);
    let before = processor(host);
    let all = format!("for i in $(seq {}); do {}; done", CROWD - 1, create("vm-$i"));
    host.errand(ALICE, ["sh", "-ec", &all]).limit(Duration::from_secs(180)).ok();
    let spent = (processor(host) - before) / (CROWD - 1) as f64;
    table.value("`vm create`: processor time of all six", spent, "ms", None);
    table.compare("`vm list` of 200 machines", list(), "of one", one, None);
    table.compare("restart of the supervisor of 200 machines", restart(), "of one", started, None);
    let all = format!("banger vm delete first $(seq -f vm-%g {})", CROWD - 1);
    host.errand(ALICE, ["sh", "-ec", &all]).limit(Duration::from_secs(180)).ok();
}

/// What the services have used of processors, with their children that have ended, in milliseconds.
fn processor(host: &Host) -> f64 {
    let ticks = processes(host, "stat");
    let of = |line: &str| -> u64 {
        let (_, fields) = line.rsplit_once(") ").unwrap();
        // proc(5): utime, stime, cutime, cstime are fields 14 to 17; the first here is 3.
        fields.split(' ').skip(11).take(4).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    };
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).unwrap().unwrap();
    ticks.lines().map(of).sum::<u64>() as f64 * 1e3 / per_second as f64
}

fn calls(host: &Host, program: &str, table: &mut Table) {
    let name = bus::NAME;
    host.write(
        "/etc/dbus-1/system.d/numbers.conf",
        format!(
            "<busconfig><policy user=\"root\"><allow own=\"{name}\"/></policy>\
             <policy context=\"default\"><allow send_destination=\"{name}\"/></policy></busconfig>"
        ),
    );
    host.ok(["systemctl", "reload", "dbus"]);
    host.ok_as(ALICE, ["banger", "vm", "create", "--no-start", "--image", "debian-tiny", "--name", "called"]);
    let _echo = host.errand(Who::Root, [program, bus::ECHO, BUS]).limit(Duration::from_secs(300)).start();
    for (who, what) in [(Who::Root, "root"), (ALICE, "a user")] {
        let said = host.errand(who, [program, ON_THE_HOST, "calls", "called"]).limit(Duration::from_secs(120)).ok();
        let samples: Vec<Samples> = said.lines().map(|line| line.parse().unwrap()).collect();
        bus::rows(samples.try_into().unwrap(), &format!(" ({what})"), table);
    }
    host.ok_as(ALICE, ["banger", "vm", "delete", "called"]);
}
