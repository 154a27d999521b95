//! The service manager's watchdog (`WatchdogSec=`, sd_notify(3)).

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;

use banger_schemas::io::packet::registered;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;

/// When the service manager is to be told next. A timer of the kernel's: the runtime's own wakes the process on its way to
/// a moment that is far off, and nothing else does while a service is at rest.
pub(crate) struct Watchdog(Option<OwnedFd>);

impl Watchdog {
    /// Begins to count, unless nobody watches.
    pub(crate) fn new() -> io::Result<Self> {
        let Some(deadline) = sd_notify::watchdog_enabled() else { return Ok(Watchdog(None)) };
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let twice = Expiration::Interval(TimeSpec::from_duration(deadline / 2));
        timer.set(twice, TimerSetTimeFlags::empty())?;
        Ok(Watchdog(Some(timer.into())))
    }

    /// Tells the service manager that this thread still takes its turns: one that hangs is killed and started again.
    pub(crate) async fn feed(self) -> io::Result<Infallible> {
        let Some(timer) = self.0 else { return std::future::pending().await };
        let timer = registered(timer)?;
        loop {
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
                tracing::warn!(%error, "the service manager does not hear us");
            }
            // The kernel sets it anew when its expirations are read (timerfd_create(2)).
            let read = |timer: &OwnedFd| Ok(nix::unistd::read(timer, &mut [0; 8])?);
            timer.async_io(Interest::READABLE, read).await?;
        }
    }
}
