//! `kapsel-testdb template drop`: drops templates that no run uses, with their spares.

use std::process::ExitCode;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::protocol::{Kind, Runtime};
use kapsel_testdb_core::server::Server;

use crate::args::TemplateDrop;
use crate::failure::{Failure, Result};
use crate::printer::Printer;
use crate::sweep::{Collected, drop_templates};

pub async fn run(config: &Config, args: &TemplateDrop, printer: &Printer) -> Result<ExitCode> {
    let Some((_, mut admin)) = Server::find(config, "template").await? else {
        printer.not_running(&config.server, None);
        return Ok(ExitCode::SUCCESS);
    };
    let runtime = Runtime::open()?;
    let rows = admin.databases(&config.namespace).await?;
    let chosen = choose(&rows, args)?;
    let collected = drop_templates(&mut admin, &runtime, chosen, &rows).await?;
    admin.close().await;
    Ok(report(&collected, printer))
}

fn choose(rows: &[DatabaseRow], args: &TemplateDrop) -> Result<Vec<DatabaseRow>> {
    let mut templates = rows.to_vec();
    templates.retain(|row| row.name.kind() == Kind::Template);
    if args.all {
        return Ok(templates);
    }
    let find = |name: &String| {
        let found = templates.iter().find(|row| row.name.to_string() == *name);
        found.cloned().ok_or_else(|| {
            Failure::Usage(format!(
                "there is no template `{name}`; `kapsel-testdb template list` prints all"
            ))
        })
    };
    args.templates.iter().map(find).collect()
}

/// Prints what was dropped and what was not.
pub fn report(collected: &Collected, printer: &Printer) -> ExitCode {
    for name in &collected.dropped {
        printer.line(&format!("dropped {name}"));
    }
    for skipped in &collected.skipped {
        printer.skipped(&skipped.name, &skipped.reason);
    }
    match collected.skipped.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(crate::failure::NOT_REMOVED),
    }
}
