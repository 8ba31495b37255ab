//! What the yardstick's tests do, and every way in which they get their database. `bench/workload.py` generates the test binaries
//! that call it; `CONTENDER` names the way at run time, so that all of them are measured with the same binaries. Only
//! `#[sqlx::test]` must be chosen when a test is written: each test is there a second time for it.

mod body;
mod contenders;
mod pg;
pub mod setup;

pub use contenders::sqlx_test;
use contenders::{bare, kapsel, naive, schema_replay, template_lock};
pub use sqlx;
use sqlx::migrate::Migrator;

/// How a test ends.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// What a test asks for. A contender that knows only one kind gives that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// A database that no other test sees.
    Own,
    /// A database with others; what it did is rolled back.
    Shared,
}

/// One test: gets a database as `CONTENDER` says, works, gives it back. The runtime is the one that `#[tokio::test]` makes.
///
/// # Errors
/// Whatever failed.
pub fn run(wants: Wants, migrator: &Migrator) -> Outcome {
    let contender = std::env::var("CONTENDER").unwrap_or_default();
    if contender == "no-db" {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match contender.as_str() {
            "bare" => bare::test().await,
            "naive" => naive::test(Wants::Own, migrator).await,
            "naive-shared" => naive::test(wants, migrator).await,
            "template-lock" => template_lock::test(migrator).await,
            "schema-replay" => schema_replay::test().await,
            "kapsel" => kapsel::test(wants).await,
            "kapsel-database" => kapsel::test(Wants::Own).await,
            other => Err(format!("`CONTENDER={other}` is none; bench/run sets it").into()),
        }
    })
}

/// Which of the embedded sets of migrations is meant: `MIGRATIONS`, a number.
pub fn migrations() -> usize {
    let number = std::env::var("MIGRATIONS").ok();
    number
        .and_then(|n| n.parse().ok())
        .expect("MIGRATIONS says how many; bench/run sets it")
}
