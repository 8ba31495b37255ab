#[kapsel_testdb::test(flavor = multi_thread)]
async fn test(_pool: sqlx::PgPool) {}

fn main() {}
