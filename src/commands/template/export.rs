//! `kapsel-testdb template export`: writes the current templates into archives. If one has seeds, also the template without them, which the next migration
//! needs.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::connect::RetryLimits;
use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::protocol::DbName;
use kapsel_testdb_core::server::Server;
use kapsel_testdb_core::template::{TemplateError, TemplateInfo};

use crate::archive::{ArchiveError, ArchiveHeader, ArchiveWriter};
use crate::commands::libpq;
use crate::commands::template::current;
use crate::compare::Reference;
use crate::failure::Result;
use crate::printer::Printer;

const BASE: &str = "template0";
/// How long pg_dump may take.
const LIMIT: Duration = Duration::from_secs(60 * 60);
/// A word that pg_dump writes instead of a random one, so that equal templates have equal archives.
const RESTRICT_KEY: &str = "kapseltestdb";
/// Size of the parts in which the dump is read, in bytes.
const PART: usize = 64 << 10;

pub async fn run(config: &Config, directory: &Path, printer: &Printer) -> Result<ExitCode> {
    let mut templates = config.templates();
    if let Some(template) = templates.find(|template| template.base != BASE) {
        return Err(ArchiveError::Base(template.base.clone()).into());
    }
    let (server, mut admin, plans) = current(config).await?;
    let program = libpq::dump_program(config, &server)?;
    let rows = admin.databases(&config.namespace).await?;
    admin.close().await;
    let info = |name: &DbName| {
        let is_it = |row: &&DatabaseRow| row.name == *name;
        TemplateInfo::of(rows.iter().find(is_it)?).ok()
    };
    let mut templates = Vec::new();
    for plan in plans {
        let schema = DbName::template(&config.namespace, &plan.chain.migrated().fingerprint());
        let Some(whole) = info(&plan.name) else {
            return Err(TemplateError::NotBuilt(plan.name).into());
        };
        if schema != plan.name {
            templates.extend(info(&schema).map(|info| (schema, info)));
        }
        templates.insert(0, (plan.name, whole));
    }
    for (name, info) in templates {
        let path = export(&server, &program, &name, info, directory).await?;
        printer.data(&format!("{}\n", path.display()));
        printer.detail(&format!("exported {name}"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn export(
    server: &Server,
    program: &Path,
    template: &DbName,
    info: TemplateInfo,
    directory: &Path,
) -> Result<PathBuf> {
    let header = ArchiveHeader {
        fingerprint: info.fingerprint,
        inputs: info.inputs,
        settings: info.settings,
        session: info.session,
    };
    let mut writer = ArchiveWriter::begin(directory, &header)?;
    let (address, database) = (&server.admin_address, &server.maintenance_database);
    let admin = Admin::connect(address, database, "export", RetryLimits::RUNNING).await?;
    let clone = Reference::create(server, admin, template).await?;
    let dumped = dump(server, program, clone.database(), &mut writer).await;
    let removed = clone.remove().await;
    dumped?;
    removed?;
    Ok(writer.finish(template.fingerprint().as_str())?)
}

/// Runs pg_dump. It is killed when this future is dropped.
async fn dump(
    server: &Server,
    program: &Path,
    database: &DbName,
    writer: &mut ArchiveWriter,
) -> Result<()> {
    let mut arguments = vec![
        "--format=plain".to_owned(),
        "--no-password".to_owned(),
        "--lock-wait-timeout=60000".to_owned(),
    ];
    if knows_restrict_key(program).await {
        arguments.push(format!("--restrict-key={RESTRICT_KEY}"));
    }
    let name = database.to_string();
    let (command, _passfile) = libpq::client(program, &server.admin_address, &name, &arguments)?;
    let mut command = Command::from(command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| libpq::not_started(program, error))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (copied, messages) = tokio::join!(copy(stdout, writer), read_all(stderr));
        copied?;
        let status = child.wait().await.context("failed to wait for pg_dump")?;
        match status.success() {
            true => Ok(()),
            false => Err(ArchiveError::Dump(messages.lines().map(str::to_owned).collect()).into()),
        }
    };
    match tokio::time::timeout(LIMIT, work).await {
        Ok(done) => done,
        Err(_) => Err(anyhow!("pg_dump did not end within {} s", LIMIT.as_secs()).into()),
    }
}

async fn copy(from: Option<impl AsyncRead + Unpin>, writer: &mut ArchiveWriter) -> Result<()> {
    let mut part = vec![0; PART];
    if let Some(mut from) = from {
        loop {
            match from
                .read(&mut part)
                .await
                .context("failed to read from pg_dump")?
            {
                0 => break,
                n => writer.write(&part[..n])?,
            }
        }
    }
    Ok(())
}

async fn read_all(from: Option<impl AsyncRead + Unpin>) -> String {
    let mut text = Vec::new();
    if let Some(mut from) = from {
        // What could be read is enough for a message.
        let _ = from.read_to_end(&mut text).await;
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Whether this pg_dump can be told the word of `\restrict`, which is random otherwise.
async fn knows_restrict_key(program: &Path) -> bool {
    let help = Command::new(program).arg("--help").output().await;
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--restrict-key"))
}
