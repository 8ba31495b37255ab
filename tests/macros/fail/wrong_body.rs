#[kapsel_testdb::test]
async fn test(pool: sqlx::PgPool) -> sqlx::Result<()> {
    sqlx::query("SELECT 1").execute(&pool).await?
}

fn main() {}
