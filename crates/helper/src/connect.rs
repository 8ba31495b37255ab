//! Opens the pool of a lease, and classifies the failures of that.

use std::time::Duration;

use futures_util::future::join;

use kapsel_testdb_core::pg::connect::is_missing_database;
use kapsel_testdb_core::pg::error::{ConnectFailure, classify};
use kapsel_testdb_core::protocol::DbName;
use kapsel_testdb_core::run::RunError;
use kapsel_testdb_core::sqlstate;

use crate::sandbox::{Sandbox, SandboxPool, Sandboxed};
use crate::session::Session;
use crate::shared_use::{SharedCloneUse, SharedRequest};
use crate::slots::Permit;
use crate::sqlx_compat::{PoolSettings, Version};
use crate::{TestDbError, identity};

/// The maximum length of an `application_name`, in bytes.
const MAX_APPLICATION_NAME: usize = 63;

/// The `application_name` of the test's sessions: the test's name.
pub fn application_name() -> String {
    to_application_name(&identity::test_name())
}

/// Replaces characters that are not printable ASCII by `?`, as PostgreSQL does before version 16 (later versions escape them). Keeps the end
/// of a long name, because test names differ at the end.
fn to_application_name(name: &str) -> String {
    let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    let name: String = name.chars().map(printable).collect();
    name[name.len().saturating_sub(MAX_APPLICATION_NAME)..].to_owned()
}

impl Session {
    pub(super) fn connect_options<V: Version>(&self, name: &DbName) -> V::ConnectOptions {
        V::connect_options(&self.file.server, &name.to_string(), &application_name())
    }

    pub(super) fn pool_settings(&self, permit: &Permit) -> PoolSettings {
        PoolSettings {
            connections: permit.connections,
            acquire_timeout: Duration::from_secs(self.file.pool.acquire_timeout_secs),
            observer: permit.observer(),
        }
    }

    /// Opens a pool on a database.
    pub(super) async fn open_pool<V: Version>(
        &self,
        name: &DbName,
        permit: &Permit,
    ) -> Result<V::Pool, TestDbError> {
        let options = V::pool_options(&self.pool_settings(permit));
        let _turn = permit.turn().await;
        let opening = V::open(options, self.connect_options::<V>(name));
        let opened = self.with_keeper_watch(opening).await;
        opened
            .inspect(|pool| permit.share(pool.clone()))
            .map_err(|source| TestDbError::Connect {
                database: name.to_string(),
                source,
            })
    }

    /// Awaits a connect. Meanwhile starts the watch of the keeper: the server takes milliseconds to start a session.
    async fn with_keeper_watch<T>(&self, connecting: impl Future<Output = T>) -> T {
        // The watch is polled second, after the connect request was sent.
        join(connecting, async { self.watch_keeper() }).await.0
    }

    /// Opens a sandbox on a database: a pool in a transaction that is never committed.
    pub(super) async fn open_sandbox<V: Version>(
        &self,
        name: &DbName,
        permit: &Permit,
    ) -> Result<(V::Pool, Sandboxed), TestDbError> {
        let sandbox = Sandbox::new(&self.file, name);
        let settings = sandbox.settings(permit.observer());
        let opening = V::open_sandbox(settings, self.connect_options::<V>(name));
        let opened = self.with_keeper_watch(opening).await;
        let pool = opened.map_err(|source| TestDbError::Connect {
            database: name.to_string(),
            source,
        })?;
        permit.share(SandboxPool(pool.clone()));
        Ok((
            pool,
            Sandboxed::new(sandbox, &self.file, application_name()),
        ))
    }

    /// Awaits the opening of a pool. Meanwhile records a use of the shared clone.
    pub(super) async fn with_use_record<T>(
        &self,
        name: &DbName,
        request: SharedRequest,
        opening: impl Future<Output = Result<T, TestDbError>>,
    ) -> (Result<T, TestDbError>, Option<SharedCloneUse>) {
        // The record is polled second, after the connect request was sent.
        let recording = async { SharedCloneUse::begin(self, name, request) };
        let (opened, shared_use) = join(opening, recording).await;
        match &opened {
            Ok(_) => (opened, shared_use.map(|used| used.connected(request.mode))),
            Err(_) => (opened, None),
        }
    }
}

impl TestDbError {
    /// Whether an administrative statement failed because a database does not exist. Only the statement that creates a clone names a
    /// database: the template.
    pub(super) fn is_missing_template(&self) -> bool {
        match self {
            Self::Pg(error) | Self::Run(RunError::Pg(error)) => {
                error.is(sqlstate::INVALID_CATALOG_NAME)
            }
            _ => false,
        }
    }

    /// Whether the server was shutting down or starting, so that a retry can succeed.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Pg(error) | Self::Run(RunError::Pg(error)) => error.is_transient(),
            Self::Connect { source, .. } => classify(source) == ConnectFailure::Transient,
            _ => false,
        }
    }

    /// Whether a connect failed because its database does not exist.
    pub(super) fn is_missing_database(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if is_missing_database(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_name_is_printable_ascii_of_at_most_63_bytes() {
        assert_eq!(to_application_name("orders::pays"), "orders::pays");
        assert_eq!(to_application_name("größe::maß"), "gr??e::ma?");
        let long = format!("{}::ü_pays", "module::".repeat(20));
        let name = to_application_name(&long);
        assert_eq!(name.len(), 63);
        assert!(name.ends_with("module::::?_pays"));
    }
}
