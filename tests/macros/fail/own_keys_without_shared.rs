#[kapsel_testdb::test(own_keys = true)]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
