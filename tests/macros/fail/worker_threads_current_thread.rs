#[kapsel_testdb::test(flavor = "current_thread", worker_threads = 2)]
async fn test(_pool: sqlx::PgPool) {}

fn main() {}
