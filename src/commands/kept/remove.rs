//! `kapsel-testdb kept drop`: drops kept databases; with `--force`, also those that have sessions.

use std::process::ExitCode;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::plural::count;
use kapsel_testdb_core::run::end::drop_rows;

use crate::args::KeptDrop;
use crate::commands::kept::find::{KeptDatabase, KeptQuery, find_kept};
use crate::failure::{NOT_REMOVED, Result};
use crate::printer::Printer;

pub async fn run(config: &Config, args: &KeptDrop, printer: &Printer) -> Result<ExitCode> {
    let Some((_, mut admin, kept)) = find_kept(config).await? else {
        printer.not_running(&config.server, None);
        return Ok(ExitCode::SUCCESS);
    };
    let rows = selected(config, args, &kept)?;
    let (in_use, free): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|row| row.sessions > 0 && !args.force);
    let names: Vec<_> = free.iter().map(|row| row.name.clone()).collect();
    let skipped = drop_rows(&mut admin, free, args.force).await?;
    admin.close().await;
    for name in names
        .iter()
        .filter(|n| skipped.iter().all(|s| s.name != **n))
    {
        printer.line(&format!("dropped {name}"));
    }
    for row in &in_use {
        let sessions = count(row.sessions, "connected session");
        let reason = format!("{sessions}; end them, or use --force");
        printer.skipped(&row.name, &reason);
    }
    for skipped in &skipped {
        printer.skipped(&skipped.name, &skipped.reason);
    }
    Ok(if in_use.is_empty() && skipped.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_REMOVED)
    })
}

/// Resolves all names before anything is dropped.
fn selected(config: &Config, args: &KeptDrop, kept: &[KeptDatabase]) -> Result<Vec<DatabaseRow>> {
    if args.all {
        return Ok(kept.iter().map(|one| one.row.clone()).collect());
    }
    let mut rows: Vec<DatabaseRow> = Vec::new();
    for name in &args.tests {
        let query = KeptQuery {
            namespace: &config.namespace,
            name,
            attempt: args.attempt,
        };
        rows.extend(query.all(kept)?.into_iter().map(|one| one.row.clone()));
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows.dedup_by(|a, b| a.name == b.name);
    Ok(rows)
}
