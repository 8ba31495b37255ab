//! Setup scripts that run more than once in one run of nextest: for each round of `--stress-count`, or because there are several.

use crate::processes::child::{self, Holder};
use crate::support::{FakeNextest, Project, Server, read_run};

#[test]
fn no_test_gets_a_clone_of_migrations_that_have_changed_since() {
    let server = Server::start();
    let project = Project::on(&server);
    let first = FakeNextest::start(&project, "r");
    let (_, old) = read_run(&first.dir);
    // A clone of it is ready.
    child::run(&project, &first.exported, "touch").code(0);
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    let second = FakeNextest::start(&project, "r");
    let (_, new) = read_run(&second.dir);
    assert_ne!(old, new);
    for _ in 0..6 {
        for (nextest, template) in [(&second, &new), (&first, &old)] {
            let test = Holder::start(&project, &nextest.exported);
            let stem = template.replace("_template_", "_clone_");
            let name = &test.database;
            assert!(name.starts_with(&stem), "{name} of {template}");
            test.end();
        }
    }
    second.end();
    first.end();
    assert!(project.run_dirs().is_empty());
    let left = server.transient_databases();
    assert!(
        !left.iter().any(|name| name.starts_with("app_")),
        "{left:?}"
    );
}

#[test]
fn a_script_that_runs_again_joins_the_run() {
    let server = Server::start();
    let project = Project::on(&server);
    let first = FakeNextest::start(&project, "r");
    let second = FakeNextest::start(&project, "r");
    assert_eq!(first.dir, second.dir);
    second.without_keeper();
    first.end();
}
