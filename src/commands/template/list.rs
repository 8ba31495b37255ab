//! `kapsel-testdb template list`: the templates of this project, the last used first.

use std::process::ExitCode;

use serde::Serialize;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::protocol::{DbName, Kind, unix_now};
use kapsel_testdb_core::server::Server;
use kapsel_testdb_core::sqlstate;
use kapsel_testdb_core::template::{TemplateInfo, Unusable};

use crate::commands::template::plans;
use crate::failure::Result;
use crate::printer::Printer;
use crate::screen::{OK, WARNING, paint, size, span};

/// Version of the output of `--json`.
const SCHEMA: u32 = 1;

/// The output of `--json`. `schema` changes when a field is removed or changes its meaning.
#[derive(Debug, Serialize)]
struct List {
    schema: u32,
    namespace: String,
    templates: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    template: DbName,
    /// Whether the next run uses it; null if the project's files cannot be read.
    current: Option<bool>,
    /// Why it cannot be cloned; null if it can.
    unusable: Option<String>,
    /// Migrations, seeds and other steps.
    steps: usize,
    /// Null if the role lacks the privilege to read it.
    size_bytes: Option<u64>,
    /// Seconds since 1970; null, like the next field, if that cannot be read.
    built_at: Option<u64>,
    /// Seconds since 1970, to the hour.
    used_at: Option<u64>,
    owner: String,
}

pub async fn run(config: &Config, json: bool, printer: &Printer) -> Result<ExitCode> {
    let Some((server, mut admin)) = Server::find(config, "template").await? else {
        printer.not_running(&config.server, json.then_some(SCHEMA));
        return Ok(ExitCode::SUCCESS);
    };
    let current: Option<Vec<DbName>> = match plans(config, &server).await {
        Ok(plans) => Some(plans.into_iter().map(|plan| plan.name).collect()),
        Err(error) => {
            printer.warn(&format!("the current template is unknown: {error}"));
            None
        }
    };
    let mut rows = admin.databases(&config.namespace).await?;
    rows.retain(|row| row.name.kind() == Kind::Template);
    let mut templates = Vec::new();
    for row in rows {
        templates.extend(entry(&mut admin, row, current.as_deref()).await?);
    }
    admin.close().await;
    templates.sort_by_key(|entry| std::cmp::Reverse((entry.current, entry.used_at)));
    let list = List {
        schema: SCHEMA,
        namespace: config.namespace.to_string(),
        templates,
    };
    if json {
        printer.data(&format!("{:#}\n", serde_json::to_value(&list)?));
    } else if list.templates.is_empty() {
        printer.line("no templates");
    } else {
        printer.screen(&table(&list.templates, unix_now()));
    }
    Ok(ExitCode::SUCCESS)
}

/// `None`: the template was dropped meanwhile.
async fn entry(
    admin: &mut Admin,
    row: DatabaseRow,
    current: Option<&[DbName]>,
) -> Result<Option<Entry>> {
    let size_bytes = match admin.database_size(&row.name).await {
        Ok(0) => return Ok(None),
        Err(error) if error.is(sqlstate::INVALID_CATALOG_NAME) => return Ok(None),
        Err(error) if error.code().is_some() => None,
        size => Some(size?),
    };
    let info = TemplateInfo::parse(row.comment.as_deref());
    let unusable = TemplateInfo::check(&row, admin).await?;
    Ok(Some(Entry {
        current: current.map(|current| current.contains(&row.name)),
        unusable: unusable.as_ref().map(Unusable::to_string),
        steps: info.as_ref().map_or(0, TemplateInfo::steps),
        size_bytes,
        built_at: info.as_ref().map(|info| info.built_at),
        used_at: info.as_ref().map(|info| info.used_at),
        owner: row.owner,
        template: row.name,
    }))
}

/// One line for each template, in columns.
fn table(templates: &[Entry], now: u64) -> String {
    let title = ["template", "steps", "size", "built", "used", ""].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(title)
        .chain(templates.iter().map(|entry| row(entry, now)))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2, 3, 4].map(|column| width(column).unwrap_or(0));
    let line = |[template, steps, size, built, used, note]: &[String; 6]| {
        let [a, b, c, d, e] = widths;
        let line =
            format!("{template:a$}  {steps:>b$}  {size:>c$}  {built:>d$}  {used:>e$}  {note}");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

fn row(entry: &Entry, now: u64) -> [String; 6] {
    let unknown = || "?".to_owned();
    let since = |at: Option<u64>| at.map_or_else(unknown, |at| span(now.saturating_sub(at)));
    let note = match (&entry.unusable, entry.current) {
        (Some(unusable), _) => paint(WARNING, &format!("unusable: {unusable}")),
        (None, Some(true)) => paint(OK, "current"),
        (None, _) => String::new(),
    };
    [
        entry.template.to_string(),
        entry.steps.to_string(),
        entry.size_bytes.map_or_else(unknown, size),
        since(entry.built_at),
        since(entry.used_at),
        note,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_80_columns_and_marks_the_current_template() {
        let entry = |digit: char, current, unusable: Option<Unusable>| Entry {
            template: format!("app_template_{}", digit.to_string().repeat(13))
                .parse()
                .expect("a name"),
            current,
            unusable: unusable.as_ref().map(Unusable::to_string),
            steps: 41,
            size_bytes: unusable.is_none().then_some(9_000_000),
            built_at: Some(400_000),
            used_at: Some(1_000_000),
            owner: "app".to_owned(),
        };
        let templates = [
            entry('a', Some(true), None),
            entry('b', Some(false), None),
            entry('c', Some(false), Some(Unusable::Wreck)),
        ];
        let text = table(&templates, 1_003_700);
        insta::assert_snapshot!("template_list", anstream::adapter::strip_str(&text));
        insta::assert_snapshot!("template_list_coloured", text.replace('\u{1b}', "ESC"));
    }
}
