#[kapsel_testdb::test(migrations = 3)]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
