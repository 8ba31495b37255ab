//! `kapsel-testdb server status`: facts about the server itself. Does not start it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::server::local::Local;
use kapsel_testdb_core::server::{Server, ServerKind};

use crate::commands::server::Subject;
use crate::failure::Result;
use crate::printer::Printer;
use crate::screen::{OK, Row, WARNING, rows, span};

/// The output of `--json`. `schema` changes when a field is removed or changes its meaning.
#[derive(Debug, Default, Serialize)]
struct ManagedStatus {
    schema: u32,
    managed: bool,
    running: bool,
    address: String,
    pid: Option<u32>,
    /// The version of the running server.
    version: Option<String>,
    /// The binaries that the next start uses: output of `postgres --version`.
    installed_version: Option<String>,
    /// Seconds since its start.
    uptime_secs: Option<u64>,
    /// Encoding and locale of the base database of templates.
    locale: Option<String>,
    data_directory: Option<PathBuf>,
    /// Size of the data directory.
    size_bytes: Option<u64>,
    socket: Option<PathBuf>,
    log: Option<PathBuf>,
    /// Directories of running managed servers with other settings or versions.
    others: Vec<PathBuf>,
}

pub async fn run(
    config: &Config,
    subject: Subject<'_>,
    json: bool,
    printer: &Printer,
) -> Result<ExitCode> {
    let status = match &subject {
        Subject::Adopted(address) => external_status(config, address).await?,
        Subject::Service(running) => match running.as_ref() {
            Some(running) => external_status(config, &running.address).await?,
            None => ManagedStatus {
                schema: 1,
                ..ManagedStatus::default()
            },
        },
        Subject::Local(local) => managed_status(config, local).await?,
    };
    if json {
        printer.data(&format!("{:#}\n", serde_json::to_value(&status)?));
        return Ok(ExitCode::SUCCESS);
    }
    let kind = ServerKind::of(&config.server);
    if !status.running {
        printer.line(kind.not_running());
    }
    printer.screen(&rows(&text(&status, kind), printer.width()));
    if !status.others.is_empty() {
        printer.line("a managed server with other settings or another version runs as well; `kapsel-testdb server stop --all` stops all of them");
    }
    if status.is_older_than_binaries() {
        printer.line("the running server is older than the installed binaries; `kapsel-testdb server restart` starts the installed version");
    }
    Ok(ExitCode::SUCCESS)
}

/// A server whose processes and files are not ours.
async fn external_status(config: &Config, address: &Address) -> Result<ManagedStatus> {
    let (server, mut admin) = Server::locate(config, "status").await?;
    let uptime = admin.uptime().await?;
    let data = admin.data_directory().await.ok().map(PathBuf::from);
    admin.close().await;
    Ok(ManagedStatus {
        schema: 1,
        running: true,
        address: address.to_string(),
        version: Some(server.facts.version()),
        uptime_secs: Some(uptime.as_secs()),
        locale: Some(locale(&server)),
        data_directory: data,
        ..ManagedStatus::default()
    })
}

async fn managed_status(config: &Config, local: &Local) -> Result<ManagedStatus> {
    let data = Some(local.data()).filter(|path| path.exists());
    let status = ManagedStatus {
        schema: 1,
        managed: true,
        address: local.address().to_string(),
        installed_version: local.binaries().version(),
        size_bytes: data.as_deref().map(directory_size),
        data_directory: data,
        log: Some(local.log()).filter(|path| path.exists()),
        others: local.others_running().iter().map(Local::dir).collect(),
        ..ManagedStatus::default()
    };
    let Some((server, admin)) = Server::find(config, "status").await? else {
        return Ok(status);
    };
    admin.close().await;
    let postmaster = local.postmaster();
    Ok(ManagedStatus {
        running: true,
        pid: postmaster.map(|p| p.pid),
        uptime_secs: postmaster.map(|p| p.uptime().as_secs()),
        version: Some(server.facts.version()),
        locale: Some(locale(&server)),
        socket: Some(local.socket()),
        ..status
    })
}

impl ManagedStatus {
    /// Whether a restart would start another version.
    fn is_older_than_binaries(&self) -> bool {
        match (&self.version, &self.installed_version) {
            (Some(running), Some(binaries)) => {
                !binaries.split_whitespace().any(|word| word == running)
            }
            _ => false,
        }
    }
}

fn text(status: &ManagedStatus, kind: ServerKind) -> Vec<Row> {
    let path = |path: &Path| path.display().to_string();
    let kind = kind.as_str();
    let version = status.version.as_ref().map(|v| format!(" {v}"));
    let server = if status.running { OK } else { WARNING };
    let rows = [
        (
            "server",
            Some(format!(
                "{kind} PostgreSQL{} at {}",
                version.unwrap_or_default(),
                status.address
            )),
        ),
        ("process", status.pid.map(|pid| pid.to_string())),
        ("uptime", status.uptime_secs.map(span)),
        ("locale", status.locale.clone()),
        ("data", status.data_directory.as_deref().map(path)),
        ("socket", status.socket.as_deref().map(path)),
        ("log", status.log.as_deref().map(path)),
        ("binaries", status.installed_version.clone()),
    ];
    let others = status
        .others
        .iter()
        .map(|other| ("other", Some(path(other))));
    let present = rows
        .into_iter()
        .chain(others)
        .filter_map(|(name, value)| Some((name, value?)));
    present
        .map(|(name, value)| match name {
            "server" => Row::new(name, value).styled(server),
            "data" => Row::new(name, value).sized(status.size_bytes),
            _ => Row::new(name, value),
        })
        .collect()
}

/// Encoding and locale, such as `UTF8/C.UTF-8`.
fn locale(server: &Server) -> String {
    let parts: Vec<&str> = server.facts.base_locale.split('/').take(2).collect();
    parts.join("/")
}

/// Disk usage of the files below a directory. Files that disappear meanwhile count as 0.
fn directory_size(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => directory_size(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screen_shows_version_and_places() {
        let path = |text: &str| Some(PathBuf::from(text));
        let status = ManagedStatus {
            schema: 1,
            managed: true,
            running: true,
            address: "postgres@/dev/shm/kapsel-testdb-0/pg18/s:5432".to_owned(),
            pid: Some(4711),
            version: Some("18.1".to_owned()),
            installed_version: Some("postgres (PostgreSQL) 18.1".to_owned()),
            uptime_secs: Some(7_300),
            locale: Some("UTF8/C.UTF-8".to_owned()),
            data_directory: path("/dev/shm/kapsel-testdb-0/pg18/data"),
            size_bytes: Some(40_000_000),
            socket: path("/dev/shm/kapsel-testdb-0/pg18/s/.s.PGSQL.5432"),
            log: path("/dev/shm/kapsel-testdb-0/pg18/log"),
            others: Vec::new(),
        };
        let drawn = rows(&text(&status, ServerKind::Local), 80);
        insta::assert_snapshot!("server_status", anstream::adapter::strip_str(&drawn));
        insta::assert_snapshot!("server_status_coloured", drawn.replace('\u{1b}', "ESC"));
    }
}
