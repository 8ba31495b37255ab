//! A clone that nobody uses, to stand for a template that cannot be connected to.
//!
//! It belongs to a run of its own: the run directory's flock first, then the run lock and the template's lock, then the clone. So
//! nobody sweeps it or collects the template meanwhile; what a crash leaves, a directory with a free flock and a database that carries
//! the run's id, the next sweep removes.

use std::time::SystemTime;

use super::{Comparison, Scope, Session, compare};
use crate::name::{DbName, Kind, RunId, RunKey, random_word};
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::lock::LockKey;
use crate::run::{self, RunError};
use crate::run_dir::{RunDir, Runtime};
use crate::server::Server;
use crate::template::{self, TemplateError, TemplateInfo};

/// A clone of a template, and what keeps it alive.
#[derive(Debug)]
pub struct Reference {
    runtime: Runtime,
    dir: RunDir,
    admin: Admin,
    name: DbName,
}

impl Reference {
    /// Makes one. `admin` is a session without locks.
    ///
    /// # Errors
    /// [`TemplateError::Gone`]; the server or the runtime folder cannot be used.
    pub async fn make(server: &Server, admin: Admin, template: &DbName) -> Result<Self, RunError> {
        let runtime = Runtime::open()?;
        let own = format!("{}-{}", std::process::id(), random_word());
        let run = RunId::new(SystemTime::now(), &RunKey::new(&["compare", &own]));
        let dir = runtime.create(&runtime.gate()?, &run)?;
        let name = DbName::for_run(
            template.namespace(),
            Kind::Clone,
            template.fingerprint(),
            &run,
        );
        let mut new = Self {
            runtime,
            dir,
            admin,
            name,
        };
        match new.clone_template(server, template, &run).await {
            Ok(()) => Ok(new),
            Err(error) => {
                // What the server would not drop is the sweep's.
                let _ = new.remove().await;
                Err(error)
            }
        }
    }

    async fn clone_template(
        &mut self,
        server: &Server,
        template: &DbName,
        run: &RunId,
    ) -> Result<(), RunError> {
        let locks = [
            LockKey::run(template.namespace(), run),
            LockKey::template(template),
        ];
        let names = std::slice::from_ref(template);
        let rows = self.admin.lock_and_find(&locks, names).await?;
        let Some(row) = rows.first().filter(|row| row.is_usable_template()) else {
            return Err(TemplateError::Gone(template.clone()).into());
        };
        let info = TemplateInfo::parse(row.comment.as_deref());
        let settings = info.map(|info| info.settings).unwrap_or_default();
        let (source, strategy) = (template.to_string(), template::strategy(&server.facts));
        let admin = &mut self.admin;
        admin.create_database(&self.name, &source, strategy).await?;
        Ok(admin.apply_settings(&self.name, &settings).await?)
    }

    /// Compares a database with it.
    ///
    /// # Errors
    /// The server cannot be used.
    pub async fn compare(&self, server: &Server, database: &DbName) -> Result<Comparison, PgError> {
        let address = &server.admin_address;
        let mut template = Session::open(address, &self.name).await?;
        let mut database = Session::open(address, database).await?;
        let found = compare(&mut template, &mut database, &Scope::Everything).await;
        template.close().await;
        database.close().await;
        found
    }

    /// Drops it, and ends its run.
    ///
    /// # Errors
    /// A failed statement: the rest is left to the sweep.
    pub async fn remove(mut self) -> Result<(), RunError> {
        self.admin.drop_database(&self.name, false, true).await?;
        self.admin.close().await;
        run::close(&self.runtime, self.dir);
        Ok(())
    }
}
