//! `status --watch`: draws the screen again and again, until a signal ends it.

use std::process::ExitCode;
use std::time::Duration;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::server::ServerKind;

use super::collect;
use super::screen::{Format, screen};
use crate::commands::interrupt::Signals;
use crate::failure::{Failure, Result, signal_code};
use crate::printer::{LiveScreen, Printer};

const INTERVAL: Duration = Duration::from_secs(2);

/// Draws until SIGINT, SIGTERM or SIGHUP, which is the usual way to end it and no error.
pub async fn run(config: &Config, printer: &Printer) -> Result<ExitCode> {
    let Some(mut live) = LiveScreen::open() else {
        return Err(Failure::Usage(
            "`--watch` needs a terminal; without one, repeat `kapsel-testdb status`".to_owned(),
        ));
    };
    let mut signals = Signals::new()?;
    loop {
        let drawn = async {
            let format = Format {
                width: printer.width(),
                verbose: printer.is_verbose(),
            };
            let text = match collect(config).await? {
                Some(status) => screen(&status, format),
                None => format!("{}\n", ServerKind::of(&config.server).not_running()),
            };
            live.draw(&text)?;
            tokio::time::sleep(INTERVAL).await;
            Ok::<_, Failure>(())
        };
        tokio::select! {
            drawn = drawn => drawn?,
            signal = signals.next() => return Ok(signal_code(signal)),
        }
    }
}
