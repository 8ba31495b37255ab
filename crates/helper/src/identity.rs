//! The identity of the test that this process runs, if it is known.

use std::env::var;

use kapsel_testdb_core::env;
use kapsel_testdb_core::protocol::Claimant;

/// The test's name: from nextest, or else the name of the thread, which the test harness names after the test.
pub fn test_name() -> String {
    let thread = || std::thread::current().name().map(str::to_owned);
    var(env::NEXTEST_TEST_NAME)
        .ok()
        .or_else(thread)
        .unwrap_or_else(|| "test".to_owned())
}

/// The claimant that this process writes into the entries of its leases.
pub fn claimant() -> Claimant {
    Claimant::from_nextest().unwrap_or_else(|| Claimant {
        binary: test_binary(),
        ..Claimant::named(&test_name())
    })
}

/// The name of the test binary, without the hash that cargo appends.
fn test_binary() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let stem = program.file_stem()?.to_str()?;
    let is_hash = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let name = stem.rsplit_once('-').filter(|(_, hash)| is_hash(hash));
    Some(name.map_or(stem, |(name, _)| name).to_owned())
}
