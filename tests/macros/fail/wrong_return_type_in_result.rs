#[kapsel_testdb::test]
async fn test(_pool: sqlx::PgPool) -> Result<i32, sqlx::Error> {
    Ok(1)
}

fn main() {}
