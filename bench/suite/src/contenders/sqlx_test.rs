//! sqlx's own practice: `#[sqlx::test]` on every test, which creates a database from `template1`, runs all migrations there, and
//! drops it after the test. Its best form: the migrations are embedded once for all tests (`migrator = …`), not once in each.

use sqlx::PgPool;

use crate::Outcome;
use crate::body::work;

/// What stands in each test; `bench/workload.py` writes the attribute.
///
/// # Errors
/// A failed statement.
pub async fn test(pool: PgPool) -> Outcome {
    work(&mut *pool.acquire().await?).await?;
    Ok(())
}
