//! What a process does without the keeper: it creates a clone for its own lease, and holds the run lock if there is no keeper.

use std::time::Duration;

use super::{RunError, clone};
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::connect::RetryLimits;
use crate::protocol::{Baseline, Claim, Claimant, EntryState, Kind, RunDir, RunFile};

/// How often a process of a run checks whether the run has a keeper. Other hosts treat a run without sessions as dead after 30 s.
pub const KEEPER_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Creates a clone and leases it, without waiting for the keeper. The entry comes first, so a crash leaves an entry without a database rather than a
/// database without an entry.
///
/// # Errors
/// The clone cannot be created; its entry has been removed.
pub async fn lease_new_clone(
    dir: &RunDir,
    file: &RunFile,
    purpose: &str,
    claimant: Option<Claimant>,
) -> Result<Claim, RunError> {
    let name = clone::new_name(file, Kind::Clone);
    let claim = dir.create_leased(&name)?.with_claimant(claimant);
    let create = async {
        let mut admin = clone::admin(file, purpose, RetryLimits::RUNNING).await?;
        let baseline = clone::obtain(&mut admin, dir, file, &name).await?;
        admin.close().await;
        Ok(baseline)
    };
    let created: Result<Option<Baseline>, PgError> = create.await;
    match &created {
        Ok(Some(baseline)) => claim.note_baseline(baseline),
        Ok(None) => {}
        Err(_) => dir.remove_entry(EntryState::Leased, &name),
    }
    created.map(|_| claim).map_err(RunError::from)
}

/// Verifies the session that holds the run lock, and replaces it if it was lost.
///
/// # Errors
/// The connection failed.
pub async fn hold_run_lock(
    session: &mut Option<Admin>,
    file: &RunFile,
    purpose: &str,
) -> Result<(), PgError> {
    if let Some(admin) = session.as_mut()
        && admin.verify().await.is_ok()
    {
        return Ok(());
    }
    *session = Some(clone::admin(file, purpose, RetryLimits::RUNNING).await?);
    Ok(())
}
