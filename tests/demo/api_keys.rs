//! API keys: issued once in plain text, stored as a hash.

use kapsel_testdb::{TestDb, test_id};
use sqlx::{PgConnection, PgPool};

use crate::support::{self, UNIQUE_VIOLATION, sqlstate, value, violated};

async fn issue(conn: &mut PgConnection, tenant: i64, name: &str) -> sqlx::Result<String> {
    sqlx::query_scalar("SELECT issue_api_key($1, $2)")
        .bind(tenant)
        .bind(name)
        .fetch_one(conn)
        .await
}

async fn authenticate(conn: &mut PgConnection, key: &str) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("SELECT authenticate_api_key($1)")
        .bind(key)
        .fetch_one(conn)
        .await
}

#[tokio::test]
async fn a_key_authenticates_the_tenant_it_was_issued_to() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let id = test_id();
    let tenant = support::tenant(&mut tx, &format!("{id}_a")).await?;
    let other = support::tenant(&mut tx, &format!("{id}_b")).await?;
    let key = issue(&mut tx, tenant, "ci").await?;
    issue(&mut tx, other, "ci").await?;

    assert_eq!(authenticate(&mut tx, &key).await?, Some(tenant));
    Ok(())
}

#[tokio::test]
async fn a_key_with_one_character_changed_is_invalid() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    let mut key = issue(&mut tx, tenant, "ci").await?;
    let last = key.pop().expect("a key is not empty");
    key.push(if last == '0' { '1' } else { '0' });

    assert_eq!(authenticate(&mut tx, &key).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_revoked_key_is_invalid() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    let key = issue(&mut tx, tenant, "ci").await?;
    sqlx::query("UPDATE api_keys SET revoked_at = now() WHERE tenant_id = $1")
        .bind(tenant)
        .execute(&mut *tx)
        .await?;

    assert_eq!(authenticate(&mut tx, &key).await?, None);
    Ok(())
}

#[tokio::test]
async fn an_expired_key_is_invalid() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    let key: String = value(
        &mut tx,
        "SELECT issue_api_key($1, 'ci', interval '1 hour')",
        tenant,
    )
    .await?;
    assert_eq!(authenticate(&mut tx, &key).await?, Some(tenant));

    sqlx::query("UPDATE api_keys SET created_at = now() - interval '2 hours', expires_at = now() - interval '1 hour' WHERE tenant_id = $1")
        .bind(tenant)
        .execute(&mut *tx)
        .await?;
    assert_eq!(authenticate(&mut tx, &key).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_suspended_tenants_keys_are_invalid() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    let key = issue(&mut tx, tenant, "ci").await?;
    sqlx::query("UPDATE tenants SET suspended_at = now() WHERE id = $1")
        .bind(tenant)
        .execute(&mut *tx)
        .await?;

    assert_eq!(authenticate(&mut tx, &key).await?, None);
    Ok(())
}

#[tokio::test]
async fn an_unknown_scope_is_refused() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    issue(&mut tx, tenant, "ci").await?;
    let result = sqlx::query("UPDATE api_keys SET scopes = '{publish,root}' WHERE tenant_id = $1")
        .bind(tenant)
        .execute(&mut *tx)
        .await;
    assert_eq!(violated(result), "api_keys_scopes_known");
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn the_plain_text_is_stored_nowhere(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let tenant = support::tenant(&mut conn, &test_id()).await?;
    let key = issue(&mut conn, tenant, "ci").await?;
    let secret = key.rsplit('_').next().expect("a key ends in its secret");

    let found: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM api_keys k WHERE k.tenant_id = $1 AND strpos(k::text, $2) > 0)
              + (SELECT count(*) FROM audit_log a WHERE a.tenant_id = $1 AND strpos(a::text, $2) > 0)",
    )
    .bind(tenant)
    .bind(secret)
    .fetch_one(&mut *conn)
    .await?;
    assert_eq!(found, 0);
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn authenticating_records_the_last_use(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let tenant = support::tenant(&mut conn, &test_id()).await?;
    let key = issue(&mut conn, tenant, "ci").await?;
    let used = "SELECT last_used_at IS NOT NULL FROM api_keys WHERE tenant_id = $1";

    assert!(!value::<bool>(&mut conn, used, tenant).await?);
    authenticate(&mut conn, &key).await?;
    assert!(value::<bool>(&mut conn, used, tenant).await?);
    Ok(())
}

#[kapsel_testdb::test]
async fn a_name_is_free_again_once_its_key_is_revoked(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let tenant = support::tenant(&mut conn, "acme").await?;
    issue(&mut conn, tenant, "ci").await?;
    assert_eq!(
        sqlstate(issue(&mut conn, tenant, "ci").await),
        UNIQUE_VIOLATION
    );

    sqlx::query("UPDATE api_keys SET revoked_at = now()")
        .execute(&mut *conn)
        .await?;
    issue(&mut conn, tenant, "ci").await?;
    assert_eq!(
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM api_keys")
            .fetch_one(&mut *conn)
            .await?,
        2
    );
    Ok(())
}
