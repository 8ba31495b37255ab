#[kapsel_testdb::test(crate = kapsel_testdb)]
async fn test(_pool: sqlx::PgPool) {}

fn main() {}
