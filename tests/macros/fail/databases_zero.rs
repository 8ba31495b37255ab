#[kapsel_testdb::test(databases = 0)]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
