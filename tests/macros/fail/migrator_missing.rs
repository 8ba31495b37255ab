#[kapsel_testdb::test(migrator = "MIGRATOR")]
async fn test(_pool: sqlx::PgPool) {}

fn main() {}
