//! The advisory locks of a process that keeps or ends a run: the run lock and the locks of the templates in use, all on one session.

use std::collections::HashSet;
use std::time::Duration;

use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::connect::{Retry, RetryLimits};
use kapsel_testdb_core::pg::lock::LockKey;
use kapsel_testdb_core::protocol::{DbName, EntryState, RunDir, RunFile};
use kapsel_testdb_core::run::{RunError, clone};

/// How often an idle keeper verifies the session.
pub const VERIFY_INTERVAL: Duration = Duration::from_secs(10);

/// The session that holds the locks of a run.
#[derive(Debug)]
pub struct Locks {
    admin: Admin,
    /// Templates besides the run's own whose locks the session holds.
    templates: HashSet<DbName>,
}

impl Locks {
    /// Takes over a session that holds the run lock.
    pub fn new(admin: Admin) -> Self {
        Self {
            admin,
            templates: HashSet::new(),
        }
    }

    /// The session with its locks.
    pub fn into_admin(self) -> Admin {
        self.admin
    }

    /// Whether the session, and with it every lock, still exists.
    pub async fn verify(&mut self) -> bool {
        let verified = self.admin.verify().await;
        if let Err(error) = &verified {
            tracing::warn!("lost the session that holds the run lock: {error}");
        }
        verified.is_ok()
    }

    /// Takes the run lock again on a new session. Returns false if this process was fenced off: another process has taken the lock exclusive.
    pub async fn reacquire(&mut self, dir: &RunDir, file: &RunFile) -> bool {
        match reconnect(dir, file).await {
            Ok(Some(admin)) => {
                tracing::warn!("reacquired the run lock");
                *self = Self::new(admin);
                true
            }
            Ok(None) => {
                tracing::error!(
                    "fenced off: another process removes the databases of run `{}`; the keeper stops and drops nothing; tests continue without it",
                    file.run
                );
                false
            }
            Err(error) => {
                tracing::error!(
                    "failed to reacquire the run lock: {error}; the keeper stops and drops nothing; tests continue without it"
                );
                false
            }
        }
    }

    /// Takes the locks of the templates that tests use besides the run's own, so that no collector drops one between two tests. If a collector holds a
    /// lock already, the next test that needs the template builds it again.
    pub async fn hold_templates(&mut self, dir: &RunDir) {
        for name in dir.templates() {
            if self.templates.contains(&name) {
                continue;
            }
            match self.admin.try_lock_shared(LockKey::template(&name)).await {
                Ok(true) => drop(self.templates.insert(name)),
                Ok(false) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }
}

/// Retries, because a server that has just crashed or restarted may do so again.
async fn reconnect(dir: &RunDir, file: &RunFile) -> Result<Option<Admin>, RunError> {
    let mut retry = Retry::within(RetryLimits::RUNNING.busy);
    loop {
        match try_reconnect(dir, file).await {
            Err(RunError::Pg(error)) if error.is_transient() => retry.pause(error).await?,
            result => return result,
        }
    }
}

async fn try_reconnect(dir: &RunDir, file: &RunFile) -> Result<Option<Admin>, RunError> {
    let limits = RetryLimits {
        unreachable: RetryLimits::RUNNING.busy,
        busy: RetryLimits::RUNNING.busy,
    };
    let Some(mut admin) = clone::try_admin(file, "keeper", limits).await? else {
        return Ok(None);
    };
    admin
        .lock_shared(&[LockKey::template(&file.template)])
        .await?;
    // Databases that were swept while the lock was free must not be offered.
    let existing = admin.databases(&file.namespace).await?;
    let is_gone = |name: &DbName| existing.iter().all(|row| row.name != *name);
    for name in dir.list(EntryState::Ready) {
        if is_gone(&name) {
            dir.remove_entry(EntryState::Ready, &name);
        }
    }
    if dir.shared().is_some_and(|name| is_gone(&name)) {
        dir.set_shared(None)?;
    }
    Ok(Some(admin))
}
