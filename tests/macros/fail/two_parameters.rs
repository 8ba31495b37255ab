#[kapsel_testdb::test]
async fn test(pool: sqlx::PgPool, other: sqlx::PgPool) {}

fn main() {}
