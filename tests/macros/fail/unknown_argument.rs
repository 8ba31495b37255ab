#[kapsel_testdb::test(migration = "db")]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
