//! `kapsel-testdb kept diff`: compares a kept database with its template. As with diff(1), the exit code shows whether they differ.
//! A table that could not be compared may differ.

use std::process::ExitCode;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::server::{ServerError, ServerKind};

use crate::args::KeptDiff;
use crate::commands::kept::find::{KeptQuery, find_kept};
use crate::compare::{READ_REMEDY, Reference};
use crate::failure::{DIFFERENT, Result};
use crate::printer::Printer;
use crate::screen::difference;

pub async fn run(config: &Config, args: &KeptDiff, printer: &Printer) -> Result<ExitCode> {
    let Some((server, admin, kept)) = find_kept(config).await? else {
        return Err(ServerError::NotRunning(ServerKind::of(&config.server)).into());
    };
    let query = KeptQuery {
        namespace: &config.namespace,
        name: &args.test.test,
        attempt: args.test.attempt,
    };
    let name = &query.one(&kept)?.row.name;
    let template = name.template_name();
    let reference = Reference::create(&server, admin, &template).await?;
    let compared = reference.compare(&server, name).await;
    reference.remove().await?;
    let found = compared?;
    if args.json {
        let json = serde_json::json!({
            "schema": 1,
            "database": name,
            "template": template,
            "equal": found.is_equal(),
            "difference": found,
        });
        printer.data(&format!("{json:#}\n"));
    } else {
        printer.screen(&difference(&found.to_string()));
    }
    if !found.not_compared.is_empty() {
        printer.warn(&format!(
            "some tables of `{name}` could not be compared; {READ_REMEDY}"
        ));
    }
    Ok(if found.is_equal() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DIFFERENT)
    })
}
