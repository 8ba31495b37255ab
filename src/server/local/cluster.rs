//! Makes the cluster: copied from the cache where there is one, else by `initdb`. It is made as `data.new` and renamed last.

use std::fs;
use std::path::PathBuf;

use super::cache::Entry;
use super::error::At;
use super::{Local, LocalError, SUPERUSER, last_lines};

/// Both sort by code point. The first one also knows upper and lower case beyond ASCII, but some machines do not have it (macOS
/// before 14, old distributions); the second one is everywhere.
const LOCALES: [&str; 2] = ["C.UTF-8", "C"];

/// Where a cluster came from.
#[derive(Debug)]
pub(super) enum Made {
    /// It was there.
    Before,
    /// A copy of a cached one.
    Copied(Entry),
    /// `initdb` made it.
    New,
}

impl Local {
    /// Makes the cluster, with the best locale that there is.
    pub(super) fn make_cluster(&self, cached: bool) -> Result<Made, LocalError> {
        let [best, rest] = LOCALES;
        if let Some(made) = self.make_with(best, cached)? {
            return Ok(made);
        }
        tracing::warn!(
            "this machine has no locale `{best}`: the managed server has `{rest}`, where upper() and lower() know ASCII only; \
             install it and remove `{}` to change that",
            self.data().display()
        );
        self.make_with(rest, cached)?
            .ok_or_else(|| LocalError::InitDb {
                status: "it knows no locale".to_owned(),
                output: LOCALES.join(", "),
            })
    }

    /// `None`: there is no such locale.
    fn make_with(&self, locale: &str, cached: bool) -> Result<Option<Made>, LocalError> {
        let fresh = self.fresh();
        if fresh.exists() {
            fs::remove_dir_all(&fresh).at("remove", &fresh)?;
        }
        let entry = cached.then(|| self.entry(locale)).flatten();
        let copied = entry.as_ref().is_some_and(|entry| entry.copy_to(&fresh));
        if copied {
            // The last of it to change hands: until now nobody else could be in it.
            self.owner.own(&fresh).at("change the owner of", &fresh)?;
        } else if !self.initdb(locale)? {
            return Ok(None);
        } else if let Some(entry) = &entry {
            entry.store(&fresh);
        }
        fs::rename(&fresh, self.data()).at("rename", &fresh)?;
        Ok(Some(match entry {
            Some(entry) if copied => Made::Copied(entry),
            _ => Made::New,
        }))
    }

    fn fresh(&self) -> PathBuf {
        self.dir().join("data.new")
    }

    /// The place in the cache for what `initdb` makes here. The version holds the minor one and the distribution's own.
    fn entry(&self, locale: &str) -> Option<Entry> {
        let version = self.binaries.version()?;
        let program = self.binaries.program("initdb");
        let options = options(locale).join(" ");
        Entry::of(
            &[&version, &program.to_string_lossy(), &options],
            self.owner,
        )
    }

    /// `false`: this machine has no such locale.
    fn initdb(&self, locale: &str) -> Result<bool, LocalError> {
        let fresh = self.fresh();
        self.make_servers_dir(&fresh)?;
        let output = self
            .command("initdb")
            .args(options(locale))
            .arg("--pgdata")
            .arg(&fresh)
            .output()
            .at("run", &self.binaries.program("initdb"))?;
        if output.status.success() {
            return Ok(true);
        }
        let text = String::from_utf8_lossy(&output.stderr);
        if text.contains("invalid locale") {
            return Ok(false);
        }
        let mut output_end = last_lines(&text, 5).join(" | ");
        if text.contains("user does not exist") {
            // As under `docker run --user`.
            output_end.push_str("; PostgreSQL needs a user with a name: add one to /etc/passwd");
        }
        Err(LocalError::InitDb {
            status: output.status.to_string(),
            output: output_end,
        })
    }

    /// Removes the cluster of a server that does not run.
    pub(super) fn remove_cluster(&self) -> Result<(), LocalError> {
        let data = self.data();
        fs::remove_dir_all(&data).at("remove", &data)
    }
}

fn options(locale: &str) -> Vec<String> {
    let locale = format!("--locale={locale}");
    let words = ["--auth=trust", "--encoding=UTF8", &locale, "--no-sync"];
    // The first file of the log is most of what a copy would copy, and empty.
    let words = words.into_iter().chain(["--wal-segsize=1"]);
    let words = words.chain(["--username", SUPERUSER]);
    words.map(str::to_owned).collect()
}
