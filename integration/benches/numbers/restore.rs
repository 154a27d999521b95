//! A start from a template without the mesh: a keeper that waits, the template's files, an identity and a command.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use banger_integration::Banger;
use banger_schemas::guest::{Request as ToAgent, Stdin};
use banger_schemas::io::write_frame;
use banger_schemas::keeper::{Memory, Origin, Request};

use crate::boot::{IMAGE, VMM, launch};
use crate::client::{self, Parts, command};
use crate::keeper::Keeper;
use crate::stream::identify;

/// The only template of a banger, copied: what a service has of it in memory is nobody else's.
pub(crate) struct Template {
    folder: PathBuf,
    origin: Origin,
}

impl Template {
    pub(crate) fn of(banger: &Banger) -> Self {
        let mut all = fs::read_dir(banger.state().join("templates")).unwrap().map(|entry| entry.unwrap().path());
        let original = all.find(|folder| folder.join("manifest.json").exists()).unwrap();
        let folder = banger.home().join("bench-template");
        fs::create_dir(&folder).unwrap();
        for name in ["ram", "devices"] {
            copy(&original.join(name), &folder.join(name));
        }
        for name in ["system.ext4", "work.ext4"] {
            copy(&original.join(name), &folder.join(format!("pristine-{name}")));
        }
        let manifest = fs::read(original.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        Template { folder, origin: serde_json::from_value(manifest["origin"].clone()).unwrap() }
    }

    /// From the order to the keeper until keeper and machine are gone.
    pub(crate) async fn run(&self, banger: &Banger) -> Duration {
        let bus = client::connect(banger).await;
        let parts = Parts::make(&bus, IMAGE).await;
        let [kernel, initramfs, image, _, _, tap] = parts.open().await;
        let [ram, devices] = ["ram", "devices"].map(|name| open(&self.folder.join(name)));
        let [system, work] = ["system.ext4", "work.ext4"].map(|name| {
            let copied = self.folder.join(name);
            copy(&self.folder.join(format!("pristine-{name}")), &copied);
            open(&copied)
        });
        let keeper = Keeper::start(banger);
        // It measures the rate of the clock.
        tokio::time::sleep(Duration::from_millis(30)).await;

        let begun = Instant::now();
        let request =
            Request::LaunchWith(Box::new(launch(VMM, Some(parts.lease.mac))), Memory::Frozen(self.origin.clone()));
        let fds = [kernel, initramfs, image, system, work, tap, ram, devices];
        let channel = keeper.ask_for(&request, &fds).await;
        identify(&channel, Some(&parts.lease)).await;
        let mut stream = channel.stream().await;
        let exec = command(&["true"], Stdin::Null);
        write_frame(&mut stream, &ToAgent::Exec(Box::new(exec))).await.unwrap();
        client::ends_well(stream).await;
        drop(keeper);
        let took = begun.elapsed();
        parts.release().await;
        // What services put away behind their answers is not the next one's.
        tokio::time::sleep(Duration::from_millis(100)).await;
        took
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["--sparse=always", "--no-preserve=mode"]).args([from, to]).status();
    assert!(status.unwrap().success());
}

fn open(path: &Path) -> OwnedFd {
    File::options().read(true).write(true).open(path).unwrap().into()
}
