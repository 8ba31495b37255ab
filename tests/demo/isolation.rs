//! Isolation: no test sees the changes of another test.

use kapsel_testdb::{TestDb, test_id};
use sqlx::PgPool;

use crate::support::{self, sqlstate};

/// Uses fixed keys, counts whole tables, and checks the first values of sequences. Two tests run this, and neither may
/// affect the other.
async fn assert_alone(pool: &PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let tenant = support::tenant(&mut conn, "acme").await?;
    support::publish(&mut conn, tenant, "user.created").await?;

    let seen: (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM tenants), (SELECT count(*) FROM events), (SELECT count(*) FROM audit_log)",
    )
    .fetch_one(&mut *conn)
    .await?;
    assert_eq!(seen, (1, 1, 1));
    let reference: String = sqlx::query_scalar("SELECT reference FROM events")
        .fetch_one(&mut *conn)
        .await?;
    assert_eq!(
        (tenant, reference.as_str()),
        (1, "evt_1000"),
        "sequences start where the migrations left them"
    );
    Ok(())
}

#[kapsel_testdb::test]
async fn fixed_keys_and_whole_table_counts_are_safe_in_this_test(pool: PgPool) -> sqlx::Result<()> {
    assert_alone(&pool).await
}

#[kapsel_testdb::test]
async fn fixed_keys_and_whole_table_counts_are_safe_in_that_test(pool: PgPool) -> sqlx::Result<()> {
    assert_alone(&pool).await
}

async fn create_scratch_table(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::raw_sql("CREATE TABLE scratch (id bigint); DROP VIEW tenant_usage")
        .execute(pool)
        .await?;
    Ok(())
}

#[kapsel_testdb::test]
async fn ddl_stays_in_this_test(pool: PgPool) -> sqlx::Result<()> {
    create_scratch_table(&pool).await
}

#[kapsel_testdb::test]
async fn ddl_stays_in_that_test(pool: PgPool) -> sqlx::Result<()> {
    create_scratch_table(&pool).await
}

#[tokio::test]
async fn two_leases_of_one_test_are_two_databases() -> sqlx::Result<()> {
    let first = TestDb::lease().await.expect("a first lease");
    let second = TestDb::lease().await.expect("a second lease");
    assert_ne!(first.name(), second.name());

    for db in [&first, &second] {
        let tenant = support::tenant(&mut *db.pool().acquire().await?, "acme").await?;
        assert_eq!(tenant, 1, "{} is fresh", db.name());
    }
    Ok(())
}

#[tokio::test]
async fn leases_one_after_the_other_are_all_fresh() -> sqlx::Result<()> {
    for round in 0..5 {
        let db = TestDb::lease().await.expect("a lease");
        let tenants: i64 = sqlx::query_scalar("SELECT count(*) FROM tenants")
            .fetch_one(db.pool())
            .await?;
        assert_eq!(tenants, 0, "round {round}");
        support::tenant(&mut *db.pool().acquire().await?, "acme").await?;
        db.release().await;
    }
    Ok(())
}

#[tokio::test]
async fn two_leases_can_hold_the_same_advisory_lock() -> sqlx::Result<()> {
    let first = TestDb::lease().await.expect("a first lease");
    let second = TestDb::lease().await.expect("a second lease");
    let lock = "SELECT pg_try_advisory_xact_lock(42)";
    let mut held = first.pool().begin().await?;
    assert!(
        sqlx::query_scalar::<_, bool>(lock)
            .fetch_one(&mut *held)
            .await?
    );
    assert!(
        sqlx::query_scalar::<_, bool>(lock)
            .fetch_one(second.pool())
            .await?
    );
    assert!(
        !sqlx::query_scalar::<_, bool>(lock)
            .fetch_one(first.pool())
            .await?,
        "within one database it is taken"
    );
    held.rollback().await
}

#[tokio::test]
async fn another_program_can_reach_the_lease_by_its_url() -> sqlx::Result<()> {
    let db = TestDb::lease().await.expect("a lease");
    support::tenant(&mut *db.pool().acquire().await?, "acme").await?;

    let by_url = PgPool::connect(&db.url()).await?;
    let by_options = PgPool::connect_with(db.connect_options()).await?;
    for other in [&by_url, &by_options] {
        let (name, tenants): (String, i64) =
            sqlx::query_as("SELECT current_database()::text, (SELECT count(*) FROM tenants)")
                .fetch_one(other)
                .await?;
        assert_eq!((name.as_str(), tenants), (db.name(), 1));
        other.close().await;
    }
    Ok(())
}

#[tokio::test]
async fn handles_on_the_shared_clone_see_each_others_commits() -> sqlx::Result<()> {
    let first = TestDb::shared().await.expect("the shared clone");
    let second = TestDb::shared().await.expect("the shared clone again");
    assert_eq!(first.name(), second.name());

    let slug = test_id();
    let tenant = support::tenant(&mut *first.pool().acquire().await?, &slug).await?;
    let seen: i64 = sqlx::query_scalar("SELECT id FROM tenants WHERE slug = $1")
        .bind(&slug)
        .fetch_one(second.pool())
        .await?;
    assert_eq!(seen, tenant);
    Ok(())
}

#[tokio::test]
async fn other_connections_never_see_a_transactions_rows() -> sqlx::Result<()> {
    let shared = TestDb::shared().await.expect("the shared clone");
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let slug = test_id();
    support::tenant(&mut tx, &slug).await?;

    let visible = async || -> sqlx::Result<i64> {
        sqlx::query_scalar("SELECT count(*) FROM tenants WHERE slug = $1")
            .bind(&slug)
            .fetch_one(shared.pool())
            .await
    };
    assert_eq!(visible().await?, 0, "while it is open");
    drop(tx);
    assert_eq!(visible().await?, 0, "after it");
    // Without the rollback, this insert would wait or be a duplicate.
    let mut other = shared.pool().begin().await?;
    sqlx::query("SET LOCAL lock_timeout = '10s'")
        .execute(&mut *other)
        .await?;
    support::tenant(&mut other, &slug).await?;
    other.commit().await
}

#[kapsel_testdb::test(isolation = "shared")]
async fn a_row_that_is_locked_elsewhere_is_reported_at_once(pool: PgPool) -> sqlx::Result<()> {
    let tenant = support::tenant(&mut *pool.acquire().await?, &test_id()).await?;
    let mut holder = pool.begin().await?;
    sqlx::query("SELECT FROM tenants WHERE id = $1 FOR UPDATE")
        .bind(tenant)
        .execute(&mut *holder)
        .await?;

    let result = sqlx::query("SELECT FROM tenants WHERE id = $1 FOR UPDATE NOWAIT")
        .bind(tenant)
        .execute(&pool)
        .await;
    assert_eq!(sqlstate(result), support::LOCK_NOT_AVAILABLE);
    holder.rollback().await
}

#[kapsel_testdb::test]
async fn a_lost_update_is_a_serialization_failure(pool: PgPool) -> sqlx::Result<()> {
    let tenant = support::tenant(&mut *pool.acquire().await?, "acme").await?;
    let rename = "UPDATE tenants SET name = name || '!' WHERE id = $1";
    let mut slow = pool
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await?;
    sqlx::query("SELECT name FROM tenants WHERE id = $1")
        .bind(tenant)
        .execute(&mut *slow)
        .await?;
    sqlx::query(rename).bind(tenant).execute(&pool).await?;

    let result = sqlx::query(rename).bind(tenant).execute(&mut *slow).await;
    assert_eq!(sqlstate(result), "40001");
    slow.rollback().await
}

#[tokio::test]
async fn a_test_id_can_be_part_of_any_identifier() {
    let id = test_id();
    assert!(id.len() <= 32, "{id}");
    assert!(id.starts_with(|c: char| c.is_ascii_lowercase()), "{id}");
    assert!(
        id.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
        "{id}"
    );
}
