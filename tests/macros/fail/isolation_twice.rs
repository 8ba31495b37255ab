#[kapsel_testdb::test(isolation = "shared", isolation = "database")]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
