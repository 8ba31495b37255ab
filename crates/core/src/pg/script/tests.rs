//! Tests of the splitter.

use std::io::Read;

use crate::pg::script::error::LocatedError;
use crate::pg::script::splitter::{Splitter, Statement};
use crate::pg::script::words::StatementKind;
use crate::pg::script::{ScriptError, run_text};

/// The statements of a script, each with its data.
pub(super) type Parts = Vec<(Statement, Option<Vec<u8>>)>;

pub(super) fn split(source: impl Read) -> Result<Parts, ScriptError> {
    let mut splitter = Splitter::new(source);
    let mut parts = Vec::new();
    let mut all = || -> Result<(), LocatedError> {
        while let Some(statement) = splitter.next()? {
            let mut data = None;
            if statement.kind == StatementKind::CopyIn {
                splitter.begin_data(&statement)?;
                let data = data.insert(Vec::new());
                while let Some(piece) = splitter.data()? {
                    data.extend_from_slice(piece);
                }
            }
            parts.push((statement, data));
        }
        Ok(())
    };
    all().map_err(|error| error.in_script("x.sql"))?;
    Ok(parts)
}

fn texts(script: &str) -> Vec<String> {
    let parts = split(script.as_bytes()).unwrap_or_else(|error| panic!("{script}: {error}"));
    parts.into_iter().map(|(part, _)| part.text).collect()
}

fn kinds(script: &str) -> Vec<StatementKind> {
    let parts = split(script.as_bytes()).unwrap_or_else(|error| panic!("{script}: {error}"));
    parts.into_iter().map(|(part, _)| part.kind).collect()
}

fn error(script: &[u8]) -> String {
    split(script).expect_err("it is wrong").to_string()
}

/// Each contains semicolons and is one statement.
const SINGLE: &[&str] = &[
    "SELECT ';', 'it''s;', '\\';",
    r"SELECT E'\';', e'\\', E'a''b\';c';",
    // A string continues after a newline, with the same kind of escapes.
    "SELECT E'a'\n'\\';b';",
    "SELECT E'a' -- x\n  '\\';b';",
    "SELECT E'a'  \n\t '\\';b';",
    r"SELECT U&'\0061;', U&'x' UESCAPE '\', N';', B'1', X'f;';",
    r#"SELECT ";", "a"";", U&"\;";"#,
    // A word before a quote is not the prefix E.
    r"SELECT date '\', fe'\', 1;",
    "SELECT $$;$$, $a$;$$;$b$;$a$, $ä_1$;$ä_1$;",
    "SELECT $a$;$a;$$a$;",
    "SELECT $$$x;$$;",
    // These dollars quote nothing.
    "SELECT a$b$c, $1, $2;",
    "PREPARE p AS SELECT $1+$2;",
    // A single dollar before an E.
    r"SELECT $e'\';';",
    "SELECT 1 -- ;\n;",
    "SELECT 1 -- it's\r;",
    "SELECT 1 /* ; /* ; */ ; */;",
    "SELECT 1 /*/ ; */;",
    "SELECT 1 /* **/+/**/ 2;",
    "SELECT 4 /-- ;\n 2;",
    "SELECT - /*;*/ -1 - -- ;\n -2;",
    "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b);",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;",
    "create or replace procedure p() language sql begin/**/atomic select case when true then 1 end; end;",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT (CASE WHEN true THEN 1 END); END;",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS end; SELECT t.end FROM t; END;",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';",
    "DO $$ BEGIN PERFORM 1; END $$;",
];

#[test]
fn semicolons_inside_statements_do_not_split() {
    for script in SINGLE {
        assert_eq!(texts(script), [*script]);
        let twice = format!("{script}\n{script}");
        assert_eq!(texts(&twice), [*script, *script]);
    }
}

#[test]
fn text_between_statements_is_dropped() {
    let script = "\u{feff} -- first;\n/* a; */ SELECT 1 ; ;; /* b */;\n\nSELECT 2;--\nSELECT 3\n";
    assert_eq!(texts(script), ["SELECT 1 ;", "SELECT 2;", "SELECT 3\n"]);
    for nothing in ["", "\u{feff}", ";", " \n", "-- only", "/* only */", "--"] {
        assert!(texts(nothing).is_empty(), "{nothing:?}");
    }
}

#[test]
fn keywords_elsewhere_open_no_body() {
    let scripts = [
        "BEGIN; SELECT 1; END;",
        "CREATE FUNCTION f(begin int) RETURNS int LANGUAGE sql RETURN 1; SELECT 1; SELECT 2;",
        "CREATE FUNCTION begin() RETURNS int LANGUAGE sql RETURN 1; SELECT 1; SELECT 2;",
        "CREATE TABLE begin (atomic int); SELECT 1; SELECT 2;",
        "SELECT CASE WHEN true THEN 1 END; SELECT 1; SELECT 2;",
    ];
    for script in scripts {
        assert_eq!(texts(script).len(), 3, "{script}");
    }
}

#[test]
fn positions_are_lines_and_characters() {
    let script = "-- ä\r\n  SELECT 'ü\n'; SELECT 2;\n\n\tSELECT 3";
    let parts = split(script.as_bytes()).expect("a script");
    let places: Vec<_> = parts
        .iter()
        .map(|(part, _)| (part.at.line, part.at.column))
        .collect();
    assert_eq!(places, [(2, 3), (3, 4), (5, 2)]);
}

#[test]
fn statements_that_the_runner_must_know() {
    let expected = [
        (
            StatementKind::Begin,
            "BEGIN;BEGIN WORK;begin isolation level serializable;START TRANSACTION;",
        ),
        (
            StatementKind::End,
            "COMMIT;END;ABORT;ROLLBACK;COMMIT WORK;END TRANSACTION;ROLLBACK AND NO CHAIN;",
        ),
        (
            StatementKind::End,
            "COMMIT TRANSACTION AND NO CHAIN;PREPARE TRANSACTION 'x';/* a */ commit -- b\n;",
        ),
        (
            StatementKind::Plain,
            "ROLLBACK TO a;ROLLBACK WORK TO SAVEPOINT a;COMMIT AND CHAIN;ROLLBACK WORK AND CHAIN;",
        ),
        (
            StatementKind::Plain,
            "COMMIT PREPARED 'x';ROLLBACK PREPARED 'x';PREPARE begin AS SELECT 1;",
        ),
        (
            StatementKind::Plain,
            "COPY t FROM 'f';COPY t TO PROGRAM 'x';COPY stdin FROM 'f';COPY t (stdin) FROM 'stdin';",
        ),
        (
            StatementKind::Plain,
            "\"copy\" t from stdin;COPY (SELECT 1 FROM stdin) TO 'f' WITH (FORMAT csv);",
        ),
        (
            StatementKind::CopyOut,
            "COPY t TO stdout;copy (select a from stdin) to STDOUT csv;COPY s.from TO stdout;",
        ),
        (
            StatementKind::CopyOut,
            "COPY \"from\" TO /* x */ stdout (FORMAT csv);COPY t (\"from\", stdin) TO stdout;",
        ),
    ];
    for (kind, script) in expected {
        let found = kinds(script);
        assert!(
            found.iter().all(|found| *found == kind),
            "{script} {found:?}"
        );
        assert!(found.len() > 1, "{script}");
    }
}

#[test]
fn data_end_at_the_end_marker() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "COPY t FROM stdin;\n1\ta\n2\tb\n\\.\nSELECT 1;",
            "1\ta\n2\tb\n",
            &["SELECT 1;"],
        ),
        (
            "COPY t FROM STDIN;\n\\.\n\nSELECT ';';",
            "",
            &["SELECT ';';"],
        ),
        ("COPY t FROM stdin\n;  -- data\n';\n\\.", "';\n", &[]),
        (
            "copy t (a, b) from stdin csv;\r\n1\r\n\\.\r\nSELECT 1",
            "1\r\n",
            &["SELECT 1"],
        ),
        // The end marker must be a whole line.
        (
            "COPY t FROM stdin;\na\\.\n\\.b\n\\\\.\n \\.\n\\.\n",
            "a\\.\n\\.b\n\\\\.\n \\.\n",
            &[],
        ),
        (
            "COPY s.t FROM STDIN WITH (FORMAT csv, HEADER) WHERE a > 0;\nx\n\\.\r\n",
            "x\n",
            &[],
        ),
        ("COPY \"from\" (\"to\") FROM stdin;\n\n\n\\.\n", "\n\n", &[]),
    ];
    for (script, data, after) in cases {
        let parts = split(script.as_bytes()).unwrap_or_else(|error| panic!("{script}: {error}"));
        let found = parts[0].1.as_deref().expect("data");
        assert_eq!(String::from_utf8_lossy(found), *data, "{script}");
        let rest: Vec<_> = parts[1..]
            .iter()
            .map(|(part, _)| part.text.as_str())
            .collect();
        assert_eq!(rest, *after);
    }
}

#[test]
fn data_are_bytes() {
    let parts = split(&b"COPY t FROM stdin;\n\xff\x00\n\\.\n"[..]).expect("a script");
    assert_eq!(parts[0].1.as_deref(), Some(&b"\xff\x00\n"[..]));
}

#[test]
fn lines_are_counted_after_data() {
    let script = "COPY t\nFROM stdin;\n1\n2\n\\.\nSELECT 1;\\x\n";
    assert!(
        error(script.as_bytes()).starts_with("`x.sql` failed at line 6: `\\x` is a psql command")
    );
}

#[test]
fn commands_of_pg_dump_are_skipped() {
    let script = "\\restrict aBc\n\nSELECT 1;\n\n\\unrestrict aBc\r\n\\unrestrict x";
    assert_eq!(texts(script), ["SELECT 1;"]);
}

#[test]
fn invalid_scripts_are_rejected_with_their_line() {
    let cases: &[(&[u8], &str)] = &[
        (
            b"SELECT 1;\n\\i more.sql\n",
            "at line 2: `\\i more.sql` is a psql command",
        ),
        (
            b"SELECT 1;\n\\restricted\n",
            "at line 2: `\\restricted` is a psql command",
        ),
        (
            b"SELECT\n1 \\gexec\n",
            "at line 2: `\\gexec` is a psql command",
        ),
        (
            b"SELECT 1 \\restrict x\n",
            "at line 1: `\\restrict x` is a psql command",
        ),
        (
            b"SELECT 1;\n\nSELECT '\n\xe4';",
            "at line 4: the text is not UTF-8",
        ),
        (
            b"SELECT 1;\nS\0E",
            "at line 2: the text contains a NUL byte",
        ),
        (
            b"SELECT 1;\n\n /* open\n\n",
            "at line 3: a comment begins here and is not closed",
        ),
        (b"/* /* */ \n", "at line 1: a comment begins here"),
        (
            b"COPY t FROM stdin; SELECT 1;\n\\.\n",
            "at line 1: COPY data begin on the line after the statement",
        ),
        (
            b"\nCOPY t FROM stdin;\n1\n2\n",
            "at line 5: the data of the COPY at line 2 have no end",
        ),
        (
            b"COPY t FROM stdin",
            "at line 1: the data of the COPY at line 1 have no end",
        ),
    ];
    for (script, expected) in cases {
        let error = error(script);
        assert!(error.contains(expected), "{error}, not {expected}");
    }
}

#[test]
fn a_future_that_runs_a_script_may_move_between_threads() {
    fn is_send<T: Send>(_: impl FnOnce(&'static mut sqlx::PgConnection) -> T) {}
    is_send(|connection| run_text(connection, "x", "SELECT 1"));
}
