#[kapsel_testdb::test(fixtures(path = "data", scripts("not_there")))]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
