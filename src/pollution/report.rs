//! What was found, in a file that outlives the run: `pollution/<run>-<serial>.json` in the runtime folder. It is told once, by who
//! renames it first, and stays for a look until newer ones take its place. A crash while writing leaves a `.tmp` file, which goes the
//! same way.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Tests;
use crate::compare::Comparison;
use crate::name::{DbName, Namespace, RunId};
use crate::run_dir::{RunDirError, Runtime, private_dir, write_atomically};

/// Changes when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// How many reports stay.
const REPORTS: usize = 20;
const TOLD: &str = "told";

/// What a run committed into its shared clone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this form: another one is not read.
    pub schema: u32,
    /// The run.
    pub run: RunId,
    /// Its namespace.
    pub namespace: Namespace,
    /// The shared clone, which is gone.
    pub database: DbName,
    /// What it was made from.
    pub template: DbName,
    /// When it was found, in seconds since 1970.
    pub found_at: u64,
    /// Whether `wait` and `run` fail for it.
    pub fails: bool,
    /// What differs from the template.
    pub difference: Comparison,
    /// Who could have done it.
    pub tests: Tests,
}

impl Report {
    /// Writes it down, and removes the oldest ones.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn write(&self, runtime: &Runtime) -> Result<(), RunDirError> {
        let folder = folder(runtime);
        private_dir(&folder)?;
        prune(&folder, REPORTS - 1);
        let database = self.database.to_string();
        let serial = database.rsplit('_').next().unwrap_or_default();
        let path = folder.join(format!("{}-{serial}.json", self.run));
        // No value in it that JSON cannot hold.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        write_atomically(&path, &text)
    }

    /// The reports of a namespace, or of one of its runs, that nobody has told yet; the oldest first.
    pub fn untold(runtime: &Runtime, namespace: &Namespace, run: Option<&RunId>) -> Vec<Untold> {
        let read = |path: PathBuf| {
            let report: Self = serde_json::from_str(&fs::read_to_string(&path).ok()?).ok()?;
            Some(Untold { path, report })
        };
        let files = files(&folder(runtime)).into_iter();
        let files = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
        files
            .filter_map(read)
            .filter(|untold| {
                let report = &untold.report;
                report.namespace == *namespace && run.is_none_or(|run| report.run == *run)
            })
            .collect()
    }
}

/// A report that nobody has told yet.
#[derive(Debug)]
pub struct Untold {
    path: PathBuf,
    report: Report,
}

impl Untold {
    /// Takes it, to tell it, and says where it stays. `None`: somebody else was quicker.
    pub fn take(self) -> Option<(Report, PathBuf)> {
        let told = self.path.with_extension(TOLD);
        fs::rename(&self.path, &told).ok()?;
        Some((self.report, told))
    }
}

fn folder(runtime: &Runtime) -> PathBuf {
    runtime.path().join("pollution")
}

/// Sorted, which is by age: a run's id begins with its time.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn prune(folder: &Path, keep: usize) {
    for file in files(folder).iter().rev().skip(keep) {
        let _ = fs::remove_file(file);
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (run, tests) = (&self.run, &self.tests);
        writeln!(
            f,
            "run {run} left its shared clone other than the template:"
        )?;
        for line in self.difference.to_string().lines() {
            writeln!(f, "  {line}")?;
        }
        if tests.shared.is_empty() && tests.begin.is_empty() {
            writeln!(f, "no test has said that it used it")?;
        }
        let when = if tests.narrowed {
            "used it when that was committed"
        } else {
            "used it"
        };
        if !tests.shared.is_empty() {
            writeln!(f, "tests that {when}:")?;
        }
        for test in &tests.shared {
            writeln!(f, "  {test}")?;
        }
        if !tests.begin.is_empty() {
            writeln!(
                f,
                "tests that {when}, in a transaction (only a COMMIT in SQL ends that):"
            )?;
        }
        for test in &tests.begin {
            writeln!(f, "  {test}")?;
        }
        if tests.more > 0 {
            writeln!(f, "  and {} more", tests.more)?;
        }
        write!(
            f,
            "give such a test a clone of its own, or a transaction (`TestDb::begin`); where tests commit on purpose, under keys of their \
             own, set `shared.pollution` to \"off\""
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{Fingerprint, Kind, RunKey};
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_report_is_told_once_and_few_stay() {
        let base = tempfile::tempdir().expect("a temp dir");
        let runtime = Runtime::open_at(&base.path().join("rt")).expect("a runtime folder");
        let namespace = Namespace::new("app").expect("valid");
        let fingerprint = Fingerprint::from_hash(&[1; 32]);
        let run = RunId::new(UNIX_EPOCH, &RunKey::new(&["x"]));
        let report = Report {
            schema: SCHEMA,
            run: run.clone(),
            namespace: namespace.clone(),
            database: DbName::for_run(&namespace, Kind::Shared, &fingerprint, &run),
            template: DbName::template(&namespace, &fingerprint),
            found_at: 0,
            fails: false,
            difference: Comparison::default(),
            tests: Tests::default(),
        };
        report.write(&runtime).expect("written");
        let other = Namespace::new("other").expect("valid");
        assert!(Report::untold(&runtime, &other, None).is_empty());
        let mut one = Report::untold(&runtime, &namespace, Some(&run));
        let mut twice = Report::untold(&runtime, &namespace, None);
        let (told, path) = one.remove(0).take().expect("the first");
        assert_eq!((told, path.exists()), (report.clone(), true));
        assert!(twice.remove(0).take().is_none(), "the second");
        for _ in 0..30 {
            let database = DbName::for_run(&namespace, Kind::Shared, &fingerprint, &run);
            let report = Report {
                database,
                ..report.clone()
            };
            report.write(&runtime).expect("written");
        }
        assert_eq!(files(&folder(&runtime)).len(), REPORTS);
    }
}
