use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::pg::facts::{Sessions, Settings};

fn wanted() -> Requirements<'static> {
    Requirements {
        threads: 4,
        pool: 5,
        base: "template0",
        managed: false,
        limit: Limit {
            slots: 100,
            ..Limit::unknown()
        },
    }
}

fn good() -> ServerFacts {
    ServerFacts {
        version_num: 170_002,
        role: "app".to_owned(),
        can_create: true,
        superuser: true,
        fsync: false,
        sessions: Sessions::default(),
        base_locale: "UTF8/C.UTF-8/C.UTF-8/c//".to_owned(),
        base: None,
        role_settings: String::new(),
        settings: Settings::default(),
        options: None,
    }
}

#[test]
fn a_good_server_has_no_findings() {
    assert_eq!(verify(&good(), wanted()), []);
    assert_eq!(one_line_summary(&[]), None);
}

#[test]
fn durability_is_slow_and_fixed_by_settings() {
    let facts = ServerFacts {
        fsync: true,
        settings: Settings {
            synchronous_commit: "on".to_owned(),
            full_page_writes: true,
            ..Settings::default()
        },
        ..good()
    };
    let found = verify(&facts, wanted());
    assert_eq!(found, [Finding::Fsync, Finding::SynchronousCommit]);
    let fix = found[0].fix(&facts).expect("a line");
    assert!(fix.starts_with("ALTER SYSTEM SET fsync = off;"), "{fix}");
    let line = one_line_summary(&found).expect("a warning");
    assert!(line.contains("fsync, synchronous_commit"), "{line}");
    assert!(!line.contains('\n'));
}

#[test]
fn fixes_for_other_roles_need_a_superuser() {
    let facts = ServerFacts {
        superuser: false,
        fsync: true,
        settings: Settings {
            reads_settings: false,
            signals: false,
            ..Settings::default()
        },
        ..good()
    };
    let found = verify(&facts, wanted());
    assert_eq!(
        found,
        [Finding::Fsync, Finding::DataDirectory, Finding::Signals]
    );
    for finding in &found {
        let fix = finding.fix(&facts).expect("a line");
        assert!(fix.starts_with("as a superuser: "), "{fix}");
    }
}

#[test]
fn too_few_connections_make_pools_small() {
    let sessions = Sessions {
        usable: 27,
        max_connections: 30,
        ..Sessions::default()
    };
    let limit = Limit::new(&sessions, &BTreeSet::new(), 1);
    let facts = ServerFacts { sessions, ..good() };
    let found = verify(&facts, Requirements { limit, ..wanted() });
    let expected = Finding::Connections {
        available: 21,
        needed: 24,
        share: 5,
        max: 33,
        fixed: false,
    };
    assert_eq!(found, [expected]);
    let fix = found[0].fix(&facts).expect("a line");
    assert!(fix.contains("max_connections = 33"), "{fix}");
}

#[test]
fn locales_with_the_same_order_everywhere_are_fine() {
    for (locale, fine) in [
        ("UTF8/C/C/c//", true),
        ("UTF8/C.utf8/C.utf8/c//", true),
        ("UTF8/en_US.UTF-8/en_US.UTF-8/i/en-US/153", true),
        ("UTF8/C/C/b/C.UTF-8/1", true),
        ("UTF8/en_US.UTF-8/en_US.UTF-8/c//2.36", false),
        ("SQL_ASCII/C/C/c//", false),
    ] {
        let facts = ServerFacts {
            base_locale: locale.to_owned(),
            ..good()
        };
        assert_eq!(verify(&facts, wanted()).is_empty(), fine, "{locale}");
    }
}

proptest! {
    /// For any server: nothing panics, the worst finding comes first, every message is one line, and everything that fails or is
    /// slow has a fix.
    #[test]
    fn findings_are_ordered_and_have_fixes(
        flags in proptest::collection::vec(any::<bool>(), 11),
        slots in 2_u32..2000,
        threads in 0_usize..200,
        pool in 1_u32..10_000,
        version_num in 130_000_i32..200_000,
    ) {
        let facts = ServerFacts {
            version_num,
            role: "a\"b".to_owned(),
            can_create: true,
            superuser: flags[0],
            fsync: flags[1],
            sessions: Sessions::default(),
            base_locale: if flags[2] { String::new() } else { good().base_locale },
            options: None,
            base: None,
            role_settings: String::new(),
            settings: Settings {
                synchronous_commit: if flags[3] { "on".to_owned() } else { "off".to_owned() },
                full_page_writes: flags[4],
                autovacuum: flags[5],
                autovacuum_naptime: 60,
                jit: flags[6],
                in_recovery: flags[7],
                read_only: flags[8],
                reads_settings: flags[9],
                signals: flags[10],
                ..Settings::default()
            },
        };
        let limit = Limit { slots, ..Limit::unknown() };
        let wanted = Requirements { threads, pool, limit, ..wanted() };
        let found = verify(&facts, wanted);
        for pair in found.windows(2) {
            prop_assert!(pair[0].severity() >= pair[1].severity());
        }
        for finding in &found {
            prop_assert!(!finding.message().contains('\n'));
            let fix = finding.fix(&facts);
            prop_assert!(fix.is_some() || finding.severity() == Severity::Note);
        }
        let short = slots < crate::connections::full_demand(threads, pool);
        let reported = found.iter().any(|f| matches!(f, Finding::Connections { .. }));
        prop_assert_eq!(short, reported);
    }
}

#[test]
fn a_setting_that_the_server_refuses_is_not_suggested() {
    let facts = |version_num, on_linux| ServerFacts {
        version_num,
        settings: Settings {
            check_interval: Some(0.0),
            on_linux,
            ..Settings::default()
        },
        ..good()
    };
    let suggested = |version, on_linux| {
        verify(&facts(version, on_linux), wanted()).contains(&Finding::CheckInterval)
    };
    assert!(suggested(140_000, true) && suggested(150_000, true) && suggested(150_000, false));
    assert!(!suggested(140_000, false), "only Linux can do that with 14");
}
