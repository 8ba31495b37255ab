//! `kapsel-testdb template import`: makes a template of an archive, instead of running the migrations.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::connect::RetryLimits;
use kapsel_testdb_core::protocol::{Runtime, TemplateBase};
use kapsel_testdb_core::run::{self, RunError};
use kapsel_testdb_core::server::Server;
use kapsel_testdb_core::template::{self, BuildTarget, TemplateDump, TemplatePlan, explain_change};

use crate::archive::{Archive, ArchiveError, EXTENSION};
use crate::failure::Result;
use crate::printer::Printer;

pub async fn run(config: &Config, from: &Path, printer: &Printer) -> Result<ExitCode> {
    let (server, admin) = Server::locate(config, "import").await?;
    admin.close().await;
    let mut archives = open(from)?;
    let mut imported = false;
    for config in &config.per_template() {
        let plan = TemplatePlan::new(config, &server.facts).await?;
        if let Some(archive) = nearest(&mut archives, &plan) {
            import(config, &server, &plan, archive, printer).await?;
            imported = true;
        }
    }
    match archives.first() {
        _ if imported => {}
        Some(archive) if !from.is_dir() => {
            let plan = TemplatePlan::new(config, &server.facts).await?;
            return Err(foreign(archive, &plan).into());
        }
        _ => printer.line(&ArchiveError::NoneFits(from.to_path_buf()).to_string()),
    }
    super::super::idle::start_watch(config, printer);
    Ok(ExitCode::SUCCESS)
}

async fn import(
    config: &Config,
    server: &Server,
    plan: &TemplatePlan,
    archive: &mut Archive,
    printer: &Printer,
) -> Result<()> {
    let file = archive.path.display().to_string();
    let header = archive.header.clone();
    let Some(part) = plan.chain.part(&header.fingerprint) else {
        return Err(foreign(archive, plan).into());
    };
    let template_base = TemplateBase::of(config)?;
    let target = BuildTarget::new(&config.namespace, &template_base, server);
    let dump = TemplateDump {
        file: &file,
        part,
        settings: &header.settings,
        session: header.session.clone(),
        text: archive.dump(),
    };
    let (address, database) = (&server.admin_address, &server.maintenance_database);
    let mut admin = Admin::connect(address, database, "import", RetryLimits::RUNNING).await?;
    let runtime = Runtime::open()?;
    let (dir, id) = run::open_directory(&runtime, "import")?;
    let restored = template::restore(&mut admin, target, plan, &id, printer, dump).await;
    match restored {
        Ok(template) => {
            admin.close().await;
            run::close(&runtime, dir);
            let verb = match template.existed {
                true => "exists already",
                false => "imported",
            };
            printer.line(&format!("{} {verb}{}", template.name, rest(part.missing)));
            Ok(())
        }
        Err(error) => {
            run::close_if_empty(&runtime, dir, &mut admin, &config.namespace, &id).await;
            Err(RunError::from(error).into())
        }
    }
}

fn rest(missing: usize) -> String {
    match missing {
        0 => String::new(),
        n => format!(
            "; the next run builds the rest on top of it: {}",
            kapsel_testdb_core::plural::count(n, "step")
        ),
    }
}

/// The archive, or all in a directory.
fn open(from: &Path) -> Result<Vec<Archive>> {
    if !from.is_dir() {
        return Ok(vec![Archive::open(from)?]);
    }
    let entries = std::fs::read_dir(from);
    let entries = entries.with_context(|| format!("failed to read `{}`", from.display()))?;
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|e| e == EXTENSION);
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(is_archive);
    paths.sort();
    let archives = paths.iter().map(|path| Archive::open(path));
    Ok(archives.collect::<Result<_, _>>()?)
}

/// The archive with most steps of a template.
fn nearest<'a>(archives: &'a mut [Archive], plan: &TemplatePlan) -> Option<&'a mut Archive> {
    let missing = |archive: &Archive| Some(plan.chain.part(&archive.header.fingerprint)?.missing);
    let fitting = archives
        .iter_mut()
        .filter_map(|archive| Some((missing(archive)?, archive)));
    Some(fitting.min_by_key(|(missing, _)| *missing)?.1)
}

fn foreign(archive: &Archive, plan: &TemplatePlan) -> ArchiveError {
    let mut differences = explain_change(&archive.header.inputs, &plan.chain.inputs);
    const MAX: usize = 10;
    if differences.len() > MAX {
        let more = differences.len() - MAX;
        differences.truncate(MAX);
        differences.push(format!("and {more} more differences"));
    }
    ArchiveError::Foreign {
        path: archive.path.clone(),
        differences,
    }
}
