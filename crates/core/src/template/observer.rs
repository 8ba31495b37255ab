//! Progress until a template is there.

use std::time::Duration;

/// An event of a build, or before it.
#[derive(Debug)]
pub enum BuildEvent<'a> {
    /// The server has been started.
    Started {
        /// Its version.
        version: &'a str,
        /// Its directory or its address.
        place: &'a str,
        /// The time without use after which it is stopped.
        idle_stop: Option<Duration>,
    },
    /// A build starts.
    Building {
        /// The differences to the most similar template.
        reasons: &'a [String],
        /// Number of migrations in the template that the build starts from.
        reused: usize,
        /// Number of migrations and seeds to run.
        steps: usize,
    },
    /// A migration or seed starts.
    Step {
        /// The file.
        file: &'a str,
    },
    /// It has run.
    Ran {
        /// The file.
        file: &'a str,
        /// How long that took.
        took: Duration,
    },
    /// A migration failed on top of the template that the build started from. It needs what earlier migrations left in their session, so all of them run.
    Restart,
    /// A migration gave the database to another role. It is ours again.
    OtherOwner {
        /// That role.
        owner: &'a str,
        /// Our role.
        role: &'a str,
    },
    /// A migration has changed another database than the one that it runs in, which it names.
    OtherDatabase {
        /// The file and the line.
        place: &'a str,
        /// The database.
        database: &'a str,
    },
    /// The template is complete.
    Built,
}

/// Receives the events of a build.
pub trait BuildObserver: Sync {
    /// Called for each event.
    fn event(&self, event: &BuildEvent<'_>);
}

/// Logs the events.
#[derive(Debug)]
pub struct LogObserver;

impl BuildObserver for LogObserver {
    fn event(&self, event: &BuildEvent<'_>) {
        tracing::info!(?event, "template");
    }
}
