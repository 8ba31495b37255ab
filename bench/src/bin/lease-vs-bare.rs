//! One process of `bench/lease`: times one way to a first answer, from the call to the answered query, and prints nanoseconds.
//!
//! `lease-vs-bare bare` connects to the database of `BARE_URL`; `lease`, `shared`, `begin` and `sandbox` go through the helper, in the run
//! of the environment. A current-thread runtime, as `#[tokio::test]` makes; it is there before the clock starts.
//!
//! `lease-vs-bare statements` prints what a statement takes after the first ones: in a sandbox, and on plain pools of one connection and of
//! five, in nanoseconds: reading, writing, and a transaction of one writing statement.

use std::time::{Duration, Instant};

use kapsel_testdb::TestDb;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

type Answer = Result<(), Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Answer {
    let way = std::env::args()
        .nth(1)
        .ok_or("say `bare`, `lease`, `shared`, `begin`, `sandbox` or `statements`")?;
    let url = std::env::var("BARE_URL").unwrap_or_default();
    let begun = Instant::now();
    match way.as_str() {
        "bare" => {
            let pool = PgPoolOptions::new()
                .max_connections(5)
                .connect(&url)
                .await?;
            ask(&pool, begun).await
        }
        "lease" => ask(TestDb::lease().await?.pool(), begun).await,
        "sandbox" => ask(TestDb::sandbox().await?.pool(), begun).await,
        "statements" => statements(&url).await,
        "shared" => ask(TestDb::shared().await?.pool(), begun).await,
        "begin" => {
            let mut transaction = TestDb::begin().await?;
            sqlx::query("SELECT 1").execute(&mut *transaction).await?;
            tell(begun)
        }
        other => Err(format!("no such way: `{other}`").into()),
    }
}

async fn ask(pool: &PgPool, begun: Instant) -> Answer {
    sqlx::query("SELECT 1").execute(pool).await?;
    tell(begun)
}

fn tell(begun: Instant) -> Answer {
    println!("{}", begun.elapsed().as_nanos());
    Ok(())
}

/// Rounds of each kind, in turns, so that what else the machine does falls on all of them.
const ROUNDS: usize = 40;
/// Statements of a round.
const STATEMENTS: u32 = 50;

async fn statements(url: &str) -> Answer {
    let sandbox = TestDb::sandbox().await?;
    let pool = |size| PgPoolOptions::new().max_connections(size).connect(url);
    let (one, five) = (pool(1).await?, pool(5).await?);
    let pools = [
        ("sandbox", sandbox.pool()),
        ("plain1", &one),
        ("plain5", &five),
    ];
    for (name, pool) in pools {
        let create = match name {
            "sandbox" => "CREATE TABLE bench_sandbox (id bigint)",
            "plain1" => "CREATE TABLE IF NOT EXISTS bench_one (id bigint)",
            _ => "CREATE TABLE IF NOT EXISTS bench_five (id bigint)",
        };
        sqlx::query(create).execute(pool).await?;
    }
    let mut lines = Vec::new();
    for round in 0..=ROUNDS {
        for (name, pool) in pools {
            let table = match name {
                "sandbox" => "INSERT INTO bench_sandbox VALUES ($1)",
                "plain1" => "INSERT INTO bench_one VALUES ($1)",
                _ => "INSERT INTO bench_five VALUES ($1)",
            };
            let times = [
                read(pool).await?,
                write(pool, table).await?,
                transact(pool, table).await?,
            ];
            // The first round prepares the statements, and opens what is opened on demand.
            if round > 0 {
                for (kind, took) in ["read", "write", "transaction"].iter().zip(times) {
                    lines.push(format!(
                        "{name} {kind} {}",
                        took.as_nanos() / u128::from(STATEMENTS)
                    ));
                }
            }
        }
    }
    println!("{}", lines.join("\n"));
    sandbox.release().await;
    Ok(())
}

async fn read(pool: &PgPool) -> Result<Duration, sqlx::Error> {
    let begun = Instant::now();
    for _ in 0..STATEMENTS {
        sqlx::query("SELECT 1").execute(pool).await?;
    }
    Ok(begun.elapsed())
}

async fn write(pool: &PgPool, insert: &'static str) -> Result<Duration, sqlx::Error> {
    let begun = Instant::now();
    for id in 0..STATEMENTS {
        sqlx::query(insert)
            .bind(i64::from(id))
            .execute(pool)
            .await?;
    }
    Ok(begun.elapsed())
}

async fn transact(pool: &PgPool, insert: &'static str) -> Result<Duration, sqlx::Error> {
    let begun = Instant::now();
    for id in 0..STATEMENTS {
        let mut transaction = pool.begin().await?;
        sqlx::query(insert)
            .bind(i64::from(id))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
    }
    Ok(begun.elapsed())
}
