#[kapsel_testdb::test(connections = 2, isolation = "transaction")]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
