//! How many renames a claim takes when many processes claim at once.
//!
//! `contended-claim [CLAIMANTS] [READY] [ROUNDS]` (39, 78 and 200): each claimant is a process of its own, which lives through all
//! rounds and waits at a barrier (an exclusive flock that the parent frees) before each claim. Prints the distribution of
//! `Claim::renames`, and what a claim took. All claimants begin at the same entry. Entries that a claimant passes over because another one
//! has locked or moved them already cost no rename and are not in the count; they are in the time.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use kapsel_testdb_bench::{clone_name, run_dir};
use kapsel_testdb_core::protocol::{EntryState, RunDir};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--claimant") {
        return claimant(Path::new(&words[1]));
    }
    let number = |at: usize, default| {
        words
            .get(at)
            .map_or(default, |w| w.parse().expect("a number"))
    };
    contend(number(0, 39), number(1, 78), number(2, 200));
}

/// One answer of a claimant: renames (none: nothing was claimed) and nanoseconds.
struct Answer {
    renames: Option<u64>,
    nanoseconds: u64,
}

struct Claimant {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

fn contend(claimants: usize, ready: usize, rounds: usize) {
    let base = tempfile::tempdir().expect("a folder");
    let dir = run_dir(&base.path().join("rt"));
    let barriers = [barrier(dir.path(), 0), barrier(dir.path(), 1)];
    let mut processes: Vec<Claimant> = (0..claimants).map(|_| start(dir.path())).collect();
    let mut answers = Vec::new();
    for round in 0..rounds {
        refill(&dir, ready);
        let barrier = File::create(&barriers[round % 2]).expect("the barrier");
        barrier.lock().expect("the barrier's lock");
        for claimant in &mut processes {
            let stdin = claimant.process.stdin.as_mut().expect("piped");
            writeln!(stdin, "{}", round % 2).expect("a claimant that lives");
        }
        // Each says that it is about to wait, and then only the wait itself is left to do.
        for claimant in &mut processes {
            assert_eq!(claimant.line(), "waiting");
        }
        std::thread::yield_now();
        drop(barrier);
        answers.extend(processes.iter_mut().map(Claimant::answer));
    }
    for mut claimant in processes {
        drop(claimant.process.stdin.take());
        claimant.process.wait().expect("its end");
    }
    println!("{claimants} processes, {ready} ready, {rounds} rounds");
    report(&answers);
}

fn barrier(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("barrier{number}"))
}

fn start(dir: &Path) -> Claimant {
    let mut process = Command::new(std::env::current_exe().expect("this program"))
        .arg("--claimant")
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a claimant");
    let answers = BufReader::new(process.stdout.take().expect("piped"));
    Claimant { process, answers }
}

fn refill(dir: &RunDir, ready: usize) {
    for state in EntryState::ALL {
        for name in dir.list(state) {
            dir.remove_entry(state, &name);
        }
    }
    for _ in 0..ready {
        dir.offer(&clone_name(), None).expect("an entry");
    }
}

impl Claimant {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    fn answer(&mut self) -> Answer {
        let line = self.line();
        let (renames, nanoseconds) = line.split_once(' ').expect("two words");
        Answer {
            renames: renames.parse().ok(),
            nanoseconds: nanoseconds.parse().expect("a number"),
        }
    }
}

fn claimant(dir: &Path) {
    let run = RunDir::join(dir).expect("the run");
    for line in std::io::stdin().lines() {
        let number = line.expect("a round").parse().expect("a number");
        let barrier = File::open(barrier(dir, number)).expect("the barrier");
        answer("waiting");
        barrier.lock_shared().expect("the barrier's lock");
        let begun = Instant::now();
        let claim = run.claim();
        let took = begun.elapsed().as_nanos();
        let renames = claim.map_or("none".to_owned(), |claim| claim.renames.to_string());
        answer(&format!("{renames} {took}"));
    }
}

fn answer(text: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{text}").expect("a parent that lives");
    out.flush().expect("a parent that lives");
}

fn report(answers: &[Answer]) {
    let mut renames: Vec<u64> = answers.iter().filter_map(|a| a.renames).collect();
    let mut times: Vec<u64> = answers.iter().map(|a| a.nanoseconds).collect();
    renames.sort_unstable();
    times.sort_unstable();
    let none = answers.len() - renames.len();
    println!("{} claims, {none} found nothing", renames.len());
    for tried in 1..=*renames.last().unwrap_or(&0) {
        let count = renames.iter().filter(|r| **r == tried).count();
        println!(
            "{tried:3} renames  {count:6}  {:6.2} %",
            100.0 * count as f64 / renames.len() as f64
        );
    }
    let (p50, p99, p999) = (at(&renames, 0.5), at(&renames, 0.99), at(&renames, 0.999));
    println!(
        "renames: median {p50}, 99th percentile {p99}, 99.9th {p999}, most {}",
        at(&renames, 1.0)
    );
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| at(&times, share) as f64 / 1000.0);
    println!(
        "time of a claim, waiting for a core included: median {p50:.0} µs, 99th percentile {p99:.0} µs, most {most:.0} µs"
    );
}

/// The smallest value that `share` of all are not above.
fn at(sorted: &[u64], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}
