//! Names of databases: `<namespace>_<kind>_<fingerprint>[_<run>_<serial>]`.
//!
//! Only its name says which project and run a database belongs to. So one type builds, parses and quotes names, and a database whose name does not
//! parse is never touched. The parts contain no underscore and, except the namespace, have fixed lengths: the longest name takes 60 of
//! PostgreSQL's 63 bytes.

mod encoding;
mod parts;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use self::encoding::{WORD_LEN, is_word};

pub use encoding::{digest, from_hex, hex, random, random_word};
pub use parts::{Fingerprint, NAMESPACE_MAX, Namespace, RunId, RunKey};

/// Text that is not a valid name.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// It is not a namespace.
    #[error(
        "namespace `{0}` is not valid; use 1 to {NAMESPACE_MAX} of a-z and 0-9, beginning with a letter"
    )]
    Namespace(String),
    /// It is not the name of one of our databases.
    #[error("`{0}` is not the name of a kapsel-testdb database")]
    NotOurs(String),
    /// It is not a run id.
    #[error("`{0}` is not a run id")]
    RunId(String),
}

/// The purpose of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A sealed database that holds the migrated schema and seed data.
    Template,
    /// A template that is being built.
    Building,
    /// A database created from a template for one test.
    Clone,
    /// The database that the tests of a run with isolation `shared` or `transaction` use.
    Shared,
    /// The clone of a failed test, preserved for inspection.
    Kept,
    /// A clone that equals its template, belongs to no run, and waits for the next one.
    Spare,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Template,
        Self::Building,
        Self::Clone,
        Self::Shared,
        Self::Kept,
        Self::Spare,
    ];

    /// The kind as a part of a name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Building => "building",
            Self::Clone => "clone",
            Self::Shared => "shared",
            Self::Kept => "kept",
            Self::Spare => "spare",
        }
    }
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

    /// A new name for a database of a run. The serial is random (36^6, about 2 billion values), so no process has to ask for the next one; if
    /// the name is taken, `CREATE DATABASE` fails.
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
            run: Some((run.clone(), encoding::base36_number(random(), WORD_LEN))),
        }
    }

    /// The same name with another kind, for example of a clone that is kept.
    pub fn with_kind(&self, kind: Kind) -> Self {
        Self {
            kind,
            ..self.clone()
        }
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The purpose of the database.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The fingerprint of its template.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The run that the database belongs to; a template and a spare belong to none.
    pub fn run(&self) -> Option<&RunId> {
        let run = self.run.as_ref().filter(|_| self.kind != Kind::Spare);
        run.map(|(run, _)| run)
    }

    /// The run in the name. For a spare it is the run that used it last.
    pub fn last_run(&self) -> Option<&RunId> {
        self.run.as_ref().map(|(run, _)| run)
    }

    /// The name of its template.
    pub fn template_name(&self) -> Self {
        Self::template(&self.namespace, &self.fingerprint)
    }

    /// The name as a quoted SQL identifier. No character that the grammar allows needs escaping.
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
        [a, b, c, run, serial] if is_word(serial, WORD_LEN) => {
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
