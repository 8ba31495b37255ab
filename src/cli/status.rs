//! `kapsel-testdb status`: the server, templates, runs and connections.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde::Serialize;

use super::output::Printer;
use crate::config::Config;
use crate::connections::{self, Limit};
use crate::name::{DbName, Kind, RunId};
use crate::pg::databases::{DatabaseRow, Strategy};
use crate::run_dir::{Presence, RunDir, Runtime};
use crate::server::{Server, ServerKind};
use crate::template::{self, TemplateInfo};

/// What `--json` prints. `schema` changes when a field changes its meaning or goes.
#[derive(Debug, Serialize)]
struct Status {
    schema: u32,
    namespace: String,
    server: ServerStatus,
    templates: Vec<TemplateStatus>,
    runs: Vec<RunStatus>,
    kept: Vec<DbName>,
}

#[derive(Debug, Serialize)]
struct ServerStatus {
    address: String,
    version: String,
    managed: bool,
    /// `adopted`, `managed` (from local binaries) or `compose`.
    kind: &'static str,
    fsync: bool,
    clone_strategy: &'static str,
    max_connections: u32,
    connections: i64,
    budget: BudgetStatus,
}

/// What tests may have of the connections, and who has them.
#[derive(Debug, Serialize)]
struct BudgetStatus {
    #[serde(flatten)]
    limit: Limit,
    /// Tokens reserved by runs.
    reserved_by_runs: u32,
    /// Test processes that hold tokens.
    holding: usize,
    /// Their tokens.
    held: u32,
    /// Test processes that wait for tokens.
    waiting: usize,
}

#[derive(Debug, Serialize)]
struct TemplateStatus {
    name: DbName,
    usable: bool,
    owner: String,
    migrations: usize,
    /// Seconds since 1970.
    built_at: Option<u64>,
    /// Seconds since 1970, to the hour.
    used_at: Option<u64>,
}

#[derive(Debug, Serialize)]
struct RunStatus {
    run: RunId,
    /// `alive`, `dead`, or `elsewhere` where this host has no directory of it.
    state: &'static str,
    age_secs: u64,
    databases: usize,
    sessions: i64,
}

pub async fn run(config: &Config, json: bool, printer: &Printer) -> Result<ExitCode> {
    let Some(status) = look(config).await? else {
        printer.not_running(&config.server, json);
        return Ok(ExitCode::SUCCESS);
    };
    if json {
        printer.data(&format!("{:#}\n", serde_json::to_value(&status)?));
    } else {
        say(&status, printer);
    }
    Ok(ExitCode::SUCCESS)
}

async fn look(config: &Config) -> Result<Option<Status>> {
    let Some((server, mut admin)) = Server::find(config, "status").await? else {
        return Ok(None);
    };
    let rows = admin.databases(&config.namespace).await?;
    let connections = admin.count_connections().await?;
    admin.close().await;
    let facts = &server.facts;
    Ok(Some(Status {
        schema: 1,
        namespace: config.namespace.to_string(),
        server: ServerStatus {
            address: server.address.to_string(),
            version: facts.version(),
            managed: server.kind != ServerKind::Adopted,
            kind: server.kind.as_str(),
            fsync: facts.fsync,
            clone_strategy: match template::strategy(facts) {
                Strategy::FileClone => "file_copy with shared blocks, because fsync is off",
                Strategy::FileCopy => "file_copy, because fsync is off",
                Strategy::Default if facts.major() < 15 => "file_copy, the only one before 15",
                Strategy::Default => "wal_log, because fsync is on",
            },
            max_connections: facts.sessions.max_connections,
            connections,
            budget: budget(&server)?,
        },
        templates: of_kind(&rows, Kind::Template)
            .map(template_status)
            .collect(),
        runs: runs(config, &rows)?,
        kept: of_kind(&rows, Kind::Kept).map(|r| r.name.clone()).collect(),
    }))
}

fn budget(server: &Server) -> Result<BudgetStatus> {
    let (ledger, limit) = connections::update(&Runtime::open()?, server, None)?;
    ledger.bury_the_dead()?;
    let (runs, processes): (Vec<_>, Vec<_>) =
        ledger.holders().into_iter().partition(|h| h.run.is_some());
    let reserved_by_runs = runs.iter().map(|h| h.tokens).sum();
    let mut status = BudgetStatus {
        limit,
        reserved_by_runs,
        holding: 0,
        held: 0,
        waiting: 0,
    };
    for holder in processes {
        if ledger.is_granted(&holder) {
            status.holding += 1;
            status.held += holder.tokens;
        } else {
            status.waiting += 1;
        }
    }
    Ok(status)
}

fn of_kind(rows: &[DatabaseRow], kind: Kind) -> impl Iterator<Item = &DatabaseRow> {
    rows.iter().filter(move |row| row.name.kind() == kind)
}

fn template_status(row: &DatabaseRow) -> TemplateStatus {
    let info = TemplateInfo::parse(row.comment.as_deref());
    let migrations = info.iter().flat_map(|info| &info.inputs);
    TemplateStatus {
        name: row.name.clone(),
        usable: row.is_usable_template(),
        owner: row.owner.clone(),
        migrations: migrations
            .filter(|input| input.label.starts_with("migration "))
            .count(),
        built_at: info.as_ref().map(|info| info.built_at),
        used_at: info.as_ref().map(|info| info.used_at),
    }
}

fn runs(config: &Config, rows: &[DatabaseRow]) -> Result<Vec<RunStatus>> {
    let runtime = Runtime::open()?;
    let _gate = runtime.gate()?;
    let live = rows.iter().filter(|row| row.name.kind() != Kind::Kept);
    let mut runs: Vec<RunId> = live.clone().filter_map(|r| r.name.run().cloned()).collect();
    let ours = |run: &RunId| {
        let file = RunDir::peek(&runtime.run_path(run));
        file.is_none_or(|file| file.namespace == config.namespace)
    };
    runs.extend(runtime.runs().into_iter().filter(ours));
    runs.sort();
    runs.dedup();
    let status = |run: RunId| {
        let rows = live.clone().filter(|row| row.name.run() == Some(&run));
        let age = SystemTime::now().duration_since(run.created_at());
        RunStatus {
            state: match runtime.presence(&run) {
                Presence::Alive => "alive",
                Presence::Dead => "dead",
                Presence::Unknown => "elsewhere",
            },
            age_secs: age.unwrap_or_default().as_secs(),
            databases: rows.clone().count(),
            sessions: rows.map(|row| row.sessions).sum(),
            run,
        }
    };
    Ok(runs.into_iter().map(status).collect())
}

fn say(status: &Status, printer: &Printer) {
    let server = &status.server;
    let mut text = format!(
        "server     {} PostgreSQL {} at {}\n",
        server.kind, server.version, server.address
    );
    text.push_str(&format!(
        "           {} of {} connections, clones by {}\n",
        server.connections, server.max_connections, server.clone_strategy
    ));
    text.push_str(&budget_line(&server.budget));
    text.push_str(&format!("namespace  {}\n", status.namespace));
    for template in &status.templates {
        let used = template.used_at.map_or("never".to_owned(), ago);
        let broken = if template.usable {
            String::new()
        } else {
            format!(", not usable; it belongs to `{}`", template.owner)
        };
        text.push_str(&format!(
            "template   {} ({} migrations, used {used}{broken})\n",
            template.name, template.migrations
        ));
    }
    for run in &status.runs {
        text.push_str(&format!(
            "run        {} {}, {} s old, {} databases, {} sessions\n",
            run.run, run.state, run.age_secs, run.databases, run.sessions
        ));
    }
    for name in &status.kept {
        text.push_str(&format!("kept       {name}\n"));
    }
    if !status.kept.is_empty() {
        text.push_str("           `kapsel-testdb kept list` says whose they are\n");
    }
    printer.data(&text);
}

fn budget_line(budget: &BudgetStatus) -> String {
    let limit = &budget.limit;
    let divided = match limit.foreign_runs {
        0 => String::new(),
        n => format!(", shared with {n} runs of other hosts or users"),
    };
    format!(
        "           {} connections for tests ({} less {} reserved, {} in use by others, {} head-room, {} for keepers{divided}): \
         {} reserved by runs, {} held by {} processes, {} processes wait\n",
        limit.tokens,
        limit.max_connections,
        limit.reserved,
        limit.others,
        limit.headroom,
        limit.keepers,
        budget.reserved_by_runs,
        budget.held,
        budget.holding,
        budget.waiting
    )
}

fn ago(seconds: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    match now.as_secs().saturating_sub(seconds) {
        s if s < 3600 => "within the hour".to_owned(),
        s if s < 86_400 => format!("{} h ago", s / 3600),
        s => format!("{} days ago", s / 86_400),
    }
}
