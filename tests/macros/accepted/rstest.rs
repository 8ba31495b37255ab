//! The attribute below rstest's: rstest makes a test for each case, and passes the parameter with `#[ignore]` on.

use rstest::{fixture, rstest};

#[fixture]
fn name() -> &'static str {
    "acme"
}

#[rstest]
#[case::one(1)]
#[case::three(3)]
#[kapsel_testdb::test]
async fn each_case_has_its_database(
    #[ignore] pool: sqlx::PgPool,
    name: &str,
    #[case] rows: i32,
) -> sqlx::Result<()> {
    // In a common database the second case would fail.
    let create = sqlx::query("CREATE TABLE cases (name text)");
    create.execute(&pool).await?;
    let insert = "INSERT INTO cases SELECT $1 FROM generate_series(1, $2)";
    let insert = sqlx::query(insert).bind(name).bind(rows);
    assert_eq!(
        insert.execute(&pool).await?.rows_affected(),
        u64::from(rows.unsigned_abs())
    );
    Ok(())
}

#[rstest]
#[kapsel_testdb::test(isolation = "transaction")]
async fn arguments_of_the_attribute(
    #[ignore] pool: sqlx::PgPool,
    #[values(1, 2)] value: i32,
) -> sqlx::Result<()> {
    let answer: i32 = sqlx::query_scalar("SELECT $1")
        .bind(value)
        .fetch_one(&pool)
        .await?;
    assert_eq!(answer, value);
    Ok(())
}

#[rstest]
#[case(2)]
#[should_panic(expected = "as it should")]
#[case(3)]
#[kapsel_testdb::test(isolation = "shared")]
async fn blocking_and_panics(#[ignore] _pool: sqlx::PgPool, #[case] value: i32) {
    assert!(value < 3, "as it should");
}
