//! The audit trail: actor and change, append-only, without secrets.

use kapsel_testdb::{TestDb, test_id};
use sqlx::{PgConnection, PgPool};

use crate::support::{self, AUDIT_APPEND_ONLY, sqlstate, value};

async fn trail(conn: &mut PgConnection, tenant: i64) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT table_name || ' ' || action::text FROM audit_log WHERE tenant_id = $1 ORDER BY id",
    )
    .bind(tenant)
    .fetch_all(conn)
    .await
}

#[tokio::test]
async fn an_update_records_both_images() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    sqlx::query("UPDATE tenants SET plan = 'enterprise' WHERE id = $1")
        .bind(tenant)
        .execute(&mut *tx)
        .await?;

    let plans: (String, String) = sqlx::query_as(
        "SELECT before ->> 'plan', after ->> 'plan' FROM audit_log WHERE tenant_id = $1 AND action = 'update'",
    )
    .bind(tenant)
    .fetch_one(&mut *tx)
    .await?;
    assert_eq!(plans, ("team".into(), "enterprise".into()));
    Ok(())
}

#[tokio::test]
async fn the_actor_is_taken_from_the_session_and_is_the_system_otherwise() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    sqlx::query("SELECT set_config('webhooks.actor', 'ada', true)")
        .execute(&mut *tx)
        .await?;
    sqlx::query("UPDATE tenants SET name = 'renamed' WHERE id = $1")
        .bind(tenant)
        .execute(&mut *tx)
        .await?;

    let actors: Vec<String> = value(
        &mut tx,
        "SELECT array_agg(actor ORDER BY id) FROM audit_log WHERE tenant_id = $1",
        tenant,
    )
    .await?;
    assert_eq!(actors, ["system", "ada"]);
    Ok(())
}

#[tokio::test]
async fn an_attempt_is_no_change_to_its_endpoint() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    let delivery = support::claimed_delivery(&mut tx, &receiver).await?;
    support::attempt(&mut tx, delivery, 500).await?;
    assert_eq!(
        trail(&mut tx, receiver.tenant).await?,
        ["tenants insert", "endpoints insert"]
    );
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn an_entry_can_neither_be_changed_nor_removed(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let tenant = support::tenant(&mut conn, &test_id()).await?;
    for statement in [
        "UPDATE audit_log SET actor = 'nobody' WHERE tenant_id = $1",
        "DELETE FROM audit_log WHERE tenant_id = $1",
    ] {
        let result = sqlx::query(statement)
            .bind(tenant)
            .execute(&mut *conn)
            .await;
        assert_eq!(sqlstate(result), AUDIT_APPEND_ONLY, "{statement}");
    }
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn a_keys_hash_is_kept_out_of_the_trail(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let tenant = support::tenant(&mut conn, &test_id()).await?;
    value::<String>(&mut conn, "SELECT issue_api_key($1, 'ci')", tenant).await?;
    let (name, has_hash): (String, bool) = sqlx::query_as(
        "SELECT after ->> 'name', after ? 'key_hash' FROM audit_log WHERE tenant_id = $1 AND table_name = 'api_keys'",
    )
    .bind(tenant)
    .fetch_one(&mut *conn)
    .await?;
    assert_eq!((name.as_str(), has_hash), ("ci", false));
    Ok(())
}

#[kapsel_testdb::test]
async fn the_trail_outlives_the_tenant(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    sqlx::query("DELETE FROM tenants")
        .execute(&mut *conn)
        .await?;

    let mut trail = trail(&mut conn, receiver.tenant).await?;
    // The order of the two deletions is up to the server.
    trail[2..].sort();
    assert_eq!(
        trail,
        [
            "tenants insert",
            "endpoints insert",
            "endpoints delete",
            "tenants delete"
        ]
    );
    Ok(())
}

#[kapsel_testdb::test]
async fn a_rolled_back_change_leaves_no_trace(pool: PgPool) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    support::tenant(&mut tx, "acme").await?;
    tx.rollback().await?;
    assert_eq!(
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM audit_log")
            .fetch_one(&pool)
            .await?,
        0
    );
    Ok(())
}
