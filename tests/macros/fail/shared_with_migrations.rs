#[kapsel_testdb::test(migrations = false, isolation = "shared")]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
