#[kapsel_testdb::test(isolation = "transaction")]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
