#[kapsel_testdb::test(fixtures(scripts("users")))]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
