#[kapsel_testdb::test(connections = "ten")]
async fn many(_pool: sqlx::PgPool) {}

fn main() {}
