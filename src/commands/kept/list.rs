//! `kapsel-testdb kept list`: the kept databases and their tests, newest first.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::protocol::{DbName, RunId};
use kapsel_testdb_core::sqlstate;

use crate::commands::kept::find::{KeptDatabase, find_kept};
use crate::failure::Result;
use crate::printer::Printer;

/// The output of `--json`. `schema` changes when a field is removed or changes its meaning.
#[derive(Debug, Serialize)]
struct List {
    schema: u32,
    namespace: String,
    kept: Vec<KeptEntry>,
}

#[derive(Debug, Serialize)]
struct KeptEntry {
    database: DbName,
    /// Null, like the next fields, if the test is unknown.
    test: Option<String>,
    binary: Option<String>,
    attempt: Option<u32>,
    /// The round of a stress run, from 0.
    stress_index: Option<u32>,
    run: Option<RunId>,
    template: DbName,
    /// Seconds since 1970.
    kept_at: u64,
    age_secs: u64,
    /// Null if the role lacks the privilege to read it.
    size_bytes: Option<u64>,
    sessions: i64,
    owner: String,
}

pub async fn run(config: &Config, json: bool, printer: &Printer) -> Result<ExitCode> {
    let mut list = List {
        schema: 1,
        namespace: config.namespace.to_string(),
        kept: Vec::new(),
    };
    match find_kept(config).await? {
        None => printer.not_running(&config.server, false),
        Some((_, mut admin, kept)) => {
            for one in kept {
                list.kept.extend(entry(&mut admin, one).await?);
            }
            admin.close().await;
        }
    }
    if json {
        printer.data(&format!("{:#}\n", serde_json::to_value(&list)?));
    } else if list.kept.is_empty() {
        printer.line("no kept databases");
    } else {
        printer.data(&table(&list.kept));
    }
    Ok(ExitCode::SUCCESS)
}

/// `None`: the database was dropped meanwhile.
async fn entry(admin: &mut Admin, one: KeptDatabase) -> Result<Option<KeptEntry>> {
    let size_bytes = match admin.database_size(&one.row.name).await {
        Ok(0) => return Ok(None),
        Err(error) if error.is(sqlstate::INVALID_CATALOG_NAME) => return Ok(None),
        Err(error) if error.code().is_some() => None,
        size => Some(size?),
    };
    let name = one.row.name;
    let claimant = one.claimant;
    let since = |from: SystemTime, to: SystemTime| to.duration_since(from).unwrap_or_default();
    Ok(Some(KeptEntry {
        test: claimant.as_ref().map(|c| c.test.clone()),
        binary: claimant.as_ref().and_then(|c| c.binary.clone()),
        attempt: claimant.as_ref().map(|c| c.attempt),
        stress_index: claimant.as_ref().and_then(|c| c.stress),
        run: name.run().cloned(),
        template: name.template_name(),
        kept_at: since(UNIX_EPOCH, one.kept_at).as_secs(),
        age_secs: since(one.kept_at, SystemTime::now()).as_secs(),
        size_bytes,
        sessions: one.row.sessions,
        owner: one.row.owner,
        database: name,
    }))
}

/// One line for each database, in columns.
fn table(kept: &[KeptEntry]) -> String {
    let title = ["test", "attempt", "age", "size", "run", "database"];
    let title = title.map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(title).chain(kept.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2, 3, 4].map(|column| width(column).unwrap_or(0));
    let line = |[test, attempt, age, size, run, database]: &[String; 6]| {
        let [a, b, c, d, e] = widths;
        format!("{test:a$}  {attempt:>b$}  {age:>c$}  {size:>d$}  {run:e$}  {database}\n")
    };
    rows.iter().map(line).collect()
}

fn row(entry: &KeptEntry) -> [String; 6] {
    let unknown = || "?".to_owned();
    let binary = entry.binary.as_ref().map(|binary| format!("{binary} "));
    let round = entry.stress_index.map(|round| format!(" (round {round})"));
    let test = entry.test.clone().unwrap_or_else(unknown);
    [
        [binary.unwrap_or_default(), test, round.unwrap_or_default()].concat(),
        entry.attempt.map_or_else(unknown, |n| n.to_string()),
        age(entry.age_secs),
        entry.size_bytes.map_or_else(unknown, size),
        entry.run.as_ref().map_or_else(unknown, RunId::to_string),
        entry.database.to_string(),
    ]
}

pub fn age(seconds: u64) -> String {
    match seconds {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min", s / 60),
        s if s < 2 * 86_400 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

pub fn size(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(test: Option<&str>, attempt: u32, age_secs: u64) -> KeptEntry {
        let name = |text: &str| text.parse().expect("a name");
        KeptEntry {
            database: name("app_kept_0123456789abc_000000000000001_000001"),
            test: test.map(str::to_owned),
            binary: test.map(|_| "app::it".to_owned()),
            attempt: test.map(|_| attempt),
            stress_index: (attempt > 1).then_some(4),
            run: "000000000000001".parse().ok(),
            template: name("app_template_0123456789abc"),
            kept_at: 0,
            age_secs,
            size_bytes: test.map(|_| 8_300_000),
            sessions: 0,
            owner: "app".to_owned(),
        }
    }

    #[test]
    fn table_has_a_line_for_each_database_even_if_the_test_is_unknown() {
        let kept = [
            entry(Some("billing::pays"), 1, 59),
            entry(Some("lists"), 2, 7_300),
            entry(None, 1, 900_000),
        ];
        insta::assert_snapshot!(table(&kept), @r"
        test                     attempt      age  size  run              database
        app::it billing::pays          1     59 s  8 MB  000000000000001  app_kept_0123456789abc_000000000000001_000001
        app::it lists (round 4)        2      2 h  8 MB  000000000000001  app_kept_0123456789abc_000000000000001_000001
        ?                              ?  10 days     ?  000000000000001  app_kept_0123456789abc_000000000000001_000001
        ");
    }
}
