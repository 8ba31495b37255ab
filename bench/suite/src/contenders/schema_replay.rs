//! The practice of the Rust package registry (2026): one database; a nextest setup script dumps the migrated schema once per run; each
//! test makes a schema of its own, replays the DDL there in one batch, works with that `search_path`, and drops the schema.
//!
//! Its best form: the migrated database that is dumped stays from run to run (`setup`), the dump is one round trip, extensions are
//! there once for all, and the test works on the connection that replayed. A test that names `public`, or reads catalogs without
//! saying which schema, would not pass here; those of this workload do neither.

use sqlx::postgres::PgPoolOptions;

use crate::Outcome;
use crate::body::work;
use crate::pg;
use crate::setup::REPLAY;

pub async fn test() -> Outcome {
    let ddl = std::fs::read_to_string(std::env::var("REPLAY_DDL")?)?;
    let schema = format!("test_{}", pg::unique());
    let path = format!("{schema}, public");
    let options = pg::server()?
        .database(REPLAY)
        .options([("search_path", path.as_str())]);
    let pool = PgPoolOptions::new()
        .max_connections(5)
        .connect_with(options)
        .await?;
    let mut conn = pool.acquire().await?;
    let ddl = ddl.replace("public.", &format!("{schema}."));
    // The dump empties the search path.
    let sql = format!("CREATE SCHEMA {schema};\n{ddl}\nSET search_path TO {path};");
    pg::execute(&mut conn, sql).await?;
    work(&mut conn).await?;
    // Thousands of notices about what goes with it are nobody's to read.
    let sql = format!("SET client_min_messages TO warning; DROP SCHEMA {schema} CASCADE");
    pg::execute(&mut conn, sql).await
}
