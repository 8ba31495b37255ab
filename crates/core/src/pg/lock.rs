//! Advisory locks: the run lock (a run's liveness lock), the build lock, and the locks of templates.
//!
//! All sessions take them in the same maintenance database, because an advisory lock belongs to a database, and on direct
//! connections, because it belongs to a session. Keys are never negative: `pg_locks` shows their halves as oids. A crash frees the
//! locks with the session. A collision of two shared locks only delays a sweep.

use sha2::{Digest, Sha256};

use crate::protocol::{DbName, Namespace, RunId};

/// The key of an advisory lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockKey(i64);

impl LockKey {
    /// The run lock: live participants of a run hold it shared; a process that removes a dead run holds it exclusive.
    pub fn run(namespace: &Namespace, run: &RunId) -> Self {
        Self::new(&["run", namespace.as_str(), run.as_str()])
    }

    /// The build lock: a builder of a template holds it exclusive. One per server, because roles are cluster-global and builds are rare.
    pub fn build() -> Self {
        Self::new(&["build"])
    }

    /// A template's lock: runs that use the template hold it shared; a process that drops the template holds it exclusive.
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
        // Both halves are below 2^31.
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
