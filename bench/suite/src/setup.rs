//! The setup script of `schema-replay`: makes sure of a migrated database, dumps its schema, and makes the database that the tests'
//! schemas are in. What it costs is in that contender's wall time.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};

use crate::Outcome;
use crate::pg::{self, Answer};

/// The database that all schemas are in.
pub(crate) const REPLAY: &str = "replay_test";

/// Prepares, and tells the tests (`NEXTEST_ENV`) where the DDL is: in the folder `SCRATCH`. `PG_BIN` is where `pg_dump` is.
///
/// # Errors
/// Whatever failed.
pub fn replay(migrator: &Migrator) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let template = runtime.block_on(prepare(migrator))?;
    let file = PathBuf::from(std::env::var("SCRATCH")?).join("replay.sql");
    std::fs::write(&file, dump(&template)?)?;
    let mut exported = OpenOptions::new()
        .append(true)
        .open(std::env::var("NEXTEST_ENV")?)?;
    writeln!(exported, "REPLAY_DDL={}", file.display())?;
    Ok(())
}

async fn prepare(migrator: &Migrator) -> Answer<String> {
    let template = format!("replay_template_{}", pg::hash(migrator));
    let mut admin = pg::admin().await?;
    if !pg::exists(&mut admin, &template).await? {
        pg::create_migrated(&mut admin, &template, migrator).await?;
    }
    let sql = format!("DROP DATABASE IF EXISTS {REPLAY} WITH (FORCE)");
    pg::execute(&mut admin, sql).await?;
    pg::execute(&mut admin, format!("CREATE DATABASE {REPLAY}")).await?;
    admin.close().await?;
    let mut from = PgConnection::connect_with(&pg::server()?.database(&template)).await?;
    let mut to = PgConnection::connect_with(&pg::server()?.database(REPLAY)).await?;
    let extensions: Vec<String> =
        sqlx::query_scalar("SELECT extname::text FROM pg_extension WHERE extname <> 'plpgsql'")
            .fetch_all(&mut from)
            .await?;
    for extension in extensions {
        pg::execute(&mut to, format!(r#"CREATE EXTENSION "{extension}""#)).await?;
    }
    from.close().await?;
    to.close().await?;
    Ok(template)
}

/// The schema `public` and what the migrations put into it, without psql's own commands.
fn dump(database: &str) -> Answer<String> {
    let program = Path::new(&std::env::var("PG_BIN")?).join("pg_dump");
    let options = pg::server()?;
    let socket = options.get_socket().ok_or("the server has no socket")?;
    let output = Command::new(program)
        .args([
            "--schema=public",
            "--no-owner",
            "--no-privileges",
            "--inserts",
        ])
        .args(["--exclude-table=_sqlx_migrations", "--username"])
        .arg(options.get_username())
        .arg("--host")
        .arg(socket)
        .args(["--port", &options.get_port().to_string(), database])
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let skipped = [
        "\\",
        "--",
        "CREATE SCHEMA public",
        "COMMENT ON SCHEMA public",
    ];
    let text = String::from_utf8(output.stdout)?;
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !skipped.iter().any(|s| line.starts_with(s)));
    Ok(lines.fold(String::new(), |sql, line| sql + line + "\n"))
}
