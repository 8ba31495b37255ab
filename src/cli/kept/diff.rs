//! `kapsel-testdb kept diff`: what a failed test did to its database, compared with the template that it was made from. Like diff(1),
//! it says by its exit code whether anything differs.

use std::process::ExitCode;

use anyhow::Result;

use super::find::{Wanted, look};
use crate::cli::args::KeptDiff;
use crate::cli::error::DIFFERENT;
use crate::cli::output::Printer;
use crate::compare::Reference;
use crate::config::Config;
use crate::name::DbName;
use crate::server::{ServerError, ServerKind};

pub async fn run(config: &Config, args: &KeptDiff, printer: &Printer) -> Result<ExitCode> {
    let Some((server, admin, kept)) = look(config).await? else {
        return Err(ServerError::NotRunning(ServerKind::of(&config.server)).into());
    };
    let wanted = Wanted {
        namespace: &config.namespace,
        name: &args.test.test,
        attempt: args.test.attempt,
    };
    let name = &wanted.one(&kept)?.row.name;
    let template = DbName::template(name.namespace(), name.fingerprint());
    let reference = Reference::make(&server, admin, &template).await?;
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
        printer.data(&found.to_string());
    }
    Ok(if found.is_equal() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DIFFERENT)
    })
}
