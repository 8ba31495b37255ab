#[kapsel_testdb::test(migrations = "db")]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
