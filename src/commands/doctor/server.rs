//! Checks the server, the connection of tests, the template, the free disk space, and leftovers.

use std::collections::BTreeSet;
use std::path::Path;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::pg::PgError;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::pg::probe::{ProbeResult, probe};
use kapsel_testdb_core::plural::count;
use kapsel_testdb_core::protocol::{Kind, Limit, Runtime};
use kapsel_testdb_core::server::verify::{Finding, Requirements, verify};
use kapsel_testdb_core::server::{Server, ServerError, ServerKind};
use kapsel_testdb_core::template::{self, Source, TemplateInfo, TemplatePlan};
use kapsel_testdb_core::{connections, platform};

use crate::commands::doctor::report::{Check, Level};
use crate::commands::prepare::test_threads;
use crate::keeper::disk_budget::RESERVE;
use crate::keeper::plan::max_ready;
use crate::printer::Printer;
use crate::sweep::{Options, sweep};

/// Checks the server; starts it only if `start`. `false`: nothing can be measured on it.
pub async fn check(
    config: &Config,
    start: bool,
    checks: &mut Vec<Check>,
    printer: &Printer,
) -> bool {
    printer.detail("checking the server");
    let found = match start {
        true => Server::locate(config, "doctor").await.map(Some),
        false => Server::find(config, "doctor").await,
    };
    let (server, mut admin) = match found {
        Ok(Some(found)) => found,
        Ok(None) => {
            let message = ServerKind::of(&config.server).not_running();
            checks.push(Check::new(Level::Note, "server", message));
            checks.extend(sources(config).await);
            return false;
        }
        Err(error) => {
            checks.push(Check::new(Level::Fails, "server", error.to_string()));
            checks.extend(sources(config).await);
            return false;
        }
    };
    checks.push(Check::ok("server", describe(&server)));
    let before = checks.len();
    if let Err(error) = server.check_version(&config.server) {
        checks.push(Check::new(Level::Fails, "version", error.to_string()));
    }
    let checked = check_server(config, &server, &mut admin, checks).await;
    admin.close().await;
    if let Err(error) = checked {
        checks.push(Check::new(Level::Fails, "server", error.to_string()));
    }
    checks.push(leftovers(config).await);
    checks[before..].iter().all(|c| c.level != Level::Fails)
}

fn describe(server: &Server) -> String {
    let kind = server.kind.as_str();
    let facts = &server.facts;
    let rights = if facts.superuser {
        "superuser"
    } else {
        "not a superuser"
    };
    let administration = match server.admin_address == server.address {
        true => String::new(),
        false => format!(", administration at {}", server.admin_address),
    };
    format!(
        "{kind} PostgreSQL {} at {} ({rights}{administration}), clone strategy {}",
        facts.version(),
        server.address,
        template::strategy(facts)
    )
}

async fn check_server(
    config: &Config,
    server: &Server,
    admin: &mut Admin,
    checks: &mut Vec<Check>,
) -> Result<(), ServerError> {
    let facts = &server.facts;
    // Problems of the runtime directory are reported by `host`.
    let runtime = Runtime::open();
    let limit = runtime.and_then(|runtime| {
        connections::limit(&runtime, &server.admin_address, &facts.sessions, None)
    });
    let limit = limit.unwrap_or_else(|_| Limit::new(&facts.sessions, &BTreeSet::new(), 0));
    let requirements = Requirements {
        threads: test_threads(),
        pool: config.pool.max_connections,
        base: &config.template.base,
        managed: server.kind == ServerKind::Local,
        limit,
    };
    let mut findings = verify(facts, requirements);
    let extensions = &config.template.extensions;
    let missing = admin
        .missing_extensions(extensions, facts.superuser)
        .await?;
    findings.extend(
        missing
            .into_iter()
            .map(|(n, why)| Finding::Extension(n, why)),
    );
    checks.extend(findings.iter().map(|finding| Check::of(finding, facts)));
    checks.push(test_connection(server).await);
    checks.push(test_role(config, server, admin).await?);
    checks.extend(unused_settings(config, server));
    let rows = admin.databases(&config.namespace).await?;
    let mut size = None;
    for config in &config.per_template() {
        let (check, found) = template(config, server, &rows).await;
        checks.push(check);
        if let Some(row) = found {
            size = size.max(Some(admin.database_size(&row.name).await?));
        }
    }
    checks.push(kept(config, &rows));
    checks.extend(disk(server, admin, size).await);
    checks.extend(shared_memory(server));
    Ok(())
}

/// Connects as tests do, and uses prepared statements.
async fn test_connection(server: &Server) -> Check {
    const NAME: &str = "test connection";
    let database = &server.maintenance_database;
    let here = probe(&server.address, database).await;
    let there = match server.address == server.admin_address {
        true => here.as_ref().map_err(PgError::to_string).cloned(),
        false => probe(&server.admin_address, database)
            .await
            .map_err(|e| e.to_string()),
    };
    match (here, there) {
        (Err(error), _) => Check::new(Level::Fails, NAME, error.to_string()),
        (Ok(here), Ok(there)) if here.started_at != there.started_at => {
            let message = "`server.url` and `server.admin_url` point to different servers";
            Check::new(Level::Fails, NAME, message).with_fix("correct one of the two URLs")
        }
        (
            Ok(ProbeResult {
                prepared: false, ..
            }),
            _,
        ) => {
            let message =
                "a transaction pooler mixes up the prepared statements of different connections";
            Check::new(Level::Fails, NAME, message).with_fix(
                "use PgBouncer 1.21 or newer with `max_prepared_statements = 100`, or `pool_mode = session`, or `pool.max_connections = 1`",
            )
        }
        (Ok(_), _) => Check::ok(NAME, format!("tests can connect to {}", server.address)),
    }
}

/// Whether row-level security and missing grants take effect in tests.
async fn test_role(
    config: &Config,
    server: &Server,
    admin: &mut Admin,
) -> Result<Check, ServerError> {
    const NAME: &str = "test role";
    let role = &server.address.user;
    let rights = admin.role(role).await?;
    let message = match rights {
        Some(rights) if rights.superuser => format!(
            "tests connect as the superuser `{role}`: row-level security and missing grants have no effect"
        ),
        Some(rights) if rights.bypasses_rls => {
            format!(
                "tests connect as `{role}`, which has BYPASSRLS: row-level security has no effect"
            )
        }
        _ => {
            let message = format!(
                "tests connect as `{role}`, which is no superuser: row-level security takes effect, except on its own tables without FORCE"
            );
            return Ok(Check::ok(NAME, message));
        }
    };
    Ok(match (&config.server.test_role, server.kind) {
        (_, ServerKind::Local) => {
            let message = format!("{message} (`server.test_role` names another role)");
            Check::ok(NAME, message)
        }
        (None, _) => Check::ok(NAME, message),
        (Some(wanted), _) => {
            let message = format!(
                "{message}; `server.test_role = \"{wanted}\"` is for the managed server only"
            );
            Check::new(Level::Note, NAME, message).with_fix(format!(
                "let `server.url` name the role `{wanted}`, and `server.admin_url` the present one"
            ))
        }
    })
}

/// Settings that only the managed server has.
fn unused_settings(config: &Config, server: &Server) -> Option<Check> {
    let names: Vec<&str> = config.server.settings.keys().map(String::as_str).collect();
    if names.is_empty() || server.kind == ServerKind::Local {
        return None;
    }
    let message = format!(
        "`server.settings` ({}) is for the managed server only, and this server is not managed",
        names.join(", ")
    );
    let fix = "set them in the server's own configuration, or use `server.mode = \"local\"`";
    Some(Check::new(Level::Note, "settings", message).with_fix(fix))
}

async fn template<'a>(
    config: &Config,
    server: &Server,
    rows: &'a [DatabaseRow],
) -> (Check, Option<&'a DatabaseRow>) {
    const NAME: &str = "template";
    let plan = match TemplatePlan::new(config, &server.facts).await {
        Ok(plan) => plan,
        Err(error) => return (Check::new(Level::Fails, NAME, error.to_string()), None),
    };
    match rows.iter().find(|row| row.name == plan.name) {
        Some(row) if TemplateInfo::of(row).is_ok() => {
            let message = format!("{} is current", plan.name);
            (Check::ok(NAME, message), Some(row))
        }
        Some(row) if !row.owned => {
            let message = format!("{} is owned by the role `{}`", plan.name, row.owner);
            let check = Check::new(Level::Fails, NAME, message);
            (
                check.with_fix("let its owner drop it, or set another `namespace`"),
                None,
            )
        }
        _ => {
            let message = "the next `prepare` builds it";
            (Check::ok(NAME, message), None)
        }
    }
}

/// What can be checked of the template without a server: whether its files are there.
async fn sources(config: &Config) -> Option<Check> {
    let error = Source::read(config).await.err()?;
    Some(Check::new(Level::Fails, "template", error.to_string()))
}

fn kept(config: &Config, rows: &[DatabaseRow]) -> Check {
    let kept = rows.iter().filter(|r| r.name.kind() == Kind::Kept).count();
    let keep = &config.keep;
    Check::ok(
        "kept databases",
        format!(
            "{kept} of failed tests (at most {}, for {})",
            keep.max,
            count(keep.max_age_days, "day")
        ),
    )
}

async fn disk(server: &Server, admin: &mut Admin, clone: Option<u64>) -> Option<Check> {
    const NAME: &str = "disk";
    let path = admin.data_directory().await.ok()?;
    let path = Path::new(&path);
    // Another machine or container has its own file system.
    if !server.address.is_local() || !path.exists() {
        return None;
    }
    let free = platform::free_bytes(path)?;
    let clones = u64::try_from(max_ready(test_threads())).unwrap_or(u64::MAX);
    let needed = RESERVE + clones * clone.unwrap_or(10 << 20);
    let message = format!(
        "{} MB free in `{}`, {} MB needed for {}",
        free >> 20,
        path.display(),
        needed >> 20,
        count(clones, "clone")
    );
    Some(match free < needed {
        true => Check::new(Level::Slow, NAME, message)
            .with_fix("free disk space, or use a larger tmpfs or --shm-size"),
        false => Check::ok(NAME, message),
    })
}

/// Free bytes in /dev/shm below which parallel queries are at risk: what a container has by default.
const SHARED_MEMORY: u64 = 64 << 20;

/// Parallel queries share memory through /dev/shm, which has 64 MB in a container by default.
fn shared_memory(server: &Server) -> Option<Check> {
    let path = Path::new("/dev/shm");
    let free = platform::free_bytes(path).filter(|_| path.is_dir())?;
    if !server.address.is_local() || free >= SHARED_MEMORY {
        return None;
    }
    let message = format!(
        "{} MB free in /dev/shm: parallel queries may fail with `could not resize shared memory segment`",
        free >> 20
    );
    Some(Check::new(Level::Note, "shared memory", message).with_fix("docker run --shm-size=256m"))
}

async fn leftovers(config: &Config) -> Check {
    const NAME: &str = "leftovers";
    let options = Options {
        dry_run: true,
        watch: None,
        spares: false,
    };
    let report = match sweep(config, options).await {
        Ok(report) => report.unwrap_or_default(),
        Err(error) => return Check::new(Level::Note, NAME, error.to_string()),
    };
    let (dropped, skipped) = (report.dropped.len(), report.skipped.len());
    let unconfirmed = report.unconfirmed_runs.len();
    if dropped + skipped + unconfirmed == 0 && report.run_directories.is_empty() {
        return Check::ok(NAME, "none");
    }
    let message = format!(
        "{} and {} of dead runs, {} of other hosts, {} that cannot be dropped",
        count(dropped, "database"),
        count(report.run_directories.len(), "run directory"),
        count(unconfirmed, "quiet run"),
        count(skipped, "database")
    );
    Check::new(Level::Note, NAME, message).with_fix("kapsel-testdb sweep")
}
