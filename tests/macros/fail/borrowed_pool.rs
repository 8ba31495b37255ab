#[kapsel_testdb::test]
async fn test(_pool: &sqlx::PgPool) {}

fn main() {}
