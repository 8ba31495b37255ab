#[kapsel_testdb::test(template = "audit", migrations = false)]
async fn test(_pool: sqlx::PgPool) {}

fn main() {}
