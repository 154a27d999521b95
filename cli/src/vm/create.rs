//! `banger vm create`, and what `run` shares with it: the machine's specification.

use banger_bus::again;
use banger_bus::trace::options;
use banger_schemas::options::{Dict, DictBuilder};
use banger_schemas::size::{self, Mib};
use banger_schemas::vms::{self, Port, Spec, VmProxy, Wanted};
use banger_schemas::{ImageName, VmName};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use zbus::wire::OwnedObjectPath;

use super::show;
use crate::client::Client;
use crate::error::Failure;
use crate::progress::{self, Interrupts};
use crate::view::{note, out, print_fields};

/// What the machine is made of.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Machine {
    /// Its name: an RFC 1123 label, also its DNS name NAME.vm [default: generated]
    #[arg(long)]
    name: Option<VmName>,
    /// Its root file system ('banger image list --available') [default: debian-bookworm]
    #[arg(long)]
    image: Option<ImageName>,
    /// Its kernel [default: debian-bookworm-cloud]
    #[arg(long)]
    kernel: Option<ImageName>,
    /// Virtual CPUs [default: 2]
    #[arg(long, value_parser = parse_vcpus)]
    vcpu: Option<u32>,
    /// Memory, such as 512M or 4G [default: 1G]
    #[arg(long, value_parser = parse_memory)]
    memory: Option<u32>,
    /// Size that its disks may grow to [default: 8G]
    #[arg(long, value_parser = parse_disk)]
    disk_size: Option<u64>,
    /// Publish a port of the guest on the machine's host address; may be repeated
    #[arg(short, long = "publish", value_name = "HOST:GUEST")]
    ports: Vec<Port>,
    /// No network at all
    #[arg(long)]
    no_network: bool,
    /// Let it reach nothing but who talks to it from this host ('banger vm set' changes that)
    #[arg(long, overrides_with = "nat")]
    no_nat: bool,
    /// Let it reach the outside [default]
    #[arg(long, overrides_with = "no_nat")]
    nat: bool,
    /// What it is run by; auto is the best that works ('banger doctor' lists all)
    #[arg(long, default_value = "auto", value_parser = backends())]
    backend: Wanted,
    /// Boot it, even if there is a template to go on from ('banger template list')
    #[arg(long)]
    cold: bool,
}

fn backends() -> impl TypedValueParser<Value = Wanted> {
    PossibleValuesParser::new(Wanted::ALL.map(Wanted::as_str)).try_map(|name| name.parse::<Wanted>())
}

fn parse_vcpus(text: &str) -> Result<u32, String> {
    let count = text.parse::<u64>().map_err(|_| format!("{text:?} is no number"))?;
    size::vcpus(count).map_err(|e| e.to_string())
}

fn parse_memory(text: &str) -> Result<u32, String> {
    let Mib(mib) = text.parse().map_err(|e: size::InvalidSize| e.to_string())?;
    size::memory_mib(mib).map_err(|e| e.to_string())
}

fn parse_disk(text: &str) -> Result<u64, String> {
    let Mib(mib) = text.parse().map_err(|e: size::InvalidSize| e.to_string())?;
    size::disk_mib(mib).map_err(|e| e.to_string())
}

impl Machine {
    fn spec(&self, start: bool, ephemeral: bool) -> Spec {
        Spec {
            name: self.name.clone(),
            image: self.image.clone(),
            kernel: self.kernel.clone(),
            vcpus: self.vcpu,
            memory_mib: self.memory,
            disk_mib: self.disk_size,
            ports: self.ports.clone(),
            start,
            ephemeral,
            network: !self.no_network,
            nat: !self.no_nat,
            backend: self.backend,
            cold: self.cold,
        }
    }
}

/// A machine that was made.
pub(super) struct Made {
    pub(super) vm: VmProxy<'static>,
    pub(super) name: String,
    /// Listened to since it was begun.
    pub(super) interrupts: Interrupts,
}

/// Makes a machine and waits for it. A job that fails leaves either nothing, or a stopped machine to look at.
#[tracing::instrument(name = "making the machine", skip_all)]
pub(super) async fn make(client: &Client, machine: &Machine, start: bool, ephemeral: bool) -> Result<Made, Failure> {
    let vms = client.vms().await?;
    // Names this request on the bus: whoever repeats it gets this machine and no second one.
    let token = format!("{}-{:x}", std::process::id(), std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos());
    let mut options = options();
    options.extend(DictBuilder::default().set("token", token).build());
    let (path, job): (OwnedObjectPath, OwnedObjectPath) =
        client.call(vms.inner(), "Create", &(machine.spec(start, ephemeral).to_dict(), options)).await?;
    let mut interrupts = Interrupts::listen()?;
    let vm = client.vm_at(path).await?;
    again(|| spec_line(&vms, &vm, machine.backend)).await?;
    let result = match progress::wait_with(&client.bus, vms::NAME, job, &mut interrupts).await {
        Ok(result) => result,
        Err(failure) => return Err(kept(&vm, failure).await),
    };
    for line in notes(&result) {
        note(&format!("note: {line}"));
    }
    let name = again(|| vm.name()).await?;
    Ok(Made { vm, name, interrupts })
}

/// A machine that did not come up is kept for its console; one that could not be made is gone.
async fn kept(vm: &VmProxy<'_>, failure: Failure) -> Failure {
    match (vm.state().await.as_deref(), vm.name().await) {
        (Ok("failed" | "stopping"), Ok(name)) => failure.hint(format!(
            "the machine is kept: 'banger vm logs {name}' shows its console, 'banger vm delete {name}' removes it"
        )),
        _ => failure,
    }
}

async fn spec_line(vms: &vms::ManagerProxy<'_>, vm: &VmProxy<'_>, wanted: Wanted) -> zbus::Result<()> {
    let (vcpus, memory, disk, image) = tokio::try_join!(vm.vcpus(), vm.memory_mib(), vm.disk_mib(), vm.image())?;
    let backend = match wanted {
        Wanted::Auto => vms.backend().await?,
        wanted => wanted.as_str().to_owned(),
    };
    let (memory, disk) = (Mib(memory.into()), Mib(disk));
    note(&format!("spec: {vcpus} vCPU, {memory} memory, {disk} disk, image {image}, backend {backend}"));
    Ok(())
}

fn notes(result: &Dict) -> Vec<String> {
    result.get("notes").and_then(|v| v.try_clone().ok()?.try_into().ok()).unwrap_or_default()
}

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    machine: Machine,
    /// Make it without booting it
    #[arg(long)]
    no_start: bool,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(client: &Client, args: Args) -> Result<(), Failure> {
    let made = make(client, &args.machine, !args.no_start, false).await?;
    if args.json {
        return print_fields(&show::fields(&made.vm).await?, true);
    }
    out(&format!("{}\n", made.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked_where_they_are_written() {
        assert_eq!(parse_memory("2G"), Ok(2048));
        assert!(parse_memory("1").unwrap_err().contains("between 128"));
        assert!(parse_vcpus("0").is_err() && parse_disk("1T").is_ok());
        assert_eq!(parse_vcpus("x").unwrap_err(), "\"x\" is no number");
    }
}
