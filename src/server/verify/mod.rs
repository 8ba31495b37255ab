//! How well a server suits tests: facts in, findings out. Nothing here talks to the server.

mod finding;
#[cfg(test)]
mod tests;

pub use finding::{Finding, Severity};

use crate::connections::{self, Limit};
use crate::pg::ServerFacts;

/// What a project asks of its server.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Tests that run at once.
    pub threads: usize,
    /// Most connections of one test's pool.
    pub pool: u32,
    /// The database that templates are made from.
    pub base: &'a str,
    /// Whether we start the server: its settings are not for a person to change.
    pub managed: bool,
    /// How many connections there are for tests.
    pub limit: Limit,
}

/// What the settings say, worst first.
pub fn verify(facts: &ServerFacts, wanted: Wanted<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    failures(facts, wanted, &mut found);
    durability(facts, &mut found);
    room(facts, wanted, &mut found);
    habits(facts, &mut found);
    rights(facts, &mut found);
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
    found
}

fn failures(facts: &ServerFacts, wanted: Wanted<'_>, found: &mut Vec<Finding>) {
    if facts.settings.in_recovery {
        found.push(Finding::Standby);
    } else if facts.settings.read_only {
        found.push(Finding::ReadOnly);
    }
    if facts.base_locale.is_empty() {
        found.push(Finding::NoBase(wanted.base.to_owned()));
    }
}

fn durability(facts: &ServerFacts, found: &mut Vec<Finding>) {
    if facts.fsync {
        found.push(Finding::Fsync);
        // Without fsync a commit waits for nothing worth speaking of.
        if facts.settings.synchronous_commit != "off" {
            found.push(Finding::SynchronousCommit);
        }
    } else if facts.settings.full_page_writes {
        found.push(Finding::FullPageWrites);
    }
}

fn room(facts: &ServerFacts, wanted: Wanted<'_>, found: &mut Vec<Finding>) {
    let (there, enough) = (
        wanted.limit.tokens,
        connections::wanted(wanted.threads, wanted.pool),
    );
    if there < enough {
        let share = wanted.limit.share(wanted.threads, wanted.pool);
        found.push(Finding::Connections {
            there,
            enough,
            share,
            max: facts
                .sessions
                .max_connections
                .saturating_add(enough - there),
            fixed: wanted.managed,
        });
    }
    if facts.settings.shared_buffers < SMALL_BUFFERS {
        found.push(Finding::SharedBuffers(facts.settings.shared_buffers));
    }
}

/// A few clones of 8 MB each.
const SMALL_BUFFERS: i64 = 64 << 20;
/// Autovacuum wakes up in every database once in that many seconds: more often is in the way of clones that live for seconds.
const LONG_NAP: i64 = 300;

fn habits(facts: &ServerFacts, found: &mut Vec<Finding>) {
    let settings = &facts.settings;
    if settings.autovacuum && settings.autovacuum_naptime < LONG_NAP {
        found.push(Finding::Autovacuum(settings.autovacuum_naptime));
    }
    if settings.jit {
        found.push(Finding::Jit);
    }
    if settings.check_interval == Some(0.0) {
        found.push(Finding::CheckInterval);
    }
    let parts: Vec<&str> = facts.base_locale.split('/').collect();
    if let [encoding, collation, _, provider, ..] = parts[..]
        && (encoding != "UTF8" || (provider == "c" && !is_plain(collation)))
    {
        found.push(Finding::Locale(format!("{encoding}, {collation}")));
    }
    if facts.major() < 15 {
        found.push(Finding::Version(facts.version()));
    }
}

/// Sorts by bytes everywhere.
fn is_plain(collation: &str) -> bool {
    matches!(
        collation.to_ascii_lowercase().replace('-', "").as_str(),
        "c" | "posix" | "c.utf8"
    )
}

fn rights(facts: &ServerFacts, found: &mut Vec<Finding>) {
    if facts.superuser {
        return;
    }
    if !facts.settings.reads_settings {
        found.push(Finding::DataDirectory);
    }
    if !facts.settings.signals {
        found.push(Finding::Signals);
    }
}

/// All that is worth a line in `prepare`: what makes it slow or fail.
pub fn in_one_line(findings: &[Finding]) -> Option<String> {
    let worst = findings.iter().map(Finding::severity).max()?;
    if worst < Severity::Slow {
        return None;
    }
    let names: Vec<&str> = findings
        .iter()
        .filter(|f| f.severity() >= Severity::Slow)
        .map(Finding::name)
        .collect();
    let effect = match worst {
        Severity::Fails => "will fail",
        _ => "is slower for tests than it needs to be",
    };
    Some(format!(
        "this server {effect}: {} (`kapsel-testdb doctor` says what mends it)",
        names.join(", ")
    ))
}
