//! Where and when a sandbox's connection was acquired.

use std::backtrace::Backtrace;
use std::time::{Duration, Instant};

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
        let frames = application_frames(&self.stack.to_string());
        if frames.is_empty() {
            return "at an unknown location (this build has no line tables)".to_owned();
        }
        format!("at {}", frames.join(", called at "))
    }
}

/// The frames as `file:line`, without those of libraries. A backtrace prints a frame as `12: symbol`, then `at file:line:column`.
fn application_frames(stack: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut symbol = "";
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
            let location = location.strip_prefix("./").unwrap_or(location);
            let line = location
                .rsplit_once(':')
                .map_or(location, |(line, _column)| line);
            let is_new = found.last().is_none_or(|last| last != line);
            if is_new && !is_own && !is_library(symbol, location) {
                found.push(line.to_owned());
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

fn is_library(symbol: &str, location: &str) -> bool {
    // Some symbols have no crate path; then the directory decides.
    const CRATES: [&str; 8] = [
        "kapsel_testdb::",
        "sqlx",
        "tokio",
        "futures",
        "std::",
        "core::",
        "alloc::",
        "test::",
    ];
    const DIRECTORIES: [&str; 4] = ["/registry/src/", "/git/checkouts/", "/rustc/", "/rustlib/"];
    let symbol = symbol.trim_start_matches(['<', '&', '*', '(']);
    CRATES.iter().any(|name| symbol.starts_with(name))
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
   6: core::ops::function::FnOnce::call_once
             at /rustc/abc/library/core/src/ops/function.rs:253:5
";
        assert_eq!(
            application_frames(stack),
            ["src/orders.rs:41", "tests/orders.rs:12"]
        );
    }

    #[test]
    fn a_location_is_known_in_tests_of_this_crate() {
        assert!(Acquisition::capture().location().starts_with("at "));
    }
}
