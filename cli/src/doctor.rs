//! `banger doctor`: how banger runs here, what is missing or slower, and the command that cures it.

use std::collections::BTreeMap;
use std::path::Path;

use banger_bus::settings;
use banger_schemas::error::Error;
use banger_schemas::options::Dict;
use banger_schemas::{dns, images, network, storage};

use crate::authorize::Ask;
use crate::check::{self, Row, Verdict};
use crate::client::{Client, Mode};
use crate::error::Failure;
use crate::view::bytes;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Exit status 0 when everything needed is there.
pub(crate) async fn run(args: Args) -> Result<u8, Failure> {
    let mut rows = programs();
    match Client::connect(Ask::Nobody).await {
        Ok(client) => {
            rows.insert(0, Row::new(Verdict::Pass, "mode", client.mode.as_str(), ""));
            rows.insert(1, settings_of(client.mode));
            rows.extend(services(&client).await);
        }
        Err(failure) => {
            rows.push(Row::new(Verdict::Fail, "services", failure.message, failure.hint.unwrap_or_default()));
        }
    }
    check::show(&rows, args.json)
}

/// The file of settings, read once more: services that could not understand it go on without.
fn settings_of(mode: Mode) -> Row {
    let file = match mode {
        Mode::System => Ok(settings::OF_THE_HOST.into()),
        Mode::Embedded => settings::of_user(),
    };
    match file.and_then(|file| settings::read(&file).map(|_| file)) {
        Ok(file) if file.exists() => Row::new(Verdict::Pass, "settings", file.display().to_string(), ""),
        Ok(file) => Row::new(Verdict::Pass, "settings", format!("no {}", file.display()), ""),
        Err(error) => Row::new(Verdict::Fail, "settings", error.message, "none of them hold until the file is mended"),
    }
}

/// Programs that something here runs: name, package, whether nothing works without.
const PROGRAMS: &[(&str, &str, bool)] = &[
    ("qemu-system-x86_64", "qemu-system-x86", true),
    ("mke2fs", "e2fsprogs", true),
    ("mmdebstrap", "mmdebstrap", true),
    ("mkfs.erofs", "erofs-utils", true),
    ("newuidmap", "uidmap", false),
    ("slirp4netns", "slirp4netns", false),
    ("nft", "nftables", false),
    ("git", "git", false),
];

fn programs() -> Vec<Row> {
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let row = |(program, package, needed): &(&str, &str, bool)| match folders
        .iter()
        .map(|f| Path::new(f).join(program))
        .find(|p| p.is_file())
    {
        Some(path) => Row::new(Verdict::Pass, *program, path.display().to_string(), ""),
        None => {
            let verdict = if *needed { Verdict::Fail } else { Verdict::Warn };
            Row::new(verdict, *program, "not installed", format!("sudo apt install {package}"))
        }
    };
    PROGRAMS.iter().map(row).collect()
}

async fn services(client: &Client) -> Vec<Row> {
    let mut rows = Vec::new();
    let failed = |e: Error| Row::new(Verdict::Fail, "services", e.message, "");
    rows.extend(backends(client).await.unwrap_or_else(|e| vec![failed(e)]));
    rows.extend(vm_network(client).await.unwrap_or_else(|e| vec![failed(e)]));
    rows.extend(names(client).await.unwrap_or_else(|e| vec![failed(e)]));
    for row in [disk(client).await, kept(client).await, templates(client).await] {
        rows.push(row.unwrap_or_else(failed));
    }
    rows
}

/// A sentence of a service: what it found, and behind the colon what helps.
fn note(what: &str, note: String) -> Row {
    match note.split_once(": ") {
        Some((found, cure)) => Row::new(Verdict::Warn, what, found, cure),
        None => Row::new(Verdict::Warn, what, note, ""),
    }
}

/// What is used, and each that could be.
async fn backends(client: &Client) -> Result<Vec<Row>, Error> {
    let vms = banger_schemas::vms::ManagerProxy::new(&client.bus).await?;
    let (backend, reason) = (vms.backend().await?, vms.backend_reason().await?);
    let mut rows = vec![match backend.as_str() {
        "" => Row::new(Verdict::Fail, "backend", "none", reason),
        "qemu-tcg" => Row::new(
            Verdict::Warn,
            "backend",
            format!("{backend} ({reason})"),
            "emulation works and is slower: see the other backends",
        ),
        _ => Row::new(Verdict::Pass, "backend", format!("{backend} ({reason})"), ""),
    }];
    for (name, works, what) in vms.backends().await? {
        let verdict = if works { Verdict::Pass } else { Verdict::Warn };
        rows.push(Row::new(verdict, format!("backend {name}"), what, ""));
    }
    Ok(rows)
}

async fn vm_network(client: &Client) -> Result<Vec<Row>, Error> {
    let network = network::ManagerProxy::new(&client.bus).await?;
    let (mode, refusal) = (network.mode().await?, network.probe().await?);
    let able = match refusal.split_once(". ") {
        None if refusal.is_empty() => Row::new(Verdict::Pass, "network", mode, ""),
        Some((why, cure)) => Row::new(Verdict::Warn, "network", format!("VMs start without one: {why}"), cure),
        None => Row::new(Verdict::Warn, "network", format!("VMs start without one: {refusal}"), ""),
    };
    let notes = network.notes().await?.into_iter().map(|text| note("network", text));
    Ok(std::iter::once(able).chain(notes).collect())
}

async fn names(client: &Client) -> Result<Vec<Row>, Error> {
    let names = dns::ManagerProxy::new(&client.bus).await?;
    let served = format!("*.{} answered on {}", dns::ZONE, names.listen().await?);
    let notes = names.notes().await?.into_iter().map(|text| note("names", text));
    Ok(std::iter::once(Row::new(Verdict::Pass, "names", served, "")).chain(notes).collect())
}

async fn disk(client: &Client) -> Result<Row, Error> {
    let (free, reserve) = storage::ManagerProxy::new(&client.bus).await?.room().await?;
    let found = format!("{} free, {} kept in reserve", bytes(free), bytes(reserve));
    Ok(if free < reserve {
        Row::new(Verdict::Fail, "disk", found, "make room: no machine can be made")
    } else {
        Row::new(Verdict::Pass, "disk", found, "")
    })
}

async fn kept(client: &Client) -> Result<Row, Error> {
    let images = images::ManagerProxy::new(&client.bus).await?;
    let (here, kernels) = (images.list(Default::default()).await?, images.list_kernels(Default::default()).await?);
    let found = format!("{} here", here.len());
    if here.is_empty() {
        let cure = "the first 'banger vm run' builds one, which takes minutes";
        return Ok(Row::new(Verdict::Warn, "images", found, cure));
    }
    let pulls: Vec<String> = [("image", here), ("kernel", kernels)]
        .into_iter()
        .flat_map(|(word, rows)| pulls_of_outdated(word, &rows))
        .collect();
    Ok(match pulls.as_slice() {
        [] => Row::new(Verdict::Pass, "images", found, ""),
        _ => {
            let found = format!("{found}; {} made by an older banger's recipe", pulls.len());
            Row::new(Verdict::Warn, "images", found, pulls.join(" "))
        }
    })
}

/// Commands for names whose newest build is by a recipe that has changed since. The newest of a name comes last.
fn pulls_of_outdated(word: &str, rows: &[Dict]) -> Vec<String> {
    let of = |row| -> Option<(&str, bool)> {
        let row: &Dict = row;
        Some((row.get("name")?.downcast_ref().ok()?, row.get("outdated")?.downcast_ref().ok()?))
    };
    let newest: BTreeMap<&str, bool> = rows.iter().filter_map(of).collect();
    let outdated = newest.into_iter().filter(|(_, outdated)| *outdated);
    outdated.map(|(name, _)| format!("'banger {word} pull {name}'")).collect()
}

async fn templates(client: &Client) -> Result<Row, Error> {
    let vms = banger_schemas::vms::ManagerProxy::new(&client.bus).await?;
    let rows = vms.list_templates(Default::default()).await?;
    let size = rows.iter().filter_map(|row| row.get("size")?.downcast_ref::<u64>().ok()).sum();
    Ok(Row::new(Verdict::Pass, "templates", format!("{} here, {}", rows.len(), bytes(size)), ""))
}
