//! The test keeps its attributes, comments and visibility.

/// A doc comment.
#[kapsel_testdb::test]
#[ignore]
async fn ignored(_pool: sqlx::PgPool) {
    panic!("it is ignored");
}

#[ignore = "a reason"]
#[kapsel_testdb::test]
async fn ignored_above(_pool: sqlx::PgPool) {
    panic!("it is ignored");
}

#[kapsel_testdb::test]
#[should_panic]
async fn panics(_pool: sqlx::PgPool) {
    panic!("as it should");
}

#[kapsel_testdb::test(isolation = "shared")]
#[should_panic(expected = "as it should")]
async fn panics_as_expected(_pool: sqlx::PgPool) {
    panic!("as it should");
}

#[kapsel_testdb::test]
#[expect(unused_variables, reason = "the test keeps its lint levels")]
async fn with_a_lint(pool: sqlx::PgPool) {}

#[kapsel_testdb::test]
#[cfg(any())]
async fn not_compiled(_pool: does::not::Exist) {}

/// A public test.
#[kapsel_testdb::test]
pub async fn public(_pool: sqlx::PgPool) {}

#[kapsel_testdb::test]
pub(crate) async fn visible(_pool: sqlx::PgPool) {}

mod inner {
    #[kapsel_testdb::test]
    pub(super) async fn visible(_pool: sqlx::PgPool) {}
}
