//! Sandboxes and the shared clone that they use.

use kapsel_testdb::{TestDb, TestDbOptions, test_id};
use sqlx::PgPool;

async fn tenant(pool: &PgPool, slug: &str) -> sqlx::Result<i64> {
    let insert = "INSERT INTO tenants (slug, name) VALUES ($1, $1) RETURNING id";
    sqlx::query_scalar(insert).bind(slug).fetch_one(pool).await
}

async fn tenants(pool: &PgPool, slug: &str) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM tenants WHERE slug = $1");
    count.bind(slug).fetch_one(pool).await.expect("a count")
}

#[tokio::test]
async fn other_connections_never_see_a_sandboxs_rows() -> sqlx::Result<()> {
    let shared = TestDb::shared().await.expect("the shared clone");
    let sandbox = TestDb::sandbox().await.expect("a sandbox");
    assert_eq!(shared.name(), sandbox.name());
    let slug = test_id();
    tenant(sandbox.pool(), &slug).await?;
    assert_eq!(tenants(sandbox.pool(), &slug).await, 1);
    assert_eq!(tenants(shared.pool(), &slug).await, 0, "while it is open");
    sandbox.release().await;
    assert_eq!(tenants(shared.pool(), &slug).await, 0, "after it");
    // Without the rollback, this insert would wait.
    tenant(shared.pool(), &slug).await.map(drop)
}

#[tokio::test]
async fn a_dropped_sandbox_is_rolled_back_too() -> sqlx::Result<()> {
    let shared = TestDb::shared().await.expect("the shared clone");
    let slug = test_id();
    let sandbox = TestDb::sandbox().await.expect("a sandbox");
    tenant(sandbox.pool(), &slug).await?;
    drop(sandbox);
    tenant(shared.pool(), &slug).await.map(drop)
}

#[tokio::test]
async fn sequences_continue() -> sqlx::Result<()> {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let sandbox = TestDb::sandbox().await.expect("a sandbox");
        ids.push(tenant(sandbox.pool(), &test_id()).await?);
        sandbox.release().await;
    }
    assert!(
        ids[0] < ids[1],
        "{ids:?}: the first sandbox used its number"
    );
    Ok(())
}

#[tokio::test]
async fn a_sandbox_has_one_connection_even_if_more_are_requested() {
    let options = TestDbOptions::new().connections(10);
    let sandbox = options.sandbox().await.expect("a sandbox");
    assert_eq!(sandbox.pool().options().get_max_connections(), 1);
    sandbox.release().await;
}

#[tokio::test]
async fn many_sandboxes_at_once_in_one_process() -> sqlx::Result<()> {
    let mut sandboxes = Vec::new();
    for _ in 0..8 {
        sandboxes.push(TestDb::sandbox().await.expect("a sandbox"));
    }
    for sandbox in &sandboxes {
        tenant(sandbox.pool(), &test_id()).await?;
    }
    // The process has more leases than connection slots. Idle connections of other pools are closed, but not those of sandboxes.
    for sandbox in &sandboxes {
        tenant(sandbox.pool(), &test_id()).await?;
    }
    for sandbox in sandboxes {
        sandbox.release().await;
    }
    Ok(())
}
