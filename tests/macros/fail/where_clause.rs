#[kapsel_testdb::test]
async fn test(pool: sqlx::PgPool)
where
    String: Copy,
{
}

fn main() {}
