#[kapsel_testdb::test(crate = "kapsel-testdb")]
async fn test(_pool: sqlx::PgPool) {}

fn main() {}
