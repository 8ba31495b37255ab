//! Nobody's practice: the floor. The database is there already, the process connects, begins, works and rolls back. It keeps no test
//! apart from what another one commits, nor from its sequences: it is the least that a test on a real database costs.

use sqlx::postgres::PgPoolOptions;

use crate::Outcome;
use crate::body::work;

pub async fn test() -> Outcome {
    let url = std::env::var("BARE_URL")?;
    let pool = PgPoolOptions::new()
        .max_connections(5)
        .connect(&url)
        .await?;
    let mut transaction = pool.begin().await?;
    work(&mut transaction).await?;
    Ok(())
}
