//! Which test this process runs, as far as it can be told.

use std::env::var;

use crate::env;
use crate::run_dir::Claimant;

/// The test's name: nextest's, else the thread's, which the test harness names after the test.
pub fn test_name() -> String {
    let thread = || std::thread::current().name().map(str::to_owned);
    var(env::NEXTEST_TEST_NAME)
        .ok()
        .or_else(thread)
        .unwrap_or_else(|| "test".to_owned())
}

/// What is written into the entry of a lease of this process's own.
pub fn claimant() -> Claimant {
    from_nextest().unwrap_or_else(|| Claimant {
        binary: harness(),
        ..Claimant::named(&test_name())
    })
}

/// nextest's test, where a test of nextest's is what runs.
pub fn from_nextest() -> Option<Claimant> {
    let number = |name| var(name).ok()?.parse().ok();
    Some(Claimant {
        test: var(env::NEXTEST_TEST_NAME).ok()?,
        binary: var(env::NEXTEST_BINARY_ID).ok(),
        attempt: number(env::NEXTEST_ATTEMPT).unwrap_or(1),
        stress: number(env::NEXTEST_STRESS_CURRENT),
        nextest_run: var(env::NEXTEST_RUN_ID).ok(),
    })
}

/// The test binary's name, without the hash that cargo appends.
fn harness() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let stem = program.file_stem()?.to_str()?;
    let is_hash = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let name = stem.rsplit_once('-').filter(|(_, hash)| is_hash(hash));
    Some(name.map_or(stem, |(name, _)| name).to_owned())
}
