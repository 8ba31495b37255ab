//! Every environment variable that the project reads or writes, in one place.

/// Path of the run directory. `prepare` sets it for the test processes; without it they take the slow path.
pub const RUN_DIR: &str = "KAPSEL_TESTDB_RUN_DIR";

/// The runs of all templates, as JSON, if there are several. `prepare` sets it for the test processes.
pub const TEMPLATE_RUNS: &str = "KAPSEL_TESTDB_TEMPLATE_RUNS";

/// Why there is no run to join, as a JSON string: `prepare` failed as a setup script, and sets it so that only the tests that need a database fail.
pub const UNPREPARED: &str = "KAPSEL_TESTDB_UNPREPARED";

/// Prefix of variables that set a configuration key: `server.allow_remote` is `KAPSEL_TESTDB_SERVER_ALLOW_REMOTE`.
pub const CONFIG_PREFIX: &str = "KAPSEL_TESTDB_";

/// Short for `KAPSEL_TESTDB_SERVER_ALLOW_REMOTE`.
pub const ALLOW_REMOTE: &str = "KAPSEL_TESTDB_ALLOW_REMOTE";

/// Path of a configuration file other than `.config/kapsel-testdb.toml`.
pub const CONFIG: &str = "KAPSEL_TESTDB_CONFIG";

/// The workspace root, where it cannot be found otherwise: a debugger starts a test without the attribute from any directory.
pub const ROOT: &str = "KAPSEL_TESTDB_ROOT";

/// Parent of the run directories; default `$XDG_RUNTIME_DIR/kapsel-testdb`, else a private directory in the temp directory.
pub const RUNTIME_DIR: &str = "KAPSEL_TESTDB_RUNTIME_DIR";

/// How many seconds the sweep watches a run of another host for activity; default 30, less only in tests.
pub const WATCH_SECS: &str = "KAPSEL_TESTDB_WATCH_SECS";

/// Variables that our `docker-compose.yml` reads: the image, the published port, the size of the tmpfs for the data.
pub const COMPOSE_FILE_READS: &[&str] = &[
    "KAPSEL_TESTDB_IMAGE",
    "KAPSEL_TESTDB_PORT",
    "KAPSEL_TESTDB_TMPFS_SIZE",
];

/// Set for this repository's own tests on a machine without a container engine.
pub const NO_DOCKER: &str = "KAPSEL_TESTDB_NO_DOCKER";

/// Variables with our prefix that do not set a configuration key.
pub const OTHERS: &[&str] = &[
    RUN_DIR,
    TEMPLATE_RUNS,
    UNPREPARED,
    ALLOW_REMOTE,
    CONFIG,
    ROOT,
    RUNTIME_DIR,
    WATCH_SECS,
    NO_DOCKER,
];

/// Variables with paths that must be absolute, because processes with different working directories read them.
pub const ABSOLUTE_PATHS: &[&str] = &[
    RUNTIME_DIR,
    RUN_DIR,
    ROOT,
    NEXTEST_WORKSPACE_ROOT,
    "XDG_RUNTIME_DIR",
    "XDG_CACHE_HOME",
    "HOME",
    "TMPDIR",
    "PGPASSFILE",
];

/// The database URL that Rust projects commonly use.
pub const DATABASE_URL: &str = "DATABASE_URL";

/// Set by nextest for setup scripts: the file for the variables of the test processes.
pub const NEXTEST_ENV: &str = "NEXTEST_ENV";
/// Set by nextest: the id of the run (a UUID).
pub const NEXTEST_RUN_ID: &str = "NEXTEST_RUN_ID";
/// Set by nextest since 0.9.130: how many tests run at once.
pub const NEXTEST_TEST_THREADS: &str = "NEXTEST_TEST_THREADS";
/// Set by nextest since 0.9.130: the root of the workspace.
pub const NEXTEST_WORKSPACE_ROOT: &str = "NEXTEST_WORKSPACE_ROOT";
/// Set by nextest for tests: the global slot, a small number that no other running test has.
pub const NEXTEST_TEST_GLOBAL_SLOT: &str = "NEXTEST_TEST_GLOBAL_SLOT";
/// Set by cargo and nextest for tests: the name of the package.
pub const PACKAGE_NAME: &str = "CARGO_PKG_NAME";
/// Set by nextest for tests: the test's name.
pub const NEXTEST_TEST_NAME: &str = "NEXTEST_TEST_NAME";
/// Set by nextest for tests: the id of the test binary.
pub const NEXTEST_BINARY_ID: &str = "NEXTEST_BINARY_ID";
/// Set by nextest for tests since 0.9.116: the number of the attempt, from 1.
pub const NEXTEST_ATTEMPT: &str = "NEXTEST_ATTEMPT";
/// Set by nextest for tests since 0.9.116: the iteration of a stress run, from 0, or `none`.
pub const NEXTEST_STRESS_CURRENT: &str = "NEXTEST_STRESS_CURRENT";

/// nextest's global slot of this process; no other running test has it.
pub fn test_slot() -> Option<usize> {
    let slot = std::env::var(NEXTEST_TEST_GLOBAL_SLOT).ok()?;
    slot.parse().ok()
}

/// The message of a lease whose setup script failed, with the script's error.
pub fn setup_error() -> Option<String> {
    let exported = std::env::var(UNPREPARED).ok()?;
    let exported = Some(exported).filter(|error| !error.is_empty())?;
    let error: String = serde_json::from_str(&exported).unwrap_or(exported);
    Some(format!(
        "the setup script (`kapsel-testdb prepare`) failed: {error}"
    ))
}
