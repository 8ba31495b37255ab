//! `kapsel-testdb status`: the server, templates, runs and connections. Like `kept`, it does not start a server.

mod screen;
mod watch;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::connections;
use kapsel_testdb_core::pg::databases::{DatabaseRow, DatabaseSize};
use kapsel_testdb_core::protocol::{
    DbName, Entries, EntryState, Kind, Presence, ReuseCounts, RunDir, RunId, Runtime, Strategy,
};
use kapsel_testdb_core::run::kept::kept_at;
use kapsel_testdb_core::server::{Server, ServerKind};
use kapsel_testdb_core::template::{self, TemplateInfo, TemplatePlan};

use self::screen::{Format, screen};
use crate::args::StatusArgs;
use crate::failure::Result;
use crate::printer::Printer;

/// The version of the JSON: it changes when a field is removed or changes its meaning.
const SCHEMA: u32 = 2;

/// The output of `--json`.
#[derive(Debug, Serialize)]
struct Status {
    schema: u32,
    namespace: String,
    server: ServerStatus,
    templates: Vec<TemplateStatus>,
    runs: Vec<RunStatus>,
    kept: Vec<DbName>,
    /// Their size; null, like every size, if the role may not read one of them.
    kept_bytes: Option<u64>,
    /// Seconds since 1970.
    kept_newest_at: Option<u64>,
    spares: Vec<DbName>,
    spares_bytes: Option<u64>,
    others: OtherProjects,
}

/// The role's databases of other projects that belong to no live run of this host.
#[derive(Debug, Default, Serialize)]
struct OtherProjects {
    databases: usize,
    /// Their namespaces, sorted.
    projects: BTreeSet<String>,
    size_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ServerStatus {
    address: String,
    version: String,
    managed: bool,
    /// `adopted`, `managed` (from local binaries) or `compose`.
    kind: &'static str,
    fsync: bool,
    clone_strategy: Strategy,
    clone_strategy_reason: &'static str,
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
    /// Whether the next run uses it: the migrations and seeds are the same now.
    current: bool,
    owner: String,
    size_bytes: Option<u64>,
    migrations: usize,
    /// Seconds since 1970.
    built_at: Option<u64>,
    /// Seconds since 1970, to the hour.
    used_at: Option<u64>,
}

#[derive(Debug, Serialize)]
struct RunStatus {
    run: RunId,
    state: RunState,
    age_secs: u64,
    /// Tests that have a database of their own, if its directory is here.
    tests: Option<usize>,
    databases: usize,
    sessions: i64,
    /// What happened to its clones, if its directory is here.
    clones: Option<ReuseCounts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum RunState {
    Alive,
    Dead,
    /// This host has no directory of the run.
    Elsewhere,
}

pub async fn run(config: &Config, args: StatusArgs, printer: &Printer) -> Result<ExitCode> {
    if args.watch {
        return watch::run(config, printer).await;
    }
    let json = args.json;
    let Some(status) = collect(config).await? else {
        printer.not_running(&config.server, json.then_some(SCHEMA));
        return Ok(ExitCode::SUCCESS);
    };
    if json {
        printer.data(&format!("{:#}\n", serde_json::to_value(&status)?));
    } else {
        let format = Format {
            width: printer.width(),
            verbose: printer.is_verbose(),
        };
        printer.screen(&screen(&status, format));
    }
    Ok(ExitCode::SUCCESS)
}

async fn collect(config: &Config) -> Result<Option<Status>> {
    let Some((server, mut admin)) = Server::find(config, "status").await? else {
        return Ok(None);
    };
    let rows = admin.databases(&config.namespace).await?;
    let sizes = admin.sizes().await?;
    let connections = admin.count_connections().await?;
    admin.close().await;
    // Files that cannot be read are a matter of `prepare` and `doctor`.
    let mut current = Vec::new();
    for config in &config.per_template() {
        let plan = TemplatePlan::new(config, &server.facts).await;
        current.extend(plan.ok().map(|plan| plan.name));
    }
    let size = |name: &DbName| sizes.iter().find(|one| one.name == *name)?.bytes;
    let template = |row| template_status(row, &current, size(&row.name));
    let names = |kind| -> Vec<DbName> { of_kind(&rows, kind).map(|r| r.name.clone()).collect() };
    let (kept, spares) = (names(Kind::Kept), names(Kind::Spare));
    let sum = |names: &[DbName]| names.iter().map(size).sum::<Option<u64>>();
    Ok(Some(Status {
        schema: SCHEMA,
        namespace: config.namespace.to_string(),
        server: server_status(&server, connections)?,
        templates: of_kind(&rows, Kind::Template).map(template).collect(),
        runs: runs(config, &rows)?,
        kept_bytes: sum(&kept),
        kept_newest_at: of_kind(&rows, Kind::Kept).map(kept_secs).max(),
        kept,
        spares_bytes: sum(&spares),
        spares,
        others: other_projects(config, &sizes)?,
    }))
}

fn kept_secs(row: &DatabaseRow) -> u64 {
    let since = kept_at(row).duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn server_status(server: &Server, connections: i64) -> Result<ServerStatus> {
    let facts = &server.facts;
    let strategy = template::strategy(facts);
    Ok(ServerStatus {
        address: server.address.to_string(),
        version: facts.version(),
        managed: server.kind != ServerKind::Adopted,
        kind: server.kind.as_str(),
        fsync: facts.fsync,
        clone_strategy: strategy,
        clone_strategy_reason: match strategy {
            Strategy::FileClone => "fsync is off and the file system may share blocks",
            Strategy::FileCopy => "fsync is off",
            Strategy::Default if facts.major() < 15 => "there is no other before PostgreSQL 15",
            Strategy::Default => "fsync is on",
        },
        max_connections: facts.sessions.max_connections,
        connections,
        budget: budget(server)?,
    })
}

fn other_projects(config: &Config, sizes: &[DatabaseSize]) -> Result<OtherProjects> {
    let alive = Runtime::open()?.alive()?;
    let is_alive = |name: &DbName| alive.iter().any(|file| Some(&file.run) == name.run());
    let left: Vec<&DatabaseSize> = sizes
        .iter()
        .filter(|one| one.owned && *one.name.namespace() != config.namespace)
        .filter(|one| !is_alive(&one.name))
        .collect();
    Ok(OtherProjects {
        databases: left.len(),
        projects: left
            .iter()
            .map(|one| one.name.namespace().to_string())
            .collect(),
        size_bytes: left.iter().map(|one| one.bytes).sum(),
    })
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

fn template_status(
    row: &DatabaseRow,
    current: &[DbName],
    size_bytes: Option<u64>,
) -> TemplateStatus {
    let info = TemplateInfo::parse(row.comment.as_deref());
    let migrations = info.iter().flat_map(|info| &info.inputs);
    TemplateStatus {
        name: row.name.clone(),
        usable: TemplateInfo::of(row).is_ok(),
        current: current.contains(&row.name),
        size_bytes,
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
        let is_here = presence != Presence::Unknown;
        let path = runtime.run_path(&run);
        let tests = || match presence {
            Presence::Alive => Entries::of(&path).list(EntryState::Leased).len(),
            Presence::Dead | Presence::Unknown => 0,
        };
        RunStatus {
            clones: is_here.then(|| RunDir::reuse_counts(&path)),
            tests: is_here.then(tests),
            state: match presence {
                Presence::Alive => RunState::Alive,
                Presence::Dead => RunState::Dead,
                Presence::Unknown => RunState::Elsewhere,
            },
            age_secs: age.unwrap_or_default().as_secs(),
            databases: rows.clone().count(),
            sessions: rows.map(|row| row.sessions).sum(),
            run,
        }
    };
    Ok(runs.into_iter().map(status).collect())
}

#[cfg(test)]
mod tests {
    use kapsel_testdb_core::protocol::{Reason, ReuseEvent, unix_now};

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

    fn name(text: &str) -> DbName {
        text.parse().expect("a name")
    }

    fn template(fingerprint: &str, usable: bool, age_secs: u64) -> TemplateStatus {
        let at = unix_now() - age_secs;
        TemplateStatus {
            name: name(&format!("app_template_{fingerprint}")),
            usable,
            current: age_secs == 1_800,
            owner: "mallory".to_owned(),
            size_bytes: usable.then_some(12_300_000),
            migrations: 2,
            built_at: Some(at),
            used_at: usable.then_some(at),
        }
    }

    fn run(state: RunState, tests: Option<usize>) -> RunStatus {
        RunStatus {
            run: "000000000000001".parse().expect("a run id"),
            state,
            age_secs: 61,
            tests,
            databases: 3,
            sessions: 1,
            clones: Some(counts()),
        }
    }

    fn server() -> ServerStatus {
        ServerStatus {
            address: "localhost:5432".to_owned(),
            version: "18.1".to_owned(),
            managed: false,
            kind: "adopted",
            fsync: true,
            clone_strategy: Strategy::Default,
            clone_strategy_reason: "fsync is on",
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
        }
    }

    fn status() -> Status {
        Status {
            schema: SCHEMA,
            namespace: "app".to_owned(),
            server: server(),
            templates: vec![
                template("0123456789abc", true, 1_800),
                template("bcdbcdbcdbcdb", true, 300_000),
                template("abcabcabcabca", false, 7_200),
            ],
            runs: vec![
                run(RunState::Alive, Some(1)),
                run(RunState::Dead, Some(0)),
                run(RunState::Elsewhere, None),
            ],
            kept: vec![name("app_kept_0123456789abc_000000000000001_000001")],
            kept_bytes: Some(8_300_000),
            kept_newest_at: Some(unix_now() - 130),
            spares: vec![
                name("app_spare_0123456789abc_000000000000001_000002"),
                name("app_spare_0123456789abc_000000000000001_000003"),
            ],
            spares_bytes: Some(16_600_000),
            others: OtherProjects {
                databases: 5,
                projects: ["blog", "shop"].map(str::to_owned).into(),
                size_bytes: Some(90_000_000),
            },
        }
    }

    fn empty() -> Status {
        let server = server();
        let budget = BudgetStatus {
            waiting_processes: 0,
            ..server.budget
        };
        Status {
            server: ServerStatus { budget, ..server },
            templates: Vec::new(),
            runs: Vec::new(),
            kept: Vec::new(),
            spares: Vec::new(),
            others: OtherProjects::default(),
            ..status()
        }
    }

    fn drawn(status: &Status, width: usize, verbose: bool) -> String {
        screen(status, Format { width, verbose })
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn screen_shows_what_is_there_at_a_glance() {
        let text = drawn(&status(), 80, false);
        insta::assert_snapshot!("status", plain(&text));
        insta::assert_snapshot!("status_coloured", text.replace('\u{1b}', "ESC"));
        insta::assert_snapshot!("status_verbose", plain(&drawn(&status(), 80, true)));
        insta::assert_snapshot!("status_of_nothing", plain(&drawn(&empty(), 80, false)));
    }

    #[test]
    fn screen_fits_the_terminal() {
        for (width, verbose) in [
            (60, false),
            (80, false),
            (100, false),
            (80, true),
            (100, true),
        ] {
            let text = plain(&drawn(&status(), width, verbose));
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width), "{width}: {text}");
        }
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
