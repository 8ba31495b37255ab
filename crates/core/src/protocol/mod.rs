//! What `docs/PROTOCOL.md` specifies: names of databases, the runtime directory with its run directories, and the ledger of connection slots.
//!
//! No other module formats the name of a database or knows the name of a file in these directories.

use std::time::{SystemTime, UNIX_EPOCH};

mod ledger;
mod names;
mod profile;
mod reuse;
mod run_dir;

pub use ledger::{Holder, Ledger, Limit, QueueEntry, Standing};
pub use names::{
    DbName, Fingerprint, Kind, NAMESPACE_MAX, NameError, Namespace, RunId, RunKey, digest,
    from_hex, hex, random, random_word,
};
pub use profile::{Filled, Profile, ProfileError, Relation, SequenceState};
pub use reuse::{
    Baseline, Cleaning, Oid, Reason, ReuseCounts, ReuseEvent, Seen, SpareNote, Tuples,
};
pub use run_dir::*;

/// The time, in seconds since 1970, as comments and files have it.
pub fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
