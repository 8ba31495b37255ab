//! Advisory locks: the run lock (the sign of life), the build lock, the locks on templates.
//!
//! All are taken in one maintenance database, because advisory locks are scoped to the database of the session, and on direct
//! connections, because they belong to the session. Keys are never negative: `pg_locks` shows the halves as oids. A crash frees
//! them with the session; a collision of two shared locks only delays a sweep.

use sha2::{Digest, Sha256};

use crate::name::{DbName, Namespace, RunId};

/// The key of an advisory lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockKey(i64);

impl LockKey {
    /// Held shared by everybody alive in a run; exclusive by who removes what a dead run left.
    pub fn run(namespace: &Namespace, run: &RunId) -> Self {
        Self::new(&["run", namespace.as_str(), run.as_str()])
    }

    /// Held exclusive by who builds a template: one per server, because roles are cluster-global and builds are rare.
    pub fn build() -> Self {
        Self::new(&["build"])
    }

    /// Held shared by the runs that use a template, exclusive by who drops it.
    pub fn template(name: &DbName) -> Self {
        Self::new(&["template", &name.to_string()])
    }

    /// The key as a number for SQL.
    pub fn as_i64(self) -> i64 {
        self.0
    }

    fn new(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        hash.update("kapsel-testdb lock");
        for part in parts {
            hash.update([0]);
            hash.update(part);
        }
        let bytes: [u8; 32] = hash.finalize().into();
        let number = i64::from_le_bytes(bytes[..8].try_into().unwrap_or_default());
        // Both halves below 2^31.
        Self(number & 0x7fff_ffff_7fff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_no_half_is_negative() {
        let namespace = Namespace::new("app").expect("valid");
        let runs =
            ["000000000000001", "000000000000002"].map(|r| r.parse::<RunId>().expect("valid"));
        let keys = [
            LockKey::build(),
            LockKey::run(&namespace, &runs[0]),
            LockKey::run(&namespace, &runs[1]),
        ];
        assert!(keys[0] != keys[1] && keys[1] != keys[2]);
        for key in keys {
            let number = key.as_i64();
            assert!(number >= 0);
            assert!((number & 0xffff_ffff) <= i64::from(i32::MAX));
        }
    }
}
