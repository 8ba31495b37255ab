#[kapsel_testdb::test(migrations = false, migrator = "MIGRATOR")]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
