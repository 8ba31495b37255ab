#[kapsel_testdb::test(leaks = "loud")]
async fn unknown(_: sqlx::PgPool) {}

fn main() {}
