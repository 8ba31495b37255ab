//! Prints what passing tests left open: each leak once, by the first command that finds it. The output of these tests is hidden.

use std::fmt::Write;

use kapsel_testdb_core::plural::count;
use kapsel_testdb_core::protocol::{Leak, LeakedSession, Namespace, RunId, Runtime};

use crate::printer::Printer;
use crate::screen::{WARNING, paint};

/// Maximum number of listed tests.
const MAX_TESTS: usize = 20;
/// Maximum number of listed sessions of a test.
const MAX_SESSIONS: usize = 5;
/// Maximum number of characters of a query: with its indent it fits 80 columns.
const MAX_QUERY_CHARS: usize = 73;

/// Prints the leaks of a namespace, or of one of its runs, that have not been printed yet.
pub fn print_pending(
    runtime: &Runtime,
    namespace: &Namespace,
    run: Option<&RunId>,
    printer: &Printer,
) {
    let is_ours = |leak: &Leak| {
        let of_run = run.is_none_or(|run| leak.database.run() == Some(run));
        leak.database.namespace() == namespace && of_run
    };
    let mut leaks = Vec::new();
    for file in runtime.pending_leaks() {
        let found = Leak::read(&file);
        if found.iter().any(is_ours) && Runtime::mark_report_printed(&file).is_some() {
            leaks.extend(found);
        }
    }
    if !leaks.is_empty() {
        printer.problem(&report(&leaks));
    }
}

fn report(leaks: &[Leak]) -> String {
    let tests = count(leaks.len(), "passing test");
    let mut text = format!(
        "kapsel-testdb: {} {tests} left connections open:\n",
        paint(WARNING.bold(), "warning:")
    );
    for leak in &leaks[..leaks.len().min(MAX_TESTS)] {
        describe(leak, &mut text);
    }
    if leaks.len() > MAX_TESTS {
        let _ = writeln!(
            text,
            "  and {}",
            count(leaks.len() - MAX_TESTS, "more test")
        );
    }
    text.push_str(
        "await spawned tasks, drop acquired connections, end transactions, and close your own pools;\n\
         `leaks = \"fail\"` makes such a test fail, and `leaks = \"off\"` turns the check off",
    );
    text
}

fn describe(leak: &Leak, text: &mut String) {
    let _ = writeln!(text, "  {}", leak.claimant.label());
    if leak.sessions.is_empty() {
        let held = count(leak.held, "connection");
        let _ = writeln!(text, "    {held} of the test's pool");
    }
    for session in &leak.sessions[..leak.sessions.len().min(MAX_SESSIONS)] {
        let LeakedSession {
            state,
            since_ms,
            query,
            ..
        } = session;
        let seconds = std::time::Duration::from_millis(*since_ms).as_secs_f64();
        let _ = write!(text, "    {state} for {seconds:.1} s");
        if !query.is_empty() {
            let _ = write!(text, ", last query:\n      {}", shorten(query));
        }
        text.push('\n');
    }
    if leak.sessions.len() > MAX_SESSIONS {
        let _ = writeln!(
            text,
            "    and {}",
            count(leak.sessions.len() - MAX_SESSIONS, "more connection")
        );
    }
}

fn shorten(query: &str) -> String {
    match query.char_indices().nth(MAX_QUERY_CHARS) {
        Some((end, _)) => format!("{}…", &query[..end]),
        None => query.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kapsel_testdb_core::protocol::{Claimant, DbName, Fingerprint, Kind, RunKey};

    fn leak(run: &RunId, test: &str, held: usize, sessions: &[(&str, u64, &str)]) -> Leak {
        let namespace = Namespace::new("app").expect("valid");
        let session = |(state, since_ms, query): &(&str, u64, &str)| LeakedSession {
            state: (*state).to_owned(),
            application: test.to_owned(),
            since_ms: *since_ms,
            query: (*query).to_owned(),
        };
        Leak {
            database: DbName::for_run(
                &namespace,
                Kind::Clone,
                &Fingerprint::from_hash(&[1; 32]),
                run,
            ),
            claimant: Claimant {
                binary: Some("shop::it".to_owned()),
                ..Claimant::named(test)
            },
            held,
            sessions: sessions.iter().map(session).collect(),
        }
    }

    fn run(word: &str) -> RunId {
        RunId::new(std::time::UNIX_EPOCH, &RunKey::new(&[word]))
    }

    #[test]
    fn the_report_lists_tests_with_state_age_and_query() {
        let run = run("one");
        let long = format!("SELECT {}", "x".repeat(200));
        let leaks = [
            leak(
                &run,
                "orders::pays",
                1,
                &[("idle in transaction", 1250, "UPDATE orders SET paid = true")],
            ),
            leak(&run, "orders::lists", 2, &[]),
            leak(
                &run,
                "orders::waits",
                0,
                &[("active", 60_040, &long), ("idle", 0, "")],
            ),
        ];
        let text = anstream::adapter::strip_str(&report(&leaks)).to_string();
        assert!(
            text.lines()
                .filter(|l| l.starts_with("    "))
                .all(|l| l.chars().count() <= 80),
            "{text}"
        );
        insta::assert_snapshot!(text, @r#"
        kapsel-testdb: warning: 3 passing tests left connections open:
          shop::it orders::pays
            idle in transaction for 1.2 s, last query:
              UPDATE orders SET paid = true
          shop::it orders::lists
            2 connections of the test's pool
          shop::it orders::waits
            active for 60.0 s, last query:
              SELECT xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
            idle for 0.0 s
        await spawned tasks, drop acquired connections, end transactions, and close your own pools;
        `leaks = "fail"` makes such a test fail, and `leaks = "off"` turns the check off
        "#);
    }

    #[test]
    fn the_report_is_bounded() {
        let run = run("one");
        let sessions = [("idle", 0, ""); 9];
        let leaks: Vec<Leak> = (0..30)
            .map(|n| leak(&run, &format!("test_{n}"), 0, &sessions))
            .collect();
        let text = report(&leaks);
        assert!(text.contains("30 passing tests"), "{text}");
        assert!(text.contains("  and 10 more tests\n"), "{text}");
        assert!(text.contains("    and 4 more connections\n"), "{text}");
        assert!(!text.contains("test_20"), "{text}");
    }
}
