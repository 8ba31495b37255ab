#[kapsel_testdb::test(migrations = "not/there")]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
