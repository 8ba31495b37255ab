//! Every environment variable that the project reads or writes, in one place.

/// Where the run directory is. Written by `prepare` for the test processes; without it they take the slow path.
pub const RUN_DIR: &str = "KAPSEL_TESTDB_RUN_DIR";

/// Prefix of the variables that set a configuration key: `server.allow_remote` is `KAPSEL_TESTDB_SERVER_ALLOW_REMOTE`.
pub const CONFIG_PREFIX: &str = "KAPSEL_TESTDB_";

/// Short for `KAPSEL_TESTDB_SERVER_ALLOW_REMOTE`.
pub const ALLOW_REMOTE: &str = "KAPSEL_TESTDB_ALLOW_REMOTE";

/// A configuration file other than `.config/kapsel-testdb.toml`.
pub const CONFIG: &str = "KAPSEL_TESTDB_CONFIG";

/// Where run directories are made; default `$XDG_RUNTIME_DIR/kapsel-testdb`, else a private folder under the temp dir.
pub const RUNTIME_DIR: &str = "KAPSEL_TESTDB_RUNTIME_DIR";

/// How long, in seconds, a run of another host is watched for signs of life before it is swept; default 30, less only in tests.
pub const WATCH_SECS: &str = "KAPSEL_TESTDB_WATCH_SECS";

/// Read by our `docker-compose.yml`: the image, the published port, the size of the memory for the data.
pub const COMPOSE_FILE_READS: &[&str] = &[
    "KAPSEL_TESTDB_IMAGE",
    "KAPSEL_TESTDB_PORT",
    "KAPSEL_TESTDB_TMPFS_SIZE",
];

/// Says to this repository's own tests that there is no engine for containers here.
pub const NO_DOCKER: &str = "KAPSEL_TESTDB_NO_DOCKER";

/// Our variables that set no configuration key.
pub const OTHERS: &[&str] = &[
    RUN_DIR,
    ALLOW_REMOTE,
    CONFIG,
    RUNTIME_DIR,
    WATCH_SECS,
    NO_DOCKER,
];

/// The PostgreSQL URL that Rust projects commonly use.
pub const DATABASE_URL: &str = "DATABASE_URL";

/// Set by nextest for setup scripts: the file that takes the variables for the test processes.
pub const NEXTEST_ENV: &str = "NEXTEST_ENV";
/// Set by nextest: the id of the run (a UUID).
pub const NEXTEST_RUN_ID: &str = "NEXTEST_RUN_ID";
/// Set by nextest since 0.9.130: how many tests run at once.
pub const NEXTEST_TEST_THREADS: &str = "NEXTEST_TEST_THREADS";
/// Set by nextest since 0.9.130: the root of the workspace.
pub const NEXTEST_WORKSPACE_ROOT: &str = "NEXTEST_WORKSPACE_ROOT";
/// Set by nextest for tests: a small number that no other running test has.
pub const NEXTEST_TEST_GLOBAL_SLOT: &str = "NEXTEST_TEST_GLOBAL_SLOT";
/// Set by nextest for tests: the test's name.
pub const NEXTEST_TEST_NAME: &str = "NEXTEST_TEST_NAME";
/// Set by nextest for tests: the binary that the test is in.
pub const NEXTEST_BINARY_ID: &str = "NEXTEST_BINARY_ID";
/// Set by nextest for tests since 0.9.116: which attempt this is, from 1.
pub const NEXTEST_ATTEMPT: &str = "NEXTEST_ATTEMPT";
/// Set by nextest for tests since 0.9.116: which round of a stress run this is, from 0, or `none`.
pub const NEXTEST_STRESS_CURRENT: &str = "NEXTEST_STRESS_CURRENT";
