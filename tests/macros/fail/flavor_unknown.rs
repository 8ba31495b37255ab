#[kapsel_testdb::test(flavor = "threaded")]
async fn test(_pool: sqlx::PgPool) {}

fn main() {}
