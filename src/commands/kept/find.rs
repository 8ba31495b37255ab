//! The kept databases of a namespace, and the lookup of a database by test name. The lookup is pure.

use std::time::SystemTime;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::protocol::{Claimant, FailureCause, Kind, Namespace};
use kapsel_testdb_core::run::kept::{KeptNote, kept_at};
use kapsel_testdb_core::server::Server;

use crate::failure::{KeptError, Result};

/// A kept database and its test.
#[derive(Debug, Clone)]
pub struct KeptDatabase {
    /// The server's data.
    pub row: DatabaseRow,
    /// When it was kept.
    pub kept_at: SystemTime,
    /// The test, if it is known.
    pub claimant: Option<Claimant>,
    /// Why it failed, if that is known.
    pub cause: Option<FailureCause>,
}

impl KeptDatabase {
    fn new(row: DatabaseRow) -> Self {
        let kept_at = kept_at(&row);
        let note = KeptNote::parse(row.comment.as_deref());
        let (claimant, cause) = note.map_or((None, None), |note| (note.claimant, note.cause));
        Self {
            row,
            kept_at,
            claimant,
            cause,
        }
    }

    /// The test as nextest prints it, with its binary; else the database's name.
    pub fn title(&self) -> String {
        match &self.claimant {
            Some(claimant) => full_name(claimant),
            None => self.row.name.to_string(),
        }
    }

    /// How well a name matches: 0 is best.
    fn match_rank(&self, name: &str) -> Option<u8> {
        let claimant = self.claimant.as_ref()?;
        let test = claimant.test.as_str();
        if test == name || full_name(claimant) == name {
            return Some(0);
        }
        // Parts of a name begin and end at module boundaries.
        let (test, part) = (format!("::{test}::"), format!("::{name}::"));
        if test.ends_with(&part) {
            return Some(1);
        }
        test.contains(&part).then_some(2)
    }

    /// Whether both belong to the same attempt of the same test.
    fn is_same_attempt(&self, other: &Self) -> bool {
        self.row.name.run() == other.row.name.run() && self.claimant == other.claimant
    }
}

fn full_name(claimant: &Claimant) -> String {
    match &claimant.binary {
        Some(binary) => format!("{binary} {}", claimant.test),
        None => claimant.test.clone(),
    }
}

/// The server, a session, and the kept databases, newest first. `None`: the managed server is not running.
pub async fn find_kept(config: &Config) -> Result<Option<(Server, Admin, Vec<KeptDatabase>)>> {
    let Some((server, mut admin)) = Server::find(config, "kept").await? else {
        return Ok(None);
    };
    let rows = admin.databases(&config.namespace).await?;
    let kept = rows.into_iter().filter(|row| row.name.kind() == Kind::Kept);
    let mut kept: Vec<KeptDatabase> = kept.map(KeptDatabase::new).collect();
    kept.sort_by_key(|one| std::cmp::Reverse(one.kept_at));
    Ok(Some((server, admin, kept)))
}

/// A query for kept databases.
#[derive(Debug, Clone, Copy)]
pub struct KeptQuery<'a> {
    /// The searched namespace.
    pub namespace: &'a Namespace,
    /// A test's name, its end or a part of it, or a database's name.
    pub name: &'a str,
    /// Only databases of this attempt.
    pub attempt: Option<u32>,
}

impl KeptQuery<'_> {
    /// All databases of the one matching test, newest first.
    ///
    /// # Errors
    /// [`KeptError`]: none, or several tests.
    pub fn all<'k>(&self, kept: &'k [KeptDatabase]) -> Result<Vec<&'k KeptDatabase>, KeptError> {
        let name = self.name.to_owned();
        let named = |one: &&KeptDatabase| one.row.name.to_string() == name;
        if let Some(one) = kept.iter().find(named) {
            return Ok(vec![one]);
        }
        let Some(best) = kept.iter().filter_map(|one| one.match_rank(&name)).min() else {
            return Err(match kept {
                [] => KeptError::Nothing {
                    name,
                    namespace: self.namespace.clone(),
                },
                available => KeptError::Unknown {
                    name,
                    available: candidates(available),
                },
            });
        };
        let found: Vec<&KeptDatabase> = kept
            .iter()
            .filter(|one| one.match_rank(&name) == Some(best))
            .collect();
        if found.iter().any(|one| one.title() != found[0].title()) {
            let candidates = candidates(found);
            return Err(KeptError::Ambiguous { name, candidates });
        }
        let Some(attempt) = self.attempt else {
            return Ok(found);
        };
        let is_of =
            |one: &&&KeptDatabase| one.claimant.as_ref().map(|c| c.attempt) == Some(attempt);
        match found.iter().filter(is_of).copied().collect::<Vec<_>>() {
            none if none.is_empty() => Err(KeptError::NoSuchAttempt {
                attempt,
                available: candidates(found),
            }),
            of_attempt => Ok(of_attempt),
        }
    }

    /// The one matching database: that of the latest attempt of the latest run.
    ///
    /// # Errors
    /// [`KeptError`]: none, or several.
    pub fn one<'k>(&self, kept: &'k [KeptDatabase]) -> Result<&'k KeptDatabase, KeptError> {
        let all = self.all(kept)?;
        let newest = all[0];
        let same: Vec<_> = all
            .iter()
            .filter(|one| one.is_same_attempt(newest))
            .collect();
        if same.len() > 1 {
            return Err(KeptError::Several {
                test: newest.title(),
                names: same.iter().map(|one| one.row.name.clone()).collect(),
            });
        }
        Ok(newest)
    }
}

/// Maximum number of tests in an error.
const MAX_LISTED: usize = 10;

/// Tests with their attempts, for an error; databases of unknown tests by their names.
fn candidates<'a>(kept: impl IntoIterator<Item = &'a KeptDatabase>) -> String {
    let mut tests: Vec<(String, Vec<u32>)> = Vec::new();
    for one in kept {
        let attempt = one.claimant.as_ref().map(|claimant| claimant.attempt);
        let title = one.title();
        match tests.iter_mut().find(|(test, _)| *test == title) {
            Some((_, attempts)) => attempts.extend(attempt),
            None => tests.push((title, attempt.into_iter().collect())),
        }
    }
    let surplus = tests.len().saturating_sub(MAX_LISTED);
    let mut shown: Vec<String> = tests
        .drain(..)
        .take(MAX_LISTED)
        .map(with_attempts)
        .collect();
    if surplus > 0 {
        shown.push(format!("{surplus} more (`kapsel-testdb kept list`)"));
    }
    shown.join(", ")
}

fn with_attempts((title, mut attempts): (String, Vec<u32>)) -> String {
    attempts.sort_unstable();
    attempts.dedup();
    let numbers: Vec<String> = attempts.iter().map(u32::to_string).collect();
    match numbers.as_slice() {
        [] => format!("`{title}`"),
        [one] => format!("`{title}` (attempt {one})"),
        several => format!("`{title}` (attempts {})", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kapsel_testdb_core::protocol::{DbName, Fingerprint, RunId, RunKey};
    use std::time::{Duration, UNIX_EPOCH};

    /// A database of a run that started this many seconds after the epoch.
    fn kept(run: u64, test: &str, attempt: u32) -> KeptDatabase {
        let namespace = Namespace::new("app").expect("valid");
        let began = UNIX_EPOCH + Duration::from_secs(run);
        let run = RunId::new(began, &RunKey::new(&["x"]));
        let fingerprint = Fingerprint::from_hash(&[3; 32]);
        let name = DbName::for_run(&namespace, Kind::Kept, &fingerprint, &run);
        let claimant = Claimant {
            binary: Some("app::it".to_owned()),
            attempt,
            ..Claimant::named(test)
        };
        KeptDatabase {
            row: DatabaseRow::unused(name),
            kept_at: began + Duration::from_secs(attempt.into()),
            claimant: (!test.is_empty()).then_some(claimant),
            cause: None,
        }
    }

    fn sorted(mut kept: Vec<KeptDatabase>) -> Vec<KeptDatabase> {
        kept.sort_by_key(|one| std::cmp::Reverse(one.kept_at));
        kept
    }

    fn find<'k>(
        kept: &'k [KeptDatabase],
        name: &str,
        attempt: Option<u32>,
    ) -> Result<&'k KeptDatabase, String> {
        let namespace = Namespace::new("app").expect("valid");
        let query = KeptQuery {
            namespace: &namespace,
            name,
            attempt,
        };
        query.one(kept).map_err(|error| error.to_string())
    }

    fn attempt(found: Result<&KeptDatabase, String>) -> u32 {
        let found = found.expect("one matches");
        found.claimant.as_ref().expect("a test").attempt
    }

    #[test]
    fn default_is_the_latest_attempt_of_the_latest_run() {
        let kept = sorted(vec![
            kept(10, "billing::pays", 1),
            kept(500, "billing::pays", 1),
            kept(500, "billing::pays", 2),
            kept(10, "billing::pays", 3),
        ]);
        let newest = find(&kept, "billing::pays", None);
        assert_eq!(newest.clone().expect("found").row.name, kept[0].row.name);
        assert_eq!(attempt(newest), 2);
        assert_eq!(attempt(find(&kept, "billing::pays", Some(3))), 3);
        let first = find(&kept, "billing::pays", Some(1)).expect("found");
        assert_eq!(first.row.name, kept[1].row.name);
        let error = find(&kept, "billing::pays", Some(4)).expect_err("there is no such attempt");
        insta::assert_snapshot!(error, @"no kept database matches attempt 4; kept databases: `app::it billing::pays` (attempts 1, 2, 3)");
    }

    #[test]
    fn full_names_rank_before_ends_and_ends_before_parts() {
        let kept = sorted(vec![
            kept(1, "pays", 1),
            kept(2, "billing::pays", 2),
            kept(3, "billing::pays::twice", 3),
            kept(4, "invoices::lists", 4),
        ]);
        assert_eq!(attempt(find(&kept, "pays", None)), 1);
        assert_eq!(attempt(find(&kept, "billing::pays", None)), 2);
        assert_eq!(attempt(find(&kept, "app::it billing::pays", None)), 2);
        assert_eq!(attempt(find(&kept, "twice", None)), 3);
        assert_eq!(attempt(find(&kept, "invoices", None)), 4);
        let error = find(&kept, "bill", None).expect_err("no module ends there");
        insta::assert_snapshot!(error, @"no kept database matches `bill`; kept databases: `app::it invoices::lists` (attempt 4), `app::it billing::pays::twice` (attempt 3), `app::it billing::pays` (attempt 2), `app::it pays` (attempt 1)");
        let error = find(&kept, "billing", None).expect_err("two tests");
        insta::assert_snapshot!(error, @"`billing` matches several tests with kept databases: `app::it billing::pays::twice` (attempt 3), `app::it billing::pays` (attempt 2); give a longer part of the name, or the name of the database");
    }

    #[test]
    fn name_of_a_database_matches_even_if_its_test_is_unknown() {
        let mut all = vec![kept(1, "", 1), kept(2, "pays", 1), kept(2, "pays", 1)];
        all.reverse();
        for one in &all {
            let found = find(&all, &one.row.name.to_string(), None).expect("found");
            assert_eq!(found.row.name, one.row.name);
        }
        let error = find(&all, "pays", None).expect_err("two databases of one attempt");
        assert!(
            error.contains("`app::it pays` has several kept databases"),
            "{error}"
        );
        let error = find(&all, "stays", None).expect_err("no such test");
        assert!(error.contains(&all[2].row.name.to_string()), "{error}");
        let error = find(&[], "pays", None).expect_err("nothing is kept");
        insta::assert_snapshot!(error, @"no kept database matches `pays`: the namespace `app` has no kept databases");
    }
}
