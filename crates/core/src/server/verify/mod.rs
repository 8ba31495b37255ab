//! Checks how well a server suits tests: a pure function from facts to findings.

mod finding;
#[cfg(test)]
mod tests;

pub use finding::{Finding, Severity};

use crate::connections;
use crate::pg::ServerFacts;
use crate::protocol::Limit;

/// Requirements of a project.
#[derive(Debug, Clone, Copy)]
pub struct Requirements<'a> {
    /// Number of tests that run at once.
    pub threads: usize,
    /// Maximal connections of one test's pool.
    pub pool: u32,
    /// The database that templates are created from.
    pub base: &'a str,
    /// Whether we start the server, so that the user cannot change its settings.
    pub managed: bool,
    /// Connections for tests.
    pub limit: Limit,
}

/// The findings, worst first.
pub fn verify(facts: &ServerFacts, requirements: Requirements<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    check_usable(facts, requirements, &mut found);
    check_durability(facts, &mut found);
    check_capacity(facts, requirements, &mut found);
    check_behavior(facts, &mut found);
    check_privileges(facts, &mut found);
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
    found
}

fn check_usable(facts: &ServerFacts, requirements: Requirements<'_>, found: &mut Vec<Finding>) {
    if facts.settings.in_recovery {
        found.push(Finding::Standby);
    } else if facts.settings.read_only {
        found.push(Finding::ReadOnly);
    }
    if facts.base_locale.is_empty() {
        found.push(Finding::NoBase(requirements.base.to_owned()));
    }
}

fn check_durability(facts: &ServerFacts, found: &mut Vec<Finding>) {
    if facts.fsync {
        found.push(Finding::Fsync);
        // Without fsync, the wait of a commit is negligible.
        if facts.settings.synchronous_commit != "off" {
            found.push(Finding::SynchronousCommit);
        }
    } else if facts.settings.full_page_writes {
        found.push(Finding::FullPageWrites);
    }
}

fn check_capacity(facts: &ServerFacts, requirements: Requirements<'_>, found: &mut Vec<Finding>) {
    let (available, needed) = (
        requirements.limit.slots,
        connections::full_demand(requirements.threads, requirements.pool),
    );
    if available < needed {
        let share = requirements
            .limit
            .share(requirements.threads, requirements.pool);
        found.push(Finding::Connections {
            available,
            needed,
            share,
            max: facts
                .sessions
                .max_connections
                .saturating_add(needed - available),
            fixed: requirements.managed,
        });
    }
    if facts.settings.shared_buffers < MIN_SHARED_BUFFERS {
        found.push(Finding::SharedBuffers(facts.settings.shared_buffers));
    }
}

/// Smaller `shared_buffers` hold only a few clones of 8 MB each.
const MIN_SHARED_BUFFERS: i64 = 64 << 20;
/// With a shorter `autovacuum_naptime`, in seconds, autovacuum often visits clones, which live only for seconds.
const MIN_NAPTIME: i64 = 300;

fn check_behavior(facts: &ServerFacts, found: &mut Vec<Finding>) {
    let settings = &facts.settings;
    if settings.autovacuum && settings.autovacuum_naptime < MIN_NAPTIME {
        found.push(Finding::Autovacuum(settings.autovacuum_naptime));
    }
    if settings.jit {
        found.push(Finding::Jit);
    }
    let major = u32::try_from(facts.major()).unwrap_or(0);
    if settings.check_interval == Some(0.0) && facts.system().can_check_clients(major) {
        found.push(Finding::CheckInterval);
    }
    let parts: Vec<&str> = facts.base_locale.split('/').collect();
    if let [encoding, collation, _, provider, ..] = parts[..]
        && (encoding != "UTF8" || (provider == "c" && !is_byte_order(collation)))
    {
        found.push(Finding::Locale(format!("{encoding}, {collation}")));
    }
    if facts.major() < 15 {
        found.push(Finding::Version(facts.version()));
    }
}

/// Whether the collation sorts by bytes.
fn is_byte_order(collation: &str) -> bool {
    matches!(
        collation.to_ascii_lowercase().replace('-', "").as_str(),
        "c" | "posix" | "c.utf8"
    )
}

fn check_privileges(facts: &ServerFacts, found: &mut Vec<Finding>) {
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

/// One line for `prepare` with all findings that make tests slow or fail.
pub fn one_line_summary(findings: &[Finding]) -> Option<String> {
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
        Severity::Fails => "tests will fail on this server",
        _ => "this server slows tests down",
    };
    Some(format!(
        "{effect}: {} (`kapsel-testdb doctor` prints the fixes)",
        names.join(", ")
    ))
}
