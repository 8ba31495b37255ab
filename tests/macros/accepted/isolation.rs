//! The arguments of the attribute, except those about the schema.

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

#[kapsel_testdb::test(isolation = "shared", own_keys = true)]
async fn own_keys(_pool: sqlx::PgPool) {}

#[kapsel_testdb::test(own_keys = false, isolation = "shared")]
async fn no_own_keys(_pool: sqlx::PgPool) {}

#[kapsel_testdb::test(connections = 3, isolation = "shared")]
async fn with_connections(pool: sqlx::PgPool) {
    assert_eq!(pool.options().get_max_connections(), 3);
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn transaction(pool: sqlx::PgPool) {
    assert_eq!(pool.options().get_max_connections(), 1);
}

#[kapsel_testdb::test(isolation = "transaction", databases = 1)]
fn transaction_not_async(_pool: sqlx::PgPool) {}

/// Its connections are still returning when it ends.
#[kapsel_testdb::test(leaks = "fail")]
async fn without_leaks(pool: sqlx::PgPool) {
    let all = [pool.acquire().await, pool.acquire().await];
    assert!(all.iter().all(Result::is_ok));
}

#[kapsel_testdb::test(leaks = "off", isolation = "shared")]
async fn with_unchecked_leaks(pool: sqlx::PgPool) {
    std::mem::forget(pool.acquire().await);
}

#[kapsel_testdb::test]
fn for_another_driver(db: kapsel_testdb::DatabaseConfig) {
    assert!(db.url().contains(db.database()));
}
