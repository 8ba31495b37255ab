//! The attribute under another name: of a facade crate, or of a renamed dependency.

/// As a facade crate exports it.
mod facade {
    pub use kapsel_testdb::test;

    pub mod private {
        pub use kapsel_testdb as testdb;
    }
}

#[facade::test(crate = "crate::accepted::renamed::facade::private::testdb")]
async fn in_a_facade(pool: sqlx::PgPool) {
    let answer = sqlx::query("SELECT 1").execute(&pool).await;
    answer.expect("an answer");
}

#[facade::test(
    isolation = "transaction",
    leaks = "fail",
    databases = 1,
    crate = "facade::private::testdb"
)]
async fn relative(_pool: sqlx::PgPool) -> sqlx::Result<()> {
    Ok(())
}

#[facade::test(crate = "::kapsel_testdb")]
fn blocking(_pool: sqlx::postgres::PgPoolOptions, _connect: sqlx::postgres::PgConnectOptions) {}

#[facade::test(crate = "self::facade::private::testdb")]
async fn without_a_database() {}
