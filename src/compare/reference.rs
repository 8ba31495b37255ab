//! An unused clone that represents a template, because a template does not allow connections.
//!
//! The clone belongs to a run of its own: first the run directory's flock, then the run lock and the template's lock, then the clone. So no
//! sweep removes the clone, and no process collects the template meanwhile. A crash leaves a directory with a free flock and a database
//! with the run's id; the next sweep removes both.

use kapsel_testdb_core::pg::PgError;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::lock::LockKey;
use kapsel_testdb_core::protocol::{DbName, Kind, RunDir, RunId, Runtime};
use kapsel_testdb_core::run::{self, RunError};
use kapsel_testdb_core::server::Server;
use kapsel_testdb_core::template::{self, TemplateError, TemplateInfo};

use crate::compare::{Comparison, ComparisonSession, OwnRows, Scope, compare};

/// A clone of a template, and the run that protects it.
#[derive(Debug)]
pub struct Reference {
    runtime: Runtime,
    dir: RunDir,
    admin: Admin,
    name: DbName,
}

impl Reference {
    /// Creates a reference. `admin` is a session without locks.
    ///
    /// # Errors
    /// [`TemplateError::Gone`]; the server or the runtime directory cannot be used.
    pub async fn create(
        server: &Server,
        admin: Admin,
        template: &DbName,
    ) -> Result<Self, RunError> {
        let runtime = Runtime::open()?;
        let (dir, run) = run::open_directory(&runtime, "compare")?;
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
                // If this fails, the sweep drops the clone.
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
        let Some(info) = rows.first().and_then(|row| TemplateInfo::of(row).ok()) else {
            return Err(TemplateError::Gone(template.clone()).into());
        };
        let (source, strategy) = (template.to_string(), template::strategy(&server.facts));
        let admin = &mut self.admin;
        admin.create_database(&self.name, &source, strategy).await?;
        Ok(admin.apply_settings(&self.name, &info.settings).await?)
    }

    /// The clone.
    pub fn database(&self) -> &DbName {
        &self.name
    }

    /// Compares a database with the template.
    ///
    /// # Errors
    /// The server cannot be used.
    pub async fn compare(&self, server: &Server, database: &DbName) -> Result<Comparison, PgError> {
        let address = &server.admin_address;
        let mut template = ComparisonSession::open(address, &self.name).await?;
        let mut database = ComparisonSession::open(address, database).await?;
        let found = compare(
            &mut template,
            &mut database,
            &Scope::Everything,
            &OwnRows::default(),
        )
        .await;
        template.close().await;
        database.close().await;
        found
    }

    /// Drops the clone and ends its run.
    ///
    /// # Errors
    /// A failed statement; the sweep removes the rest.
    pub async fn remove(mut self) -> Result<(), RunError> {
        self.admin.drop_database(&self.name, false, true).await?;
        self.admin.close().await;
        run::close(&self.runtime, self.dir);
        Ok(())
    }
}
