#[kapsel_testdb::test(isolation = "transaction")]
async fn test(pools: [sqlx::PgPool; 2]) {}

fn main() {}
