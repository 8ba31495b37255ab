//! One process of `bench/many`: very many databases, leases and statements in one test. Prints JSON; times are in milliseconds.
//!
//! `many create|ready|reopen|sustain|release|cycles` in the run of the environment; a current-thread runtime, as `#[tokio::test]` makes.

use std::time::{Duration, Instant};

use kapsel_testdb::{Leaks, TestDb, TestDbOptions};
use sqlx::PgPool;

type Answer<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Answer {
    let way = std::env::args().nth(1).unwrap_or_default();
    match way.as_str() {
        "create" => create().await,
        "ready" => ready().await,
        "reopen" => reopen().await,
        "sustain" => sustain().await,
        "release" => release().await,
        "cycles" => cycles().await,
        other => Err(format!("no such way: `{other}`").into()),
    }
}

/// A lease and its first answered query.
async fn used() -> Answer<TestDb> {
    let db = TestDb::lease().await?;
    sqlx::query("SELECT 1").execute(db.pool()).await?;
    Ok(db)
}

/// 100 databases in one test, of which the keeper has only the first few ready.
async fn create() -> Answer {
    let (mut leases, mut times) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let begun = Instant::now();
        leases.push(used().await?);
        times.push(begun.elapsed());
    }
    tell(&mut times, &format!("\"peak_kb\": {}", memory("VmHWM:")));
    Ok(())
}

/// One lease, which finds a ready clone.
async fn ready() -> Answer {
    let begun = Instant::now();
    let db = used().await?;
    tell(&mut vec![begun.elapsed()], "\"peak_kb\": 0");
    db.release().await;
    Ok(())
}

/// A statement on each of 100 databases in turn: where connections are few, its pool has none and opens one.
async fn reopen() -> Answer {
    let (mut leases, mut times, mut closed) = (Vec::new(), Vec::new(), 0);
    for _ in 0..100 {
        leases.push(used().await?);
    }
    for _ in 0..5 {
        for db in &leases {
            let empty = db.pool().size() == 0;
            let begun = Instant::now();
            sqlx::query("SELECT 1").execute(db.pool()).await?;
            if empty {
                closed += 1;
                times.push(begun.elapsed());
            }
        }
    }
    tell(&mut times, &format!("\"closed\": {closed}"));
    Ok(())
}

/// 200 tasks on one pool, an insert after the other, for ten seconds.
async fn sustain() -> Answer {
    let db = TestDb::lease().await?;
    sqlx::query("CREATE TABLE work (id bigserial PRIMARY KEY, task int)")
        .execute(db.pool())
        .await?;
    let begun = Instant::now();
    let work = |task: i32, pool: PgPool| async move {
        let mut times = Vec::new();
        while begun.elapsed() < Duration::from_secs(10) {
            let at = Instant::now();
            let insert = sqlx::query("INSERT INTO work (task) VALUES ($1)").bind(task);
            insert.execute(&pool).await.expect("a row");
            times.push(at.elapsed());
        }
        times
    };
    let tasks: Vec<_> = (0..200)
        .map(|task| tokio::spawn(work(task, db.pool().clone())))
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await?);
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    tell(&mut times, &format!("\"per_second\": {rate:.0}"));
    db.release().await;
    Ok(())
}

/// Leases that are given back, with and without a look at what is open, in turns.
async fn release() -> Answer {
    let (mut off, mut warn) = (Vec::new(), Vec::new());
    for round in 0..101 {
        for (leaks, times) in [(Leaks::Off, &mut off), (Leaks::Warn, &mut warn)] {
            let db = TestDbOptions::new().leaks(leaks).lease().await?;
            for _ in 0..5 {
                sqlx::query("SELECT count(*) FROM pg_class")
                    .execute(db.pool())
                    .await?;
            }
            let begun = Instant::now();
            db.release().await;
            if round > 0 {
                times.push(begun.elapsed());
            }
        }
    }
    let without = sorted(&mut off);
    tell(&mut warn, &format!("\"without\": {without}"));
    Ok(())
}

/// 100 databases, ten times over.
async fn cycles() -> Answer {
    let (mut times, mut memories) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let begun = Instant::now();
        let mut leases = Vec::new();
        for _ in 0..100 {
            leases.push(used().await?);
        }
        for db in leases {
            db.release().await;
        }
        times.push(begun.elapsed());
        memories.push(memory("VmRSS:"));
    }
    tell(&mut times, &format!("\"memory_kb\": {memories:?}"));
    Ok(())
}

/// Median, 95th percentile and longest.
fn sorted(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: f64| match times.len() {
        0 => 0.0,
        n => times[((n - 1) as f64 * part) as usize].as_secs_f64() * 1000.0,
    };
    format!(
        "{{\"count\": {}, \"median\": {:.3}, \"p95\": {:.3}, \"max\": {:.3}}}",
        times.len(),
        at(0.5),
        at(0.95),
        at(1.0)
    )
}

fn tell(times: &mut Vec<Duration>, more: &str) {
    println!("{{\"times\": {}, {more}}}", sorted(times));
}

/// A line of /proc/self/status, in kB.
fn memory(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}
