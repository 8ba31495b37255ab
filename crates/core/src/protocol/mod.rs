//! What `docs/PROTOCOL.md` specifies: names of databases, the runtime directory with its run directories, and the ledger of connection slots.
//!
//! No other module formats the name of a database or knows the name of a file in these directories.

mod ledger;
mod names;
mod reuse;
mod run_dir;

pub use ledger::{Holder, Ledger, Limit, QueueEntry};
pub use names::{
    DbName, Fingerprint, Kind, NAMESPACE_MAX, NameError, Namespace, RunId, RunKey, digest,
    from_hex, hex, random, random_word,
};
pub use reuse::{
    Baseline, Cleaning, Filled, Oid, Profile, Reason, ReuseCounts, ReuseEvent, Seen, SequenceState,
    SpareNote, Tuples,
};
pub use run_dir::*;
