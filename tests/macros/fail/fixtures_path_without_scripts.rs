#[kapsel_testdb::test(fixtures(path = "data"))]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
