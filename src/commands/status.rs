//! `kapsel-testdb status`: the server, templates, runs and connections.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::SystemTime;

use serde::Serialize;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::connections;
use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::protocol::{
    DbName, Kind, Presence, ReuseCounts, RunDir, RunId, Runtime, Strategy, unix_now,
};
use kapsel_testdb_core::server::{Server, ServerKind};
use kapsel_testdb_core::template::{self, TemplateInfo};

use crate::failure::Result;
use crate::printer::Printer;

/// The output of `--json`. `schema` changes when a field is removed or changes its meaning.
#[derive(Debug, Serialize)]
struct Status {
    schema: u32,
    namespace: String,
    server: ServerStatus,
    templates: Vec<TemplateStatus>,
    runs: Vec<RunStatus>,
    kept: Vec<DbName>,
    spares: Vec<DbName>,
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

/// The connection slots for tests, and their use.
#[derive(Debug, Serialize)]
struct BudgetStatus {
    /// Slots for tests of this user on this host.
    slots: u32,
    /// `max_connections` of the server.
    max_connections: u32,
    /// Connections reserved for superusers, or beyond the role's limit.
    reserved: u32,
    /// Sessions of other programs.
    other_sessions: u32,
    /// Connections kept free for short sessions.
    headroom: u32,
    /// Connections kept for the keepers of this host.
    keeper_sessions: u32,
    /// Live runs of other hosts or users, each of which gets an equal share.
    foreign_runs: u32,
    /// Slots reserved by runs.
    reserved_by_runs: u32,
    /// Slots held by test processes.
    held_slots: u32,
    /// Test processes that hold slots.
    holding_processes: usize,
    /// Test processes that wait for slots.
    waiting_processes: usize,
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
    /// `alive`, `dead`, or `elsewhere` if this host has no directory of the run.
    state: &'static str,
    age_secs: u64,
    databases: usize,
    sessions: i64,
    /// What happened to its clones, if its directory is here.
    clones: Option<ReuseCounts>,
}

pub async fn run(config: &Config, json: bool, printer: &Printer) -> Result<ExitCode> {
    let Some(status) = collect(config).await? else {
        printer.not_running(&config.server, json);
        return Ok(ExitCode::SUCCESS);
    };
    if json {
        printer.data(&format!("{:#}\n", serde_json::to_value(&status)?));
    } else {
        printer.data(&text(&status));
    }
    Ok(ExitCode::SUCCESS)
}

async fn collect(config: &Config) -> Result<Option<Status>> {
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
                Strategy::Default if facts.major() < 15 => {
                    "file_copy, the only strategy before PostgreSQL 15"
                }
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
        spares: of_kind(&rows, Kind::Spare)
            .map(|r| r.name.clone())
            .collect(),
    }))
}

fn budget(server: &Server) -> Result<BudgetStatus> {
    let (ledger, limit) = connections::update(
        &Runtime::open()?,
        &server.admin_address,
        &server.facts.sessions,
        None,
    )?;
    ledger.reap_stale_entries()?;
    let (runs, processes): (Vec<_>, Vec<_>) =
        ledger.holders().into_iter().partition(|h| h.run.is_some());
    let reserved_by_runs = runs.iter().map(|h| h.slots).sum();
    let mut status = BudgetStatus {
        slots: limit.slots,
        max_connections: limit.max_connections,
        reserved: limit.reserved,
        other_sessions: limit.others,
        headroom: limit.headroom,
        keeper_sessions: limit.keepers,
        foreign_runs: limit.foreign_runs,
        reserved_by_runs,
        held_slots: 0,
        holding_processes: 0,
        waiting_processes: 0,
    };
    for holder in processes {
        if ledger.is_granted(&holder) {
            status.holding_processes += 1;
            status.held_slots += holder.slots;
        } else {
            status.waiting_processes += 1;
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
        usable: TemplateInfo::of(row).is_ok(),
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
    let gate = runtime.gate()?;
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
        let presence = runtime.presence(&gate, &run);
        let counts = || RunDir::reuse_counts(&runtime.run_path(&run));
        RunStatus {
            clones: (presence != Presence::Unknown).then(counts),
            state: match presence {
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

fn text(status: &Status) -> String {
    let server = &status.server;
    let mut text = format!(
        "server     {} PostgreSQL {} at {}\n",
        server.kind, server.version, server.address
    );
    text.push_str(&format!(
        "           {} of {} connections; clone strategy: {}\n",
        server.connections, server.max_connections, server.clone_strategy
    ));
    text.push_str(&budget_lines(&server.budget));
    text.push_str(&format!("namespace  {}\n", status.namespace));
    for template in &status.templates {
        let used = template
            .used_at
            .map_or("never used".to_owned(), |at| format!("used {}", ago(at)));
        let broken = if template.usable {
            String::new()
        } else {
            format!(", not usable, owned by `{}`", template.owner)
        };
        text.push_str(&format!(
            "template   {} ({} migrations, {used}{broken})\n",
            template.name, template.migrations
        ));
    }
    for run in &status.runs {
        text.push_str(&format!(
            "run        {} {}, {} s old, {} databases, {} sessions\n",
            run.run, run.state, run.age_secs, run.databases, run.sessions
        ));
        if let Some(clones) = run
            .clones
            .as_ref()
            .filter(|c| **c != ReuseCounts::default())
        {
            text.push_str(&format!("           clones: {clones}\n"));
        }
    }
    for (template, count) in spares_by_template(status) {
        text.push_str(&format!("spares     {count} of {template}\n"));
    }
    for name in &status.kept {
        text.push_str(&format!("kept       {name}\n"));
    }
    if !status.kept.is_empty() {
        text.push_str("           `kapsel-testdb kept list` shows their tests\n");
    }
    text
}

/// How many spares wait per template.
fn spares_by_template(status: &Status) -> BTreeMap<DbName, usize> {
    let mut counts = BTreeMap::new();
    for spare in &status.spares {
        *counts.entry(spare.template_name()).or_default() += 1;
    }
    counts
}

fn budget_lines(budget: &BudgetStatus) -> String {
    let shared = match budget.foreign_runs {
        0 => String::new(),
        n => format!(", shared with other hosts and users: {n} runs"),
    };
    format!(
        "           {} connection slots for tests ({} minus {} reserved, {} used by other programs, {} headroom, {} for keepers{shared})\n           \
         slots: {} reserved by runs, {} held by test processes ({}); waiting test processes: {}\n",
        budget.slots,
        budget.max_connections,
        budget.reserved,
        budget.other_sessions,
        budget.headroom,
        budget.keeper_sessions,
        budget.reserved_by_runs,
        budget.held_slots,
        budget.holding_processes,
        budget.waiting_processes
    )
}

fn ago(seconds: u64) -> String {
    match unix_now().saturating_sub(seconds) {
        s if s < 3600 => "within the last hour".to_owned(),
        s if s < 86_400 => format!("{} h ago", s / 3600),
        s => format!("{} days ago", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use kapsel_testdb_core::protocol::{Reason, ReuseEvent};

    use super::*;

    fn counts() -> ReuseCounts {
        let mut counts = ReuseCounts::default();
        counts.add(ReuseEvent::Created);
        counts.add(ReuseEvent::Recycled);
        counts.add(ReuseEvent::Dropped {
            reason: Some(Reason::Catalog),
        });
        counts
    }

    fn status() -> Status {
        let name = |text: &str| text.parse().expect("a name");
        let template = |fingerprint: &str, usable, used_at| TemplateStatus {
            name: name(&format!("app_template_{fingerprint}")),
            usable,
            owner: "mallory".to_owned(),
            migrations: 2,
            built_at: used_at,
            used_at,
        };
        let now = unix_now();
        Status {
            schema: 1,
            namespace: "app".to_owned(),
            server: ServerStatus {
                address: "localhost:5432".to_owned(),
                version: "18.1".to_owned(),
                managed: false,
                kind: "adopted",
                fsync: true,
                clone_strategy: "wal_log, because fsync is on",
                max_connections: 100,
                connections: 12,
                budget: BudgetStatus {
                    slots: 85,
                    max_connections: 100,
                    reserved: 3,
                    other_sessions: 2,
                    headroom: 4,
                    keeper_sessions: 4,
                    foreign_runs: 1,
                    reserved_by_runs: 20,
                    held_slots: 7,
                    holding_processes: 2,
                    waiting_processes: 1,
                },
            },
            templates: vec![
                template("0123456789abc", true, Some(now)),
                template("abcabcabcabca", false, None),
            ],
            runs: vec![RunStatus {
                run: "000000000000001".parse().expect("a run id"),
                state: "alive",
                age_secs: 61,
                databases: 3,
                sessions: 2,
                clones: Some(counts()),
            }],
            kept: vec![name("app_kept_0123456789abc_000000000000001_000001")],
            spares: vec![
                name("app_spare_0123456789abc_000000000000001_000002"),
                name("app_spare_0123456789abc_000000000000001_000003"),
            ],
        }
    }

    #[test]
    fn text_names_server_slots_templates_runs_and_kept_databases() {
        insta::assert_snapshot!(text(&status()));
    }

    #[test]
    fn json_has_these_keys() {
        let json = serde_json::to_value(status()).expect("JSON");
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value
                .as_object()
                .expect("an object")
                .keys()
                .cloned()
                .collect()
        };
        insta::assert_debug_snapshot!([
            keys(&json),
            keys(&json["server"]),
            keys(&json["server"]["budget"]),
            keys(&json["templates"][0]),
            keys(&json["runs"][0]),
        ]);
    }
}
