#[kapsel_testdb::test(isolation = "shared", fixtures())]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
