//! `kapsel-testdb purge`: drops all databases of this project, or of all projects of the role, for example before `pg_upgrade`.

use std::process::ExitCode;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::plural::count;
use kapsel_testdb_core::protocol::Runtime;
use kapsel_testdb_core::server::Server;

use crate::args::Purge;
use crate::commands::template::report;
use crate::failure::Result;
use crate::printer::Printer;

use crate::sweep::drop_unused;

pub async fn run(config: &Config, args: &Purge, printer: &Printer) -> Result<ExitCode> {
    let Some((_, mut admin)) = Server::find(config, "purge").await? else {
        printer.not_running(&config.server, None);
        return Ok(ExitCode::SUCCESS);
    };
    let mut rows = admin.all_databases().await?;
    rows.retain(|row| args.all_projects || *row.name.namespace() == config.namespace);
    if rows.is_empty() {
        printer.line("nothing to drop");
    }
    if args.yes {
        let runtime = Runtime::open()?;
        let collected = drop_unused(&mut admin, &runtime, rows.clone(), &rows).await?;
        admin.close().await;
        return Ok(report(&collected, printer));
    }
    admin.close().await;
    for row in &rows {
        printer.line(&format!("would drop {}", row.name));
    }
    if !rows.is_empty() {
        let databases = count(rows.len(), "database");
        printer.line(&format!(
            "{databases}; run it again with --yes to drop them"
        ));
    }
    Ok(ExitCode::SUCCESS)
}
