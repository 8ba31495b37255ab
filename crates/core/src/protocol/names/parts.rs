//! The parts of a name: namespace, fingerprint and run id.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::NameError;
use super::encoding::{ALPHABET, base36, base36_number, digest, is_word};

const FINGERPRINT_LEN: usize = 13;
const RUN_TIME_LEN: usize = 7;
const RUN_KEY_LEN: usize = 8;
const RUN_LEN: usize = RUN_TIME_LEN + RUN_KEY_LEN;

/// Length of the longest namespace, in bytes.
pub const NAMESPACE_MAX: usize = 16;

/// The prefix that separates one project's databases from another's on the same server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(String);

impl Namespace {
    /// Parses a namespace that a user wrote.
    ///
    /// # Errors
    /// [`NameError::Namespace`] unless it is 1 to 16 of `a-z0-9`, the first a letter.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let valid = (1..=NAMESPACE_MAX).contains(&text.len())
            && text.bytes().all(|b| ALPHABET.contains(&b))
            && text.as_bytes()[0].is_ascii_lowercase();
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Namespace(text.to_owned()))
        }
    }

    /// Derives a namespace from a directory's name; characters that the grammar does not allow are left out.
    pub fn from_directory_name(name: &str) -> Self {
        let mut text: String = name
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .filter(|c| c.is_ascii_alphanumeric())
            .collect();
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            text.insert_str(0, "db");
        }
        text.truncate(NAMESPACE_MAX);
        Self(text)
    }

    /// The namespace as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Namespace {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<Namespace> for String {
    fn from(namespace: Namespace) -> Self {
        namespace.0
    }
}
/// The content hash that names a template: the first 65 bits of a SHA-256, 13 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of a hash.
    pub fn from_hash(hash: &[u8; 32]) -> Self {
        Self(base36(hash, FINGERPRINT_LEN))
    }

    /// The fingerprint as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        if is_word(&text, FINGERPRINT_LEN) {
            Ok(Self(text))
        } else {
            Err(NameError::NotOurs(text))
        }
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.0
    }
}

/// The id of a run: 7 characters of creation time (seconds in base 36, so run ids sort by age) and the 8 characters of its [`RunKey`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// The id of a run that begins `now`.
    pub fn new(now: SystemTime, key: &RunKey) -> Self {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self(format!("{}{}", base36_number(seconds, RUN_TIME_LEN), key.0))
    }

    /// Whether the run has this key; its creation time does not matter.
    pub fn has_key(&self, key: &RunKey) -> bool {
        self.0[RUN_TIME_LEN..] == key.0
    }

    /// The time at which the run began, to the second.
    pub fn created_at(&self) -> SystemTime {
        let seconds = u64::from_str_radix(&self.0[..RUN_TIME_LEN], 36).unwrap_or(0);
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// The run id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RunId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_word(text, RUN_LEN) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::RunId(text.to_owned()))
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(run: RunId) -> Self {
        run.0
    }
}

/// The unique part of a run id: a hash of nextest's run id (without nextest: of a process id and randomness), the server and the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunKey(String);

impl RunKey {
    /// Hashes the parts; their order and boundaries count.
    pub fn new(parts: &[&str]) -> Self {
        Self(base36(&digest(parts), RUN_KEY_LEN))
    }
}
