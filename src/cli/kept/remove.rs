//! `kapsel-testdb kept drop`: what nobody is connected to, unless forced.

use std::process::ExitCode;

use anyhow::Result;

use super::find::{KeptDatabase, Wanted, look};
use crate::cli::args::KeptDrop;
use crate::cli::error::NOT_REMOVED;
use crate::cli::output::Printer;
use crate::config::Config;
use crate::pg::databases::DatabaseRow;
use crate::sweep;

pub async fn run(config: &Config, args: &KeptDrop, printer: &Printer) -> Result<ExitCode> {
    let Some((_, mut admin, kept)) = look(config).await? else {
        printer.not_running(&config.server, false);
        return Ok(ExitCode::SUCCESS);
    };
    let rows = chosen(config, args, &kept)?;
    let (in_use, free): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|row| row.sessions > 0 && !args.force);
    let names: Vec<_> = free.iter().map(|row| row.name.clone()).collect();
    let skipped = sweep::drop_rows(&mut admin, free, args.force).await?;
    admin.close().await;
    for name in names
        .iter()
        .filter(|n| skipped.iter().all(|s| s.name != **n))
    {
        printer.line(&format!("dropped {name}"));
    }
    for row in &in_use {
        let (name, sessions) = (&row.name, row.sessions);
        printer.problem(&format!(
            "left {name}: sessions are connected ({sessions}); end them, or say --force"
        ));
    }
    for skipped in &skipped {
        printer.problem(&format!("left {}: {}", skipped.name, skipped.reason));
    }
    Ok(if in_use.is_empty() && skipped.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_REMOVED)
    })
}

/// Every name must lead somewhere before anything is dropped.
fn chosen(config: &Config, args: &KeptDrop, kept: &[KeptDatabase]) -> Result<Vec<DatabaseRow>> {
    if args.all {
        return Ok(kept.iter().map(|one| one.row.clone()).collect());
    }
    let mut rows: Vec<DatabaseRow> = Vec::new();
    for name in &args.tests {
        let wanted = Wanted {
            namespace: &config.namespace,
            name,
            attempt: args.attempt,
        };
        rows.extend(wanted.all(kept)?.into_iter().map(|one| one.row.clone()));
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows.dedup_by(|a, b| a.name == b.name);
    Ok(rows)
}
