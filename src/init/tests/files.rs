//! The new configuration file, the choice of members, and the files on disk.

use std::fs;

use super::*;

#[test]
fn new_file_is_commented_and_allows_remote_on_request() {
    let text = settings::create("shop", false);
    let keys = |text: &str| {
        text.parse::<DocumentMut>()
            .expect("toml")
            .iter()
            .filter_map(|(_, item)| Some(item.as_table()?.len()))
            .sum::<usize>()
    };
    assert_eq!(keys(&text), 0);
    let remote = settings::create("shop", true);
    assert_eq!(
        remote,
        text.replace("# allow_remote = false", "allow_remote = true")
    );
    assert_eq!(
        settings::allow_remote(&text).expect("toml"),
        Some(remote.clone())
    );
    assert_eq!(settings::allow_remote(&remote).expect("toml"), None);
    for own in [
        "",
        "[server]\nmode = 'auto'\n",
        "[server]",
        "server.mode = 'auto'\n",
        "server = { allow_remote = false }\n",
    ] {
        let new = settings::allow_remote(own).expect("toml").expect("changed");
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
    let run = |options: &InitOptions| init(root, options).expect("init");
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
