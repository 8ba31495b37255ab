//! A database session for tests that are not asynchronous.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};
use tokio::runtime::{Builder, Runtime};

/// An open connection; it ends with the value.
pub struct Session {
    runtime: Runtime,
    connection: PgConnection,
}

impl Session {
    /// Connects.
    pub fn open(options: &PgConnectOptions) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let connection = runtime.block_on(options.connect());
        Self {
            runtime,
            connection: connection.expect("a connection"),
        }
    }

    /// Runs a script.
    pub fn execute(&mut self, sql: &str) {
        let ran = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.connection);
        if let Err(error) = self.runtime.block_on(ran) {
            panic!("`{sql}` failed: {error}");
        }
    }

    /// Does something with the connection.
    pub fn with<T>(&mut self, task: impl AsyncFnOnce(&mut PgConnection) -> T) -> T {
        self.runtime.block_on(task(&mut self.connection))
    }

    /// The first column, which must be text, of what a query finds.
    pub fn column(&mut self, sql: &str) -> Vec<String> {
        let found = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut self.connection);
        let rows = self.runtime.block_on(found);
        let rows = rows.unwrap_or_else(|error| panic!("`{sql}` failed: {error}"));
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Ends the session.
    pub fn close(self) {
        let _ = self.runtime.block_on(self.connection.close());
    }
}
