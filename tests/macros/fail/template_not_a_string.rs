#[kapsel_testdb::test(template = audit)]
async fn test(_pool: sqlx::PgPool) {}

fn main() {}
