//! The parameters of a test, of one version of sqlx (`super::sqlx`).

use super::sqlx::pool::PoolConnection;
use super::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use super::sqlx::{PgPool, Postgres};
use super::{This, to_internal_error};
use crate::arguments::{Arguments, SandboxArguments};
use crate::{TestDb, TestDbError};

impl Arguments for PgPool {
    type Version = This;

    async fn on(databases: &[TestDb<This>]) -> Result<Self, TestDbError> {
        Ok(databases[0].pool().clone())
    }
}

impl SandboxArguments for PgPool {}

impl Arguments for PoolConnection<Postgres> {
    type Version = This;

    async fn on(databases: &[TestDb<This>]) -> Result<Self, TestDbError> {
        let acquired = databases[0].pool().acquire().await;
        acquired.map_err(|error| TestDbError::Connect {
            database: databases[0].name().to_owned(),
            source: to_internal_error(error),
        })
    }
}

impl Arguments for (PgPoolOptions, PgConnectOptions) {
    type Version = This;

    async fn on(databases: &[TestDb<This>]) -> Result<Self, TestDbError> {
        let db = &databases[0];
        Ok((db.pool_options(), db.connect_options()))
    }
}
