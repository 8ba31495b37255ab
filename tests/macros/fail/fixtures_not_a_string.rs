#[kapsel_testdb::test(fixtures(1))]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
