#[kapsel_testdb::test(isolation = "shared", own_keys = "yes")]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
