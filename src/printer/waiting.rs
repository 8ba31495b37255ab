//! Shows the waits of the core ([`kapsel_testdb_core::waiting`]) that take longer than half a second: what is waited for, and for how long at most. On a
//! terminal a spinner lasts as long as the wait; elsewhere it is one line. If waits are nested, the outermost is shown.

use std::fmt::Debug;
use std::io::IsTerminal;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use kapsel_testdb_core::waiting::{LIMIT, TARGET, WHAT};

/// How long a wait may take until it is shown.
const DELAY: Duration = Duration::from_millis(500);

static SCREEN: Mutex<Screen> = Mutex::new(Screen {
    waits: Vec::new(),
    spinner: None,
    hidden: false,
});
static CHANGED: Condvar = Condvar::new();

struct Screen {
    /// The waits that last, the outermost first.
    waits: Vec<Wait>,
    /// On a terminal, that of the first wait.
    spinner: Option<ProgressBar>,
    /// Whether a progress bar is shown instead.
    hidden: bool,
}

struct Wait {
    id: u64,
    text: String,
    since: Instant,
    is_shown: bool,
}

/// The part of the log that shows waits.
pub(super) fn layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    WaitLayer.with_filter(Targets::new().with_target(TARGET, LevelFilter::DEBUG))
}

/// Runs code that prints lines, above a spinner.
pub(super) fn above_spinner(print: impl FnOnce()) {
    match &screen().spinner {
        Some(spinner) => spinner.suspend(print),
        None => print(),
    }
}

/// Shows no waits, because something else is shown; or shows them again.
pub(super) fn hide(hidden: bool) {
    let mut screen = screen();
    screen.hidden = hidden;
    if hidden {
        screen.clear();
    }
    CHANGED.notify_one();
}

fn screen() -> MutexGuard<'static, Screen> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

struct WaitLayer;

impl<S: Subscriber> Layer<S> for WaitLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        static SHOW: Once = Once::new();
        // If there can be no thread, the waits are not shown.
        SHOW.call_once(|| drop(std::thread::Builder::new().spawn(show_waits)));
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        screen().waits.push(Wait {
            id: id.into_u64(),
            text: fields.text(),
            since: Instant::now(),
            is_shown: false,
        });
        CHANGED.notify_one();
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let mut screen = screen();
        let id = id.into_u64();
        if screen.waits.first().is_some_and(|first| first.id == id) {
            screen.clear();
        }
        screen.waits.retain(|wait| wait.id != id);
        CHANGED.notify_one();
    }
}

/// Shows each wait when it is due; never ends.
fn show_waits() {
    let is_terminal = std::io::stderr().is_terminal();
    let mut guard = screen();
    loop {
        guard = match guard.next_due() {
            None => CHANGED.wait(guard).unwrap_or_else(PoisonError::into_inner),
            Some(Duration::ZERO) => {
                guard.show(is_terminal);
                guard
            }
            Some(pause) => {
                let waited = CHANGED.wait_timeout(guard, pause);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

impl Screen {
    /// In which time the outermost wait must be shown, if it lasts.
    fn next_due(&self) -> Option<Duration> {
        let first = self.waits.first().filter(|_| !self.hidden)?;
        (!first.is_shown).then(|| DELAY.saturating_sub(first.since.elapsed()))
    }

    fn show(&mut self, is_terminal: bool) {
        let Some(first) = self.waits.first_mut() else {
            return;
        };
        first.is_shown = true;
        if !is_terminal {
            anstream::eprintln!("{}", first.text);
            return;
        }
        let spinner = ProgressBar::new_spinner().with_elapsed(first.since.elapsed());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.set_message(first.text.clone());
        spinner.enable_steady_tick(Duration::from_millis(100));
        self.spinner = Some(spinner);
    }

    fn clear(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}

/// The fields of a span.
#[derive(Default)]
struct Fields {
    what: String,
    limit: Option<u64>,
}

impl Fields {
    fn text(&self) -> String {
        // What is too long for a line is cut at its end.
        let limit = match self.limit {
            None => String::new(),
            Some(seconds @ 0..120) => format!(" at most {seconds} s"),
            Some(seconds) => format!(" at most {} min", seconds / 60),
        };
        format!("waiting{limit} for {}", self.what)
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == WHAT {
            self.what = format!("{value:?}");
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == LIMIT {
            self.limit = Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_has_its_limit_in_a_readable_unit() {
        let text = |limit| {
            let what = "PostgreSQL".to_owned();
            Fields { what, limit }.text()
        };
        assert_eq!(text(Some(5)), "waiting at most 5 s for PostgreSQL");
        assert_eq!(text(Some(600)), "waiting at most 10 min for PostgreSQL");
        assert_eq!(text(None), "waiting for PostgreSQL");
    }

    #[test]
    fn only_the_outermost_wait_is_due() {
        let wait = |id, age, is_shown| Wait {
            id,
            text: String::new(),
            since: Instant::now().checked_sub(age).expect("a time"),
            is_shown,
        };
        let mut screen = Screen {
            waits: vec![wait(1, Duration::ZERO, false), wait(2, 2 * DELAY, false)],
            spinner: None,
            hidden: false,
        };
        assert!(screen.next_due().is_some_and(|due| due > Duration::ZERO));
        screen.waits.remove(0);
        assert_eq!(screen.next_due(), Some(Duration::ZERO));
        screen.hidden = true;
        assert_eq!(screen.next_due(), None);
        screen.hidden = false;
        screen.waits[0].is_shown = true;
        assert_eq!(screen.next_due(), None);
    }
}
