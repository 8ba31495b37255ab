//! The failing test on the first screen of the README, its output and its difference.

use kapsel_testdb::testing::{self, TestPlan};

use crate::support::{Attempt, FakeNextest, Project, Server, wait_for_kept};

const README: &str = include_str!("../../../README.md");
const SCHEMA: &str = "CREATE TABLE invoices (id int PRIMARY KEY, paid bool NOT NULL); INSERT INTO invoices VALUES (7, false); \
     CREATE TABLE charges (invoice int REFERENCES invoices, cents int NOT NULL)";

#[rustfmt::skip]
async fn an_invoice_is_charged_once(pool: sqlx::PgPool) -> sqlx::Result<()> {
    for _click in 1..=2 {
        sqlx::query("UPDATE invoices SET paid = true WHERE id = 7").execute(&pool).await?;
        sqlx::query("INSERT INTO charges VALUES (7, 900)").execute(&pool).await?;
    }
    let charges: i64 = sqlx::query_scalar("SELECT count(*) FROM charges").fetch_one(&pool).await?;
    assert_eq!(charges, 1, "charges of invoice 7");
    Ok(())
}

/// As the attribute does it, with the migrations of the run.
pub fn fail() {
    testing::run(
        TestPlan::new("/nowhere"),
        an_invoice_is_charged_once,
        |_| None,
    );
}

#[test]
fn the_readme_shows_a_failing_test_with_its_real_output() {
    let source = include_str!("readme.rs");
    let test = &source[source.find("async fn an_invoice").expect("the test")..];
    let (test, _) = test.split_once("\n}\n").expect("its end");
    assert_shown(&format!("#[kapsel_testdb::test]\n{test}\n}}"));

    let server = Server::start();
    let project = Project::on(&server);
    project.migration("0003_invoices", SCHEMA);
    let nextest = FakeNextest::start(&project, "r");
    let test = Attempt::first(&nextest.exported, "an_invoice_is_charged_once");
    let failed = test.run(&project, "readme");
    let printed = &failed.code(101).stderr;
    let from = printed
        .find("assertion ")
        .unwrap_or_else(|| panic!("{printed}"));
    let output = &printed[from..];
    // A backtrace, or the hint that there could be one.
    let (panic, kept) = output
        .split_once("\nkapsel-testdb: ")
        .unwrap_or_else(|| panic!("{printed}"));
    let panic = panic
        .lines()
        .take_while(|line| !line.starts_with("stack") && !line.starts_with("note"));
    assert_shown(&panic.collect::<Vec<_>>().join("\n"));
    let kept = kept.lines().take_while(|line| !line.is_empty());
    assert_shown(&format!(
        "kapsel-testdb: {}",
        kept.collect::<Vec<_>>().join("\n")
    ));

    wait_for_kept(&project, &[("an_invoice_is_charged_once", 1)]);
    let difference = project.run("kept diff an_invoice_is_charged_once");
    assert_shown(&difference.code(9).stdout);
    nextest.end();
}

#[track_caller]
fn assert_shown(text: &str) {
    assert!(
        README.contains(text.trim_end()),
        "README.md does not show this:\n{text}"
    );
}
