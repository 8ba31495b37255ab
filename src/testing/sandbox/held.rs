//! Who has a sandbox's connection: where it was acquired.

use std::backtrace::Backtrace;
use std::time::{Duration, Instant};

/// Most of the application's frames that are told.
const FRAMES: usize = 3;

/// An acquire. The stack is only captured here, which costs little; its places are looked up when somebody asks.
#[derive(Debug)]
pub struct Held {
    since: Instant,
    stack: Backtrace,
}

impl Held {
    /// Called on the stack of whoever acquires: sqlx asks the pool's hook there.
    pub fn here() -> Self {
        Self {
            since: Instant::now(),
            stack: Backtrace::force_capture(),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// The application's places on the stack, as part of a sentence.
    pub fn place(&self) -> String {
        let places = places(&self.stack.to_string());
        if places.is_empty() {
            return "at an unknown place (no line tables in this build)".to_owned();
        }
        format!("at {}", places.join(", called at "))
    }
}

/// Frames are printed as `12: symbol`, then `at file:line:column`; those of others are left out.
fn places(stack: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut symbol = "";
    // Where this crate was compiled: the first of our frames is in this file.
    let ours = stack.lines().find_map(|line| {
        let place = line.trim().strip_prefix("at ")?;
        place
            .find("testing/sandbox/held.rs")
            .map(|end| &place[..end])
    });
    for line in stack.lines().map(str::trim) {
        if let Some(place) = line.strip_prefix("at ") {
            let is_ours = ours.is_some_and(|ours| place.starts_with(ours));
            let place = place.strip_prefix("./").unwrap_or(place);
            let line = place.rsplit_once(':').map_or(place, |(line, _column)| line);
            let is_news = found.last().is_none_or(|last| last != line);
            if is_news && !is_ours && !is_of_others(symbol, place) {
                found.push(line.to_owned());
            }
        } else if let Some((number, name)) = line.split_once(": ")
            && number.bytes().all(|byte| byte.is_ascii_digit())
        {
            symbol = name;
        }
    }
    found.truncate(FRAMES);
    found
}

fn is_of_others(symbol: &str, place: &str) -> bool {
    // Some frames have no path in their name: mostly the folder tells.
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
    const FOLDERS: [&str; 4] = ["/registry/src/", "/git/checkouts/", "/rustc/", "/rustlib/"];
    let symbol = symbol.trim_start_matches(['<', '&', '*', '(']);
    CRATES.iter().any(|name| symbol.starts_with(name))
        || FOLDERS.iter().any(|folder| place.contains(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_shows_where_the_application_acquired() {
        let stack = "   0: kapsel_testdb::testing::sandbox::held::Held::here
             at /home/u/testdb/src/testing/sandbox/held.rs:22:20
   0: here
             at /home/u/testdb/src/driver/version/sandbox.rs:22:20
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
        assert_eq!(places(stack), ["src/orders.rs:41", "tests/orders.rs:12"]);
    }

    #[test]
    fn an_acquire_of_ours_is_nobodys() {
        assert!(Held::here().place().starts_with("at "));
    }
}
