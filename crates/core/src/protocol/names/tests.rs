use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;

fn any_name() -> impl Strategy<Value = DbName> {
    (
        "[a-z][a-z0-9]{0,15}",
        any::<[u8; 32]>(),
        0..5usize,
        any::<u32>(),
    )
        .prop_map(|(namespace, hash, kind, seconds)| {
            let namespace = Namespace::new(&namespace).expect("the pattern is the grammar");
            let fingerprint = Fingerprint::from_hash(&hash);
            let now = UNIX_EPOCH + Duration::from_secs(seconds.into());
            let run = RunId::new(now, &RunKey::new(&["a", "b"]));
            match Kind::ALL[kind] {
                Kind::Template => DbName::template(&namespace, &fingerprint),
                kind => DbName::for_run(&namespace, kind, &fingerprint, &run),
            }
        })
}

proptest! {
    #[test]
    fn a_built_name_parses_to_itself(name in any_name()) {
        let text = name.to_string();
        prop_assert!(text.len() <= 63, "{text} has {} bytes", text.len());
        prop_assert_eq!(text.parse::<DbName>().expect("our own name"), name);
    }

    #[test]
    fn no_other_text_parses_to_a_name_that_prints_differently(text in "\\PC{0,63}") {
        if let Ok(name) = text.parse::<DbName>() {
            prop_assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn a_name_with_one_character_more_or_less_is_not_ours(name in any_name(), at in 0..70usize) {
        let text = name.to_string();
        let cut = at % text.len();
        let tail = &text[text.len() - 1..];
        let longer = format!("{text}{tail}");
        prop_assert!(longer.parse::<DbName>().is_err());
        let mut shorter = text.clone();
        shorter.remove(cut);
        // Only a shorter namespace gives a valid name, which then belongs to another project.
        if let Ok(other) = shorter.parse::<DbName>() {
            prop_assert_ne!(other.namespace(), name.namespace());
        }
    }
}

#[test]
fn names_of_other_databases_are_not_ours() {
    for text in [
        "postgres",
        "app",
        "app_clone",
        "app_template_backup",
        "app_template_0123456789abc_old",
        "app_clone_0123456789abc",
        "app_template_0123456789abc_0123456789abcde_000001",
        "App_template_0123456789abc",
        "app_clone_0123456789abc_0123456789abcde_00000A",
        "_sqlx_test_12",
    ] {
        assert!(text.parse::<DbName>().is_err(), "`{text}` parses");
    }
}

#[test]
fn a_run_id_contains_its_age_and_its_key() {
    let now = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
    let key = RunKey::new(&["nextest", "server"]);
    let run = RunId::new(now, &key);
    assert_eq!(run.created_at(), now);
    assert!(run.has_key(&key));
    assert!(!run.has_key(&RunKey::new(&["nextests", "erver"])));
    assert!(RunId::new(now + Duration::from_secs(1), &key) > run);
}

#[test]
fn a_directory_name_gives_a_valid_namespace() {
    for (name, expected) in [
        ("my-app", "myapp"),
        ("My App", "myapp"),
        ("2fast", "db2fast"),
        ("", "db"),
        ("über", "ber"),
        ("a-very-long-project-directory-name", "averylongproject"),
    ] {
        let namespace = Namespace::from_directory_name(name);
        assert_eq!(namespace.as_str(), expected);
        assert!(Namespace::new(namespace.as_str()).is_ok());
    }
}
