//! The connection budget: many processes with pools on small servers, none of which is ever refused.

use crate::processes::child::{self, CONNECTIONS, Holder};
use crate::support::{DeadRun, FakeNextest, Outcome, PATIENCE, Project, Server, poll_until};

/// Nobody was refused: the budget held, and nothing was left to luck or to a second attempt.
#[track_caller]
pub fn nobody_was_refused(server: &Server) {
    let log = server.log();
    let refusal = |line: &&str| {
        line.contains("too many clients")
            || line.contains("remaining connection slots")
            || line.contains("too many connections")
    };
    let refused: Vec<&str> = log.lines().filter(refusal).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// Starts so many processes that open all the connections that they may have, and waits for all of them.
#[track_caller]
fn crowd(count: usize, start: impl Fn(usize) -> crate::support::Tool) -> Vec<u32> {
    let children: Vec<_> = (0..count).map(|at| start(at).spawn()).collect();
    let ended = children.into_iter().map(|child| {
        let outcome = Outcome::of(child);
        outcome.code(0);
        let said = outcome.stdout.split(" connections at once").next();
        let size = said.and_then(|text| text.rsplit(char::is_whitespace).next());
        let size = size.and_then(|size| size.parse().ok());
        size.unwrap_or_else(|| panic!("{outcome:#?}"))
    });
    ended.collect()
}

fn in_a_run(max_connections: u32) {
    let server = Server::start_with_connections(max_connections);
    let project = Project::on(&server);
    let nextest = FakeNextest::start_with_threads(&project, "r", 39);
    let sizes = crowd(39, |_| child::command(&project, &nextest.exported, "crowd"));
    assert!(sizes.iter().all(|size| *size >= 2), "{sizes:?}");
    nextest.end();
    nobody_was_refused(&server);
}

#[test]
fn thirty_nine_processes_of_a_run_get_by_with_thirty_connections() {
    in_a_run(30);
}

#[test]
fn thirty_nine_processes_of_a_run_get_by_with_a_hundred_connections() {
    in_a_run(100);
}

#[test]
fn a_process_that_the_run_has_not_reckoned_with_takes_its_own() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let in_slot = |slot| Holder::start_in_slot(&project, &nextest.exported, slot);
    let expected = [in_slot(0), in_slot(1)];
    assert_eq!(budget(&project, "reserved_by_runs"), 12);
    assert_eq!(budget(&project, "held_slots"), 0);
    let one_more = in_slot(2);
    assert_eq!(budget(&project, "held_slots"), 5);
    expected.into_iter().for_each(Holder::end);
    one_more.end();
    assert_eq!(budget(&project, "held_slots"), 0);
    nextest.end();
}

#[test]
fn thirty_nine_processes_without_a_run_get_by_with_thirty_connections() {
    let server = Server::start_with_connections(30);
    let project = Project::on(&server);
    crowd(39, |_| child::command(&project, "", "crowd"));
    nobody_was_refused(&server);
}

#[test]
fn thirty_nine_processes_get_by_when_their_keeper_dies() {
    let server = Server::start_with_connections(30);
    let project = Project::on(&server);
    let nextest = FakeNextest::start_with_threads(&project, "r", 39);
    nextest.kill_keeper();
    crowd(39, |_| child::command(&project, &nextest.exported, "crowd"));
    drop(nextest.without_keeper());
    nobody_was_refused(&server);
}

#[test]
fn two_runs_share_a_server() {
    let server = Server::start_with_connections(30);
    let one = Project::on(&server);
    let mut other = Project::named("other", &server);
    other.share_host_with(&one);
    let runs = [
        FakeNextest::start_with_threads(&one, "r", 20),
        FakeNextest::start_with_threads(&other, "r", 20),
    ];
    crowd(40, |at| {
        let project = if at % 2 == 0 { &one } else { &other };
        child::command(project, &runs[at % 2].exported, "crowd")
    });
    runs.into_iter().for_each(FakeNextest::end);
    nobody_was_refused(&server);
}

#[test]
fn who_declares_ten_gets_ten_among_many_who_want_few() {
    let server = Server::start_with_connections(30);
    let project = Project::on(&server);
    let nextest = FakeNextest::start_with_threads(&project, "r", 39);
    let sizes = crowd(30, |at| {
        let tool = child::command(&project, &nextest.exported, "crowd");
        if at % 10 == 3 {
            tool.env(CONNECTIONS, "10")
        } else {
            tool
        }
    });
    let tens: Vec<u32> = sizes.iter().copied().skip(3).step_by(10).collect();
    assert_eq!(tens, [10, 10, 10]);
    nextest.end();
    nobody_was_refused(&server);
}

#[test]
fn more_leases_at_once_than_the_server_has_connections_share_what_there_is() {
    let server = Server::start_with_connections(30);
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    child::run(&project, &nextest.exported, "together").code(0);
    nextest.end();
    child::run(&project, "", "together").code(0);
    nobody_was_refused(&server);
}

#[test]
fn who_declares_more_than_the_run_has_reserved_gets_it_too() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let sizes = crowd(4, |_| {
        child::command(&project, &nextest.exported, "crowd").env(CONNECTIONS, "30")
    });
    assert_eq!(sizes, [30; 4]);
    nextest.end();
    nobody_was_refused(&server);
}

/// The budget's numbers, from `status --json`.
fn budget(project: &Project, key: &str) -> u64 {
    let outcome = project.run("status --json");
    outcome.code(0);
    let status: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let number = status["server"]["budget"][key].as_u64();
    number.unwrap_or_else(|| panic!("no `{key}` in {status}"))
}

#[test]
fn scripts_hold_the_connections_that_they_declare_until_they_end() {
    let server = Server::start_with_connections(30);
    let mut project = Project::on(&server);
    project.set("T", crate::support::BINARY);
    // Twenty at once would need more than there is: this run reserves nothing.
    project.set("NEXTEST_TEST_THREADS", "20");
    let script = r#"set -e
        eval "$("$T" acquire --connections 7)"
        "$T" status --json >"$0""#;
    let said = project.beside("status");
    let tool = project.tool("run --").args(["sh", "-c", script]);
    tool.args([&said]).run().code(0);
    let status = std::fs::read_to_string(&said).expect("what status said");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["server"]["budget"]["held_slots"], 7, "{status}");
    poll_until("they are given back", PATIENCE, || {
        match budget(&project, "held_slots") {
            0 => Ok(()),
            n => Err(format!("{n} are held")),
        }
    });
}

#[test]
fn what_a_killed_process_held_comes_back() {
    let server = Server::start_with_connections(30);
    let project = Project::on(&server);
    let nextest = FakeNextest::start_with_threads(&project, "r", 39);
    let holders: Vec<_> = (0..5)
        .map(|_| Holder::start(&project, &nextest.exported))
        .collect();
    assert_eq!(budget(&project, "held_slots"), 10);
    holders.into_iter().for_each(Holder::kill);
    assert_eq!(budget(&project, "held_slots"), 0);
    // And without anybody asking: as much as there is, at once, for one that wants it all.
    let slots = budget(&project, "slots");
    let holders: Vec<_> = (0..5)
        .map(|_| Holder::start(&project, &nextest.exported))
        .collect();
    let large = child::command(&project, &nextest.exported, "crowd")
        .env(CONNECTIONS, slots.to_string())
        .spawn();
    poll_until("it waits", PATIENCE, || {
        match budget(&project, "waiting_processes") {
            1 => Ok(()),
            n => Err(format!("{n} wait")),
        }
    });
    holders.into_iter().for_each(Holder::kill);
    Outcome::of(large).code(0);
    nextest.end();
    nobody_was_refused(&server);
}

#[test]
fn status_says_what_tests_may_have_and_how_that_comes_about() {
    let server = Server::start_with_connections(40);
    let project = Project::on(&server);
    let nextest = FakeNextest::start_with_threads(&project, "r", 2);
    let _psql = server.session("postgres");
    assert_eq!(budget(&project, "max_connections"), 40);
    assert_eq!(budget(&project, "reserved"), 3);
    assert_eq!(budget(&project, "other_sessions"), 1);
    assert_eq!(budget(&project, "keeper_sessions"), 4);
    let headroom = budget(&project, "headroom");
    assert_eq!(budget(&project, "slots"), 40 - 3 - 1 - 4 - headroom);
    assert_eq!(
        budget(&project, "reserved_by_runs"),
        12,
        "two processes of six"
    );
    let said = project.run("status -v").stdout;
    let words: Vec<&str> = said.split_whitespace().collect();
    let words = words.join(" ");
    assert!(
        words.contains("slots: 40 connections minus 3 reserved"),
        "{said}"
    );
    nextest.end();
    assert_eq!(budget(&project, "reserved_by_runs"), 0);
}

#[test]
fn keepers_that_are_dead_or_another_servers_take_nothing() {
    let server = Server::start();
    let project = Project::on(&server);
    let dead = DeadRun::leave(&project, "dead");
    std::fs::write(dead.dir.join("keeper.pid"), "1\n").expect("a file");
    let elsewhere = Server::start();
    let mut other = Project::named("other", &elsewhere);
    other.share_host_with(&project);
    let nextest = FakeNextest::start(&other, "r");
    nextest.keeper_pid();
    let keepers = |project: &Project| {
        let status = project.run("status --json").code(0).json();
        status["server"]["budget"]["keeper_sessions"].as_u64()
    };
    assert_eq!((keepers(&project), keepers(&other)), (Some(0), Some(4)));
    nextest.end();
}
