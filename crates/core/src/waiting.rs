//! Waits that a person may want to know about. Each is a `tracing` span that lasts as long as the wait; the command shows those that take long.

use std::fmt::Display;
use std::time::Duration;

use tracing::{Span, debug_span};

/// The target of the spans.
pub const TARGET: &str = "kapsel_testdb::waiting";
/// Their field for what is waited for.
pub const WHAT: &str = "what";
/// Their field for the limit, in seconds.
pub const LIMIT: &str = "limit_secs";

/// A wait. It ends when this value is dropped.
#[derive(Debug)]
#[must_use]
pub struct Waiting {
    _span: Span,
}

/// Begins a wait. `what` completes "waiting for …".
pub fn waiting(what: impl Display, limit: impl Into<Option<Duration>>) -> Waiting {
    let limit_secs = limit.into().map(|limit| limit.as_secs());
    Waiting {
        _span: debug_span!(target: TARGET, "waiting", %what, limit_secs),
    }
}

impl Waiting {
    /// Shows another wait from now on.
    pub fn becomes(&mut self, what: impl Display, limit: impl Into<Option<Duration>>) {
        *self = waiting(what, limit);
    }
}
