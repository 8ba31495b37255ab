#[kapsel_testdb::test(databases = 3)]
async fn test(_pools: [sqlx::PgPool; 2]) {}

fn main() {}
