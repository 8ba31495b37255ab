//! The new configuration file, the choice of members, and the files on disk.

use std::fs;

use super::*;

#[test]
fn new_file_is_commented_and_allows_remote_on_request() {
    let allowed = settings::Values {
        allow_remote: true,
        migrations: None,
    };
    let create = |values: &settings::Values<'_>| settings::create("shop", values).expect("toml");
    let text = create(&settings::Values::default());
    let keys = |text: &str| {
        text.parse::<DocumentMut>()
            .expect("toml")
            .iter()
            .filter_map(|(_, item)| Some(item.as_table()?.len()))
            .sum::<usize>()
    };
    assert_eq!(keys(&text), 0);
    let remote = create(&allowed);
    assert_eq!(
        remote,
        text.replace("# allow_remote = false", "allow_remote = true")
    );
    let set = |text: &str| settings::set(text, &allowed).expect("toml");
    assert_eq!(set(&text), Some(remote.clone()));
    assert_eq!(set(&remote), None);
    for own in [
        "",
        "[server]\nmode = 'auto'\n",
        "[server]",
        "server.mode = 'auto'\n",
        "server = { allow_remote = false }\n",
    ] {
        let new = set(own).expect("changed");
        let document: DocumentMut = new.parse().expect("toml");
        assert_eq!(
            document["server"]["allow_remote"].as_bool(),
            Some(true),
            "{new}"
        );
    }
}

#[test]
fn members_that_depend_on_us() {
    let root: DocumentMut =
        "[workspace.dependencies]\nkt = { package = 'kapsel-testdb', version = '0.1' }\n"
            .parse()
            .expect("toml");
    let cases = [
        (
            "[dev-dependencies]\nkapsel-testdb = '0.1'\n",
            Some("package(=a)"),
        ),
        (
            "[dependencies]\nkapsel-testdb = { path = '../x' }\n",
            Some("rdeps(=a)"),
        ),
        (
            "[dev-dependencies]\ndb = { package = 'kapsel-testdb', version = '0.1' }\n",
            Some("package(=a)"),
        ),
        (
            "[dev-dependencies]\nkt.workspace = true\n",
            Some("package(=a)"),
        ),
        (
            "[target.'cfg(unix)'.dev-dependencies.kapsel-testdb]\nversion = '0.1'\n",
            Some("package(=a)"),
        ),
        (
            "[dev-dependencies]\nkapsel-testdb = { package = 'other', version = '1' }\n",
            None,
        ),
        ("[dependencies]\nserde = '1'\n", None),
    ];
    for (text, expected) in cases {
        let member: DocumentMut = format!("[package]\nname = 'a'\n{text}")
            .parse()
            .expect("toml");
        assert_eq!(
            members::term(member.as_item(), root.as_item()).as_deref(),
            expected,
            "{text}"
        );
    }
    let (some, none) = (Some("package(=a)".to_owned()), None);
    assert_eq!(
        members::combine(&[some.clone(), none.clone(), some.clone()]),
        "package(=a) + package(=a)"
    );
    assert_eq!(members::combine(&[some.clone(), some]), "all()");
    assert_eq!(members::combine(&[none]), "all()");
    assert!(
        members::glob(b"a*-?", b"abc-d")
            && !members::glob(b"a*-?", b"abc-")
            && members::glob(b"*", b"")
    );
}

#[test]
fn files_are_created_then_updated_then_unchanged() {
    let dir = tempfile::tempdir().expect("dir");
    let root = dir.path();
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("dir");
        fs::write(path, text).expect("file");
    };
    write(
        "Cargo.toml",
        "[workspace]\nmembers = ['crates/*']\nexclude = ['crates/old']\n",
    );
    write(
        "crates/a/Cargo.toml",
        "[package]\nname = 'a'\n[dev-dependencies]\nkapsel-testdb = '0.1'\nb = { path = '../../b' }\n",
    );
    write("b/Cargo.toml", "[package]\nname = 'b'\n");
    write("crates/old/Cargo.toml", "not read");
    let (nextest, settings) = (
        root.join(".config/nextest.toml"),
        root.join(".config/kapsel-testdb.toml"),
    );
    let run = |options: &InitOptions| init(root, options).expect("init").changes;
    let options = InitOptions::default();
    assert_eq!(
        run(&options),
        [
            Change::Created(nextest.clone()),
            Change::Created(settings.clone())
        ]
    );
    assert_eq!(
        fs::read_to_string(&nextest).expect("file"),
        NEW.replace("all()", "package(=a)")
    );
    assert_eq!(
        run(&options),
        [
            Change::Unchanged(nextest.clone()),
            Change::Unchanged(settings.clone())
        ]
    );
    let remote = InitOptions {
        allow_remote: true,
        ..options
    };
    assert_eq!(
        run(&remote),
        [Change::Unchanged(nextest), Change::Updated(settings)]
    );
    assert_eq!(
        fs::read_dir(root.join(".config")).expect("dir").count(),
        2,
        "no temporary file stays"
    );
}

#[test]
fn nothing_is_written_if_one_file_is_malformed() {
    let dir = tempfile::tempdir().expect("dir");
    let config = dir.path().join(".config");
    fs::create_dir(&config).expect("dir");
    fs::write(config.join("nextest.toml"), "[profile\n").expect("file");
    let error = init(dir.path(), &InitOptions::default()).expect_err("malformed");
    assert!(
        error
            .to_string()
            .contains("nextest.toml` at line 1, column "),
        "{error}"
    );
    assert!(!config.join("kapsel-testdb.toml").exists());
}

#[test]
fn a_directory_of_migrations_is_set_only_if_the_key_is_missing() {
    let values = settings::Values {
        allow_remote: false,
        migrations: Some("crates/db/migrations"),
    };
    let set = |text: &str| settings::set(text, &values).expect("toml");
    let line = "migrations = \"crates/db/migrations\"";
    let new = settings::create("shop", &values).expect("toml");
    let plain = settings::create("shop", &settings::Values::default()).expect("toml");
    assert_eq!(new, plain.replace("# migrations = \"migrations\"", line));
    assert_eq!(set(&plain), Some(new.clone()));
    assert_eq!(set(&new), None);
    for own in ["", "[template]\nkeep = 3\n", "template = { keep = 3 }\n"] {
        assert!(set(own).expect("changed").contains(line), "{own}");
    }
    for own in [
        "[template]\nmigrations = ''\n",
        "template.migrations = ['a']\n",
    ] {
        assert_eq!(set(own), None, "{own}");
    }
}

/// A workspace with files, and what `init` finds in it.
fn found(files: &[(&str, &str)]) -> (tempfile::TempDir, Setup) {
    let dir = tempfile::tempdir().expect("dir");
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("dir");
        fs::write(path, text).expect("file");
    }
    let setup = init(dir.path(), &InitOptions::default()).expect("init");
    (dir, setup)
}

const WORKSPACE: [(&str, &str); 3] = [
    (
        "Cargo.toml",
        "[workspace]\nmembers = ['crates/*']\nexclude = ['old']\n",
    ),
    (
        "crates/storage-pg/Cargo.toml",
        "[package]\nname = 'storage-pg'\n",
    ),
    ("crates/api/Cargo.toml", "[package]\nname = 'api'\n"),
];

#[test]
fn migrations_of_a_member_are_found_and_configured() {
    let mut files = WORKSPACE.to_vec();
    files.extend([
        ("crates/storage-pg/migrations/0001_a.sql", ""),
        // None of these is a directory of migrations of this workspace.
        ("crates/api/fixtures/users.sql", ""),
        ("old/Cargo.toml", "[package]\nname = 'old'\n"),
        ("old/migrations/0001_a.sql", ""),
        ("out/CACHEDIR.TAG", ""),
        ("out/package/migrations/0001_a.sql", ""),
        (".hidden/migrations/0001_a.sql", ""),
    ]);
    let (dir, setup) = found(&files);
    let directory = "crates/storage-pg/migrations".to_owned();
    let others = Vec::new();
    assert_eq!(setup.migrations, Migrations::Found { directory, others });
    assert!(!setup.has_dependents);
    let settings = fs::read_to_string(dir.path().join(".config/kapsel-testdb.toml"));
    let settings = settings.expect("file");
    assert!(
        settings.contains("\nmigrations = \"crates/storage-pg/migrations\"\n"),
        "{settings}"
    );
    let again = init(dir.path(), &InitOptions::default()).expect("init");
    assert_eq!(again.migrations, Migrations::Configured);
}

#[test]
fn code_decides_between_several_directories_of_migrations() {
    let (storage, api) = (
        "crates/storage-pg/migrations/0001_a.sql",
        "crates/api/db/V1__a.sql",
    );
    for (file, code, expected) in [
        (
            "crates/storage-pg/src/lib.rs",
            "static MIGRATOR: Migrator = sqlx::migrate!();",
            "crates/storage-pg/migrations",
        ),
        (
            "crates/api/src/lib.rs",
            "refinery::embed_migrations!(\"./db\");",
            "crates/api/db",
        ),
        (
            "crates/storage-pg/tests/it.rs",
            "#[sqlx::test(fixtures(\"a\"), migrations = \"../api/db\")]",
            "crates/api/db",
        ),
        // Without code: the one that has the usual name.
        (
            "crates/api/src/lib.rs",
            "// sqlx::migrate!(\"./db\")",
            "crates/storage-pg/migrations",
        ),
    ] {
        let mut files = WORKSPACE.to_vec();
        files.extend([(storage, ""), (api, ""), (file, code)]);
        let (_dir, setup) = found(&files);
        let Migrations::Found { directory, others } = setup.migrations else {
            panic!("{code}: {:?}", setup.migrations);
        };
        assert_eq!(directory, expected, "{code}");
        assert_eq!(others.len(), 1, "{code}");
    }
}

#[test]
fn the_migrator_of_tests_decides_between_compiled_ones() {
    let mut files = WORKSPACE.to_vec();
    files.extend([
        ("crates/storage-pg/migrations/0001_a.sql", ""),
        ("crates/api/migrations/0001_a.sql", ""),
        (
            "crates/storage-pg/src/lib.rs",
            "pub static MIGRATOR: Migrator = sqlx::migrate!();",
        ),
        (
            "crates/api/src/lib.rs",
            "static MIGRATOR: Migrator = sqlx::migrate!(\n    \"./migrations\"\n);",
        ),
    ]);
    let both = ["crates/api/migrations", "crates/storage-pg/migrations"];
    let (_dir, setup) = found(&files);
    assert_eq!(
        setup.migrations,
        Migrations::Several(both.map(str::to_owned).to_vec())
    );
    files.push((
        "crates/api/tests/it.rs",
        "#[kapsel_testdb::test(migrator = \"storage_pg::MIGRATOR\")]",
    ));
    let (_dir, setup) = found(&files);
    let directory = both[1].to_owned();
    let others = vec![both[0].to_owned()];
    assert_eq!(setup.migrations, Migrations::Found { directory, others });
}

#[test]
fn missing_migrations_and_dependents_are_reported() {
    let (dir, setup) = found(&WORKSPACE);
    assert_eq!(setup.migrations, Migrations::Missing);
    assert!(!setup.has_dependents);
    assert_eq!(narrow_filter(dir.path()), None);
    let mut files = WORKSPACE.to_vec();
    files[2].1 = "[package]\nname = 'api'\n[dev-dependencies]\nkapsel-testdb = '0.1'\n";
    let (dir, setup) = found(&files);
    assert!(setup.has_dependents);
    assert_eq!(narrow_filter(dir.path()).as_deref(), Some("package(=api)"));
    // Without a manifest nothing is known.
    assert!(found(&[]).1.has_dependents);
}
