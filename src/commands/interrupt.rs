//! Signals while a command prepares a run.
//!
//! A signal ends the preparation at once, and its sessions on the server. It leaves a run directory with a free `flock`, and perhaps databases
//! with the run's id: the sweep removes both, as after a crash.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::pg::own::end_own_sessions;
use kapsel_testdb_core::platform;

use crate::failure::{Failure, Result};
use crate::printer::Printer;

/// How long ending the sessions on the server may take. It takes milliseconds, unless the machine or the server is overloaded.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the preparation of a run until it is done or a signal arrives.
pub async fn interruptible<T>(
    config: &Config,
    signals: &mut Signals,
    printer: &Printer,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    // Its connections stay open until the sessions have been ended: until then the server gives their numbers to no other session.
    let mut work = pin!(work);
    let signal = tokio::select! {
        result = &mut work => return result,
        signal = signals.next() => signal,
    };
    let reason = match timeout(
        END_TIMEOUT,
        end_own_sessions(&config.server.maintenance_database),
    )
    .await
    {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} s", END_TIMEOUT.as_secs())),
    };
    if let Some(reason) = reason {
        printer.warn(&format!(
            "failed to end the sessions on the server: {reason}; the server ends them when their statements end"
        ));
    }
    Err(Failure::Interrupted(signal))
}

/// The signals that ask a command to end.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on these signals do not end the process.
    pub fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> platform::Signal {
        tokio::select! {
            _ = self.interrupt.recv() => platform::Signal::INT,
            _ = self.terminate.recv() => platform::Signal::TERM,
            _ = self.hangup.recv() => platform::Signal::HUP,
        }
    }
}
