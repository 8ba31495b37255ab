//! What the hand-written contenders share.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::Outcome;

/// What a contender answers with.
pub type Answer<T> = Result<T, Box<dyn std::error::Error>>;

/// The server of `DATABASE_URL`.
pub fn server() -> Answer<PgConnectOptions> {
    Ok(std::env::var("DATABASE_URL")?.parse()?)
}

/// A connection to the server's maintenance database.
pub async fn admin() -> Answer<PgConnection> {
    Ok(PgConnection::connect_with(&server()?).await?)
}

/// A pool on a database of the server.
pub async fn pool(database: &str, connections: u32) -> Answer<PgPool> {
    let options = server()?.database(database);
    let pool = PgPoolOptions::new().max_connections(connections);
    Ok(pool.connect_with(options).await?)
}

/// A statement without parameters, through the simple protocol.
pub async fn execute(conn: &mut PgConnection, sql: String) -> Outcome {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await?;
    Ok(())
}

pub async fn exists(conn: &mut PgConnection, database: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(database)
        .fetch_one(conn)
        .await
}

/// Makes a database and runs the migrations there.
pub async fn create_migrated(
    admin: &mut PgConnection,
    database: &str,
    migrator: &Migrator,
) -> Outcome {
    execute(admin, format!(r#"CREATE DATABASE "{database}""#)).await?;
    migrate(database, migrator).await
}

/// Runs what is missing of the migrations.
pub async fn migrate(database: &str, migrator: &Migrator) -> Outcome {
    let mut conn = PgConnection::connect_with(&server()?.database(database)).await?;
    migrator.run(&mut conn).await?;
    conn.close().await?;
    Ok(())
}

/// Tells one state of the migrations from another.
pub fn hash(migrator: &Migrator) -> String {
    let mut hasher = DefaultHasher::new();
    for migration in migrator.iter() {
        (migration.version, &migration.checksum).hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

/// Seconds since 1970, this process, and a number: no other test has it.
pub fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(
        "{}_{}_{next}",
        since.unwrap_or_default().as_secs(),
        std::process::id()
    )
}
