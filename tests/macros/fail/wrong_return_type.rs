#[kapsel_testdb::test]
async fn test(_pool: sqlx::PgPool) -> i32 {
    1
}

fn main() {}
