#[kapsel_testdb::test(flavor = "multi_thread")]
fn test(_pool: sqlx::PgPool) {}

fn main() {}
