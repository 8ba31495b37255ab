//! `kapsel-testdb kept list`: the kept databases and their tests, newest first.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anstyle::Style;
use serde::Serialize;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::protocol::{DbName, FailureCause, RunId};
use kapsel_testdb_core::sqlstate;

use crate::commands::kept::find::{KeptDatabase, find_kept};
use crate::failure::Result;
use crate::printer::Printer;
use crate::screen::{DETAIL, FAILURE, TITLE, WARNING, line, name_end, paint, size, span};

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
    /// Null, like the next fields, if it is unknown.
    cause: Option<Cause>,
    /// The first line of the panic's message or of the returned error.
    message: Option<String>,
    /// For how many seconds a process that died had the database.
    ran_secs: Option<u64>,
    /// The signal that ended it, if a handler saw it.
    signal: Option<String>,
}

/// Why a database is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Cause {
    /// The test reported a failure.
    Failed,
    /// Its process ended without releasing the database.
    Died,
}

pub async fn run(config: &Config, json: bool, printer: &Printer) -> Result<ExitCode> {
    let mut list = List {
        schema: 1,
        namespace: config.namespace.to_string(),
        kept: Vec::new(),
    };
    match find_kept(config).await? {
        None => printer.not_running(&config.server, None),
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
        printer.screen(&screen(&list.kept, printer.width(), printer.is_verbose()));
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
    let (cause, message, ran_secs, signal) = match one.cause {
        None => (None, None, None, None),
        Some(FailureCause::Failed(message)) => (Some(Cause::Failed), Some(message), None, None),
        Some(FailureCause::Died { after_secs, signal }) => {
            (Some(Cause::Died), None, after_secs, signal)
        }
    };
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
        cause,
        message,
        ran_secs,
        signal,
        database: name,
    }))
}

/// Two lines for each database: the test with age and size, and why it is kept. With `verbose`, what else identifies it.
fn screen(kept: &[KeptEntry], width: usize, verbose: bool) -> String {
    let facts: Vec<[String; 2]> = kept.iter().map(facts).collect();
    let widest = |column: usize| {
        let cells = facts.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let (age_width, size_width) = (widest(0), widest(1));
    let room = width.saturating_sub(age_width + size_width + 4);
    let mut text = String::new();
    for (entry, [age, size]) in kept.iter().zip(&facts) {
        let facts = format!("{age:>age_width$}  {size:>size_width$}");
        text.push_str(&entry.lines(&facts, room, width, verbose));
        if verbose {
            text.push_str(&entry.details());
        }
    }
    text
}

const INDENT: &str = "  ";

fn facts(entry: &KeptEntry) -> [String; 2] {
    [
        span(entry.age_secs),
        entry.size_bytes.map_or_else(|| "?".to_owned(), size),
    ]
}

impl KeptEntry {
    /// Its two lines. The facts are at the end of the first one, or of the second one if the test's name is long.
    fn lines(&self, facts: &str, room: usize, width: usize, verbose: bool) -> String {
        let title = self.title(width);
        let is_long = title.chars().count() > room;
        let why_width = match is_long {
            true => room - INDENT.len(),
            false => width - INDENT.len(),
        };
        let why = self.why();
        let why = line(&why, if verbose { usize::MAX } else { why_width });
        let (facts, style) = (paint(DETAIL, facts), self.style());
        let gap = |text: &str, used: usize| {
            " ".repeat(room.saturating_sub(text.chars().count() + used) + 2)
        };
        let (beside, below) = match is_long {
            true => (String::new(), gap(&why, INDENT.len()) + &facts),
            false => (gap(&title, 0) + &facts, String::new()),
        };
        let (title, why) = (paint(TITLE, &title), paint(style, &why));
        format!("{title}{beside}\n{INDENT}{why}{below}\n")
    }

    /// The test as nextest prints it, or as much of it as fits; the database if the test is unknown.
    fn title(&self, width: usize) -> String {
        let Some(test) = &self.test else {
            return self.database.to_string();
        };
        let attempt = self.attempt.filter(|attempt| *attempt > 1);
        let attempt = attempt.map(|attempt| format!("attempt {attempt}"));
        let round = self.stress_index.map(|round| format!("round {round}"));
        let parts: Vec<String> = attempt.into_iter().chain(round).collect();
        let suffix = match &parts[..] {
            [] => String::new(),
            parts => format!(" ({})", parts.join(", ")),
        };
        let room = width.saturating_sub(suffix.chars().count());
        let binary = self.binary.as_deref().unwrap_or_default();
        let whole = format!("{binary} {test}");
        let name = match whole.chars().count() <= room {
            true => whole.trim_start().to_owned(),
            false => name_end(test, room),
        };
        name + &suffix
    }

    fn why(&self) -> String {
        match (self.cause, &self.message) {
            (Some(Cause::Failed), Some(message)) => message.clone(),
            (Some(Cause::Died), _) => self.end(),
            _ => "failed, without a message".to_owned(),
        }
    }

    /// How its process ended. nextest sends SIGTERM to tests that exceed a time limit, and passes on the signals that it gets.
    fn end(&self) -> String {
        let is_of_nextest = self.binary.is_some();
        let how = match self.signal.as_deref() {
            None => "killed, crashed or exited",
            Some("SIGINT") => "interrupted",
            Some("SIGTERM") if is_of_nextest => "timed out, or was terminated with nextest,",
            Some("SIGTERM") => "terminated",
            Some("SIGABRT") => "aborted",
            Some(_) => "ended",
        };
        let after = self.ran_secs.map(|secs| format!(" after {}", span(secs)));
        let signal = self.signal.as_ref().map(|signal| format!(" ({signal})"));
        format!(
            "{how}{}{}",
            after.unwrap_or_default(),
            signal.unwrap_or_default()
        )
    }

    fn style(&self) -> Style {
        match self.cause {
            Some(Cause::Died) => WARNING,
            _ => FAILURE,
        }
    }

    fn details(&self) -> String {
        let run = self.run.as_ref().map(|run| format!("run {run}"));
        let parts: Vec<String> = self.binary.iter().cloned().chain(run).collect();
        let lines = [parts.join(", "), self.database.to_string()];
        let lines = lines
            .iter()
            .map(|line| format!("{INDENT}{}\n", paint(DETAIL, line)));
        lines.collect()
    }
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
            cause: None,
            message: None,
            ran_secs: None,
            signal: None,
        }
    }

    fn failed(test: &str, attempt: u32, message: &str) -> KeptEntry {
        KeptEntry {
            cause: Some(Cause::Failed),
            message: Some(message.to_owned()),
            ..entry(Some(test), attempt, 59)
        }
    }

    fn died(test: &str, ran_secs: Option<u64>, signal: Option<&str>) -> KeptEntry {
        KeptEntry {
            cause: Some(Cause::Died),
            ran_secs,
            signal: signal.map(str::to_owned),
            ..entry(Some(test), 1, 7_300)
        }
    }

    fn all() -> Vec<KeptEntry> {
        let long = "a payment is charged once: \u{1b}[31mthe second request must return the charge of the first one, and nothing else";
        vec![
            failed(
                "billing::pays",
                1,
                "assertion `left == right` failed (left: 1, right: 2)",
            ),
            failed(
                "billing::invoices::reminders::a_reminder_is_sent_once_for_each_unpaid_invoice",
                2,
                long,
            ),
            died("lists", Some(61), Some("SIGTERM")),
            died("reads", Some(3), Some("SIGINT")),
            died("overflows", Some(0), Some("SIGABRT")),
            died("allocates", Some(7), None),
            died("exports", None, None),
            entry(Some("imports"), 1, 100_000),
            entry(None, 1, 900_000),
        ]
    }

    fn widest(text: &str) -> usize {
        let lines = anstream::adapter::strip_str(text).to_string();
        let widths = lines.lines().map(|line| line.chars().count());
        widths.max().unwrap_or(0)
    }

    #[test]
    fn the_list_says_why_and_fits_the_terminal() {
        let text = screen(&all(), 80, false);
        insta::assert_snapshot!("kept_list", anstream::adapter::strip_str(&text));
        insta::assert_snapshot!("kept_list_coloured", text.replace('\u{1b}', "ESC"));
        for width in [60, 80, 100] {
            assert!(widest(&screen(&all(), width, false)) <= width, "{width}");
        }
    }

    #[test]
    fn verbose_adds_run_and_database() {
        let text = screen(&all()[..2], 80, true);
        insta::assert_snapshot!("kept_list_verbose", anstream::adapter::strip_str(&text));
    }
}
