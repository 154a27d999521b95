//! A Firecracker that follows a script, in a folder where it also leaves what it was asked for.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use banger_schemas::keeper::{Event, Launch, Request};
use serde_json::Value;
use tempfile::TempDir;

use crate::host::{Client, Keeper, files, launch, stand_in};

pub(crate) struct Stage {
    folder: TempDir,
    /// Where the keeper makes what only it and its VMM share.
    runtime: TempDir,
    pub(crate) keeper: Keeper,
}

impl Stage {
    pub(crate) fn with(script: &str) -> Self {
        let (folder, runtime) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(stand_in(), folder.path().join("firecracker")).unwrap();
        std::fs::write(folder.path().join("script"), script).unwrap();
        let keeper = Keeper::start_with(&[("RUNTIME_DIRECTORY", runtime.path().to_str().unwrap())]);
        Stage { folder, runtime, keeper }
    }

    pub(crate) fn rewrite(&self, script: &str) {
        std::fs::write(self.folder.path().join("script"), script).unwrap();
    }

    pub(crate) async fn launch(&self, client: &Client, part: &str, volatile: bool) -> Event {
        self.launch_with(client, part, Launch { volatile, ..launch() }, None).await
    }

    pub(crate) async fn launch_with(&self, client: &Client, part: &str, like: Launch, tap: Option<OwnedFd>) -> Event {
        let vmm = self.folder.path().join("firecracker").to_str().unwrap().to_owned();
        let launch = Launch { vmm, mac: tap.as_ref().map(|_| [2, 0, 0, 0, 0, 1]), tap: tap.is_some(), ..like };
        let files: Vec<_> = files(part).into_iter().chain(tap).collect();
        let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        client.ask_with(Request::Launch(Box::new(launch)), &fds).await.0
    }

    /// Requests as the VMM got them: method and path, body.
    pub(crate) fn requests(&self) -> Vec<(String, Value)> {
        let text = std::fs::read_to_string(self.folder.path().join("requests")).unwrap_or_default();
        let request = |line: &str| {
            let body = line.match_indices(' ').nth(1).unwrap().0;
            (line[..body].to_owned(), line[body..].parse().unwrap())
        };
        text.lines().map(request).collect()
    }

    /// Nothing that has a name, and no process, is left of a VMM or its start.
    pub(crate) fn assert_nothing_is_left(&self) {
        let left: Vec<_> = std::fs::read_dir(self.runtime.path()).unwrap().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
        let children = children(self.keeper.process.id());
        assert!(children.is_empty(), "{children:?}");
    }

    pub(crate) fn assert_nothing_has_a_name(&self) {
        assert_eq!(std::fs::read_dir(self.runtime.path()).unwrap().count(), 0);
    }
}

fn children(parent: u32) -> Vec<String> {
    let stats = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|entry| std::fs::read_to_string(Path::new(&entry.path()).join("stat")).ok());
    let of_parent = |stat: &String| {
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        rest.split(' ').nth(1) == Some(&parent.to_string())
    };
    stats.filter(of_parent).collect()
}
