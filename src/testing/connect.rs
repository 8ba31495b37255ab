//! Connecting a lease's pool, and what the failures of that mean.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;

use super::sandbox::{Kept, Sandbox, Sandboxed};
use super::session::{Session, current, own};
use super::shared_use::Use;
use super::tokens::Hold;
use super::{TestDbError, identity, report};
use crate::driver::{PoolSettings, Version};
use crate::name::DbName;
use crate::pg::connect::{Patience, Retry, is_missing_database};
use crate::pg::error::{ConnectFailure, classify, code};
use crate::run::RunError;
use crate::run_dir::UseMode;

/// How long a lease waits for a server that goes down and comes up again.
pub const PASSES: Duration = Patience::RUNNING.busy;

/// What sessions are called: the test's name, as PostgreSQL will show it.
pub fn label() -> String {
    shown(&identity::test_name())
}

/// An `application_name` has 63 bytes, and `?` (since 16 an escape) for what is not printable ASCII. What tells tests apart is at the end
/// of their names.
fn shown(name: &str) -> String {
    let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    let name: String = name.chars().map(printable).collect();
    name[name.len().saturating_sub(63)..].to_owned()
}

impl Session {
    /// A complete configuration; the test's name is the application's.
    pub(super) fn options<V: Version>(&self, name: &DbName) -> V::ConnectOptions {
        V::connect_options(&self.file.server, &name.to_string(), &label())
    }

    /// What the test's pool is like.
    pub(super) fn pool_settings(&self, hold: &Hold) -> PoolSettings {
        PoolSettings {
            connections: hold.connections,
            acquire_timeout: Duration::from_secs(self.file.pool.acquire_timeout_secs),
            observer: hold.observer(),
        }
    }

    /// A pool on that database.
    pub(super) async fn connect<V: Version>(
        &self,
        name: &DbName,
        hold: &Hold,
    ) -> Result<V::Pool, TestDbError> {
        let pool = V::pool_options(&self.pool_settings(hold));
        let _turn = hold.turn().await;
        let connected = V::open(pool, self.options::<V>(name));
        let connected = self.meanwhile(connected).await;
        connected
            .inspect(|pool| hold.share(pool.clone()))
            .map_err(|source| TestDbError::Connect {
                database: name.to_string(),
                source,
            })
    }

    /// Does what need not be done before while the server starts a session, which takes it milliseconds.
    async fn meanwhile<T>(&self, connecting: impl Future<Output = T>) -> T {
        // Polled second: the server has been asked by then.
        join(connecting, async { self.watch_keeper() }).await.0
    }

    /// A sandbox on that database: a pool in a transaction that is never committed.
    async fn sandbox<V: Version>(
        &self,
        name: &DbName,
        hold: &Hold,
    ) -> Result<(V::Pool, Sandboxed), TestDbError> {
        let sandbox = Sandbox::new(&self.file, name);
        let settings = sandbox.settings(hold.observer());
        let opened = V::open_sandbox(settings, self.options::<V>(name));
        let opened = self.meanwhile(opened).await;
        let pool = opened.map_err(|source| TestDbError::Connect {
            database: name.to_string(),
            source,
        })?;
        hold.share(Kept(pool.clone()));
        Ok((pool, Sandboxed::new(sandbox, &self.file, label())))
    }

    async fn on_shared<V: Version>(
        &self,
        name: &DbName,
        hold: &Hold,
        kind: Kind,
        mode: UseMode,
    ) -> Result<OnShared<V>, TestDbError> {
        let connecting = async {
            match kind {
                Kind::Plain => Ok::<_, TestDbError>((self.connect::<V>(name, hold).await?, None)),
                Kind::Sandbox => {
                    let (pool, sandbox) = self.sandbox::<V>(name, hold).await?;
                    Ok((pool, Some(sandbox)))
                }
            }
        };
        // Polled second: the server has been asked by then, and takes milliseconds.
        let noting = async { Use::begin(self, name, mode) };
        let (connected, shared_use) = join(connecting, noting).await;
        let (pool, sandbox) = connected?;
        Ok((pool, sandbox, shared_use.map(|used| used.connected(mode))))
    }
}

/// A pool on the shared clone, what makes it a sandbox, and what is noted of its use.
type OnShared<V> = (<V as Version>::Pool, Option<Sandboxed>, Option<Use>);

/// What a pool on the shared clone is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// As any other.
    Plain,
    /// In a transaction that is never committed.
    Sandbox,
}

/// A pool on the shared clone of the exported run, or of our own where that one's template is gone.
pub struct Shared<V: Version> {
    pub session: Arc<Session>,
    pub hold: Hold,
    pub name: DbName,
    pub pool: V::Pool,
    pub shared_use: Option<Use>,
    /// Where its kind is that.
    pub sandbox: Option<Sandboxed>,
}

impl<V: Version> Shared<V> {
    pub async fn connect(
        connections: Option<u32>,
        kind: Kind,
        mode: UseMode,
    ) -> Result<Self, TestDbError> {
        let mut retry = Retry::within(PASSES);
        loop {
            match Self::connect_once(connections, kind, mode).await {
                Err(error) if error.is_passing() => retry.pause(error).await?,
                result => return result,
            }
        }
    }

    async fn connect_once(
        connections: Option<u32>,
        kind: Kind,
        mode: UseMode,
    ) -> Result<Self, TestDbError> {
        let session = current(connections).await?;
        match Self::of(session, connections, kind, mode).await {
            Err(error) if error.is_missing_template() => {
                report::lost_template(&error);
                Self::of(own(connections).await?, connections, kind, mode).await
            }
            result => result,
        }
    }

    async fn of(
        session: Arc<Session>,
        connections: Option<u32>,
        kind: Kind,
        mode: UseMode,
    ) -> Result<Self, TestDbError> {
        let hold = session.hold(connections).await?;
        let mut name = session.shared(None).await?;
        let connected = match session.on_shared::<V>(&name, &hold, kind, mode).await {
            Err(error) if error.is_missing_database() => {
                name = session.shared(Some(name)).await?;
                session.on_shared::<V>(&name, &hold, kind, mode).await
            }
            result => result,
        };
        let (pool, sandbox, shared_use) = connected?;
        Ok(Self {
            shared_use,
            session,
            hold,
            name,
            pool,
            sandbox,
        })
    }
}

impl TestDbError {
    /// A statement of ours, not a connect, met a database that does not exist: only cloning names one.
    pub(super) fn is_missing_template(&self) -> bool {
        match self {
            Self::Pg(error) | Self::Run(RunError::Pg(error)) => {
                error.is(code::INVALID_CATALOG_NAME)
            }
            _ => false,
        }
    }

    /// The server went down, or up, while we asked.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Pg(error) | Self::Run(RunError::Pg(error)) => error.is_passing(),
            Self::Connect { source, .. } => classify(source) == ConnectFailure::Passing,
            _ => false,
        }
    }

    pub(super) fn is_missing_database(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if is_missing_database(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_called_what_postgresql_can_show() {
        assert_eq!(shown("orders::pays"), "orders::pays");
        assert_eq!(shown("größe::maß"), "gr??e::ma?");
        let long = format!("{}::ü_pays", "module::".repeat(20));
        assert_eq!(shown(&long).len(), 63);
        assert!(shown(&long).ends_with("module::::?_pays"));
    }
}
