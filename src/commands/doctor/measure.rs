//! Measures clones on this server: creation by each strategy, the first and a later connect, the drop.
//!
//! The clones belong to a run that lives as long as this process; after a crash a sweep removes them.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::pg::connect::RetryLimits;
use kapsel_testdb_core::pg::{PgError, ServerFacts, session};
use kapsel_testdb_core::platform::{self, System};
use kapsel_testdb_core::protocol::{Kind, Strategy};
use kapsel_testdb_core::run::{self, Identity, OpenRun, RunError, clone};
use kapsel_testdb_core::template;

use crate::printer::Printer;
use crate::screen::{WIDTH, wrap};

/// Number of clones by each strategy, unless they take too long.
const ROUNDS: usize = 5;
/// Maximum time for one strategy.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// The measurement.
#[derive(Debug, Serialize)]
pub struct StrategyTiming {
    /// One for each strategy that the server supports.
    strategies: Vec<Timing>,
    /// The strategy that clones are created with.
    selected: Strategy,
    /// The fastest strategy on this server, from creation to drop.
    fastest: Strategy,
    /// The time of one clone by the selected strategy, from creation to drop, in milliseconds.
    clone_ms: f64,
    /// Whether the server waits for the disk.
    fsync: bool,
    /// Whether the server's data are on a tmpfs; null if its data directory is not on this machine, or the role may not read where it is.
    data_in_memory: Option<bool>,
}

/// Medians in milliseconds.
#[derive(Debug, Serialize)]
struct Timing {
    strategy: Strategy,
    rounds: usize,
    create_ms: f64,
    first_connect_ms: f64,
    connect_ms: f64,
    drop_ms: f64,
}

impl Timing {
    fn total(&self) -> f64 {
        self.create_ms + self.first_connect_ms + self.drop_ms
    }
}

/// Starts a run, creates clones in it by each strategy, and ends it.
///
/// # Errors
/// No server or no template; a statement failed.
pub async fn measure(config: &Config, printer: &Printer) -> Result<StrategyTiming, RunError> {
    let mut run = run::open(config, Identity::Process, 1, printer).await?;
    let mut timings = Vec::new();
    let mut failed = None;
    for strategy in strategies(&run.server.facts) {
        printer.line(&format!("measuring the clone strategy {strategy}"));
        match time(&run, strategy).await {
            Ok(timing) => timings.push(timing),
            // The file system may not support this strategy; continue with the others.
            Err(error) if strategy == Strategy::FileClone => {
                printer.warn(&format!(
                    "failed to measure the clone strategy {strategy}: {error}"
                ));
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let selected = template::strategy(&run.server.facts);
    let fsync = run.server.facts.fsync;
    let data_in_memory = data_in_memory(&mut run).await;
    end(run).await?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let fastest = timings
        .iter()
        .min_by(|a, b| a.total().total_cmp(&b.total()));
    let of_selected = timings.iter().find(|timing| timing.strategy == selected);
    Ok(StrategyTiming {
        fastest: fastest.map_or(selected, |timing| timing.strategy),
        clone_ms: of_selected.map_or(0.0, Timing::total),
        fsync,
        data_in_memory,
        selected,
        strategies: timings,
    })
}

async fn data_in_memory(run: &mut OpenRun) -> Option<bool> {
    let path = run.admin.data_directory().await.ok()?;
    let path = Path::new(&path);
    let is_here = run.server.admin_address.is_local() && path.exists();
    is_here.then(|| platform::tmpfs_free_bytes(path) > 0)
}

/// The strategies that the server supports.
fn strategies(facts: &ServerFacts) -> Vec<Strategy> {
    let mut known = vec![Strategy::Default];
    if facts.major() >= 15 {
        known.push(Strategy::FileCopy);
    }
    if facts.major() >= 18 && facts.system() == System::Linux {
        known.push(Strategy::FileClone);
    }
    known
}

/// Uses a session of its own: a strategy may leave settings on it.
async fn time(run: &OpenRun, strategy: Strategy) -> Result<Timing, PgError> {
    let mut admin = clone::admin(&run.file, "doctor", RetryLimits::RUNNING).await?;
    let (source, begun) = (run.file.template.to_string(), Instant::now());
    let mut samples: [Vec<f64>; 4] = Default::default();
    while samples[0].is_empty() || (samples[0].len() < ROUNDS && begun.elapsed() < TIME_LIMIT) {
        let name = clone::new_name(&run.file, Kind::Clone);
        let text = name.to_string();
        let from = Instant::now();
        admin.create_database(&name, &source, strategy).await?;
        samples[0].push(since(from));
        for sample in &mut samples[1..3] {
            let from = Instant::now();
            session::connect_once(&run.server.admin_address, &text).await?;
            sample.push(since(from));
        }
        let from = Instant::now();
        admin.drop_database(&name, false, true).await?;
        samples[3].push(since(from));
    }
    admin.close().await;
    let rounds = samples[0].len();
    let [create_ms, first_connect_ms, connect_ms, drop_ms] = samples.map(median);
    Ok(Timing {
        strategy,
        rounds,
        create_ms,
        first_connect_ms,
        connect_ms,
        drop_ms,
    })
}

fn since(from: Instant) -> f64 {
    from.elapsed().as_secs_f64() * 1000.0
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let median = samples.get(samples.len() / 2).copied().unwrap_or_default();
    (median * 10.0).round() / 10.0
}

/// Drops the clones of a failed measurement, and ends the run.
async fn end(mut run: OpenRun) -> Result<(), RunError> {
    let rows = run.admin.databases(&run.file.namespace).await?;
    let ours = rows.iter().filter(|r| r.name.run() == Some(&run.file.run));
    for row in ours {
        run.admin.drop_database(&row.name, false, true).await?;
    }
    run.admin.close().await;
    run::close(&run.runtime, run.dir);
    Ok(())
}

/// A clone that takes longer than this waits for something else than the processor.
const SLOW_MS: f64 = 150.0;

impl StrategyTiming {
    /// What the times mean. docs/BENCHMARKS.md has the times of both kinds of server.
    fn conclusion(&self) -> String {
        let cost = format!(
            "a clone takes {:.0} ms from creation to drop",
            self.clone_ms
        );
        let remedy = "`server.mode = \"local\"` starts a server on tmpfs";
        match (self.clone_ms < SLOW_MS, self.fsync, self.data_in_memory) {
            (true, ..) => format!("{cost}: this server is fast"),
            (_, true, Some(false)) => {
                format!(
                    "{cost}, because its data are on a slow disk and fsync is on; on tmpfs it would take a tenth: {remedy}"
                )
            }
            (_, true, _) => {
                format!(
                    "{cost}, because fsync is on and the server waits for its disk; on tmpfs it would take a tenth: {remedy}"
                )
            }
            (_, false, Some(false)) => {
                format!(
                    "{cost}, although fsync is off: its data are on a slow disk; on tmpfs it would take a tenth: {remedy}"
                )
            }
            (_, false, _) => {
                format!(
                    "{cost}, although the server does not wait for its disk: the machine is busy, or the template is large"
                )
            }
        }
    }
}

impl fmt::Display for StrategyTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:12} {:>8} {:>14} {:>9} {:>8}   medians in ms",
            "strategy", "create", "first connect", "connect", "drop"
        )?;
        for t in &self.strategies {
            writeln!(
                f,
                "{:12} {:>8.1} {:>14.1} {:>9.1} {:>8.1}   of {}",
                t.strategy.to_string(),
                t.create_ms,
                t.first_connect_ms,
                t.connect_ms,
                t.drop_ms,
                t.rounds
            )?;
        }
        for line in wrap(&self.conclusion(), WIDTH) {
            writeln!(f, "{line}")?;
        }
        let (selected, fastest) = (self.selected, self.fastest);
        match selected == fastest {
            true => writeln!(
                f,
                "clones are created by `{selected}`, the fastest strategy on this server"
            ),
            false => writeln!(
                f,
                "clones are created by `{selected}`; the fastest strategy on this server is `{fastest}`"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_in_tenths() {
        assert_eq!(median(vec![9.0, 1.0, 2.26]), 2.3);
        assert_eq!(median(vec![]), 0.0);
    }

    #[test]
    fn table_names_the_selected_and_the_fastest_strategy() {
        let timing = |strategy, create_ms| Timing {
            strategy,
            rounds: 5,
            create_ms,
            first_connect_ms: 6.0,
            connect_ms: 3.0,
            drop_ms: 9.0,
        };
        let measured = StrategyTiming {
            strategies: vec![
                timing(Strategy::Default, 56.0),
                timing(Strategy::FileCopy, 1000.0),
            ],
            selected: Strategy::Default,
            fastest: Strategy::Default,
            clone_ms: 1_100.0,
            fsync: true,
            data_in_memory: Some(false),
        };
        insta::assert_snapshot!(measured.to_string(), @r#"
        strategy       create  first connect   connect     drop   medians in ms
        default          56.0            6.0       3.0      9.0   of 5
        file_copy      1000.0            6.0       3.0      9.0   of 5
        a clone takes 1100 ms from creation to drop, because its data are on a slow disk
        and fsync is on; on tmpfs it would take a tenth: `server.mode = "local"` starts
        a server on tmpfs
        clones are created by `default`, the fastest strategy on this server
        "#);
    }

    #[test]
    fn conclusion_names_what_a_clone_waits_for() {
        let conclusion = |clone_ms, fsync, data_in_memory| {
            let measured = StrategyTiming {
                strategies: Vec::new(),
                selected: Strategy::Default,
                fastest: Strategy::Default,
                clone_ms,
                fsync,
                data_in_memory,
            };
            measured.conclusion()
        };
        for (measured, says) in [
            (
                conclusion(71.2, true, Some(false)),
                "71 ms from creation to drop: this server is fast",
            ),
            (
                conclusion(900.0, true, None),
                "fsync is on and the server waits for its disk",
            ),
            (
                conclusion(900.0, true, Some(true)),
                "fsync is on and the server waits for its disk",
            ),
            (
                conclusion(900.0, false, Some(false)),
                "although fsync is off: its data are on a slow disk",
            ),
            (conclusion(900.0, false, Some(true)), "the machine is busy"),
        ] {
            assert!(measured.contains(says), "{measured}");
        }
    }
}
