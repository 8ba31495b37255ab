//! What every test does with its database.

use kapsel_testdb::test_id;
use sqlx::PgConnection;

/// A receiver, its endpoint, an event, its delivery, a look: six statements, which cause some twenty rows. As often as `BODY` says (1).
pub async fn work(conn: &mut PgConnection) -> sqlx::Result<()> {
    let rounds = std::env::var("BODY").ok().and_then(|n| n.parse().ok());
    for _ in 0..rounds.unwrap_or(1) {
        deliver(conn).await?;
    }
    Ok(())
}

async fn deliver(conn: &mut PgConnection) -> sqlx::Result<()> {
    let tenant: i64 = sqlx::query_scalar(
        "INSERT INTO tenants (slug, name, plan) VALUES ($1, $1, 'team') RETURNING id",
    )
    .bind(test_id())
    .fetch_one(&mut *conn)
    .await?;
    let endpoint: i64 = sqlx::query_scalar("INSERT INTO endpoints (tenant_id, url) VALUES ($1, 'https://hooks.example.com/in') RETURNING id")
        .bind(tenant)
        .fetch_one(&mut *conn)
        .await?;
    sqlx::query("INSERT INTO endpoint_subscriptions (tenant_id, endpoint_id, event_type) VALUES ($1, $2, 'invoice.paid')")
        .bind(tenant)
        .bind(endpoint)
        .execute(&mut *conn)
        .await?;
    sqlx::query(r#"SELECT publish_event($1, 'invoice.paid', '{"amount": 12}')"#)
        .bind(tenant)
        .execute(&mut *conn)
        .await?;
    sqlx::query("UPDATE tenants SET name = name || '!' WHERE id = $1")
        .bind(tenant)
        .execute(&mut *conn)
        .await?;
    let pending: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM deliveries WHERE tenant_id = $1 AND status = 'pending'",
    )
    .bind(tenant)
    .fetch_one(&mut *conn)
    .await?;
    assert_eq!(pending, 1);
    Ok(())
}
