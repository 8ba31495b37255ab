//! `kapsel-testdb server status`: what there is to know of the server itself; it starts nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::Subject;
use crate::cli::output::Printer;
use crate::config::Config;
use crate::pg::Address;
use crate::server::local::Local;
use crate::server::{Server, ServerKind};

/// What `--json` prints. `schema` changes when a field changes its meaning or goes.
#[derive(Debug, Default, Serialize)]
struct Status {
    schema: u32,
    managed: bool,
    running: bool,
    address: String,
    pid: Option<u32>,
    /// Of the server that runs.
    version: Option<String>,
    /// Of the binaries that the next start takes: `postgres --version`.
    binaries: Option<String>,
    /// Seconds since its start.
    uptime_secs: Option<u64>,
    /// Encoding and locale of the database that templates are made from.
    locale: Option<String>,
    data_directory: Option<PathBuf>,
    /// Of the data directory, in bytes.
    size: Option<u64>,
    socket: Option<PathBuf>,
    log: Option<PathBuf>,
}

pub async fn run(
    config: &Config,
    subject: Subject<'_>,
    json: bool,
    printer: &Printer,
) -> Result<ExitCode> {
    let status = match &subject {
        Subject::Adopted(address) => of_others(config, address).await?,
        Subject::Service(running) => match running.as_ref() {
            Some(running) => of_others(config, &running.address).await?,
            None => Status {
                schema: 1,
                ..Status::default()
            },
        },
        Subject::Local(local) => managed(config, local).await?,
    };
    if json {
        printer.data(&format!("{:#}\n", serde_json::to_value(&status)?));
        return Ok(ExitCode::SUCCESS);
    }
    let kind = ServerKind::of(&config.server);
    if !status.running {
        printer.line(kind.not_running());
    }
    printer.data(&text(&status, kind));
    if status.is_older_than_binaries() {
        printer.line("it is older than the binaries that are installed now; `kapsel-testdb server restart` takes them");
    }
    Ok(ExitCode::SUCCESS)
}

/// A server whose processes and files are not ours to see.
async fn of_others(config: &Config, address: &Address) -> Result<Status> {
    let (server, mut admin) = Server::locate(config, "status").await?;
    let uptime = admin.uptime().await?;
    let data = admin.data_directory().await.ok().map(PathBuf::from);
    admin.close().await;
    Ok(Status {
        schema: 1,
        running: true,
        address: address.to_string(),
        version: Some(server.facts.version()),
        uptime_secs: Some(uptime.as_secs()),
        locale: Some(locale(&server)),
        data_directory: data,
        ..Status::default()
    })
}

async fn managed(config: &Config, local: &Local) -> Result<Status> {
    let data = Some(local.data()).filter(|path| path.exists());
    let status = Status {
        schema: 1,
        managed: true,
        address: local.address().to_string(),
        binaries: local.binaries().version(),
        size: data.as_deref().map(size),
        data_directory: data,
        log: Some(local.log()).filter(|path| path.exists()),
        ..Status::default()
    };
    let Some((server, admin)) = Server::find(config, "status").await? else {
        return Ok(status);
    };
    admin.close().await;
    let postmaster = local.postmaster();
    Ok(Status {
        running: true,
        pid: postmaster.map(|p| p.pid),
        uptime_secs: postmaster.map(|p| p.uptime().as_secs()),
        version: Some(server.facts.version()),
        locale: Some(locale(&server)),
        socket: Some(local.socket()),
        ..status
    })
}

impl Status {
    /// Whether another minor version would start now.
    fn is_older_than_binaries(&self) -> bool {
        match (&self.version, &self.binaries) {
            (Some(running), Some(binaries)) => {
                !binaries.split_whitespace().any(|word| word == running)
            }
            _ => false,
        }
    }
}

fn text(status: &Status, kind: ServerKind) -> String {
    let path = |path: &Path| path.display().to_string();
    let kind = kind.as_str();
    let version = status.version.as_ref().map(|v| format!(" {v}"));
    let data = status.data_directory.as_deref().map(|data| {
        let size = status.size.map(|bytes| format!(" ({} MB)", bytes >> 20));
        path(data) + &size.unwrap_or_default()
    });
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
        (
            "uptime",
            status.uptime_secs.map(|s| long(Duration::from_secs(s))),
        ),
        ("locale", status.locale.clone()),
        ("data", data),
        ("socket", status.socket.as_deref().map(path)),
        ("log", status.log.as_deref().map(path)),
        ("binaries", status.binaries.clone()),
    ];
    let present = rows
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    present
        .map(|(name, value)| format!("{name:10} {value}\n"))
        .collect()
}

fn long(time: Duration) -> String {
    match time.as_secs() {
        s if s < 120 => format!("{s} s"),
        s if s < 7200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// `UTF8/C.UTF-8`, without what follows.
fn locale(server: &Server) -> String {
    let parts: Vec<&str> = server.facts.base_locale.split('/').take(2).collect();
    parts.join("/")
}

/// What the files below a folder take; what goes meanwhile counts nothing.
fn size(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
