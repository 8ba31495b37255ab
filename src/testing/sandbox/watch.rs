//! Looks whether a statement of a sandbox waits for another test's lock, and says which test that is while it waits: the server
//! ends a deadlock after a second, and does not tell who the other one was.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::{ConnectOptions, PgConnection};
use tokio::task::JoinHandle;

use super::Sandbox;
use crate::pg::Address;
use crate::pg::blockers::blockers;
use crate::pg::connect::quiet;
use crate::run_dir::RunFile;
use crate::testing::{background, report};

/// How often it looks whether the connection is in use for long.
const TICK: Duration = Duration::from_millis(200);
/// What is long: with a tick and a connect, well below PostgreSQL's `deadlock_timeout` of 1 s.
const LONG: Duration = Duration::from_millis(400);

/// Starts a task in the test's runtime, which ends with it. It asks the server only while the application has the connection for long,
/// on a session of its own that it closes afterwards.
pub fn start(
    sandbox: &Arc<Sandbox>,
    file: &RunFile,
    application: String,
) -> Option<JoinHandle<()>> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let address = file.admin_address().clone();
    Some(runtime.spawn(watch(Arc::downgrade(sandbox), address, application)))
}

async fn watch(sandbox: Weak<Sandbox>, address: Address, application: String) {
    let mut session = None;
    let mut told = BTreeSet::new();
    while background::tick(TICK).await {
        let Some(sandbox) = sandbox.upgrade() else {
            return;
        };
        let long = sandbox.held_for().is_some_and(|held| held > LONG);
        session = match long {
            true => look(session, &address, &sandbox, &application, &mut told).await,
            false => None,
        };
    }
}

/// One look. Where the server has no connection to spare, or does not answer, the next one tries again.
async fn look(
    session: Option<PgConnection>,
    address: &Address,
    sandbox: &Sandbox,
    application: &str,
    told: &mut BTreeSet<i32>,
) -> Option<PgConnection> {
    let mut session = match session {
        Some(session) => session,
        None => {
            let options = quiet(address.options(&sandbox.database.to_string()));
            let options = options.application_name("kapsel-testdb watch");
            options.connect().await.ok()?
        }
    };
    let blockers = blockers(&mut session, application).await.ok()?;
    let new: Vec<_> = blockers
        .into_iter()
        .filter(|b| told.insert(b.pid))
        .collect();
    if let Some(first) = new.first() {
        let others: Vec<_> = new.iter().map(|blocker| blocker.name()).collect();
        report::waits_for_lock(&first.statement, &others);
    }
    Some(session)
}
