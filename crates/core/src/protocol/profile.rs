//! The profile of a template: what a reset of its clones must leave, and what it must know about their relations. It is part of the template's comment,
//! and the file `profile` of a run directory.
//!
//! It is text with a line per relation, because test processes read it, often without optimization, and need few of its lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Oid, Reason};

/// What a template contains, as far as the reset of a clone needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Profile {
    /// The template's own oid.
    pub template: Oid,
    /// MD5 of `pg_class` without file numbers and sizes.
    pub class: String,
    /// Why clones of this template are never recycled.
    pub unfit: Option<Reason>,
    /// Users' tables and materialized views.
    pub relations: BTreeMap<Oid, Relation>,
    /// Sequences, and their states.
    pub sequences: BTreeMap<Oid, SequenceState>,
}

/// A table or materialized view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relation {
    /// Its quoted name.
    pub name: String,
    /// Whether it is a materialized view.
    pub view: bool,
    /// Its TOAST relation.
    pub toast: Option<Oid>,
    /// Whether a rule or trigger fires also while `session_replication_role` is `replica`.
    pub always_fires: bool,
    /// Other tables with a foreign key to it.
    pub referenced_by: BTreeSet<Oid>,
    /// If it holds rows.
    pub filled: Option<Filled>,
}

/// The contents of a relation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filled {
    /// Number of rows.
    pub rows: i64,
    /// Size of the heap, in bytes.
    pub heap: i64,
    /// Size of its TOAST relation, in bytes.
    pub toast: i64,
    /// Size of all of its indexes together, in bytes.
    pub indexes: i64,
}

/// A sequence's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceState {
    /// `last_value`.
    pub last: i64,
    /// `is_called`.
    pub called: bool,
}

impl Profile {
    /// Whether a relation holds rows in the template.
    pub fn is_filled(&self, oid: Oid) -> bool {
        self.relations
            .get(&oid)
            .is_some_and(|relation| relation.filled.is_some())
    }

    /// The relations that hold rows.
    pub fn filled(&self) -> impl Iterator<Item = (Oid, Filled)> {
        self.relations
            .iter()
            .filter_map(|(oid, relation)| Some((*oid, relation.filled?)))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unfit = self
            .unfit
            .and_then(|reason| serde_json::to_string(&reason).ok());
        writeln!(
            f,
            "{} {} {}",
            self.template,
            self.class,
            unfit.as_deref().unwrap_or("-")
        )?;
        for (oid, relation) in &self.relations {
            let kind = if relation.view { 'm' } else { 'r' };
            let references: Vec<String> =
                relation.referenced_by.iter().map(Oid::to_string).collect();
            let Filled {
                rows,
                heap,
                toast,
                indexes,
            } = relation.filled.unwrap_or_default();
            let name = serde_json::to_string(&relation.name).map_err(|_| fmt::Error)?;
            writeln!(
                f,
                "{kind} {oid} {} {} {} {rows} {heap} {toast} {indexes} {name}",
                relation.toast.unwrap_or(0),
                u8::from(relation.always_fires),
                if references.is_empty() {
                    "-".to_owned()
                } else {
                    references.join(",")
                },
            )?;
        }
        for (oid, state) in &self.sequences {
            writeln!(f, "S {oid} {} {}", state.last, u8::from(state.called))?;
        }
        Ok(())
    }
}

/// Text that is not a profile.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a line of a profile")]
pub struct ProfileError(String);

impl FromStr for Profile {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        let mut lines = text.lines();
        let head = lines.next().unwrap_or_default();
        let mut profile = parse_head(head).ok_or_else(|| ProfileError(head.to_owned()))?;
        for line in lines {
            parse_line(&mut profile, line).ok_or_else(|| ProfileError(line.to_owned()))?;
        }
        Ok(profile)
    }
}

fn parse_head(line: &str) -> Option<Profile> {
    let mut words = line.splitn(3, ' ');
    Some(Profile {
        template: words.next()?.parse().ok()?,
        class: words.next()?.to_owned(),
        unfit: match words.next()? {
            "-" => None,
            reason => Some(serde_json::from_str(reason).ok()?),
        },
        ..Profile::default()
    })
}

fn parse_line(profile: &mut Profile, line: &str) -> Option<()> {
    let mut words = line.splitn(10, ' ');
    let kind = words.next()?;
    let oid = words.next()?.parse().ok()?;
    if kind == "S" {
        let last = words.next()?.parse().ok()?;
        let called = words.next()? == "1";
        profile
            .sequences
            .insert(oid, SequenceState { last, called });
        return Some(());
    }
    let toast = words.next()?.parse().ok()?;
    let always_fires = words.next()? == "1";
    let referenced_by = words
        .next()?
        .split(',')
        .filter_map(|oid| oid.parse().ok())
        .collect();
    let mut number = || words.next()?.parse::<i64>().ok();
    let filled = Filled {
        rows: number()?,
        heap: number()?,
        toast: number()?,
        indexes: number()?,
    };
    let relation = Relation {
        name: serde_json::from_str(words.next()?).ok()?,
        view: kind == "m",
        toast: Some(toast).filter(|oid| *oid != 0),
        always_fires,
        referenced_by,
        filled: Some(filled).filter(|filled| filled.heap > 0),
    };
    profile.relations.insert(oid, relation);
    Some(())
}

impl TryFrom<String> for Profile {
    type Error = ProfileError;

    fn try_from(text: String) -> Result<Self, ProfileError> {
        text.parse()
    }
}

impl From<Profile> for String {
    fn from(profile: Profile) -> Self {
        profile.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back_is_the_same_profile() {
        let relation = |name: &str, filled| Relation {
            name: name.to_owned(),
            view: name.contains("view"),
            toast: Some(7),
            always_fires: name.contains("always"),
            referenced_by: [3, 4].into(),
            filled,
        };
        let filled = Filled {
            rows: 1,
            heap: 8192,
            toast: 0,
            indexes: 16384,
        };
        let profile = Profile {
            template: 5,
            class: "abc".to_owned(),
            unfit: Some(Reason::NotCounted),
            relations: [
                (16385, relation("public.\"a b\n\\c\"", None)),
                (16390, relation("x.view", Some(filled))),
                (
                    16391,
                    Relation {
                        toast: None,
                        referenced_by: BTreeSet::new(),
                        ..relation("x.always", None)
                    },
                ),
            ]
            .into(),
            sequences: [(
                9,
                SequenceState {
                    last: -3,
                    called: true,
                },
            )]
            .into(),
        };
        assert_eq!(
            profile.to_string().parse::<Profile>().expect("a profile"),
            profile
        );
        let json = serde_json::to_string(&profile).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Profile>(&json).expect("JSON"),
            profile
        );
        assert!("5 abc".parse::<Profile>().is_err());
        assert!("5 abc -\nr 1 0".parse::<Profile>().is_err());
    }
}
