//! One process of `bench/lease`: times one way to a first answer, from the call to the answered query, and prints nanoseconds.
//!
//! `lease-vs-bare bare` connects to the database of `BARE_URL`; `lease`, `shared` and `begin` go through the helper, in the run
//! of the environment. A current-thread runtime, as `#[tokio::test]` makes; it is there before the clock starts.

use std::time::Instant;

use kapsel_testdb::TestDb;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

type Answer = Result<(), Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Answer {
    let way = std::env::args()
        .nth(1)
        .ok_or("say `bare`, `lease`, `shared` or `begin`")?;
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
