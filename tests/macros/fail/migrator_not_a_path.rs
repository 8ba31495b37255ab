#[kapsel_testdb::test(migrator = "my migrator")]
async fn test(_pool: sqlx::PgPool) {}

fn main() {}
