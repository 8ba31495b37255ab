#[kapsel_testdb::test(connections = 0)]
async fn none(_pool: sqlx::PgPool) {}

fn main() {}
