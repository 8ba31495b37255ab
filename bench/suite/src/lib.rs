//! A suite of 343 tests on the demo schema, for two contenders that `CONTENDER` names at run time: `kapsel` goes through the
//! helper (86 tests on clones of their own, 257 in a transaction on the shared clone), `bare` connects to the database of
//! `BARE_URL`, which exists already, and rolls back, all 343 of them. `bare` keeps no test apart from the others' sequences or
//! commits: it is the least that a test on a real database costs.

use kapsel_testdb::{TestDb, test_id};
use sqlx::PgConnection;
use sqlx::postgres::PgPoolOptions;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn bare() -> Option<String> {
    match std::env::var("CONTENDER").as_deref() {
        Ok("bare") => Some(std::env::var("BARE_URL").expect("`bare` needs BARE_URL")),
        Ok("kapsel") => None,
        _ => panic!("set CONTENDER to `bare` or `kapsel`; bench/run-suite does"),
    }
}

/// A test that wants a database of its own.
pub async fn isolated() -> Outcome {
    if let Some(url) = bare() {
        return rolled_back(&url).await;
    }
    let db = TestDb::lease().await?;
    work(&mut *db.pool().acquire().await?).await?;
    Ok(())
}

/// A test that shares a database and leaves no trace.
pub async fn shared() -> Outcome {
    if let Some(url) = bare() {
        return rolled_back(&url).await;
    }
    let mut transaction = TestDb::begin().await?;
    work(&mut transaction).await?;
    Ok(())
}

async fn rolled_back(url: &str) -> Outcome {
    let pool = PgPoolOptions::new().max_connections(5).connect(url).await?;
    let mut transaction = pool.begin().await?;
    work(&mut transaction).await?;
    Ok(())
}

/// What a test of the demo schema does: a receiver, an event, its delivery, an attempt, a look.
async fn work(conn: &mut PgConnection) -> sqlx::Result<()> {
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

/// One test for each name.
#[macro_export]
macro_rules! tests {
    ($body:ident: $($name:ident)*) => {
        mod $body {
            $(
                #[tokio::test]
                async fn $name() -> Result<(), Box<dyn std::error::Error>> {
                    $crate::$body().await
                }
            )*
        }
    };
}

/// 10 isolated tests and 29 shared ones.
#[macro_export]
macro_rules! ten_and_29 {
    () => {
        $crate::tests!(isolated: t01 t02 t03 t04 t05 t06 t07 t08 t09 t10);
        $crate::tests!(shared: t01 t02 t03 t04 t05 t06 t07 t08 t09 t10 t11 t12 t13 t14 t15 t16 t17 t18 t19 t20 t21 t22 t23 t24 t25 t26 t27 t28 t29);
    };
}

/// 9 isolated tests and 28 shared ones.
#[macro_export]
macro_rules! nine_and_28 {
    () => {
        $crate::tests!(isolated: t01 t02 t03 t04 t05 t06 t07 t08 t09);
        $crate::tests!(shared: t01 t02 t03 t04 t05 t06 t07 t08 t09 t10 t11 t12 t13 t14 t15 t16 t17 t18 t19 t20 t21 t22 t23 t24 t25 t26 t27 t28);
    };
}
