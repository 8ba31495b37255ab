#[kapsel_testdb::test(flavor = "multi_thread", worker_threads = 0)]
async fn test(_pool: sqlx::PgPool) {}

fn main() {}
