//! The arguments of the attribute.

#[kapsel_testdb::test]
async fn by_default(pool: sqlx::PgPool) {
    drop(pool);
}

#[kapsel_testdb::test()]
async fn empty(_: sqlx::PgPool) {}

#[kapsel_testdb::test(isolation = "database")]
async fn database(_pool: sqlx::PgPool) {}

#[kapsel_testdb::test(isolation = "shared")]
async fn shared(_pool: sqlx::PgPool) {}

#[kapsel_testdb::test(connections = 3, isolation = "shared")]
async fn with_connections(pool: sqlx::PgPool) {
    assert_eq!(pool.options().get_max_connections(), 3);
}
