#[kapsel_testdb::test(flavor = "multi_thread", flavor = "current_thread")]
async fn test(_pool: sqlx::PgPool) {}

fn main() {}
