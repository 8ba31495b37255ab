#[kapsel_testdb::test(fixtures("../not_there.sql"))]
async fn test(pool: sqlx::PgPool) {}

fn main() {}
