//! `kapsel-testdb template why`: the inputs of the current template, and what the next `prepare` has to build.

use std::process::ExitCode;

use serde::Serialize;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::protocol::DbName;
use kapsel_testdb_core::template::{Input, TemplateInfo, TemplatePlan, explain_build};

use crate::commands::template::current;
use crate::failure::Result;
use crate::printer::Printer;

/// A template in the output of `--json`.
#[derive(Debug, Serialize)]
struct Why {
    /// Its name in the configuration, if there are several.
    name: Option<String>,
    template: DbName,
    /// The whole hash, in hexadecimal.
    fingerprint: String,
    /// Whether it can be cloned now.
    exists: bool,
    /// Why it must be built: what is wrong with it, or its differences from the most similar template.
    reasons: Vec<String>,
    /// The template that a build starts from.
    starts_from: Option<DbName>,
    /// How many migrations and other steps a build runs.
    missing_steps: usize,
    inputs: Vec<Input>,
}

pub async fn run(config: &Config, json: bool, printer: &Printer) -> Result<ExitCode> {
    let (_server, mut admin, plans) = current(config).await?;
    let rows = admin.databases(&config.namespace).await?;
    let mut templates = Vec::new();
    for (plan, template) in plans.into_iter().zip(config.templates()) {
        templates.push(why(&mut admin, &rows, plan, template.name.clone()).await?);
    }
    admin.close().await;
    if json {
        let all = serde_json::json!({ "schema": 1, "templates": templates });
        printer.data(&format!("{all:#}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    for why in &templates {
        printer.data(&text(why));
        for input in &why.inputs {
            printer.detail(&format!("  {}: {}", input.label, input.value));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn why(
    admin: &mut Admin,
    rows: &[DatabaseRow],
    plan: TemplatePlan,
    name: Option<String>,
) -> Result<Why> {
    let unusable = match rows.iter().find(|row| row.name == plan.name) {
        None => None,
        Some(row) => TemplateInfo::check(row, admin).await?,
    };
    let chain = &plan.chain;
    let usable = |row: &DatabaseRow| Some((row.name.clone(), TemplateInfo::of(row).ok()?));
    let templates: Vec<(DbName, TemplateInfo)> = rows.iter().filter_map(usable).collect();
    let exists = unusable.is_none() && templates.iter().any(|(name, _)| *name == plan.name);
    let reasons = match &unusable {
        Some(unusable) => vec![unusable.to_string()],
        None if exists => Vec::new(),
        None => {
            let infos: Vec<_> = templates.iter().map(|(_, info)| info.clone()).collect();
            explain_build(&chain.inputs, &infos)
        }
    };
    let parts = templates.iter().filter_map(|(name, info)| {
        let part = chain.part(&info.fingerprint)?;
        (*name != plan.name && info.session.is_some()).then_some((part.missing, name))
    });
    let nearest = parts
        .min_by_key(|(missing, _)| *missing)
        .filter(|_| !exists);
    Ok(Why {
        name,
        fingerprint: chain.last().hex(),
        exists,
        reasons,
        starts_from: nearest.map(|(_, name)| name.clone()),
        missing_steps: match nearest {
            _ if exists => 0,
            Some((missing, _)) => missing,
            None => plan.source.steps.len() + plan.source.later.len(),
        },
        inputs: chain.inputs.clone(),
        template: plan.name,
    })
}

fn text(why: &Why) -> String {
    let template = &why.template;
    let name = match &why.name {
        Some(name) => format!("{name}: {template}"),
        None => template.to_string(),
    };
    if why.exists {
        return format!("{name} is on the server: the next run builds nothing\n");
    }
    let mut text = match &why.starts_from {
        Some(from) => format!(
            "{name} must be built: {} on top of {from}\n",
            kapsel_testdb_core::plural::count(why.missing_steps, "step")
        ),
        None => format!(
            "{name} must be built: {}\n",
            kapsel_testdb_core::plural::count(why.missing_steps, "step")
        ),
    };
    if why.reasons.is_empty() {
        text.push_str("  because the server has no template of this project\n");
    }
    for reason in &why.reasons {
        text.push_str(&format!("  because {reason}\n"));
    }
    text
}
