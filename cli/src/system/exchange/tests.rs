use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use tempfile::TempDir;

use super::super::plan::Content;
use super::*;

/// A disk on which one step fails; or, as for a process that is killed, all steps from one on.
struct Faulty {
    steps: Cell<usize>,
    fails_at: usize,
    for_good: bool,
}

impl Faulty {
    fn new(fails_at: usize, for_good: bool) -> Self {
        Faulty { steps: Cell::new(0), fails_at, for_good }
    }

    fn step(&self, really: io::Result<()>, undo: impl FnOnce()) -> io::Result<()> {
        let step = self.steps.replace(self.steps.get() + 1);
        if step == self.fails_at || (self.for_good && step > self.fails_at) {
            undo();
            return Err(io::Error::other("injected"));
        }
        really
    }

    fn fails_now(&self) -> bool {
        let step = self.steps.get();
        step == self.fails_at || (self.for_good && step > self.fails_at)
    }

    fn unless_it_fails(&self, really: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let fails = self.fails_now();
        self.step(if fails { Ok(()) } else { really() }, || ())
    }
}

impl Disk for Faulty {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.unless_it_fails(|| Real.make_folder(path))
    }

    /// Fails half-way.
    fn write(&self, path: &Path, file: &Planned) -> io::Result<()> {
        let really = Real.write(path, file);
        self.step(really, || fs::write(path, "half").unwrap())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.unless_it_fails(|| Real.link(from, to))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.unless_it_fails(|| Real.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.unless_it_fails(|| Real.remove(path))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.unless_it_fails(|| Real.remove_folder(path))
    }

    fn sync(&self, folder: &Path) -> io::Result<()> {
        self.unless_it_fails(|| Real.sync(folder))
    }
}

/// Mode and content of all that is below a folder.
type Tree = BTreeMap<PathBuf, (u32, String)>;

fn tree(root: &Path) -> Tree {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let content = if meta.is_dir() {
            found.extend(tree(&path));
            "folder".to_owned()
        } else {
            fs::read_to_string(&path).unwrap()
        };
        found.insert(path, (meta.mode() & 0o7777, content));
    }
    found
}

/// A host with a file that stays, one that is replaced, and two that go.
fn host() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in [("etc/same", "same"), ("etc/old", "old"), ("etc/gone", "gone"), ("opt/x/gone", "gone too")] {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = Planned::data(path.clone(), text);
        Real.write(&path, &file).unwrap();
    }
    root
}

fn wanted() -> Wanted {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let files = [
        Planned::data("/etc/same".into(), "same"),
        Planned::data("/etc/old".into(), "new"),
        Planned::data("/usr/local/lib/banger/fresh".into(), "fresh"),
        Planned { target: "/usr/local/bin/banger".into(), mode: 0o755, content: Content::Copy(source) },
    ];
    let measured = |file: Planned| {
        let entry = Entry::planned(&file).unwrap();
        (file, entry)
    };
    Wanted {
        files: files.map(measured).into(),
        gone: vec!["/etc/gone".into(), "/opt/x/gone".into(), "/opt/never/there".into()],
        gone_folders: vec!["/opt/x".into(), "/etc".into()],
    }
}

/// What an exchange on a disk without faults makes of the host; and in how many steps.
fn after() -> (Tree, usize) {
    let root = host();
    let disk = Faulty::new(usize::MAX, false);
    let left = exchange(&disk, root.path(), wanted()).unwrap().keep();
    assert!(left.is_empty(), "{left:?}");
    (relative(root.path()), disk.steps.get())
}

fn relative(root: &Path) -> Tree {
    tree(root).into_iter().map(|(path, what)| (path.strip_prefix(root).unwrap().to_owned(), what)).collect()
}

#[test]
fn files_come_go_and_change_and_a_folder_that_somebody_uses_stays() {
    let (after, _) = after();
    let names: Vec<&str> = after.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "etc",
            "etc/old",
            "etc/same",
            "opt",
            "usr",
            "usr/local",
            "usr/local/bin",
            "usr/local/bin/banger",
            "usr/local/lib",
            "usr/local/lib/banger",
            "usr/local/lib/banger/fresh",
        ]
    );
    assert_eq!(after[Path::new("etc/old")], (0o644, "new".to_owned()));
    assert_eq!(after[Path::new("usr/local/bin/banger")].0, 0o755);
}

#[test]
fn a_second_time_nothing_is_written() {
    let root = host();
    let wanted_again = || Wanted { gone_folders: Vec::new(), ..wanted() };
    assert!(exchange(&Real, root.path(), wanted()).unwrap().keep().is_empty());
    let inodes = || -> Vec<u64> { tree(root.path()).keys().map(|path| path.metadata().unwrap().ino()).collect() };
    let before = inodes();
    assert!(exchange(&Real, root.path(), wanted_again()).unwrap().keep().is_empty());
    assert_eq!(inodes(), before);
}

#[test]
fn wherever_a_step_fails_the_host_is_as_it_was() {
    let (after, steps) = after();
    let mut failed = 0;
    for step in 0..steps {
        let root = host();
        let before = relative(root.path());
        match exchange(&Faulty::new(step, false), root.path(), wanted()) {
            Err(failure) => {
                assert!(failure.message.contains("injected"), "{failure:?}");
                assert_eq!(failure.hint, None, "step {step} was not undone");
                assert_eq!(relative(root.path()), before, "step {step}");
                failed += 1;
            }
            // The last steps only tidy up: what they leave is told, and is gone after the next exchange.
            Ok(exchanged) => {
                assert_eq!(exchanged.keep().len(), 1, "step {step}");
                let again = exchange(&Real, root.path(), wanted()).unwrap();
                assert!(again.keep().is_empty());
                assert_eq!(relative(root.path()), after, "step {step}");
            }
        }
    }
    assert!(failed > 12, "only {failed} of {steps} steps can fail");
}

#[test]
fn wherever_it_is_killed_the_next_exchange_makes_it_whole() {
    let (after, steps) = after();
    for step in 0..steps {
        let root = host();
        match exchange(&Faulty::new(step, true), root.path(), wanted()) {
            Err(_) => {}
            Ok(exchanged) => drop(exchanged.keep()),
        }
        assert!(exchange(&Real, root.path(), wanted()).unwrap().keep().is_empty(), "step {step}");
        assert_eq!(relative(root.path()), after, "step {step}");
    }
}

#[test]
fn what_follows_may_fail_and_all_is_put_back() {
    let root = host();
    let before = relative(root.path());
    let exchanged = exchange(&Real, root.path(), wanted()).unwrap();
    assert_ne!(relative(root.path()), before);
    let failure = exchanged.undo(Failure::new("the bus does not listen"));
    assert_eq!(failure.message, "the bus does not listen; nothing was changed");
    assert_eq!(failure.hint, None);
    assert_eq!(relative(root.path()), before);
}

#[test]
fn what_cannot_be_put_back_is_named() {
    let root = host();
    let exchanged = exchange(&Real, root.path(), wanted()).unwrap();
    let disk = Faulty::new(0, true);
    let failure = Exchange { disk: &disk, root: root.path(), done: exchanged.done, gone_folders: Vec::new() }
        .undo(Failure::new("x").hint("y"));
    let hint = failure.hint.unwrap();
    assert!(hint.starts_with("y; ") && hint.contains("etc/old"), "{hint}");
}
