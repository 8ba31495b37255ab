#[kapsel_testdb::test]
fn test(pool: sqlx::PgPool) {}

fn main() {}
