#[kapsel_testdb::test(isolation = "transaction", fixtures())]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
