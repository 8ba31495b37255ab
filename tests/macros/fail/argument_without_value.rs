#[kapsel_testdb::test(shared)]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
