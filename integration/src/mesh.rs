//! The six services as six processes on a bus of their own, with a stand-in VMM: what systemd and the system bus give
//! a real host, without either, so that one service can be killed while the others go on. For root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::banger::ask_at;
use crate::namespace::Namespace;
use crate::{Output, Who, catalog, dist, eventually, leftovers, within};

/// In the order that they start in: those who are asked first.
pub const SERVICES: [&str; 6] = ["storage", "network", "images", "vms", "dns", "sessions"];

const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=SOCKET</listen>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>"#;

/// Six services and their bus.
#[derive(Debug)]
pub struct Mesh {
    home: TempDir,
    daemon: Child,
    services: BTreeMap<&'static str, Child>,
    namespace: Namespace,
}

impl Mesh {
    /// All six, started, with the small image and a VMM that only plays one.
    pub fn start() -> Self {
        drop(crate::Banger::new(Who::Me));
        let home = tempfile::Builder::new().prefix("bm-").tempdir().unwrap();
        let config = home.path().join("bus.conf");
        std::fs::write(&config, BUS.replace("SOCKET", &home.path().join("bus").to_string_lossy())).unwrap();
        let daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile"])
            .spawn()
            .unwrap();
        let stand_in = dist().join("../debug/examples/fake_vmm").canonicalize().expect("the stand-in VMM is built");
        let script = format!("mount --bind '{}' /usr/bin/qemu-system-x86_64", stand_in.display());
        let namespace = Namespace::prepared_by(&script);
        let mut mesh = Mesh { home, daemon, services: BTreeMap::new(), namespace };
        eventually("the bus listens", || mesh.home.path().join("bus").exists());
        for service in SERVICES {
            mesh.run_service(service, &[]);
        }
        mesh.all_serve();
        mesh
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn bus(&self) -> String {
        format!("unix:path={}", self.home.path().join("bus").display())
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Who::Me.command_behind(&self.namespace.entrance(), program);
        command
            .env("BANGER_STATE_DIR", self.home.path().join("state"))
            .env("BANGER_RUNTIME_DIR", self.home.path().join("run"))
            .env("BANGER_IMAGE_DIR", catalog::folder(Who::Me))
            .env("BANGER_LIB_DIR", dist().join("lib/banger").canonicalize().unwrap())
            .env("BANGER_TEMPLATES", "off")
            // For this client this is the system's bus.
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.bus())
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    fn run_service(&mut self, service: &'static str, variables: &[(&str, String)]) {
        for folder in ["state", "run"] {
            std::fs::create_dir_all(self.home.path().join(folder)).unwrap();
        }
        let log = self.log(service);
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let program = dist().join("lib/banger").join(format!("banger-{service}")).canonicalize().unwrap();
        let child = self
            .command(&program)
            .args(["--address", &self.bus()])
            .envs(variables.iter().map(|(name, value)| (*name, value)))
            .stderr(log)
            .spawn()
            .unwrap();
        self.services.insert(service, child);
    }

    fn log(&self, service: &str) -> PathBuf {
        self.home.path().join(format!("{service}.log"))
    }

    /// Waits until each service has its name.
    pub fn all_serve(&self) {
        eventually("all services have their names", || self.owned() == SERVICES.len());
    }

    fn owned(&self) -> usize {
        self.ask(async |bus| {
            let names = zbus::fdo::DBusProxy::new(&bus).await.unwrap().list_names().await.unwrap();
            names.iter().filter(|name| name.as_str().starts_with("dev.banger.")).count()
        })
    }

    /// Asks the services something.
    pub fn ask<T>(&self, question: impl AsyncFnOnce(zbus::Connection) -> T) -> T {
        ask_at(&self.bus(), question)
    }

    /// Starts one service anew, with these variables.
    pub fn restart(&mut self, service: &'static str, variables: &[(&str, String)]) {
        let mut old = self.services.remove(service).unwrap();
        old.kill().unwrap();
        old.wait().unwrap();
        eventually("its name is free", || self.owned() == SERVICES.len() - 1);
        self.run_service(service, variables);
        // One that is to die may do so before it has its name.
    }

    /// Starts again what has died, as systemd would; what it was.
    pub fn mend(&mut self) -> Vec<&'static str> {
        let dead = |child: &mut Child| child.try_wait().unwrap().is_some();
        let gone: Vec<_> = self.services.iter_mut().filter_map(|(name, child)| dead(child).then_some(*name)).collect();
        for service in &gone {
            self.services.remove(service);
            self.run_service(service, &[]);
        }
        gone
    }

    /// Runs a command line to its end while services that die are started again. What came of it, and who died.
    pub fn run(&mut self, arguments: &[&str]) -> (Output, Vec<&'static str>) {
        let program = dist().join("bin/banger").canonicalize().unwrap();
        let mut command = self.command(&program);
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut died = Vec::new();
        let what = format!("'banger {}' has ended", arguments.join(" "));
        within(std::time::Duration::from_secs(60), &what, || {
            died.extend(self.mend());
            child.try_wait().unwrap().is_some()
        });
        (Output::of(child), died)
    }

    /// Keepers and VMMs.
    pub fn on_the_host(&self) -> Vec<String> {
        let mut found = leftovers::processes(&self.home.path().join("state"));
        found.retain(|line| line.contains("banger-keeper") || line.contains("qemu-system"));
        found
    }

    /// What the services have logged, for a failure's message.
    pub fn logs(&self) -> String {
        let log = |service| std::fs::read_to_string(self.log(service)).unwrap_or_default();
        SERVICES.map(|service| format!("--- {service}\n{}", log(service))).concat()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.logs());
        }
        for child in self.services.values_mut() {
            // In order, so that the network is taken down.
            let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        }
        for child in self.services.values_mut() {
            drop(child.wait());
        }
        drop(self.daemon.kill());
        drop(self.daemon.wait());
        let left = leftovers::in_the_end(|| leftovers::processes(self.home.path()));
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left on the host: {left:#?}");
        }
    }
}
