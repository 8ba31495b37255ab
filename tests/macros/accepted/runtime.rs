//! The runtime of an async test, as in `#[tokio::test]`.

use tokio::runtime::{Handle, RuntimeFlavor};

fn is(flavor: RuntimeFlavor) {
    assert_eq!(Handle::current().runtime_flavor(), flavor);
}

#[kapsel_testdb::test]
async fn one_thread_is_the_default(_pool: sqlx::PgPool) {
    is(RuntimeFlavor::CurrentThread);
}

#[kapsel_testdb::test(flavor = "current_thread")]
async fn one_thread(_pool: sqlx::PgPool) {
    is(RuntimeFlavor::CurrentThread);
}

#[kapsel_testdb::test(flavor = "multi_thread")]
async fn several_threads(_pool: sqlx::PgPool) {
    is(RuntimeFlavor::MultiThread);
}

/// A task runs although the test blocks its thread.
#[kapsel_testdb::test(worker_threads = 2, flavor = "multi_thread")]
async fn two_threads(pool: sqlx::PgPool) -> sqlx::Result<()> {
    assert_eq!(Handle::current().metrics().num_workers(), 2);
    let (sender, receiver) = std::sync::mpsc::channel();
    let task = tokio::spawn(async move {
        let answer = sqlx::query_scalar::<_, i32>("SELECT 1")
            .fetch_one(&pool)
            .await;
        sender.send(answer).expect("the test waits");
    });
    let limit = std::time::Duration::from_secs(60);
    let answer = receiver.recv_timeout(limit).expect("an answer");
    assert_eq!(answer?, 1);
    task.await.expect("the task has ended");
    Ok(())
}

#[kapsel_testdb::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_a_database() {
    is(RuntimeFlavor::MultiThread);
}
