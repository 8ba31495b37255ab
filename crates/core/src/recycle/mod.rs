//! Recycling: returns a used clone to the state that it had when it was created, with proof.
//!
//! 1. **Quiet**: this session is the only one on the clone.
//! 2. **Evidence** (`evidence`): the server's counters of the template's relations, and their sum over all relations of the clone.
//! 3. **Decision** (`decide`, pure): nothing moved, or a plan of what to reset, or a reason to drop the clone. Doubt is a reason.
//! 4. **Reset** (`reset`): deletes rows, vacuums, sets sequences.
//! 5. **Verification** (`verify`, pure): the counters moved by exactly what the reset did, and the sizes are those of the template.
//!
//! The result is a new [`Baseline`]. The caller closes the session and writes the result into the clone's entry. The clone becomes ready only after
//! it was renamed and the server's counters still equal that baseline (`run::renew`), so what another session writes meanwhile is noticed.
//!
//! A crash at any step leaves a clone whose entry has no result; it is cleaned again or dropped.

mod decide;
mod evidence;
pub mod profile;
mod reset;
mod session;
#[cfg(test)]
mod tests;
mod verify;

pub use decide::{Moved, Plan, TableReset, check_contents, decide, moved};
pub use evidence::{ClassState, Evidence, Sizes};
pub use session::{TextRow, TextSession};
pub use verify::verify;

use std::time::Duration;

use sqlx::Error as Sqlx;
use tokio::time::timeout;

use crate::protocol::{Baseline, Cleaning, Profile, Reason, ResetMethod};

/// How often a clone is used at most. Resets leave no trace that grows without limit but dead rows in `pg_class`, so this is a precaution.
pub const MAX_USES: u32 = 500;

/// How long a cleaning may take. Each of its statements has a limit of its own on the server, which does not help if the server vanishes.
const LIMIT: Duration = Duration::from_secs(60);

/// Pauses before another VACUUM of tables that have kept pages. VACUUM skips a page that another process has pinned, as the checkpointer does while it writes
/// the page (15.18: 1 of 3,000 beside checkpoints). Together the pauses are about as long as creating a clone takes.
const VACUUM_PAUSES: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(16),
];

/// Cleans the clone that the session is connected to. `profile` reads the profile of its template.
///
/// # Errors
/// A statement failed, or the server did not answer in time; the clone must be dropped, and the session must not be used again.
pub async fn clean(
    session: &mut dyn TextSession,
    baseline: &Baseline,
    profile: impl FnOnce() -> Option<Profile>,
    method: ResetMethod,
) -> Result<Cleaning, Sqlx> {
    if baseline.uses + 1 >= MAX_USES {
        return Ok(Cleaning::Dirty(Reason::Uses));
    }
    match timeout(LIMIT, try_clean(session, baseline, profile, method)).await {
        Ok(Ok(after)) => Ok(Cleaning::Cleaned(after.baseline(baseline))),
        Ok(Err(Stop::Dirty(reason))) => Ok(Cleaning::Dirty(reason)),
        Ok(Err(Stop::Failed(error))) => Err(error),
        Err(_) => Err(Sqlx::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// Why a cleaning stops.
#[derive(Debug)]
enum Stop {
    Dirty(Reason),
    Failed(Sqlx),
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Dirty(reason)
    }
}

impl From<Sqlx> for Stop {
    fn from(error: Sqlx) -> Self {
        Self::Failed(error)
    }
}

/// Returns the evidence that shows that the clone equals its template.
async fn try_clean(
    session: &mut dyn TextSession,
    baseline: &Baseline,
    profile: impl FnOnce() -> Option<Profile>,
    method: ResetMethod,
) -> Result<Evidence, Stop> {
    // A clone of another build of the template has other oids.
    let profile = profile().filter(|profile| profile.template == baseline.seen.template);
    let profile = profile.ok_or(Reason::NoBaseline)?;
    let superuser = evidence::prepare(session).await?;
    let database = baseline.database;
    let before = evidence::read_when_alone(session, database, &profile, superuser).await?;
    let moved = moved(baseline, &before)?;
    check_contents(&moved, &before, &profile)?;
    if moved == Moved::default() {
        return Ok(before);
    }
    // Only a superuser may set `session_replication_role`, and see contents that no counter shows.
    if !superuser {
        return Err(Reason::Rights.into());
    }
    let class = if moved.class {
        Some(evidence::class_state(session, &profile).await?)
    } else {
        None
    };
    let plan = decide(&moved, class.as_ref(), &profile, method)?;
    let deleted = reset::run(session, &plan, baseline.xid).await?;
    let (mut after, mut sizes) = evidence::read_after(session, database, &plan, &profile).await?;
    for pause in VACUUM_PAUSES {
        if !sizes.are_too_large(&profile) {
            break;
        }
        // Not tokio's clock: a test may have stopped it.
        std::thread::sleep(pause);
        reset::run_vacuum(session, &plan).await?;
        (after, sizes) = evidence::read_after(session, database, &plan, &profile).await?;
    }
    verify(&plan, &before, &after, &deleted, &sizes, &profile)?;
    Ok(after)
}
