//! One process of `bench/recycling`: writes one row into each of five tables, as a test would.
//!
//! `touch-tables bare` uses the database of `BARE_URL`; `touch-tables lease` a database of its own, in the run of the environment, which it
//! releases.

use kapsel_testdb::TestDb;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

/// How many of the tables are written to.
const TOUCHED: usize = 5;

type Answer = Result<(), Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Answer {
    match std::env::args().nth(1).as_deref() {
        Some("bare") => {
            let url = std::env::var("BARE_URL")?;
            let pool = PgPoolOptions::new()
                .max_connections(5)
                .connect(&url)
                .await?;
            write(&pool).await?;
            pool.close().await;
        }
        Some("lease") => {
            let db = TestDb::lease().await?;
            write(db.pool()).await?;
            db.release().await;
        }
        _ => return Err("say `bare` or `lease`".into()),
    }
    Ok(())
}

async fn write(pool: &PgPool) -> Answer {
    for table in 0..TOUCHED {
        let insert = format!("INSERT INTO table_{table} (name) VALUES ($1)");
        sqlx::query(sqlx::AssertSqlSafe(insert))
            .bind("a row")
            .execute(pool)
            .await?;
    }
    Ok(())
}
