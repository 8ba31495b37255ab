//! Files in the runtime directory that outlive a run: keeper logs, pollution reports, leaks, notices, the cache of compose services, and the times of what
//! is done once a day.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{IoContext, append_line};
use crate::protocol::{
    DbName, DeadRunDir, Leak, Namespace, RunDirError, RunId, Runtime, private_dir, random_word,
    write_atomically,
};

pub(super) const LOGS: &str = "logs";
const POLLUTION: &str = "pollution";
const LEAKS: &str = "leaks";
const COMPOSE: &str = "compose";

/// Maximum number of files with leaks. On the slow path each process writes one.
const MAX_LEAK_FILES: usize = 200;

/// Extensions of a report before and after it was printed.
const PENDING: &str = "json";
const PRINTED: &str = "told";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is done at most once a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daily {
    /// A warning about the server is printed.
    Warning,
    /// What other projects left on a server is collected.
    Collection,
}

impl Runtime {
    /// The log of a run's keeper. It is outside the run directory, so that it can be read after the run's end.
    pub fn keeper_log(&self, run: &RunId) -> PathBuf {
        self.path().join(LOGS).join(format!("{run}.log"))
    }

    /// Removes the oldest keeper logs.
    pub fn prune_logs(&self, keep: usize) {
        prune(&self.path().join(LOGS), keep);
    }

    /// Writes the pollution report of a shared clone, and keeps the newest `keep` reports.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_pollution_report(
        &self,
        run: &RunId,
        database: &DbName,
        text: &str,
        keep: usize,
    ) -> Result<(), RunDirError> {
        let dir = self.path().join(POLLUTION);
        private_dir(&dir)?;
        prune(&dir, keep.saturating_sub(1));
        let database = database.to_string();
        let serial = database.rsplit('_').next().unwrap_or_default();
        write_atomically(&dir.join(format!("{run}-{serial}.{PENDING}")), text)
    }

    /// The pollution reports that have not been printed yet, oldest first.
    pub fn pending_pollution_reports(&self) -> Vec<PathBuf> {
        let mut files = files_by_age(&self.path().join(POLLUTION));
        files.retain(|path| path.extension().is_some_and(|e| e == PENDING));
        files
    }

    /// Moves the leaks of a run out of its directory, so that a later command reports them. Call it before the directory is removed.
    ///
    /// # Errors
    /// The file cannot be moved.
    pub fn preserve_leaks(&self, run: &RunId, dead: &DeadRunDir) -> Result<(), RunDirError> {
        let file = Leak::file_of(dead.path());
        if !file.exists() {
            return Ok(());
        }
        let dir = self.path().join(LEAKS);
        private_dir(&dir)?;
        prune(&dir, MAX_LEAK_FILES - 1);
        let kept = dir.join(format!("{run}-{}.{PENDING}", random_word()));
        fs::rename(&file, &kept).at("move", &file)
    }

    /// The files of leaks that have not been printed yet, oldest first.
    pub fn pending_leaks(&self) -> Vec<PathBuf> {
        let mut files = files_by_age(&self.path().join(LEAKS));
        files.retain(|path| path.extension().is_some_and(|e| e == PENDING));
        files
    }

    /// Marks a report as printed, and returns its new path. `None`: another process did so first.
    pub fn mark_report_printed(report: &Path) -> Option<PathBuf> {
        let printed = report.with_extension(PRINTED);
        fs::rename(report, &printed).ok()?;
        Some(printed)
    }

    /// The cache file of a compose service, and its lock. Creates their directory.
    ///
    /// # Errors
    /// The directory cannot be created or is not private.
    pub fn compose_cache(&self, key: &str) -> Result<(PathBuf, PathBuf), RunDirError> {
        let dir = self.path().join(COMPOSE);
        private_dir(&dir)?;
        let file = |extension: &str| dir.join(format!("{key}.{extension}"));
        Ok((file("json"), file("lock")))
    }

    /// Whether this text was noted for the purpose within the last day.
    pub fn is_noted(&self, purpose: Daily, namespace: &Namespace, text: &str) -> bool {
        let path = self.daily(purpose, namespace);
        let age = path.metadata().and_then(|metadata| metadata.modified());
        age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < DAY))
            && fs::read_to_string(&path).is_ok_and(|noted| noted == text)
    }

    /// Notes a text for a purpose; it replaces the last one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note(
        &self,
        purpose: Daily,
        namespace: &Namespace,
        text: &str,
    ) -> Result<(), RunDirError> {
        write_atomically(&self.daily(purpose, namespace), text)
    }

    fn daily(&self, purpose: Daily, namespace: &Namespace) -> PathBuf {
        let prefix = match purpose {
            Daily::Warning => "warned",
            Daily::Collection => "collected",
        };
        self.path().join(format!("{prefix}-{namespace}"))
    }

    /// Leaves a line that the next command of the namespace prints.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add_notice(&self, namespace: &Namespace, line: &str) -> Result<(), RunDirError> {
        let path = self.notices(namespace);
        append_line(&path, &line).at("write", &path)
    }

    /// The lines that were left for the next command of the namespace. Another call finds none of them.
    pub fn take_notices(&self, namespace: &Namespace) -> Vec<String> {
        let taken = self.path().join(format!("notices.{}.tmp", random_word()));
        if fs::rename(self.notices(namespace), &taken).is_err() {
            return Vec::new();
        }
        let text = fs::read_to_string(&taken).unwrap_or_default();
        let _ = fs::remove_file(&taken);
        let lines = text.lines();
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    fn notices(&self, namespace: &Namespace) -> PathBuf {
        self.path().join(format!("notices-{namespace}"))
    }

    /// A private passfile that is unlinked already: no other process can find it, and it needs no removal.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn unlinked_passfile(&self, lines: &str) -> Result<File, RunDirError> {
        let path = self.path().join(format!("pgpass.{}.tmp", random_word()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let mut file = options.open(&path).at("write", &path)?;
        fs::remove_file(&path).at("remove", &path)?;
        file.write_all(lines.as_bytes()).at("write", &path)?;
        file.seek(SeekFrom::Start(0)).at("write", &path)?;
        Ok(file)
    }
}

/// The names begin with run ids, which sort by age.
fn files_by_age(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn prune(dir: &Path, keep: usize) {
    for file in files_by_age(dir).iter().rev().skip(keep) {
        let _ = fs::remove_file(file);
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::protocol::{Fingerprint, Kind, RunKey};

    #[test]
    fn each_pollution_report_is_printed_once_and_the_number_is_limited() {
        let base = tempfile::tempdir().expect("a temp dir");
        let runtime = Runtime::open_at(&base.path().join("rt")).expect("a runtime directory");
        let namespace = Namespace::new("app").expect("valid");
        let fingerprint = Fingerprint::from_hash(&[1; 32]);
        let run = RunId::new(UNIX_EPOCH, &RunKey::new(&["x"]));
        let write = || {
            let database = DbName::for_run(&namespace, Kind::Shared, &fingerprint, &run);
            let written = runtime.write_pollution_report(&run, &database, "{}", 5);
            written.expect("written");
        };
        write();
        let pending = runtime.pending_pollution_reports();
        let printed = Runtime::mark_report_printed(&pending[0]).expect("the first");
        assert!(printed.exists());
        assert!(
            Runtime::mark_report_printed(&pending[0]).is_none(),
            "the second"
        );
        assert!(runtime.pending_pollution_reports().is_empty());
        for _ in 0..9 {
            write();
        }
        assert_eq!(
            files_by_age(&base.path().join("rt").join(POLLUTION)).len(),
            5
        );
    }

    #[test]
    fn a_notice_is_read_once_by_its_namespace() {
        let base = tempfile::tempdir().expect("a temp dir");
        let runtime = Runtime::open_at(&base.path().join("rt")).expect("a runtime directory");
        let [app, other] = ["app", "other"].map(|name| Namespace::new(name).expect("valid"));
        for line in ["one", "two\nlines"] {
            runtime.add_notice(&app, line).expect("written");
        }
        assert!(runtime.take_notices(&other).is_empty());
        assert_eq!(runtime.take_notices(&app), ["one", "two\nlines"]);
        assert!(runtime.take_notices(&app).is_empty());
    }

    #[test]
    fn a_note_counts_for_its_purpose_and_its_text() {
        let base = tempfile::tempdir().expect("a temp dir");
        let runtime = Runtime::open_at(&base.path().join("rt")).expect("a runtime directory");
        let app = Namespace::new("app").expect("valid");
        runtime.note(Daily::Warning, &app, "slow").expect("written");
        assert!(runtime.is_noted(Daily::Warning, &app, "slow"));
        assert!(!runtime.is_noted(Daily::Warning, &app, "slower"));
        assert!(!runtime.is_noted(Daily::Collection, &app, "slow"));
    }

    #[test]
    fn an_unlinked_passfile_has_its_text_and_no_name() {
        use std::io::Read;
        let base = tempfile::tempdir().expect("a temp dir");
        let runtime = Runtime::open_at(&base.path().join("rt")).expect("a runtime directory");
        let before = fs::read_dir(runtime.path()).expect("a directory").count();
        let mut text = String::new();
        let mut file = runtime.unlinked_passfile("secret").expect("a file");
        file.read_to_string(&mut text).expect("its text");
        assert_eq!(text, "secret");
        assert_eq!(
            fs::read_dir(runtime.path()).expect("a directory").count(),
            before
        );
    }
}
