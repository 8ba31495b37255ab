#[kapsel_testdb::test(worker_threads = 2)]
async fn test(_pool: sqlx::PgPool) {}

fn main() {}
