//! The server, the way that tests take to it, the template, the room on the disk, and what is left over.

use std::collections::BTreeSet;
use std::path::Path;

use super::report::{Check, Level};
use crate::cli::output::Printer;
use crate::cli::prepare::test_threads;
use crate::config::Config;
use crate::connections::{self, Limit};
use crate::name::Kind;
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::databases::DatabaseRow;
use crate::pg::probe::{Way, probe};
use crate::platform;
use crate::run_dir::Runtime;
use crate::server::verify::{Finding, Wanted, verify};
use crate::server::{Server, ServerError, ServerKind};
use crate::sweep::{Options, sweep};
use crate::template::{self, Plan};

/// Looks at the server, starting it only where `start`. `false`: nothing can be measured there.
pub async fn look(
    config: &Config,
    start: bool,
    checks: &mut Vec<Check>,
    printer: &Printer,
) -> bool {
    printer.detail("looking at the server");
    let found = match start {
        true => Server::locate(config, "doctor").await.map(Some),
        false => Server::find(config, "doctor").await,
    };
    let (server, mut admin) = match found {
        Ok(Some(found)) => found,
        Ok(None) => {
            checks.push(Check::new(
                Level::Note,
                "server",
                ServerKind::of(&config.server).not_running(),
            ));
            return false;
        }
        Err(error) => {
            checks.push(Check::new(Level::Fails, "server", error.to_string()));
            return false;
        }
    };
    checks.push(Check::ok("server", describe(&server)));
    let before = checks.len();
    let looked = inside(config, &server, &mut admin, checks).await;
    admin.close().await;
    if let Err(error) = looked {
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
        "no superuser"
    };
    let past = match server.admin_address == server.address {
        true => String::new(),
        false => format!(", administration at {}", server.admin_address),
    };
    format!(
        "{kind} PostgreSQL {} at {} ({rights}{past}), clones by {}",
        facts.version(),
        server.address,
        template::strategy(facts)
    )
}

async fn inside(
    config: &Config,
    server: &Server,
    admin: &mut Admin,
    checks: &mut Vec<Check>,
) -> Result<(), ServerError> {
    let facts = &server.facts;
    // What is wrong with the runtime folder is told elsewhere.
    let runtime = Runtime::open();
    let limit = runtime.and_then(|runtime| connections::limit(&runtime, server, None));
    let limit = limit.unwrap_or_else(|_| Limit::new(&facts.sessions, &BTreeSet::new(), 0));
    let wanted = Wanted {
        threads: test_threads(),
        pool: config.pool.max_connections,
        base: &config.template.base,
        managed: server.kind == ServerKind::Local,
        limit,
    };
    let mut findings = verify(facts, wanted);
    let wanted = &config.template.extensions;
    let missing = admin.missing_extensions(wanted, facts.superuser).await?;
    findings.extend(
        missing
            .into_iter()
            .map(|(n, why)| Finding::Extension(n, why)),
    );
    checks.extend(findings.iter().map(|finding| Check::of(finding, facts)));
    checks.push(way_of_tests(server).await);
    let rows = admin.databases(&config.namespace).await?;
    let (check, found) = template(config, server, &rows).await;
    checks.push(check);
    checks.push(kept(config, &rows));
    let size = match found {
        Some(row) => Some(admin.database_size(&row.name).await?),
        None => None,
    };
    checks.extend(disk(server, admin, size).await);
    checks.extend(shared_memory(server));
    Ok(())
}

/// Tests connect as they will, and their statements get through.
async fn way_of_tests(server: &Server) -> Check {
    const NAME: &str = "tests' way";
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
            let says = "`server.url` and `server.admin_url` lead to different servers";
            Check::new(Level::Fails, NAME, says).mend("correct one of the two URLs")
        }
        (
            Ok(Way {
                prepared: false, ..
            }),
            _,
        ) => {
            let says =
                "a transaction pooler that mixes up the prepared statements of two connections";
            Check::new(Level::Fails, NAME, says).mend(
                "PgBouncer 1.21 or newer with `max_prepared_statements = 100`; or `pool_mode = session`; or `pool.max_connections = 1`",
            )
        }
        (Ok(_), _) => Check::ok(NAME, format!("{} lets tests in", server.address)),
    }
}

async fn template<'a>(
    config: &Config,
    server: &Server,
    rows: &'a [DatabaseRow],
) -> (Check, Option<&'a DatabaseRow>) {
    const NAME: &str = "template";
    let plan = match Plan::new(config, &server.facts).await {
        Ok(plan) => plan,
        Err(error) => return (Check::new(Level::Fails, NAME, error.to_string()), None),
    };
    match rows.iter().find(|row| row.name == plan.name) {
        Some(row) if row.is_usable_template() => {
            let says = format!("{} is current", plan.name);
            (Check::ok(NAME, says), Some(row))
        }
        Some(row) if !row.owned => {
            let says = format!("{} belongs to the role `{}`", plan.name, row.owner);
            let check = Check::new(Level::Fails, NAME, says);
            (
                check.mend("let its owner drop it, or choose another `namespace`"),
                None,
            )
        }
        _ => {
            let says = "the next `prepare` builds it";
            (Check::ok(NAME, says), None)
        }
    }
}

fn kept(config: &Config, rows: &[DatabaseRow]) -> Check {
    let count = rows.iter().filter(|r| r.name.kind() == Kind::Kept).count();
    let keep = &config.keep;
    Check::ok(
        "kept databases",
        format!(
            "{count} of failed tests (at most {}, for {} days)",
            keep.max, keep.max_age_days
        ),
    )
}

/// What stays free for the server's own files, in bytes.
const RESERVE: u64 = 64 << 20;

async fn disk(server: &Server, admin: &mut Admin, clone: Option<u64>) -> Option<Check> {
    const NAME: &str = "disk";
    let path = admin.data_directory().await.ok()?;
    let path = Path::new(&path);
    // A path that only another machine or container has says nothing.
    if !server.address.is_local() || !path.exists() {
        return None;
    }
    let free = platform::free_bytes(path)?;
    let clones = 2 * u64::try_from(test_threads()).unwrap_or(u64::MAX);
    let needed = RESERVE + clones * clone.unwrap_or(10 << 20);
    let says = format!(
        "{} MB free at `{}`, {} MB wanted for {clones} clones",
        free >> 20,
        path.display(),
        needed >> 20
    );
    Some(match free < needed {
        true => {
            Check::new(Level::Slow, NAME, says).mend("free some; or a larger tmpfs or --shm-size")
        }
        false => Check::ok(NAME, says),
    })
}

/// Parallel queries share memory through /dev/shm, and a container has 64 MB there unless told otherwise.
fn shared_memory(server: &Server) -> Option<Check> {
    let place = Path::new("/dev/shm");
    let free = platform::free_bytes(place).filter(|_| place.is_dir())?;
    if !server.address.is_local() || free >= RESERVE {
        return None;
    }
    let says = format!(
        "{} MB free in /dev/shm: parallel queries may fail with `could not resize shared memory segment`",
        free >> 20
    );
    Some(Check::new(Level::Note, "shared memory", says).mend("docker run --shm-size=256m"))
}

async fn leftovers(config: &Config) -> Check {
    const NAME: &str = "leftovers";
    let options = Options {
        dry_run: true,
        watch: None,
    };
    let report = match sweep(config, options).await {
        Ok(report) => report.unwrap_or_default(),
        Err(error) => return Check::new(Level::Note, NAME, error.to_string()),
    };
    let (dropped, skipped) = (report.dropped.len(), report.skipped.len());
    let waiting = report.waiting.len();
    if dropped + skipped + waiting == 0 && report.directories.is_empty() {
        return Check::ok(NAME, "none");
    }
    let says = format!(
        "{dropped} databases and {} run directories of dead runs, {waiting} quiet runs of other hosts, {skipped} databases that \
         cannot be dropped",
        report.directories.len()
    );
    Check::new(Level::Note, NAME, says).mend("kapsel-testdb sweep")
}
