#[kapsel_testdb::test(fixtures = "users")]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
