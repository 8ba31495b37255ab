//! Creates the cluster: copies it from the cache if possible, else runs `initdb`. It is created as `data.new` and renamed last.

use std::fs;
use std::path::PathBuf;

use crate::platform;
use crate::server::local::cache::CacheEntry;
use crate::server::local::error::PathContext;
use crate::server::local::{Local, LocalError, SUPERUSER, last_lines};

/// Both sort by code point. The first also handles upper and lower case beyond ASCII, but some machines lack it (macOS before 14,
/// old distributions). The second exists everywhere.
const LOCALES: [&str; 2] = ["C.UTF-8", "C"];

/// How a cluster came into being.
#[derive(Debug)]
pub(super) enum ClusterOrigin {
    /// It existed before.
    Existing,
    /// It was copied from the cache.
    Copied(CacheEntry),
    /// `initdb` created it.
    Created,
}

impl Local {
    /// Creates the cluster with the best available locale.
    pub(super) fn create_cluster(&self, cached: bool) -> Result<ClusterOrigin, LocalError> {
        let [best, fallback] = LOCALES;
        if let Some(origin) = self.create_with(best, cached)? {
            return Ok(origin);
        }
        tracing::warn!(
            "this machine has no locale `{best}`: the managed server uses `{fallback}`, in which upper() and lower() handle ASCII only; \
             to change that, install the locale and remove `{}`",
            self.data().display()
        );
        self.create_with(fallback, cached)?
            .ok_or_else(|| LocalError::InitDb {
                status: "none of the locales exists".to_owned(),
                output: LOCALES.join(", "),
            })
    }

    /// `None`: this machine lacks the locale.
    fn create_with(&self, locale: &str, cached: bool) -> Result<Option<ClusterOrigin>, LocalError> {
        let new = self.new_data_dir();
        if new.exists() {
            fs::remove_dir_all(&new).at("remove", &new)?;
        }
        let entry = cached.then(|| self.cache_entry(locale)).flatten();
        let copied = entry.as_ref().is_some_and(|entry| entry.copy_to(&new));
        if copied {
            // The owner of the directory changes last: until now no other user could enter it.
            self.owner
                .take_ownership(&new)
                .at("change the owner of", &new)?;
        } else if !self.initdb(locale)? {
            return Ok(None);
        } else if let Some(entry) = &entry {
            entry.store(&new);
        }
        fs::rename(&new, self.data()).at("rename", &new)?;
        Ok(Some(match entry {
            Some(entry) if copied => ClusterOrigin::Copied(entry),
            _ => ClusterOrigin::Created,
        }))
    }

    fn new_data_dir(&self) -> PathBuf {
        self.dir().join("data.new")
    }

    /// The cache entry for the cluster that `initdb` creates. The version includes the minor version and the distribution's. `initdb` lists the locales of
    /// the machine as collations, with their versions.
    fn cache_entry(&self, locale: &str) -> Option<CacheEntry> {
        let version = self.binaries.version()?;
        let program = self.binaries.program("initdb");
        let initdb_options = initdb_options(locale).join(" ");
        CacheEntry::of(
            &[
                &version,
                &program.to_string_lossy(),
                &initdb_options,
                &platform::locales(),
            ],
            self.owner,
        )
    }

    /// `false`: this machine lacks the locale.
    fn initdb(&self, locale: &str) -> Result<bool, LocalError> {
        let new = self.new_data_dir();
        self.create_server_dir(&new)?;
        let output = self
            .command("initdb")
            .args(initdb_options(locale))
            .arg("--pgdata")
            .arg(&new)
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
            // This happens under `docker run --user`.
            output_end.push_str("; PostgreSQL needs a user with a name: add one to /etc/passwd");
        }
        Err(LocalError::InitDb {
            status: output.status.to_string(),
            output: output_end,
        })
    }

    /// Renames a data directory that lacks files to `data.damaged`, because programs that clean up the temp directory remove old files one by one. No
    /// server runs on it. The last one that was set aside is removed.
    pub(super) fn set_damaged_cluster_aside(&self) -> Result<(), LocalError> {
        let (data, aside) = (self.data(), self.dir().join("data.damaged"));
        let is_empty = fs::read_dir(&data).map_or(true, |mut entries| entries.next().is_none());
        if is_empty {
            return Ok(());
        }
        if aside.exists() {
            fs::remove_dir_all(&aside).at("remove", &aside)?;
        }
        fs::rename(&data, &aside).at("rename", &data)?;
        tracing::warn!(
            "creating a new cluster: files are missing in `{}`, perhaps because a program removes old files there; it is now `{}` until it is \
             removed; to avoid this, set `server.state_dir` to a directory that nothing cleans up",
            data.display(),
            aside.display()
        );
        Ok(())
    }

    /// Removes the data directory. The server must not run.
    pub(super) fn remove_cluster(&self) -> Result<(), LocalError> {
        let data = self.data();
        fs::remove_dir_all(&data).at("remove", &data)
    }
}

fn initdb_options(locale: &str) -> Vec<String> {
    let locale = format!("--locale={locale}");
    let words = ["--auth=trust", "--encoding=UTF8", &locale, "--no-sync"];
    // Small WAL segments, because the first, empty segment is most of the size of a cluster.
    let words = words.into_iter().chain(["--wal-segsize=1"]);
    let words = words.chain(["--username", SUPERUSER]);
    words.map(str::to_owned).collect()
}
