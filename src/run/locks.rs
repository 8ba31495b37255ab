//! The locks of who keeps a run or ends it: the run's, and those of the templates that its tests use, all on one session.

use std::collections::HashSet;
use std::time::Duration;

use super::{RunError, clone};
use crate::name::DbName;
use crate::pg::admin::Admin;
use crate::pg::connect::{Patience, Retry};
use crate::pg::lock::LockKey;
use crate::run_dir::{Folder, RunDir, RunFile};

/// How often they are verified while nothing happens.
pub const VERIFY: Duration = Duration::from_secs(10);

/// The session that holds the locks of a run.
#[derive(Debug)]
pub struct Locks {
    admin: Admin,
    /// Templates besides the run's own whose locks are held.
    templates: HashSet<DbName>,
}

impl Locks {
    /// On a session that holds the run lock already.
    pub fn on(admin: Admin) -> Self {
        Self {
            admin,
            templates: HashSet::new(),
        }
    }

    /// The session, with its locks.
    pub fn into_admin(self) -> Admin {
        self.admin
    }

    /// Whether the session, and so every lock, is still there.
    pub async fn verify(&mut self) -> bool {
        let verified = self.admin.verify().await;
        if let Err(error) = &verified {
            tracing::warn!("lost the session that holds the run lock: {error}");
        }
        verified.is_ok()
    }

    /// Takes the run lock again on a new session. A lock that somebody took meanwhile fences us off.
    pub async fn take_back(&mut self, dir: &RunDir, file: &RunFile) -> bool {
        match again(dir, file).await {
            Ok(Some(admin)) => {
                tracing::warn!("took the run lock back");
                *self = Self::on(admin);
                true
            }
            Ok(None) => {
                tracing::error!(
                    "fenced off: somebody else removes the databases of run `{}`; this keeper stops and drops nothing; tests go on by themselves",
                    file.run
                );
                false
            }
            Err(error) => {
                tracing::error!(
                    "could not take the run lock back: {error}; this keeper stops and drops nothing; tests go on by themselves"
                );
                false
            }
        }
    }

    /// Holds the locks of the templates that tests use besides the run's own, so that nobody collects one between two tests. A lock that
    /// is not free is a collector's: who needs the template next builds it again.
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

/// A server that has just crashed or was restarted may do so again.
async fn again(dir: &RunDir, file: &RunFile) -> Result<Option<Admin>, RunError> {
    let mut retry = Retry::within(Patience::RUNNING.busy);
    loop {
        match once_again(dir, file).await {
            Err(RunError::Pg(error)) if error.is_passing() => retry.pause(error).await?,
            result => return result,
        }
    }
}

async fn once_again(dir: &RunDir, file: &RunFile) -> Result<Option<Admin>, RunError> {
    let patience = Patience {
        absent: Patience::RUNNING.busy,
        busy: Patience::RUNNING.busy,
    };
    let mut admin = clone::connect(file, "keeper", patience).await?;
    let run = LockKey::run(&file.namespace, &file.run);
    if !admin.try_lock_shared(run).await? {
        return Ok(None);
    }
    admin
        .lock_shared(&[LockKey::template(&file.template)])
        .await?;
    // What was swept while nobody held the lock is not offered any more.
    let there = admin.databases(&file.namespace).await?;
    let is_gone = |name: &DbName| there.iter().all(|row| row.name != *name);
    for name in dir.list(Folder::Ready) {
        if is_gone(&name) {
            dir.forget(Folder::Ready, &name);
        }
    }
    if dir.shared().is_some_and(|name| is_gone(&name)) {
        dir.set_shared(None)?;
    }
    Ok(Some(admin))
}
