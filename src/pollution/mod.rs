//! Pollution: what tests committed into the run's shared clone. It is found before the clone is dropped, and reported with the tests
//! that may have caused it.
//!
//! First the server's counters are read. They are zero in a new database, so if they have not moved, nothing was committed and nothing else
//! is done. Rolled back work moves them, too: if they moved, the written tables (and the schema, if a catalog was written) are compared with
//! an unused clone. `evidence` reads the counters, `own` recognizes the rows of tests that commit under keys of their own, `suspects` names
//! tests, `report` writes the result into the runtime directory, which outlives the run. A comparison that fails is reported like a difference, and never prevents a run from ending. A crash leaves a clone with the run's id, and no report.

mod evidence;
mod own;
mod report;
mod suspects;

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use kapsel_testdb_core::pg::PgError;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::protocol::{
    DbName, DeadRunDir, Kind, Pollution, RunDir, RunFile, Runtime, SharedUse, unix_now,
};
use kapsel_testdb_core::run::clone;
use kapsel_testdb_core::sqlstate;

use self::evidence::Evidence;
use crate::compare::{Comparison, ComparisonSession, OwnRows, compare, tracks_commit_times};

pub use report::{PendingReport, PollutionReport};
pub use suspects::Tests;

/// Maximum time that the comparison may delay the end of a run; `wait` waits for 60 s.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A shared clone that is about to be dropped.
#[derive(Debug)]
pub struct SharedClone<'a> {
    run_dir: &'a Path,
    file: &'a RunFile,
    name: DbName,
    /// Unclaimed clones.
    unused: Vec<DbName>,
}

impl<'a> SharedClone<'a> {
    /// The shared clone of a run that is ending. `None`: there is none, or `shared.pollution` is off.
    pub fn of_ending(dir: &'a DeadRunDir, file: &'a RunFile) -> Option<Self> {
        let name = dir.shared().filter(|_| file.pollution != Pollution::Off)?;
        Some(Self {
            run_dir: dir.path(),
            file,
            name,
            unused: dir.ready(),
        })
    }

    /// The shared clone of a finished round of a stress run; the run continues.
    pub fn of_round(dir: &'a RunDir, file: &'a RunFile, name: &DbName) -> Option<Self> {
        let is_shared = name.kind() == Kind::Shared && file.pollution != Pollution::Off;
        is_shared.then(|| Self {
            run_dir: dir.path(),
            file,
            name: name.clone(),
            // The ready clones are for the next tests.
            unused: Vec::new(),
        })
    }

    /// Compares the clone with its template; writes and logs a report if they differ or cannot be compared. Returns the unused clone that it was compared with, if that is
    /// one of the run's.
    pub async fn inspect(self, admin: &mut Admin, runtime: &Runtime) -> Option<DbName> {
        let begun = Instant::now();
        let mut visited = None;
        let outcome = timeout(TIMEOUT, self.find_pollution(admin, &mut visited)).await;
        let (name, took) = (&self.name, begun.elapsed().as_millis());
        let report = match outcome {
            Ok(Ok(report)) => report,
            Ok(Err(error)) => Some(self.unknown(error.to_string())),
            Err(_) => Some(self.unknown(format!("timed out after {} s", TIMEOUT.as_secs()))),
        };
        match report {
            None => tracing::info!("`{name}` equals its template ({took} ms)"),
            Some(report) => {
                tracing::warn!("{report}");
                if let Err(error) = report.write(runtime) {
                    tracing::warn!("{error}");
                }
            }
        }
        visited
    }

    async fn find_pollution(
        &self,
        admin: &mut Admin,
        visited: &mut Option<DbName>,
    ) -> Result<Option<PollutionReport>, PgError> {
        let uses = self.uses();
        let Some(Evidence {
            scope,
            mut session,
            clock,
        }) = evidence::collect(admin, self.file, &self.name, !uses.is_empty()).await?
        else {
            return Ok(None);
        };
        let own = match uses.iter().any(|shared| shared.own_keys) {
            true => own::own_rows(&uses, &clock, tracks_commit_times(&mut session).await?),
            false => OwnRows::default(),
        };
        let (mut template, created) = self.unused_clone(admin, visited).await?;
        let difference = compare(&mut template, &mut session, &scope, &own).await;
        template.close().await;
        session.close().await;
        if let Some(name) = created {
            admin.drop_database(&name, false, true).await?;
        }
        let difference = difference?;
        let tests = Tests::of(&uses, &difference, &clock);
        Ok((!difference.is_equal()).then(|| self.report(difference, tests)))
    }

    /// The report of a comparison that failed: tests may have committed anything.
    fn unknown(&self, reason: String) -> PollutionReport {
        self.report(Comparison::failed(reason), Tests::all(&self.uses()))
    }

    fn uses(&self) -> Vec<SharedUse> {
        let mut uses = SharedUse::read(self.run_dir);
        uses.retain(|shared| shared.database == self.name);
        for shared in &mut uses {
            shared.own_keys |= self.file.own_keys;
        }
        uses
    }

    /// A session on an unused clone, and the clone's name if it was created for this.
    async fn unused_clone(
        &self,
        admin: &mut Admin,
        visited: &mut Option<DbName>,
    ) -> Result<(ComparisonSession, Option<DbName>), PgError> {
        let address = self.file.admin_address();
        for name in &self.unused {
            match ComparisonSession::open(address, name).await {
                // The entry exists, but the database was dropped.
                Err(error) if error.is(sqlstate::INVALID_CATALOG_NAME) => {}
                session => {
                    *visited = Some(name.clone());
                    return session.map(|session| (session, None));
                }
            }
        }
        let name = clone::create_new(admin, self.file, Kind::Clone).await?;
        let session = ComparisonSession::open(address, &name).await?;
        Ok((session, Some(name)))
    }

    fn report(&self, difference: Comparison, tests: Tests) -> PollutionReport {
        PollutionReport {
            schema: report::SCHEMA,
            run: self.file.run.clone(),
            namespace: self.file.namespace.clone(),
            database: self.name.clone(),
            template: self.file.template.clone(),
            found_at: unix_now(),
            is_failure: self.file.pollution == Pollution::Fail,
            difference,
            tests,
        }
    }
}
