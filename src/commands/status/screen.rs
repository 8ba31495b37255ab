//! The screen of `status`: one row for each thing that a person looks for, details with `-v`. Pure.

use std::collections::BTreeMap;

use anstyle::Style;

use kapsel_testdb_core::plural::count;
use kapsel_testdb_core::protocol::{DbName, ReuseCounts, unix_now};

use super::{BudgetStatus, RunState, RunStatus, ServerStatus, Status, TemplateStatus};
use crate::screen::{DETAIL, FAILURE, OK, Row, WARNING, rows, span};

/// How a screen is printed.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// The width in columns.
    pub width: usize,
    /// Whether to print details.
    pub verbose: bool,
}

/// All rows.
pub fn screen(status: &Status, format: Format) -> String {
    let mut all = server(&status.server, format.verbose);
    all.push(Row::new("namespace", status.namespace.clone()));
    let templates = status.templates.iter();
    all.extend(templates.flat_map(|one| template(one, format.verbose)));
    if status.templates.is_empty() {
        all.push(Row::new("templates", "none").styled(DETAIL));
    }
    let runs = status.runs.iter();
    all.extend(runs.flat_map(|one| run(one, format.verbose)));
    if status.runs.is_empty() {
        all.push(Row::new("runs", "none").styled(DETAIL));
    }
    all.extend(spares(status, format.verbose));
    all.extend(kept(status, format.verbose));
    all.extend(others(status, format.verbose));
    rows(&all, format.width)
}

fn server(server: &ServerStatus, verbose: bool) -> Vec<Row> {
    let ServerStatus { budget, kind, .. } = server;
    let waiting = match budget.waiting_processes {
        0 => String::new(),
        1 => ", 1 process waits".to_owned(),
        n => format!(", {n} processes wait"),
    };
    let mut all = vec![
        Row::new(
            "server",
            format!(
                "PostgreSQL {} at {}, {kind}",
                server.version, server.address
            ),
        )
        .styled(OK),
        Row::more(format!(
            "{} of {}, {} of {} test slots in use{waiting}",
            server.connections,
            count(server.max_connections, "connection"),
            budget.held_slots,
            budget.slots
        ))
        .styled(if budget.waiting_processes > 0 {
            WARNING
        } else {
            Style::new()
        }),
    ];
    if verbose {
        let strategy = format!(
            "clone strategy {}, because {}",
            server.clone_strategy, server.clone_strategy_reason
        );
        all.push(Row::more(strategy).styled(DETAIL));
        all.push(Row::more(slots(budget)).styled(DETAIL));
    }
    all
}

fn slots(budget: &BudgetStatus) -> String {
    let shared = match budget.foreign_runs {
        0 => String::new(),
        n => format!(", shared with {} of other hosts and users", count(n, "run")),
    };
    format!(
        "{} slots: {} minus {} reserved, {} of other programs, {} kept free, {} for keepers{shared}; {} reserved by runs, {} held by {}",
        budget.slots,
        count(budget.max_connections, "connection"),
        budget.reserved,
        budget.other_sessions,
        budget.headroom,
        budget.keeper_sessions,
        budget.reserved_by_runs,
        budget.held_slots,
        count(budget.holding_processes, "test process"),
    )
}

fn template(template: &TemplateStatus, verbose: bool) -> Vec<Row> {
    let mut parts = Vec::new();
    let style = match (template.usable, template.current) {
        (false, _) => FAILURE,
        (true, true) => OK,
        (true, false) => Style::new(),
    };
    if !template.usable {
        parts.push("not usable".to_owned());
    } else if template.current {
        parts.push("current".to_owned());
    }
    parts.extend(
        template
            .built_at
            .map(|at| format!("built {} ago", span(since(at)))),
    );
    parts.push(template.used_at.map_or("never used".to_owned(), used));
    let text = format!("{} {}", template.name.fingerprint(), parts.join(", "));
    let mut all = vec![
        Row::new("templates", text)
            .styled(style)
            .sized(template.size_bytes),
    ];
    if verbose {
        let details = [
            template.name.to_string(),
            count(template.migrations, "migration"),
            format!("owned by `{}`", template.owner),
        ];
        all.push(Row::more(details.join(", ")).styled(DETAIL));
    }
    all
}

fn since(at: u64) -> u64 {
    unix_now().saturating_sub(at)
}

/// The time of use is known to the hour.
fn used(at: u64) -> String {
    match since(at) {
        s if s < 3600 => "used within the hour".to_owned(),
        s => format!("used {} ago", span(s)),
    }
}

fn run(run: &RunStatus, verbose: bool) -> Vec<Row> {
    let age = span(run.age_secs);
    let databases = count(run.databases, "database");
    let work = match run.tests {
        Some(tests) => format!("{} at work", count(tests, "test")),
        None => count(run.sessions, "session"),
    };
    let (text, style) = match run.state {
        RunState::Alive => (format!("alive for {age}: {work}, {databases}"), OK),
        RunState::Dead => (
            format!("dead, begun {age} ago: {databases}; `kapsel-testdb sweep` removes it"),
            WARNING,
        ),
        RunState::Elsewhere => (
            format!("of another host or user, begun {age} ago: {work}, {databases}"),
            Style::new(),
        ),
    };
    let mut all = vec![Row::new("runs", text).styled(style)];
    if verbose {
        let sessions = count(run.sessions, "session");
        all.push(Row::more(format!("{}, {sessions}", run.run)).styled(DETAIL));
        let clones = run
            .clones
            .as_ref()
            .filter(|c| **c != ReuseCounts::default());
        all.extend(clones.map(|clones| Row::more(format!("clones: {clones}")).styled(DETAIL)));
    }
    all
}

fn spares(status: &Status, verbose: bool) -> Vec<Row> {
    let spares = &status.spares;
    if spares.is_empty() {
        return Vec::new();
    }
    let text = match spares.len() {
        1 => "1 clone waits for the next run".to_owned(),
        n => format!("{n} clones wait for the next run"),
    };
    let mut all = vec![Row::new("spares", text).sized(status.spares_bytes)];
    if verbose {
        let mut counts: BTreeMap<DbName, usize> = BTreeMap::new();
        for spare in spares {
            *counts.entry(spare.template_name()).or_default() += 1;
        }
        let lines = counts.into_iter();
        all.extend(lines.map(|(name, n)| Row::more(format!("{n} of {name}")).styled(DETAIL)));
    }
    all
}

fn kept(status: &Status, verbose: bool) -> Vec<Row> {
    let newest = status.kept_newest_at.map(|at| span(since(at)));
    let (Some(newest), false) = (newest, status.kept.is_empty()) else {
        return vec![Row::new("kept", "none").styled(DETAIL)];
    };
    let number = count(status.kept.len(), "database");
    let text = format!("{number}, the newest {newest} old: `kapsel-testdb kept list`");
    let mut all = vec![Row::new("kept", text).sized(status.kept_bytes)];
    if verbose {
        let names = status.kept.iter();
        all.extend(names.map(|name| Row::more(name.to_string()).styled(DETAIL)));
    }
    all
}

fn others(status: &Status, verbose: bool) -> Vec<Row> {
    let others = &status.others;
    if others.databases == 0 {
        return Vec::new();
    }
    let text = format!(
        "{} of {}, in no live run on this host",
        count(others.databases, "database"),
        count(others.projects.len(), "project")
    );
    let mut all = vec![Row::new("others", text).sized(others.size_bytes)];
    if verbose {
        let projects: Vec<&str> = others.projects.iter().map(String::as_str).collect();
        let text = format!(
            "{}: `kapsel-testdb sweep --namespace NAME`",
            projects.join(", ")
        );
        all.push(Row::more(text).styled(DETAIL));
    }
    all
}
