//! Pollution reports, in files of the runtime directory that outlive the run. A process renames a report before it prints it, so each is
//! printed once. Printed reports stay for inspection until newer ones replace them. A crash while writing
//! leaves a `.tmp` file, which is removed in the same way.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use kapsel_testdb_core::protocol::{DbName, Namespace, RunDirError, RunId, Runtime};

use crate::compare::{Comparison, READ_REMEDY};
use crate::pollution::Tests;

/// Changes when a field is removed or changes its meaning.
pub const SCHEMA: u32 = 1;

/// Maximum number of stored reports.
const MAX_REPORTS: usize = 20;

/// What the tests of a run committed into its shared clone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PollutionReport {
    /// Version of this format; other versions are ignored.
    pub schema: u32,
    /// The run.
    pub run: RunId,
    /// Its namespace.
    pub namespace: Namespace,
    /// The shared clone, which has been dropped.
    pub database: DbName,
    /// Its template.
    pub template: DbName,
    /// Time of the comparison, in seconds since 1970.
    pub found_at: u64,
    /// Whether it makes `wait` and `run` fail.
    pub is_failure: bool,
    /// How the clone differs from its template, or why that is unknown.
    pub difference: Comparison,
    /// Tests that may have caused it.
    pub tests: Tests,
}

impl PollutionReport {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        let unreadable = match self.difference.not_compared.is_empty() {
            true => String::new(),
            false => format!("{READ_REMEDY}\n"),
        };
        format!(
            "{unreadable}give such a test a clone of its own (`isolation = \"database\"`) or a sandbox (`isolation = \"transaction\"`);\n\
             if it adds rows only under keys of its own (`test_id()`), declare that: `own_keys = true` for the test,\n\
             `shared.own_keys = true` for all tests"
        )
    }

    /// Writes the report, and removes the oldest ones.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, runtime: &Runtime) -> Result<(), RunDirError> {
        // All values can be represented in JSON.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        runtime.write_pollution_report(&self.run, &self.database, &text, MAX_REPORTS)
    }

    /// The reports of a namespace, or of one of its runs, that have not been printed yet; oldest first.
    pub fn pending(
        runtime: &Runtime,
        namespace: &Namespace,
        run: Option<&RunId>,
    ) -> Vec<PendingReport> {
        let read = |path: PathBuf| {
            let report: Self = serde_json::from_str(&fs::read_to_string(&path).ok()?).ok()?;
            Some(PendingReport { path, report })
        };
        let reports = runtime.pending_pollution_reports().into_iter();
        reports
            .filter_map(read)
            .filter(|pending| {
                let report = &pending.report;
                report.namespace == *namespace && run.is_none_or(|run| report.run == *run)
            })
            .collect()
    }
}

/// A report that has not been printed yet.
#[derive(Debug)]
pub struct PendingReport {
    path: PathBuf,
    report: PollutionReport,
}

impl PendingReport {
    /// Takes the report in order to print it, and returns its new path. `None`: another process took it first.
    pub fn take(self) -> Option<(PollutionReport, PathBuf)> {
        let printed = Runtime::mark_report_printed(&self.path)?;
        Some((self.report, printed))
    }
}

impl Display for PollutionReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (run, tests) = (&self.run, &self.tests);
        if self.difference.has_differences() {
            writeln!(f, "tests of run {run} modified the shared clone:")?;
        } else {
            writeln!(
                f,
                "tests of run {run} may have modified the shared clone; it could not be compared with its template:"
            )?;
        }
        for line in self.difference.to_string().lines() {
            writeln!(f, "  {line}")?;
        }
        if tests.shared.is_empty() && tests.transaction.is_empty() {
            writeln!(f, "no test recorded that it used the clone")?;
        }
        let when = if tests.by_commit_time {
            "used it at the time of the commits"
        } else {
            "used it"
        };
        if !tests.shared.is_empty() {
            writeln!(f, "tests that {when}:")?;
        }
        for test in &tests.shared {
            writeln!(f, "  {test}")?;
        }
        if !tests.transaction.is_empty() {
            writeln!(
                f,
                "tests that {when}, in a transaction (only a COMMIT in SQL can end it):"
            )?;
        }
        for test in &tests.transaction {
            writeln!(f, "  {test}")?;
        }
        if tests.unlisted > 0 {
            writeln!(f, "  and {} more", tests.unlisted)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kapsel_testdb_core::protocol::{Fingerprint, Kind, RunKey};
    use std::time::UNIX_EPOCH;

    #[test]
    fn each_report_is_printed_once_and_the_number_is_limited() {
        let base = tempfile::tempdir().expect("a temp dir");
        let runtime = Runtime::open_at(&base.path().join("rt")).expect("a runtime directory");
        let namespace = Namespace::new("app").expect("valid");
        let fingerprint = Fingerprint::from_hash(&[1; 32]);
        let run = RunId::new(UNIX_EPOCH, &RunKey::new(&["x"]));
        let report = PollutionReport {
            schema: SCHEMA,
            run: run.clone(),
            namespace: namespace.clone(),
            database: DbName::for_run(&namespace, Kind::Shared, &fingerprint, &run),
            template: DbName::template(&namespace, &fingerprint),
            found_at: 0,
            is_failure: false,
            difference: Comparison::default(),
            tests: Tests::default(),
        };
        report.write(&runtime).expect("written");
        let other = Namespace::new("other").expect("valid");
        assert!(PollutionReport::pending(&runtime, &other, None).is_empty());
        let mut one = PollutionReport::pending(&runtime, &namespace, Some(&run));
        let mut twice = PollutionReport::pending(&runtime, &namespace, None);
        let (report_taken, path) = one.remove(0).take().expect("the first");
        assert_eq!((report_taken, path.exists()), (report.clone(), true));
        assert!(twice.remove(0).take().is_none(), "the second");
        for _ in 0..30 {
            let database = DbName::for_run(&namespace, Kind::Shared, &fingerprint, &run);
            let report = PollutionReport {
                database,
                ..report.clone()
            };
            report.write(&runtime).expect("written");
        }
        let reports = fs::read_dir(base.path().join("rt/pollution")).expect("a directory");
        assert_eq!(reports.count(), MAX_REPORTS);
    }
}
