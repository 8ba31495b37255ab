#[kapsel_testdb::test(isolation = "transaction")]
async fn test(connection: sqlx::pool::PoolConnection<sqlx::Postgres>) {}

fn main() {}
