//! What the sweep must not even look at: every name that the grammar does not know.

use crate::support::{DeadRun, Project, Server};

/// Names that look like ours at a glance.
fn lookalikes() -> Vec<String> {
    let run = "000000000000001";
    let fingerprint = "0123456789abc";
    vec![
        "app".to_owned(),
        "app_clone".to_owned(),
        "app_dev".to_owned(),
        "app_clone_backup".to_owned(),
        "app_clone_".to_owned(),
        format!("app_clone_{fingerprint}"),
        format!("app_clone_{fingerprint}_{run}"),
        format!("app_clone_{fingerprint}_{run}_00001"),
        format!("app_clone_{fingerprint}_{run}_0000001"),
        format!("app_clone_{fingerprint}_{run}_00000A"),
        format!("app_clone_{fingerprint}_{run}_000001_old"),
        format!("app_clone_{fingerprint}_{run}_000001 "),
        format!("APP_clone_{fingerprint}_{run}_000001"),
        format!("App_clone_{fingerprint}_{run}_000001"),
        format!("app_CLONE_{fingerprint}_{run}_000001"),
        format!("app_template_{fingerprint}_old"),
        format!("app_template_{fingerprint}_{run}_000001"),
        format!("app_backup_{fingerprint}_{run}_000001"),
        format!("app-clone-{fingerprint}-{run}-000001"),
        format!("appx_clone_{fingerprint}_{run}_000001"),
        format!("ap_clone_{fingerprint}_{run}_000001"),
        format!("my_app_clone_{fingerprint}_{run}_000001"),
        format!("appxclone_{fingerprint}_{run}_000001"),
    ]
}

#[test]
fn databases_with_other_names_stay() {
    let server = Server::start();
    let mut project = Project::on(&server);
    project.set("KAPSEL_TESTDB_WATCH_SECS", "0");
    // Those of other namespaces look as if their runs began in 1970.
    project.config(
        "[template]\nkeep = 1\nothers_max_age_days = 0\n[keep]\nmax = 0\nmax_age_days = 0\n",
    );
    server.create(&lookalikes());
    let before = server.databases();
    // One that is ours, to see that this sweep does sweep.
    let ours = "app_clone_0123456789abc_000000000000001_000001";
    server.create(&[ours]);
    let outcome = project.run("sweep");
    outcome
        .code(0)
        .says(&[&format!("dropped {ours}"), "1 database"]);
    assert_eq!(server.databases(), before);
}

#[test]
fn a_dry_run_tells_all_and_changes_nothing() {
    let server = Server::start();
    let mut project = Project::on(&server);
    project.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", "shared");
    let run = DeadRun::leave(&project, "dead");
    let clones = [run.clone_name(1), run.clone_name(2)];
    server.create(&clones);
    let elsewhere = "app_clone_0123456789abc_000000000000001_000001";
    server.create(&[elsewhere]);
    let before = server.databases();
    let expected: Vec<String> = clones.iter().map(|c| format!("would drop {c}")).collect();
    let outcome = project.run("sweep --dry-run");
    outcome
        .code(0)
        .says(&expected)
        .says(&["3 databases and 1 run directory to remove"]);
    outcome.says(&["run 000000000000001 of another host appears dead"]);
    let json = project.run("sweep --dry-run --json").code(0).json();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["dry_run"], true);
    assert_eq!(json["dropped"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["run_directories"][0], run.run.as_str());
    assert_eq!(json["unconfirmed_runs"][0], "000000000000001");
    assert_eq!(server.databases(), before);
    assert!(run.dir.exists());
}

#[test]
fn a_sweep_reports_in_json_what_it_did() {
    let server = Server::start();
    let project = Project::on(&server);

    let run = DeadRun::leave(&project, "dead");
    server.create(&[run.clone_name(1)]);
    let outcome = project.run("sweep --json");
    let json = outcome.code(0).json();
    assert_eq!(json["dry_run"], false);
    assert_eq!(json["dropped"][0], run.clone_name(1).as_str());
    assert_eq!(json["run_directories"][0], run.run.as_str());
    assert_eq!(json["skipped"].as_array().map(Vec::len), Some(0));
    assert!(!run.dir.exists());
    assert_eq!(server.databases_of("template"), [run.template]);
}
