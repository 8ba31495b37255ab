//! Existing files of many shapes, each edited, read back and edited again.

mod files;

use proptest::prelude::*;
use toml_edit::{DocumentMut, Item};

use super::*;

const NEW: &str = "experimental = [\"setup-scripts\"]

[scripts.setup.kapsel-testdb]
command = \"kapsel-testdb prepare\"

[[profile.default.scripts]]
filter = 'all()'
setup = 'kapsel-testdb'
";

fn project() -> Project {
    Project {
        namespace: "shop".to_owned(),
        filter: "all()".to_owned(),
        migrations: None,
    }
}

fn plan_nextest(text: &str, options: &InitOptions) -> Result<Option<String>, (File, EditError)> {
    let existing = ProjectTexts {
        nextest: Some(text.to_owned()),
        settings: None,
    };
    Ok(plan(&existing, &project(), options)?.nextest)
}

fn edited(text: &str) -> String {
    plan_nextest(text, &InitOptions::default())
        .expect("editable")
        .unwrap_or_else(|| text.to_owned())
}

/// The properties of every result.
fn check(text: &str) {
    let document: DocumentMut = text
        .parse()
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    let experimental = &document["experimental"];
    let listed = experimental
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one.as_str() == Some("setup-scripts")));
    let switched = experimental.get("setup-scripts").and_then(Item::as_bool) == Some(true);
    assert!(listed || switched, "{text}");
    let scripts = document
        .get("scripts")
        .and_then(|scripts| scripts.get("setup"));
    let legacy = document.get("script");
    assert!(
        [scripts, legacy]
            .iter()
            .flatten()
            .any(|scripts| scripts.get(SCRIPT).is_some()),
        "{text}"
    );
    assert!(
        text.contains("setup = 'kapsel-testdb'") || text.contains("\"kapsel-testdb\""),
        "{text}"
    );
    assert!(
        document["profile"]["default"].get("scripts").is_some(),
        "{text}"
    );
}

const SHAPES: &[&str] = &[
    "",
    "\n",
    "# only a comment",
    "# only a comment\n\n# and another\n",
    "nextest-version = \"0.9.130\"\n",
    "# head\n\nnextest-version = \"0.9.130\"\n[profile.ci]\nretries = 2",
    "# head\n\n# of ci\n[profile.ci]\nretries = 2 # twice\n# end\n",
    "#:schema https://example.org/nextest.json\n# of ci\n[profile.ci]\n",
    "\u{feff}[profile.default]\nretries = 1\n",
    "experimental = []\n",
    "experimental = [ ]\n",
    "experimental = ['wrapper-scripts']\n",
    "experimental = [ 'wrapper-scripts' ]\n",
    "experimental = [\n    # why\n    \"wrapper-scripts\", # because\n]\n[profile.default]\n",
    "experimental = [ # none yet\n]\n",
    "[experimental]\nwrapper-scripts = true\n",
    "[experimental]",
    "[experimental]\nsetup-scripts = false # not yet\n[profile.default]\n",
    "experimental = { wrapper-scripts = true }\n",
    "experimental = {}\n",
    "experimental.wrapper-scripts = true\nprofile.default.retries = 2\n",
    "scripts = { setup = { other = { command = 'true' } } }\n",
    "scripts = {}\nprofile = {}\n",
    "scripts = { setup.other.command = 'true' }\nprofile = { default.retries = 2 }\n",
    "profile = { default = { retries = 2 } }\n",
    "profile = {default={retries=2}}\n",
    "[profile]\ndefault = { retries = 2 }\n",
    "[profile]\ndefault.retries = 2\n[scripts]\nsetup.other.command = 'true'\n",
    "scripts.setup.other.command = 'true'\nprofile.default.scripts = [{ filter = 'all()', setup = 'other' }]\n",
    "profile.default.scripts = []\n[scripts.setup.other]\ncommand = 'true'\n",
    "[profile.default]\nscripts = [\n  { filter = 'all()', setup = ['other'] },\n]\n[scripts.setup]\n",
    "[[profile.default.scripts]]\nfilter = 'all()'\nsetup = 'other'\n\n[scripts.setup.other]\ncommand = 'true'\n",
    "[script.other]\ncommand = 'true'\n",
    "[profile.default]\nretries = { backoff = 'fixed', count = 2, delay = '1s' }\n[profile.ci.junit]\npath = 'junit.xml'\n",
    "[store]\ndir = 'target/nextest'\n[test-groups.db]\nmax-threads = 1\n[[profile.default.overrides]]\nfilter = 'all()'\ntest-group = 'db'\n",
];

#[test]
fn every_shape_is_completed_once() {
    for shape in SHAPES {
        for text in [(*shape).to_owned(), shape.replace('\n', "\r\n")] {
            let new = edited(&text);
            check(&new);
            assert_eq!(edited(&new), new, "a second run changed something");
            assert!(
                !text.contains("\r\n") || !new.replace("\r\n", "").contains('\n'),
                "mixed line endings: {new:?}"
            );
        }
    }
}

#[test]
fn existing_text_stays_in_order() {
    for shape in SHAPES.iter().filter(|shape| !shape.contains("= false")) {
        let new = edited(shape);
        let mut rest = new.chars();
        assert!(
            shape
                .chars()
                .all(|expected| rest.any(|char| char == expected)),
            "{shape:?} is not within {new:?}"
        );
    }
}

#[test]
fn new_file() {
    assert_eq!(edited(""), NEW);
}

#[test]
fn feature_goes_below_the_head_comment_and_above_all_tables() {
    let new = edited("# Ours.\n\n# of ci\n[profile.ci]\nretries = 2\n# end\n");
    let expected = NEW.replacen(
        "\n\n",
        "\n\n# of ci\n[profile.ci]\nretries = 2\n# end\n\n",
        1,
    );
    assert_eq!(new, format!("# Ours.\n\n{expected}"));
}

#[test]
fn arrays_keep_their_layout() {
    let new = edited("experimental = [\n    # why\n    \"wrapper-scripts\", # because\n]\n");
    let expected = "experimental = [\n    \"setup-scripts\",\n    # why\n    \"wrapper-scripts\", # because\n]\n";
    assert!(new.starts_with(expected), "{new}");
    assert!(
        edited("experimental = [ 'a' ]").starts_with("experimental = [ \"setup-scripts\", 'a' ]\n")
    );
}

#[test]
fn legacy_scripts_are_not_mixed_with_new_ones() {
    let new = edited("[script.other]\ncommand = 'true'\n");
    assert!(
        new.contains("\n[script.kapsel-testdb]\n") && !new.contains("[scripts."),
        "{new}"
    );
}

#[test]
fn existing_entries_are_kept() {
    let own = "experimental = ['setup-scripts']\n[scripts.setup.kapsel-testdb]\ncommand = ['nice', 'kapsel-testdb', 'prepare']\n";
    for rule in [
        "setup = ['other', 'kapsel-testdb']",
        "filter = 'test(db)'\nsetup = \"kapsel-testdb\"",
    ] {
        for profile in ["default", "ci"] {
            let text =
                format!("{own}[[profile.{profile}.scripts]]\nplatform = 'cfg(unix)'\n{rule}\n");
            assert_eq!(plan_nextest(&text, &InitOptions::default()), Ok(None));
        }
    }
}

#[test]
fn explicit_options_replace_entries_without_other_scripts() {
    let options = InitOptions {
        command: Some("nice \"kapsel-testdb\" prepare".to_owned()),
        filter: Some("test('db')".to_owned()),
        allow_remote: false,
    };
    let new = plan_nextest(NEW, &options)
        .expect("editable")
        .expect("changed");
    assert!(
        new.contains(r#"command = 'nice "kapsel-testdb" prepare'"#),
        "{new}"
    );
    assert!(new.contains(r#"filter = "test('db')""#), "{new}");
    assert_eq!(plan_nextest(&new, &options), Ok(None));
    let shared = NEW.replace(
        "setup = 'kapsel-testdb'",
        "setup = ['kapsel-testdb', 'other']",
    );
    let (file, error) = plan_nextest(&shared, &options).expect_err("shared rule");
    assert_eq!((file, error.problem), (File::Nextest, Problem::RuleExists));
}

#[test]
fn errors_have_a_position() {
    let cases = [
        ("a = 1\nb = [\n", (2, 6)),
        ("experimental = 'setup-scripts'\n", (1, 16)),
        ("[profile.default]\nscripts = 3\n", (2, 11)),
        ("[scripts]\nsetup = 'x'\n", (2, 9)),
        ("[profile]\n\"ä\" = 1\n= 2\n", (3, 1)),
    ];
    for (text, place) in cases {
        let (_, error) = plan_nextest(text, &InitOptions::default()).expect_err(text);
        let InitError::Edit { line, column, .. } = error.locate(PathBuf::from("x"), text) else {
            panic!("{text}")
        };
        assert_eq!((line, column), place, "{text}");
    }
}

/// Pieces that may follow each other in one file, unless TOML forbids it.
const PIECES: &[&str] = &[
    "# a comment\n",
    "\n",
    "nextest-version = '0.9.130'\n",
    "experimental = [\n  'wrapper-scripts',\n]\n",
    "experimental.wrapper-scripts = true\n",
    "profile.default.retries = 2\n",
    "profile.default.scripts = [{ filter = 'all()', setup = 'other' }]\n",
    "scripts.setup.other = { command = 'true' }\n",
    "[profile.default]\n",
    "[profile.ci]\n",
    "retries = 1 # of all\n",
    "scripts = []\n",
    "[[profile.default.scripts]]\nfilter = 'all()'\nsetup = ['other']\n",
    "[scripts]\n",
    "setup = { other = { command = 'true' } }\n",
    "[scripts.setup.other]\ncommand = 'true'\n",
    "[experimental]\n",
];

proptest! {
    #[test]
    fn any_file_is_completed_once_and_in_order(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..8),
    ) {
        let text = pieces.concat();
        // Invalid TOML is rejected: see `errors_have_a_position`.
        if let Ok(new) = plan_nextest(&text, &InitOptions::default()) {
            let new = new.unwrap_or_else(|| text.clone());
            check(&new);
            prop_assert_eq!(edited(&new), new.clone());
            let mut rest = new.chars();
            prop_assert!(text.chars().all(|expected| rest.any(|char| char == expected)));
        }
    }
}
