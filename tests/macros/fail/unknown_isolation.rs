#[kapsel_testdb::test(isolation = "schema")]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
