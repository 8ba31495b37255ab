#[kapsel_testdb::test]
async fn test<T: Default>(pool: sqlx::PgPool) {}

fn main() {}
