#[kapsel_testdb::test(fixtures("not_there"))]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
