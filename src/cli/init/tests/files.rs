//! The template, the choice of members, and what reaches the disk.

use std::fs;

use super::*;

#[test]
fn template_is_valid_commented_and_unlocked_on_request() {
    let text = settings::create("shop", false);
    let keys = |text: &str| {
        text.parse::<DocumentMut>()
            .expect("toml")
            .iter()
            .filter_map(|(_, item)| Some(item.as_table()?.len()))
            .sum::<usize>()
    };
    assert_eq!(keys(&text), 0);
    let all = text.lines().map(|line| {
        if line.contains(" = ") {
            line.trim_start_matches("# ")
        } else {
            line
        }
    });
    let all: toml::Table = toml::from_str(&all.collect::<Vec<_>>().join("\n")).expect("toml");
    for key in crate::config::KEYS {
        let found = match key.name.split_once('.') {
            Some((table, name)) => all[table].get(name).is_some(),
            None => all.contains_key(key.name),
        };
        assert!(
            found,
            "`{}` is not in the commented configuration",
            key.name
        );
    }
    let known = crate::config::KEYS.len();
    let listed: usize = all
        .values()
        .map(|v| v.as_table().map_or(1, toml::Table::len))
        .sum();
    assert_eq!(
        listed, known,
        "the commented configuration lists unknown keys"
    );
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
fn files_are_created_then_updated_then_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path();
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
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
        fs::read_dir(root.join(".config")).expect("folder").count(),
        2,
        "no temporary file stays"
    );
}

#[test]
fn nothing_is_written_if_one_file_is_malformed() {
    let folder = tempfile::tempdir().expect("folder");
    let config = folder.path().join(".config");
    fs::create_dir(&config).expect("folder");
    fs::write(config.join("nextest.toml"), "[profile\n").expect("file");
    let error = init(folder.path(), &InitOptions::default()).expect_err("malformed");
    assert!(
        error
            .to_string()
            .contains("nextest.toml` at line 1, column "),
        "{error}"
    );
    assert!(!config.join("kapsel-testdb.toml").exists());
}
