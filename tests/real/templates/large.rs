//! Large scripts: the process that runs them stays small. `scripts/large-fixture` does the same with a gigabyte, by hand.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::str::FromStr;

use kapsel_testdb_core::pg::script;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::support::{Outcome, Server, Tool};

const URL: &str = "KT_URL";
const FILE: &str = "KT_FILE";
/// More than the process may take.
const SIZE: usize = 64 * 1024 * 1024;
/// What it may take at most, in kB: all of it, the test binary's own pages included.
const MOST: usize = 50 * 1024;
/// A row's text.
const WIDTH: usize = 8 * 1024;

/// A process that runs a script and says what memory it took at most.
#[test]
#[ignore = "a child process of the other tests"]
#[expect(
    clippy::print_stdout,
    reason = "the test that started this process reads it"
)]
fn child() {
    let (Ok(url), Ok(file)) = (std::env::var(URL), std::env::var(FILE)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let options = PgConnectOptions::from_str(&url).expect("a URL");
        let mut connection = options.connect().await.expect("a connection");
        let path = PathBuf::from(file);
        let ran = script::run_file(&mut connection, &path, "large.sql").await;
        ran.unwrap_or_else(|error| panic!("{error}"));
        connection.close().await.expect("an end");
    });
    println!("peak {} kB", peak());
}

fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = line.and_then(|line| line.split_whitespace().next());
    words.and_then(|kb| kb.parse().ok()).expect("the peak")
}

/// Runs a script that is written in pieces, each with its number, until it is large enough.
fn run(name: &str, before: &str, piece: impl Fn(usize) -> String, after: &str) {
    let server = Server::start();
    server.execute(
        "CREATE UNLOGGED TABLE large (id int PRIMARY KEY, text text); GRANT ALL ON large TO app",
    );
    let path = server.folder().join(name);
    let pieces = write(&path, before, piece, after).expect("a file");
    let binary = std::env::current_exe().expect("this test binary");
    let tool = Tool::new(binary, server.folder()).args([
        "templates::large::child",
        "--exact",
        "--ignored",
        "--nocapture",
    ]);
    let outcome = Outcome::of(tool.env(URL, server.url()).env(FILE, &path).spawn());
    outcome.code(0);
    let peak = outcome.stdout.lines().find_map(|line| {
        let (_, peak) = line.split_once("peak ")?;
        peak.strip_suffix(" kB")?.parse::<usize>().ok()
    });
    let peak = peak.unwrap_or_else(|| panic!("{outcome:#?}"));
    assert!(peak < MOST, "{peak} kB at most for {SIZE} bytes");
    let count = server.column_in("postgres", "SELECT count(*)::text FROM large");
    assert_eq!(count, [pieces.to_string()]);
}

fn write(
    path: &PathBuf,
    before: &str,
    piece: impl Fn(usize) -> String,
    after: &str,
) -> io::Result<usize> {
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(before.as_bytes())?;
    let (mut size, mut pieces) = (0, 0);
    while size < SIZE {
        let piece = piece(pieces);
        file.write_all(piece.as_bytes())?;
        size += piece.len();
        pieces += 1;
    }
    file.write_all(after.as_bytes())?;
    file.flush()?;
    Ok(pieces)
}

fn filling() -> String {
    "lorem; ipsum ".repeat(WIDTH / 13)
}

#[test]
fn data_of_64_mb_take_less_than_50() {
    let text = filling();
    let row = |n| format!("{n}\t{text}\n");
    run("copy.sql", "COPY large FROM stdin;\n", row, "\\.\n");
}

#[test]
fn statements_of_64_mb_take_less_than_50() {
    let text = filling();
    let insert = |n| format!("INSERT INTO large VALUES ({n}, '{text}');\n");
    run(
        "insert.sql",
        "-- many\n",
        insert,
        "SELECT count(*) FROM large;\n",
    );
}
