#[kapsel_testdb::test(isolation = shared)]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
