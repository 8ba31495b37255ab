//! What passes is waited out, and soon noticed when it has passed; what does not pass is told at once.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::{Outcome, PATIENCE, Project, ROLE, Server, free_port, poll_until};

fn at(url: &str) -> Project {
    let mut project = Project::new("app");
    project.migration("0001_users", "CREATE TABLE users (id int);");
    project.set("DATABASE_URL", url);
    project.set("KAPSEL_TESTDB_SERVER_WAIT_SECS", "60");
    project
}

/// A wait of 60 s is allowed: whoever takes less than half of it did not wait.
#[track_caller]
fn at_once(project: &Project, says: &[&str]) {
    let begun = Instant::now();
    project.run("prepare").code(4).says(says);
    assert!(begun.elapsed() < Duration::from_secs(30), "it waited");
}

#[test]
fn what_does_not_pass_is_told_at_once() {
    let server = Server::start_scram("right");
    let url = |login: &str, database: &str, query: &str| {
        let port = server.port();
        format!("postgres://{login}@127.0.0.1:{port}/{database}{query}")
    };
    let login = format!("{ROLE}:right");
    at_once(
        &at(&url(&format!("{ROLE}:wrong"), "postgres", "")),
        &["refused the login", "correct the user or the password"],
    );
    let mut project = at(&url(&login, "postgres", ""));
    project.set("KAPSEL_TESTDB_SERVER_MAINTENANCE_DATABASE", "nowhere");
    at_once(
        &project,
        &["has no maintenance database `nowhere`", "create it"],
    );
    at_once(
        &at(&url(&login, "postgres", "?sslmode=require")),
        &["does not support TLS"],
    );
    let mut project = at("postgres://me@no-such-host.invalid/app");
    project.set("KAPSEL_TESTDB_ALLOW_REMOTE", "1");
    at_once(&project, &["cannot reach", "correct the URL"]);
}

/// The time between a listener's first moment and the first attempt that reaches it.
fn noticed_after(absent: Duration) -> Duration {
    let port = free_port();
    let project = at(&format!("postgres://me@127.0.0.1:{port}/app"));
    let waiting = project.tool("prepare").spawn();
    let begun = Instant::now();
    // Not a wait for something: the time for which nobody listens is what is measured against.
    let (_never, nothing) = mpsc::channel::<()>();
    let _ = nothing.recv_timeout(absent.saturating_sub(begun.elapsed()));
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is still free");
    let up = Instant::now();
    let (stream, _) = listener.accept().expect("an attempt");
    let noticed = up.elapsed();
    refuse(stream);
    Outcome::of(waiting).code(4).says(&["refused the login"]);
    noticed
}

/// Answers as a server that does not know the role.
fn refuse(mut stream: TcpStream) {
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a request");
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body).expect("its body");
    if body == 80_877_103_u32.to_be_bytes() {
        stream.write_all(b"N").expect("an answer");
        return refuse(stream);
    }
    let text = b"SFATAL\0C28000\0Mno such role\0\0";
    let length = u32::try_from(text.len() + 4).expect("short").to_be_bytes();
    let answer = [b"E".as_slice(), &length, text].concat();
    stream.write_all(&answer).expect("an answer");
}

#[test]
fn a_server_that_comes_up_late_is_used_soon() {
    // The gaps are at most 80 ms (a unit test has that); a busy machine may be late once, not each of four times.
    let noticed: Vec<Duration> = (0..4)
        .map(|_| noticed_after(Duration::from_millis(400)))
        .collect();
    let soonest = noticed.iter().min().expect("four times");
    assert!(*soonest <= Duration::from_millis(100), "{noticed:?}");
}

#[test]
fn a_server_that_starts_while_we_wait_is_used() {
    let mut server = Server::start_tcp();
    let url = server.url();
    server.stop();
    let project = at(&url);
    let waiting = project.tool("prepare").spawn();
    server.go_on();
    Outcome::of(waiting).code(0).says(&["adopted PostgreSQL"]);
}

#[test]
fn too_many_connections_are_waited_out() {
    let server = Server::start_with(&["max_connections=6", "superuser_reserved_connections=1"]);
    let mut project = Project::on(&server);
    project.set("KAPSEL_TESTDB_SERVER_WAIT_SECS", "0");
    let mut taken: Vec<_> = (0..5).map(|_| server.session_of_role("postgres")).collect();
    let waiting = project.tool("prepare -v").env("RUST_LOG", "info").spawn();
    poll_until("it was refused", PATIENCE, || {
        match server.log().matches("remaining connection slots").count()
            + server.log().matches("too many clients").count()
        {
            0 => Err(server.log()),
            _ => Ok(()),
        }
    });
    taken.clear();
    Outcome::of(waiting).code(0);
}
