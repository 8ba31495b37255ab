//! The catalogue of event types, part of it seeded by a migration.

use kapsel_testdb::{TestDb, test_id};
use sqlx::{PgConnection, PgPool};

use crate::support::{self, GENERATED_ALWAYS, TYPE_RETIRED, sqlstate, violated};

async fn add(conn: &mut PgConnection, name: &str) -> sqlx::Result<String> {
    sqlx::query_scalar("INSERT INTO event_types (name) VALUES ($1) RETURNING category")
        .bind(name)
        .fetch_one(conn)
        .await
}

#[tokio::test]
async fn the_category_is_the_first_part_of_the_name() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let id = test_id();
    assert_eq!(add(&mut tx, &format!("{id}.order.shipped")).await?, id);
    Ok(())
}

#[tokio::test]
async fn a_name_needs_a_category() {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    assert_eq!(
        violated(add(&mut tx, &test_id()).await),
        "event_types_name_format"
    );
}

#[tokio::test]
async fn the_category_cannot_be_written() {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let result = sqlx::query("INSERT INTO event_types (name, category) VALUES ($1, 'other')")
        .bind(format!("{}.created", test_id()))
        .execute(&mut *tx)
        .await;
    assert_eq!(sqlstate(result), GENERATED_ALWAYS);
}

#[tokio::test]
async fn a_retired_type_cannot_be_published() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let id = test_id();
    let name = format!("{id}.created");
    let tenant = support::tenant(&mut tx, &id).await?;
    add(&mut tx, &name).await?;
    support::publish(&mut tx, tenant, &name).await?;
    sqlx::query("UPDATE event_types SET retired_at = now() WHERE name = $1")
        .bind(&name)
        .execute(&mut *tx)
        .await?;

    assert_eq!(
        sqlstate(support::publish(&mut tx, tenant, &name).await),
        TYPE_RETIRED
    );
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn a_type_in_use_cannot_be_deleted(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let id = test_id();
    let name = format!("{id}.created");
    let tenant = support::tenant(&mut conn, &id).await?;
    add(&mut conn, &name).await?;
    support::publish(&mut conn, tenant, &name).await?;

    let result = sqlx::query("DELETE FROM event_types WHERE name = $1")
        .bind(&name)
        .execute(&mut *conn)
        .await;
    assert_eq!(violated(result), "events_event_type_fkey");
    Ok(())
}

#[kapsel_testdb::test]
async fn renaming_a_type_renames_it_in_its_events_and_subscriptions(
    pool: PgPool,
) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    support::publish(&mut conn, receiver.tenant, "invoice.paid").await?;
    sqlx::query("UPDATE event_types SET name = 'billing.paid' WHERE name = 'invoice.paid'")
        .execute(&mut *conn)
        .await?;

    let names: (String, String) =
        sqlx::query_as("SELECT v.event_type, s.event_type FROM events v, endpoint_subscriptions s")
            .fetch_one(&mut *conn)
            .await?;
    assert_eq!(names, ("billing.paid".into(), "billing.paid".into()));
    Ok(())
}

#[kapsel_testdb::test]
async fn the_catalogue_starts_with_what_the_migration_seeded(pool: PgPool) -> sqlx::Result<()> {
    let names: Vec<String> = sqlx::query_scalar("SELECT name FROM event_types ORDER BY name")
        .fetch_all(&pool)
        .await?;
    assert_eq!(
        names,
        [
            "invoice.created",
            "invoice.paid",
            "invoice.voided",
            "user.created",
            "user.deleted"
        ]
    );
    Ok(())
}
