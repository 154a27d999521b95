//! Following a job: a moving line on a terminal, a line a stage elsewhere; Ctrl-C cancels the job and waits for its
//! end.

use std::cell::RefCell;
use std::time::Duration;

use banger_bus::jobs::follow;
use banger_schemas::error::{Error, Kind};
use banger_schemas::job::{JobProxy, Progress};
use banger_schemas::options::Dict;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use zbus::Connection;
use zbus::wire::OwnedObjectPath;

use crate::error::Failure;
use crate::view::note;

/// Ctrl-C, from now on for as long as this is kept: the first listener takes the signal's own effect away for ever,
/// so what is done after one wait and before the next must listen too.
#[derive(Debug)]
pub(crate) struct Interrupts(Signal);

impl Interrupts {
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Interrupts(signal(SignalKind::interrupt())?))
    }

    async fn next(&mut self) {
        // It never ends.
        self.0.recv().await;
    }

    /// Does the work, or gives it up at a Ctrl-C.
    pub(crate) async fn or<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.next() => Err(Error::new(Kind::Canceled, "interrupted").into()),
            outcome = work => outcome,
        }
    }
}

/// Waits for a job to end.
pub(crate) async fn wait(bus: &Connection, service: &'static str, job: OwnedObjectPath) -> Result<Dict, Failure> {
    wait_with(bus, service, job, &mut Interrupts::listen()?).await
}

/// The same for somebody who listened before.
pub(crate) async fn wait_with(
    bus: &Connection,
    service: &'static str,
    job: OwnedObjectPath,
    interrupts: &mut Interrupts,
) -> Result<Dict, Failure> {
    let line = Line::new();
    let following = follow(bus, service, job.clone(), |progress| line.show(&progress));
    tokio::pin!(following);
    let outcome = tokio::select! {
        outcome = &mut following => outcome,
        () = interrupts.next() => {
            let proxy = JobProxy::builder(bus).destination(service).path(job).build().await?;
            // It may have ended in this very moment: its own end tells.
            drop(proxy.cancel().await);
            following.await
        }
    };
    line.end();
    Ok(outcome?)
}

/// Progress on stderr.
pub(crate) struct Line {
    bar: ProgressBar,
    last: RefCell<String>,
}

impl Line {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(120));
        Line { bar, last: RefCell::default() }
    }

    pub(crate) fn show(&self, progress: &Progress) {
        if self.bar.is_hidden() {
            // Not a terminal: each stage once.
            if *self.last.borrow() != progress.stage && !progress.stage.is_empty() {
                self.last.borrow_mut().clone_from(&progress.stage);
                note(&format!("banger: {}", progress.stage));
            }
            return;
        }
        let style = match (progress.total, progress.unit.as_str()) {
            (0, "bytes") => "{spinner} {msg} {bytes} ({bytes_per_sec})",
            (0, _) => "{spinner} {msg}",
            (_, "bytes") => "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} ({bytes_per_sec})",
            _ => "{spinner} {msg} [{bar:30}] {pos}/{len}",
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            self.bar.set_style(style);
        }
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.done);
        self.bar.set_message(progress.stage.clone());
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
