//! The forms of the parameter, and names that the test shadows.

use sqlx::{PgPool, Pool, Postgres};

#[kapsel_testdb::test]
async fn imported(pool: PgPool) {
    drop(pool);
}

#[kapsel_testdb::test]
async fn spelled_out(pool: Pool<Postgres>) {
    drop(pool);
}

#[kapsel_testdb::test]
async fn mutable(mut pool: PgPool) {
    pool = pool.clone();
    drop(pool);
}

#[kapsel_testdb::test]
async fn unused(_: PgPool) {}

struct App {
    pool: PgPool,
}

#[kapsel_testdb::test]
#[expect(
    clippy::redundant_pattern,
    reason = "a pattern that is more than a name"
)]
async fn pattern(pool @ _: PgPool) {
    drop(App { pool }.pool);
}

#[kapsel_testdb::test]
async fn r#type(pool: PgPool) {
    drop(pool);
}

mod shadowed {
    type PgPool = ::sqlx::PgPool;
    #[expect(dead_code, reason = "the attribute must not use this type")]
    enum Result {}

    #[kapsel_testdb::test]
    async fn hygienic(pool: PgPool) {
        drop(pool);
    }
}
