#[kapsel_testdb::test(migrations = true)]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
