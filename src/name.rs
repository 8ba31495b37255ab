//! The names of databases: the first of the two contracts between processes (the other is [`crate::run_dir`]).
//!
//! A name is all that says whose a database is, so there is one grammar, `<namespace>_<kind>_<fingerprint>[_<run>_<serial>]`,
//! and one type that builds, parses and quotes it. What does not parse is not ours and is never touched. The parts hold no
//! underscore and have fixed lengths, so the longest name takes 60 of PostgreSQL's 63 bytes.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const FINGERPRINT_LEN: usize = 13;
const RUN_TIME_LEN: usize = 7;
const RUN_KEY_LEN: usize = 8;
const RUN_LEN: usize = RUN_TIME_LEN + RUN_KEY_LEN;
const SERIAL_LEN: usize = 6;

/// Longest namespace, in bytes.
pub const NAMESPACE_MAX: usize = 16;

/// A name that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The namespace breaks the grammar.
    #[error(
        "the namespace `{0}` is not valid; use 1 to {NAMESPACE_MAX} of a-z and 0-9, beginning with a letter"
    )]
    Namespace(String),
    /// The database is not one of ours.
    #[error("`{0}` is not the name of a kapsel-testdb database")]
    NotOurs(String),
    /// The run id breaks the grammar.
    #[error("`{0}` is not a run id")]
    RunId(String),
}

/// The prefix that separates one project's databases from another's on the same server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(String);

impl Namespace {
    /// Takes a namespace as written by a user.
    ///
    /// # Errors
    /// [`NameError::Namespace`] unless it is 1 to 16 of `a-z0-9`, beginning with a letter.
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

    /// Derives a namespace from a folder's name: what the grammar does not know is left out.
    pub fn from_folder(folder: &str) -> Self {
        let mut text: String = folder
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

/// What a database is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A sealed database that holds the migrated schema and seed data.
    Template,
    /// A template that is being built.
    Building,
    /// A database made from a template for one test.
    Clone,
    /// The database that a run's shared tests use.
    Shared,
    /// A failed test's clone, preserved.
    Kept,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Template,
        Self::Building,
        Self::Clone,
        Self::Shared,
        Self::Kept,
    ];

    /// The kind as it stands in a name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Building => "building",
            Self::Clone => "clone",
            Self::Shared => "shared",
            Self::Kept => "kept",
        }
    }
}

/// The content hash that names a template: the first 65 bits of a SHA-256, 13 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Shortens a hash to the form that fits into a name.
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

/// Names a run: seven characters of creation time (seconds, base 36: run ids sort by age), eight of what makes it unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// Builds the id of a run that begins `now` from whatever tells it from every other run.
    pub fn new(now: SystemTime, key: &RunKey) -> Self {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self(format!("{}{}", base36_number(seconds, RUN_TIME_LEN), key.0))
    }

    /// Whether this run is the one with that key, whenever it began.
    pub fn has_key(&self, key: &RunKey) -> bool {
        self.0[RUN_TIME_LEN..] == key.0
    }

    /// When the run began, to the second.
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

/// What makes a run unique: nextest's run id (or a process's own randomness), the server and the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunKey(String);

impl RunKey {
    /// Hashes the parts, order and boundaries included.
    pub fn new(parts: &[&str]) -> Self {
        Self(base36(&digest(parts), RUN_KEY_LEN))
    }
}

/// Hashes the parts, order and boundaries included.
pub(crate) fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // Tests are not optimised, and a compiled migrator has many checksums: no iterator adapters.
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Bytes that [`hex`] wrote.
pub(crate) fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The name of one of our databases.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DbName {
    namespace: Namespace,
    kind: Kind,
    fingerprint: Fingerprint,
    run: Option<(RunId, String)>,
}

impl DbName {
    /// The name of a published template.
    pub fn template(namespace: &Namespace, fingerprint: &Fingerprint) -> Self {
        Self {
            namespace: namespace.clone(),
            kind: Kind::Template,
            fingerprint: fingerprint.clone(),
            run: None,
        }
    }

    /// A new, never used name for a database of a run. The serial is random, so nobody has to be asked for it; `CREATE DATABASE`
    /// refuses the one in two thousand million that is taken.
    pub fn for_run(
        namespace: &Namespace,
        kind: Kind,
        fingerprint: &Fingerprint,
        run: &RunId,
    ) -> Self {
        Self {
            namespace: namespace.clone(),
            kind,
            fingerprint: fingerprint.clone(),
            run: Some((run.clone(), base36_number(random(), SERIAL_LEN))),
        }
    }

    /// The same database under another kind: what a clone is called once it is kept.
    pub fn with_kind(&self, kind: Kind) -> Self {
        Self {
            kind,
            ..self.clone()
        }
    }

    /// The namespace it belongs to.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What it is for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The fingerprint of its template.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The run it belongs to; a template belongs to none.
    pub fn run(&self) -> Option<&RunId> {
        self.run.as_ref().map(|(run, _)| run)
    }

    /// The name as an SQL identifier. The grammar leaves nothing to escape.
    pub fn quoted(&self) -> String {
        format!("\"{self}\"")
    }
}

impl fmt::Display for DbName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}_{}_{}",
            self.namespace,
            self.kind.as_str(),
            self.fingerprint
        )?;
        match &self.run {
            Some((run, serial)) => write!(f, "_{run}_{serial}"),
            None => Ok(()),
        }
    }
}

impl FromStr for DbName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        parse(text).ok_or_else(|| NameError::NotOurs(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<DbName> {
    let parts: Vec<&str> = text.split('_').collect();
    let (head, run) = match parts[..] {
        [a, b, c] => ([a, b, c], None),
        [a, b, c, run, serial] if is_word(serial, SERIAL_LEN) => {
            ([a, b, c], Some((run.parse().ok()?, serial.to_owned())))
        }
        _ => return None,
    };
    let kind = Kind::ALL.into_iter().find(|k| k.as_str() == head[1])?;
    if (kind == Kind::Template) != run.is_none() {
        return None;
    }
    Some(DbName {
        namespace: Namespace::new(head[0]).ok()?,
        kind,
        fingerprint: Fingerprint::try_from(head[2].to_owned()).ok()?,
        run,
    })
}

impl TryFrom<String> for DbName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<DbName> for String {
    fn from(name: DbName) -> Self {
        name.to_string()
    }
}

fn is_word(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| ALPHABET.contains(&b))
}

/// Eight bytes of the process's own randomness (`RandomState` is seeded by the operating system).
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// A word that no other process has: for run keys and test ids.
pub(crate) fn random_word() -> String {
    base36_number(random(), SERIAL_LEN)
}

fn base36_number(mut number: u64, len: usize) -> String {
    let mut digits = vec![b'0'; len];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(number % 36) as usize];
        number /= 36;
    }
    String::from_utf8_lossy(&digits).into_owned()
}

fn base36(hash: &[u8; 32], len: usize) -> String {
    let (high, low) = hash.split_at(8);
    let take = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap_or_default());
    let mut text = base36_number(take(high), len.min(12));
    if len > 12 {
        text.push_str(&base36_number(take(low), len - 12));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_name() -> impl Strategy<Value = DbName> {
        (
            "[a-z][a-z0-9]{0,15}",
            any::<[u8; 32]>(),
            0..5usize,
            any::<u32>(),
        )
            .prop_map(|(namespace, hash, kind, seconds)| {
                let namespace = Namespace::new(&namespace).expect("the pattern is the grammar");
                let fingerprint = Fingerprint::from_hash(&hash);
                let now = UNIX_EPOCH + Duration::from_secs(seconds.into());
                let run = RunId::new(now, &RunKey::new(&["a", "b"]));
                match Kind::ALL[kind] {
                    Kind::Template => DbName::template(&namespace, &fingerprint),
                    kind => DbName::for_run(&namespace, kind, &fingerprint, &run),
                }
            })
    }

    proptest! {
        #[test]
        fn what_is_built_is_parsed_again(name in any_name()) {
            let text = name.to_string();
            prop_assert!(text.len() <= 63, "{text} has {} bytes", text.len());
            prop_assert_eq!(text.parse::<DbName>().expect("our own name"), name);
        }

        #[test]
        fn no_other_text_parses_to_a_name_that_prints_differently(text in "\\PC{0,63}") {
            if let Ok(name) = text.parse::<DbName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn one_more_or_less_character_is_not_ours(name in any_name(), at in 0..70usize) {
            let text = name.to_string();
            let cut = at % text.len();
            let tail = &text[text.len() - 1..];
            let longer = format!("{text}{tail}");
            prop_assert!(longer.parse::<DbName>().is_err());
            let mut shorter = text.clone();
            shorter.remove(cut);
            // Only the namespace has room to be one shorter and still a name: another project's, then.
            if let Ok(other) = shorter.parse::<DbName>() {
                prop_assert_ne!(other.namespace(), name.namespace());
            }
        }
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for text in [
            "postgres",
            "app",
            "app_clone",
            "app_template_backup",
            "app_template_0123456789abc_old",
            "app_clone_0123456789abc",
            "app_template_0123456789abc_0123456789abcde_000001",
            "App_template_0123456789abc",
            "app_clone_0123456789abc_0123456789abcde_00000A",
            "_sqlx_test_12",
        ] {
            assert!(
                text.parse::<DbName>().is_err(),
                "`{text}` was taken for ours"
            );
        }
    }

    #[test]
    fn a_run_id_tells_its_age_and_its_key() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        let key = RunKey::new(&["nextest", "server"]);
        let run = RunId::new(now, &key);
        assert_eq!(run.created_at(), now);
        assert!(run.has_key(&key));
        assert!(!run.has_key(&RunKey::new(&["nextests", "erver"])));
        assert!(RunId::new(now + Duration::from_secs(1), &key) > run);
    }

    #[test]
    fn a_folder_gives_a_valid_namespace() {
        for (folder, expected) in [
            ("my-app", "myapp"),
            ("My App", "myapp"),
            ("2fast", "db2fast"),
            ("", "db"),
            ("über", "ber"),
            ("a-very-long-project-folder-name", "averylongproject"),
        ] {
            let namespace = Namespace::from_folder(folder);
            assert_eq!(namespace.as_str(), expected);
            assert!(Namespace::new(namespace.as_str()).is_ok());
        }
    }
}
