#[kapsel_testdb::test(fixtures(folder = "data", scripts("users")))]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
