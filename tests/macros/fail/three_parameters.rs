#[kapsel_testdb::test]
async fn test(pool: sqlx::PgPool, other: sqlx::PgPool, third: sqlx::PgPool) {}

fn main() {}
