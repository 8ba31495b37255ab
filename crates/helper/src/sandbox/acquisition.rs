//! Where and when a sandbox's connection was acquired.

use std::backtrace::Backtrace;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kapsel_testdb_core::config;

/// The maximum number of the application's frames in a message.
const MAX_FRAMES: usize = 3;

/// An acquire of the sandbox's connection. It only captures the stack, which is cheap; symbols are resolved on demand.
#[derive(Debug)]
pub struct Acquisition {
    since: Instant,
    stack: Backtrace,
}

impl Acquisition {
    /// Must be called on the stack of the code that acquires: sqlx calls the pool's hook there.
    pub fn capture() -> Self {
        Self {
            since: Instant::now(),
            stack: Backtrace::force_capture(),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// The application's frames on the stack, as the end of a sentence: `at src/a.rs:1, called at …`.
    pub fn location(&self) -> String {
        let frames = application_frames(&self.stack.to_string(), &Directories::of_process());
        if frames.is_empty() {
            return "at an unknown location (this build has no line tables)".to_owned();
        }
        format!("at {}", frames.join(", called at "))
    }
}

/// The directories that make paths short.
struct Directories {
    /// Where the process runs: a backtrace prints paths relative to it.
    current: PathBuf,
    /// The workspace root, from which a terminal opens paths.
    root: PathBuf,
}

impl Directories {
    fn of_process() -> Self {
        let current = std::env::current_dir().unwrap_or_default();
        Self {
            root: config::find_root(&current),
            current,
        }
    }

    /// A location of a backtrace, relative to the workspace root if it is below it.
    fn shown(&self, location: &str) -> String {
        match location.strip_prefix("./") {
            Some(relative) => config::shown_path(&self.root, &self.current.join(relative)),
            None => config::shown_path(&self.root, Path::new(location)),
        }
    }
}

/// The frames as `file:line:column`, without those of libraries. A backtrace prints a frame as `12: symbol`, then `at file:line:column`.
fn application_frames(stack: &str, directories: &Directories) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let (mut symbol, mut last_line) = ("", "");
    // The source directory of this crate: our first frame is in this file.
    let own_sources = stack.lines().find_map(|line| {
        let location = line.trim().strip_prefix("at ")?;
        location
            .find("sandbox/acquisition.rs")
            .map(|end| &location[..end])
    });
    for line in stack.lines().map(str::trim) {
        if let Some(location) = line.strip_prefix("at ") {
            let is_own = own_sources.is_some_and(|own| location.starts_with(own));
            let line = location.rsplit_once(':').map_or(location, |(line, _)| line);
            if line != last_line && !is_own && !is_library(symbol, location) {
                last_line = line;
                found.push(directories.shown(location));
            }
        } else if let Some((number, name)) = line.split_once(": ")
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            symbol = name;
        }
    }
    found.truncate(MAX_FRAMES);
    found
}

/// Whether a frame is of a library: by its directory, or, for vendored libraries, by its crate.
fn is_library(symbol: &str, location: &str) -> bool {
    const CRATES: [&str; 12] = [
        "kapsel_testdb",
        "kapsel_testdb_core",
        "sqlx",
        "sqlx_core",
        "sqlx_postgres",
        "tokio",
        "futures_core",
        "futures_util",
        "std",
        "core",
        "alloc",
        "test",
    ];
    const DIRECTORIES: [&str; 4] = ["/registry/src/", "/git/checkouts/", "/rustc/", "/rustlib/"];
    let symbol = symbol.trim_start_matches(['<', '&', '*', '(']);
    let krate = symbol.split("::").next().unwrap_or_default();
    CRATES.contains(&krate)
        || DIRECTORIES
            .iter()
            .any(|directory| location.contains(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_location_is_where_the_application_acquired() {
        let stack = "   0: kapsel_testdb::sandbox::acquisition::Acquisition::capture
             at /home/u/testdb/crates/helper/src/sandbox/acquisition.rs:22:20
   0: here
             at /home/u/testdb/crates/helper/src/sqlx_compat/version/sandbox.rs:22:20
   1: <futures_util::future::ready::Ready<T> as core::future::future::Future>::poll
             at /home/u/.cargo/registry/src/index/futures-util-0.3/src/lib.rs:1:1
   2: sqlx_core::pool::Pool<DB>::acquire::{{closure}}
   3: shop::orders::place::{{closure}}
             at ./src/orders.rs:41:30
   4: shop::orders::place::{{closure}}
             at ./src/orders.rs:41:12
   5: orders::an_order_is_placed::{{closure}}
             at ./tests/orders.rs:12:9
   5: sqlx_core::rt::block_on
             at /home/u/shop/vendor/sqlx-core/src/rt.rs:1:1
   5: sqlx_of_ours::wrap::{{closure}}
             at /home/u/shop/crates/common/src/lib.rs:3:4
   6: core::ops::function::FnOnce::call_once
             at /rustc/abc/library/core/src/ops/function.rs:253:5
";
        // A test runs in the directory of its package.
        let directories = Directories {
            current: PathBuf::from("/home/u/shop/crates/shop"),
            root: PathBuf::from("/home/u/shop"),
        };
        assert_eq!(
            application_frames(stack, &directories),
            [
                "crates/shop/src/orders.rs:41:30",
                "crates/shop/tests/orders.rs:12:9",
                "crates/common/src/lib.rs:3:4"
            ]
        );
    }

    #[test]
    fn a_location_is_known_in_tests_of_this_crate() {
        assert!(Acquisition::capture().location().starts_with("at "));
    }
}
