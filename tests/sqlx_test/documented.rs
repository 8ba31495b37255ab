//! The statements of sqlx's documentation about `#[sqlx::test]` (`src/macros/test.md`, the same in 0.8 and 0.9), as tests. This file is
//! compiled for both versions, and, with the feature `reference`, for sqlx's own attribute.

use std::error::Error;

use sqlx::migrate::Migrator;
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgPool, Pool, Postgres, Row};

#[cfg(not(feature = "reference"))]
use kapsel_testdb as attribute;
#[cfg(feature = "reference")]
use sqlx as attribute;

/// Whether the table exists.
async fn has(pool: &PgPool, table: &str) -> bool {
    let sql = "SELECT to_regclass($1) IS NOT NULL";
    let found = sqlx::query_scalar(sql).bind(table).fetch_one(pool).await;
    found.expect("an answer")
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    let counted = sqlx::query_scalar(sql).fetch_one(pool).await;
    counted.expect("a count")
}

const USERS: &str = "SELECT count(*) FROM users";
const POSTS: &str = "SELECT count(*) FROM posts";

mod without_parameters_like_tokio {
    use super::*;

    #[attribute::test]
    async fn a_function_without_parameters() {
        tokio::task::yield_now().await;
        tokio::spawn(async {}).await.expect("a runtime");
    }

    #[attribute::test]
    async fn that_returns_a_result() -> Result<(), Box<dyn Error>> {
        tokio::time::sleep("1".parse().map(std::time::Duration::from_millis)?).await;
        Ok(())
    }

    #[attribute::test]
    #[should_panic(expected = "as it should")]
    async fn that_panics() {
        panic!("as it should");
    }

    #[attribute::test]
    fn that_is_not_async() {}
}

mod signatures {
    use super::*;

    #[attribute::test]
    async fn a_pool(pool: Pool<Postgres>) {
        assert_eq!(count(&pool, "SELECT 1::int8").await, 1);
    }

    #[attribute::test]
    async fn a_pool_and_a_result(pool: PgPool) -> sqlx::Result<()> {
        let mut connection = pool.acquire().await?;
        let row = sqlx::query("SELECT 'foobar!' AS bar")
            .fetch_one(&mut *connection)
            .await?;
        assert_eq!(row.get::<String, _>("bar"), "foobar!");
        Ok(())
    }

    #[attribute::test]
    async fn a_pool_and_any_result(pool: PgPool) -> Result<(), Box<dyn Error + Send + Sync>> {
        assert_eq!(count(&pool, USERS).await, "0".parse::<i64>()?);
        Ok(())
    }

    #[attribute::test]
    async fn a_connection(mut connection: PoolConnection<Postgres>) -> sqlx::Result<()> {
        connection
            .execute("INSERT INTO users VALUES (1, 'alice')")
            .await?;
        let mut transaction = connection.begin().await?;
        transaction
            .execute("INSERT INTO users VALUES (2, 'bob')")
            .await?;
        transaction.rollback().await?;
        let users: i64 = sqlx::query_scalar(USERS)
            .fetch_one(&mut *connection)
            .await?;
        assert_eq!(users, 1);
        Ok(())
    }

    #[attribute::test]
    async fn options_for_a_pool_of_its_own(
        pool: PgPoolOptions,
        connect: PgConnectOptions,
    ) -> sqlx::Result<()> {
        let connect = connect.application_name("of its own");
        let pool = pool.after_connect(|connection, _| {
            Box::pin(async move {
                connection
                    .execute("SET lock_timeout = '7s'")
                    .await
                    .map(drop)
            })
        });
        let pool = pool.connect_with(connect).await?;
        let sql =
            "SELECT current_setting('application_name') || ' ' || current_setting('lock_timeout')";
        let settings: String = sqlx::query_scalar(sql).fetch_one(&pool).await?;
        assert_eq!(settings, "of its own 7s");
        assert!(has(&pool, "users").await);
        Ok(())
    }

    #[attribute::test]
    async fn options_spelled_out(
        _: PoolOptions<Postgres>,
        connect: PgConnectOptions,
    ) -> sqlx::Result<()> {
        let mut connection = connect.connect().await?;
        connection
            .execute("INSERT INTO users VALUES (1, 'alice')")
            .await?;
        connection.close().await
    }

    #[attribute::test]
    fn not_async(pool: PgPool) {
        assert!(!pool.is_closed());
    }
}

mod each_test_has_its_own_database {
    use super::*;

    async fn alone(pool: &PgPool) -> sqlx::Result<()> {
        assert_eq!(count(pool, USERS).await, 0);
        pool.execute("INSERT INTO users VALUES (1, 'alice')")
            .await?;
        pool.execute("CREATE TABLE alone ()").await?;
        Ok(())
    }

    #[attribute::test]
    async fn one(pool: PgPool) -> sqlx::Result<()> {
        alone(&pool).await
    }

    #[attribute::test]
    async fn another(pool: PgPool) -> sqlx::Result<()> {
        alone(&pool).await
    }

    #[attribute::test]
    async fn with_more_than_one_connection(pool: PgPool) -> sqlx::Result<()> {
        alone(&pool).await?;
        let (mut one, mut other) = (pool.begin().await?, pool.begin().await?);
        for connection in [&mut one, &mut other] {
            let users: i64 = sqlx::query_scalar(USERS)
                .fetch_one(&mut **connection)
                .await?;
            assert_eq!(users, 1);
        }
        Ok(())
    }

    #[attribute::test]
    #[should_panic]
    async fn that_may_panic(pool: PgPool) {
        alone(&pool).await.expect("alone");
        panic!("as it should");
    }

    #[attribute::test]
    #[ignore = "must appear in the list of tests"]
    async fn that_may_be_ignored(_: PgPool) {
        panic!("an ignored test ran");
    }
}

mod migrations {
    use super::*;

    pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");
    pub static OTHER: Migrator = sqlx::migrate!("../other");

    #[attribute::test]
    async fn of_the_directory_beside_the_manifest(pool: PgPool) {
        assert!(has(&pool, "users").await && has(&pool, "posts_by_author").await);
        assert_eq!(
            count(&pool, "SELECT count(*) FROM _sqlx_migrations WHERE success").await,
            3
        );
    }

    #[attribute::test]
    async fn have_been_run(pool: PgPool) -> Result<(), Box<dyn Error>> {
        MIGRATOR.run(&pool).await?;
        Ok(())
    }

    #[attribute::test(migrations = "./other")]
    async fn of_another_directory(pool: PgPool) {
        assert!(has(&pool, "foo").await && !has(&pool, "users").await);
    }

    /// The documentation has such a path, but sqlx itself rejects a path of one word.
    #[cfg(not(feature = "reference"))]
    #[attribute::test(migrations = "other")]
    async fn of_another_directory_in_one_word(pool: PgPool) {
        assert!(has(&pool, "foo").await && !has(&pool, "users").await);
    }

    #[attribute::test(migrations = "./migrations")]
    async fn of_the_same_directory(pool: PgPool) {
        assert!(has(&pool, "users").await);
    }

    #[attribute::test(migrator = "MIGRATOR")]
    async fn compiled_in(pool: PgPool) -> Result<(), Box<dyn Error>> {
        assert!(has(&pool, "users").await);
        MIGRATOR.run(&pool).await?;
        Ok(())
    }

    #[attribute::test(migrator = "super::migrations::OTHER")]
    async fn others_compiled_in(pool: PgPool) -> Result<(), Box<dyn Error>> {
        assert!(has(&pool, "foo").await && !has(&pool, "users").await);
        OTHER.run(&pool).await?;
        Ok(())
    }

    #[attribute::test(migrations = false)]
    async fn none(pool: PgPool) -> sqlx::Result<()> {
        assert!(!has(&pool, "users").await && !has(&pool, "_sqlx_migrations").await);
        pool.execute("CREATE TABLE foo (bar text)").await?;
        pool.execute("INSERT INTO foo VALUES ('foobar!')").await?;
        assert_eq!(count(&pool, "SELECT count(*) FROM foo").await, 1);
        Ok(())
    }

    #[attribute::test(migrations = false)]
    async fn none_on_a_connection(mut connection: PoolConnection<Postgres>) -> sqlx::Result<()> {
        connection.execute("CREATE TABLE users ()").await.map(drop)
    }
}

mod fixtures {
    use super::*;

    async fn are(pool: &PgPool, users: i64, posts: i64) {
        assert_eq!(
            (count(pool, USERS).await, count(pool, POSTS).await),
            (users, posts)
        );
    }

    #[attribute::test(fixtures("users", "posts"))]
    async fn named(pool: PgPool) {
        are(&pool, 2, 2).await;
    }

    #[attribute::test(fixtures("users.sql"))]
    async fn named_with_the_extension(pool: PgPool) {
        are(&pool, 2, 0).await;
    }

    #[attribute::test(fixtures("./fixtures/users.sql", "./fixtures/posts.sql"))]
    async fn by_path(pool: PgPool) {
        are(&pool, 2, 2).await;
    }

    #[attribute::test(fixtures(path = "./fixtures", scripts("users", "posts")))]
    async fn in_a_directory(pool: PgPool) {
        are(&pool, 2, 2).await;
    }

    #[attribute::test(fixtures(path = "fixtures", scripts("users.sql", "posts")))]
    async fn in_a_directory_with_the_extension(pool: PgPool) {
        are(&pool, 2, 2).await;
    }

    #[attribute::test(
        fixtures("users"),
        fixtures("./fixtures/posts.sql"),
        fixtures(path = "data", scripts("more_posts"))
    )]
    async fn of_every_kind(pool: PgPool) {
        are(&pool, 2, 3).await;
    }

    #[attribute::test(fixtures())]
    async fn none(pool: PgPool) {
        are(&pool, 0, 0).await;
    }

    #[attribute::test(fixtures("users"), migrator = "super::migrations::MIGRATOR")]
    async fn beside_a_migrator(pool: PgPool) {
        are(&pool, 2, 0).await;
    }

    #[attribute::test(migrations = "./migrations", fixtures("users"))]
    async fn on_a_connection(mut connection: PoolConnection<Postgres>) -> sqlx::Result<()> {
        let users: i64 = sqlx::query_scalar(USERS)
            .fetch_one(&mut *connection)
            .await?;
        assert_eq!(users, 2);
        Ok(())
    }

    #[attribute::test(fixtures("users"))]
    async fn before_a_pool_of_its_own(
        pool: PgPoolOptions,
        connect: PgConnectOptions,
    ) -> sqlx::Result<()> {
        are(&pool.connect_with(connect).await?, 2, 0).await;
        Ok(())
    }

    /// A script's session settings do not affect the test.
    #[attribute::test(fixtures("data/dump.sql"))]
    async fn as_pg_dump_writes_them(pool: PgPool) {
        are(&pool, 1, 0).await;
    }
}

/// Arguments that a `macro_rules!` macro passes on.
macro_rules! tests {
    ($($name:ident $migrations:literal $fixture:literal;)*) => {
        $(
            #[attribute::test(migrations = $migrations, fixtures($fixture))]
            async fn $name(pool: PgPool) {
                assert_eq!(count(&pool, USERS).await, 2);
            }
        )*
    };
}

tests! {
    of_a_macro "./migrations" "users";
    also_of_a_macro "../migrations" "users.sql";
}
