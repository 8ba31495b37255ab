#[kapsel_testdb::test(crate = "tdb")]
async fn test(_pool: sqlx::PgPool) {}

fn main() {}
