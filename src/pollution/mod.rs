//! Pollution: what tests committed into the run's shared clone, found before it is dropped and reported with the tests that could
//! have done it.
//!
//! First the server's counters are asked: a database begins with none, so where none moved nothing was committed, and that is all.
//! Work that was rolled back moves them too: where they moved, the tables written to (and the schema, where a catalog was) are
//! compared with a clone that nobody has used. `evidence` looks, `suspects` names tests, `report` writes down what was found in the
//! runtime folder, which outlives the run. Nothing here may keep a run from ending: what fails is logged. A crash leaves a clone that
//! carries the run's id, and no report.

mod evidence;
mod report;
mod suspects;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;

pub use report::{Report, Untold};
pub use suspects::Tests;

use crate::compare::{Comparison, Session, compare};
use crate::config::Pollution;
use crate::name::{DbName, Kind};
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::error::code;
use crate::run::clone;
use crate::run_dir::{DeadRunDir, RunDir, RunFile, Runtime, SharedUse};
use evidence::{Evidence, evidence};
use suspects::Clock;

/// How long a run's end may take longer because somebody looks: `wait` waits for 60 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// A shared clone that is about to be dropped.
#[derive(Debug)]
pub struct Shared<'a> {
    run_dir: &'a Path,
    file: &'a RunFile,
    name: DbName,
    /// Clones that no test has claimed.
    unused: Vec<DbName>,
}

impl<'a> Shared<'a> {
    /// That of a run whose end is near. `None`: there is none, or nobody asks.
    pub fn of_ending(dir: &'a DeadRunDir, file: &'a RunFile) -> Option<Self> {
        let name = dir.shared().filter(|_| file.pollution != Pollution::Off)?;
        Some(Self {
            run_dir: dir.path(),
            file,
            name,
            unused: dir.ready(),
        })
    }

    /// One that a round of a stress run is done with, while the run goes on.
    pub fn of_round(dir: &'a RunDir, file: &'a RunFile, name: &DbName) -> Option<Self> {
        let is_shared = name.kind() == Kind::Shared && file.pollution != Pollution::Off;
        is_shared.then(|| Self {
            run_dir: dir.path(),
            file,
            name: name.clone(),
            // The ready ones are the next tests'.
            unused: Vec::new(),
        })
    }

    /// Looks at it, and writes down and logs what is found.
    pub async fn judge(self, admin: &mut Admin, runtime: &Runtime) {
        let begun = Instant::now();
        let judged = timeout(PATIENCE, self.look(admin)).await;
        let (name, took) = (&self.name, begun.elapsed().as_millis());
        match judged {
            Ok(Ok(None)) => tracing::info!("`{name}` is as its template ({took} ms)"),
            Ok(Ok(Some(report))) => {
                tracing::warn!("{report}");
                if let Err(error) = report.write(runtime) {
                    tracing::warn!("{error}");
                }
            }
            Ok(Err(error)) => {
                tracing::warn!("nobody knows whether tests changed `{name}`: {error}");
            }
            Err(_) => tracing::warn!(
                "nobody knows whether tests changed `{name}`: comparing it took longer than {} s",
                PATIENCE.as_secs()
            ),
        }
    }

    async fn look(&self, admin: &mut Admin) -> Result<Option<Report>, PgError> {
        let uses = self.uses();
        let Some(Evidence {
            scope,
            mut session,
            clock,
        }) = evidence(admin, self.file, &self.name, !uses.is_empty()).await?
        else {
            return Ok(None);
        };
        let (mut template, made) = self.unused_clone(admin).await?;
        let difference = compare(&mut template, &mut session, &scope).await;
        template.close().await;
        session.close().await;
        if let Some(made) = made {
            admin.drop_database(&made, false, true).await?;
        }
        let difference = difference?;
        for unread in &difference.unread {
            tracing::warn!("`{}` of {}: {}", self.name, unread.table, unread.reason);
        }
        Ok((!difference.is_equal()).then(|| self.report(difference, &uses, &clock)))
    }

    fn uses(&self) -> Vec<SharedUse> {
        let mut uses = SharedUse::read(self.run_dir);
        uses.retain(|shared| shared.database == self.name);
        uses
    }

    /// A session on a clone that nobody has used, and its name where it was made for this.
    async fn unused_clone(&self, admin: &mut Admin) -> Result<(Session, Option<DbName>), PgError> {
        let address = self.file.admin_address();
        for name in &self.unused {
            match Session::open(address, name).await {
                // The entry outlived its database.
                Err(error) if error.is(code::INVALID_CATALOG_NAME) => {}
                session => return session.map(|session| (session, None)),
            }
        }
        let name = clone::create_new(admin, self.file, Kind::Clone).await?;
        let session = Session::open(address, &name).await?;
        Ok((session, Some(name)))
    }

    fn report(&self, difference: Comparison, uses: &[SharedUse], clock: &Clock) -> Report {
        Report {
            schema: report::SCHEMA,
            run: self.file.run.clone(),
            namespace: self.file.namespace.clone(),
            database: self.name.clone(),
            template: self.file.template.clone(),
            found_at: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |now| now.as_secs()),
            fails: self.file.pollution == Pollution::Fail,
            tests: Tests::of(uses, &difference, clock),
            difference,
        }
    }
}
