//! Calls over D-Bus against a bare echo service on the same bus, in a process of its own as the services are.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, Message, System};
use banger_bus::Door;
use banger_integration::Banger;
use banger_schemas::error::Result;
use banger_schemas::options::Dict;
use banger_schemas::vms;
use zbus::fdo::PropertiesProxy;
use zbus::names::InterfaceName;
use zbus::{Connection, Proxy};

use crate::client;
use crate::stats::Samples;
use crate::table::{Goal, Table, time};

/// The argument that makes this program the echo service.
pub(crate) const ECHO: &str = "--serve-echo";
pub(crate) const NAME: &str = "dev.banger.bench.Echo";
const PATH: &str = "/dev/banger/bench/Echo";

/// Calls of each kind: so many in a row, in turns.
const CALLS: usize = 50;
const TURNS: usize = 60;
const VM: &str = "called";

pub(crate) fn measure(banger: &Banger, _rounds: usize, table: &mut Table) {
    banger.ok(["vm", "create", "--image", "debian-tiny", "--name", VM, "--no-start"]);
    let mut echo = Command::new(std::env::current_exe().unwrap())
        .args([ECHO, &banger.bus()])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let samples = crate::block_on(async { calls(&client::connect(banger).await, VM).await });
    echo.kill().unwrap();
    echo.wait().unwrap();
    banger.ok(["vm", "delete", VM]);
    table.section("a call over D-Bus");
    rows(samples, "", table);
}

/// What both kinds of call cost, ours and the echo's.
pub(crate) fn rows([get, echoed, read, echo_read]: [Samples; 4], whose: &str, table: &mut Table) {
    let hop = System::new().block_on(hop());
    let limit = Some(Goal::AtMost(1.2));
    for (what, part) in [("median", 0.5), ("99 of 100 below", 0.99)] {
        let goal = limit.filter(|_| part < 0.9);
        let (ours, theirs) = (read.quantile(part), echo_read.quantile(part));
        table.compare(&format!("a property read{whose}, {what}"), ours, "the same of the echo", theirs, goal);
        // An actor's answer is allowed for on top.
        let (ours, theirs) = (get.quantile(part), echoed.quantile(part));
        let allowed = theirs + hop.median();
        let against = format!("echo {} + hop {}", time(theirs), time(hop.median()));
        let ratio = ours.as_secs_f64() / allowed.as_secs_f64();
        table.ratio(&format!("Vms1.Get{whose}, {what}"), &time(ours), &against, ratio, goal);
    }
}

/// `Get` of this machine and the echo's answer; a property of each.
pub(crate) async fn calls(bus: &Connection, vm: &str) -> [Samples; 4] {
    let vms = vms::ManagerProxy::new(bus).await.unwrap();
    let echo = echo_proxy(bus).await;
    let [vms_properties, echo_properties] =
        [properties(bus, vms::NAME, vms::PATH).await, properties(bus, NAME, PATH).await];
    let mut samples: [Samples; 4] = Default::default();
    for turn in 0..=TURNS {
        let mut round: [Samples; 4] = Default::default();
        for _ in 0..CALLS {
            round[0].add(timed(vms.get(vm, Dict::new())).await);
        }
        for _ in 0..CALLS {
            round[1].add(timed(echo.call::<_, _, String>("Echo", &vm)).await);
        }
        for _ in 0..CALLS {
            round[2].add(timed(vms_properties.get(interface(vms::MANAGER), "Version")).await);
        }
        for _ in 0..CALLS {
            round[3].add(timed(echo_properties.get(interface(NAME), "Version")).await);
        }
        // The first turn warms everybody up.
        if turn > 0 {
            samples.iter_mut().zip(round).for_each(|(all, round)| all.extend(round));
        }
    }
    samples
}

async fn timed<T, E: std::fmt::Debug>(call: impl Future<Output = std::result::Result<T, E>>) -> Duration {
    let begun = Instant::now();
    call.await.unwrap();
    begun.elapsed()
}

fn interface(name: &'static str) -> InterfaceName<'static> {
    InterfaceName::try_from(name).unwrap()
}

async fn properties(bus: &Connection, service: &'static str, path: &'static str) -> PropertiesProxy<'static> {
    PropertiesProxy::builder(bus).destination(service).path(path).build().await.unwrap()
}

async fn echo_proxy(bus: &Connection) -> Proxy<'static> {
    // It takes its name when it has started.
    let dbus = zbus::fdo::DBusProxy::new(bus).await.unwrap();
    while !dbus.name_has_owner(NAME.try_into().unwrap()).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Proxy::new(bus, NAME, PATH, NAME).await.unwrap()
}

struct Echo;

#[zbus::interface(name = "dev.banger.bench.Echo")]
impl Echo {
    async fn echo(&self, text: String) -> String {
        text
    }

    #[zbus(property)]
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }
}

/// Serves the echo until it is killed.
pub(crate) async fn serve_echo(address: &str) {
    let bus = client::to(address).await;
    bus.object_server().at(PATH, Echo).await.unwrap();
    bus.request_name(NAME).await.unwrap();
    std::future::pending::<()>().await;
}

/// An actor asked through a door, on one thread as in a service.
async fn hop() -> Samples {
    let door = Door::new(Nobody.start());
    let mut samples = Samples::default();
    for _ in 0..CALLS * TURNS {
        let begun = Instant::now();
        door.ask(Ask).await.unwrap();
        samples.add(begun.elapsed());
    }
    samples
}

struct Nobody;

impl Actor for Nobody {
    type Context = Context<Self>;
}

struct Ask;

impl Message for Ask {
    type Result = Result<()>;
}

impl Handler<Ask> for Nobody {
    type Result = Result<()>;
    fn handle(&mut self, _: Ask, _: &mut Context<Self>) -> Result<()> {
        Ok(())
    }
}
