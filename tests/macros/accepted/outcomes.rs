//! The return types of a test.

use std::error::Error;
use std::process::ExitCode;

#[kapsel_testdb::test]
async fn sqlx_result(pool: sqlx::PgPool) -> sqlx::Result<()> {
    sqlx::query("SELECT 1").execute(&pool).await?;
    Ok(())
}

#[kapsel_testdb::test]
async fn boxed_error(pool: sqlx::PgPool) -> Result<(), Box<dyn Error>> {
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&pool).await?;
    assert_eq!(one, "1".parse::<i32>()?);
    Ok(())
}

#[kapsel_testdb::test]
async fn sendable_error(_pool: sqlx::PgPool) -> Result<(), Box<dyn Error + Send + Sync>> {
    Ok(())
}

#[kapsel_testdb::test]
async fn exit_code(_pool: sqlx::PgPool) -> ExitCode {
    ExitCode::SUCCESS
}

#[kapsel_testdb::test]
async fn exit_code_or_error(_pool: sqlx::PgPool) -> Result<ExitCode, sqlx::Error> {
    Ok(ExitCode::SUCCESS)
}

#[kapsel_testdb::test]
async fn not_send(_pool: sqlx::PgPool) {
    let cell = std::rc::Rc::new(1);
    tokio::task::yield_now().await;
    assert_eq!(*cell, 1);
}

#[kapsel_testdb::test]
async fn a_result_in_a_result(_pool: sqlx::PgPool) -> Result<Result<(), String>, sqlx::Error> {
    Ok(Ok(()))
}

#[kapsel_testdb::test]
#[should_panic(expected = "nothing to return")]
async fn explicit_unit(_pool: sqlx::PgPool) -> () {
    panic!("nothing to return");
}

/// One of the user's own.
struct Passed;

impl std::process::Termination for Passed {
    fn report(self) -> ExitCode {
        ExitCode::SUCCESS
    }
}

#[kapsel_testdb::test]
async fn own_type(_pool: sqlx::PgPool) -> Passed {
    Passed
}

#[kapsel_testdb::test]
async fn something_that_ends(_pool: sqlx::PgPool) -> impl std::process::Termination {
    Passed
}

#[kapsel_testdb::test]
fn from_a_sync_test(_pool: sqlx::PgPool) -> Result<(), Box<dyn Error>> {
    Ok(())
}
