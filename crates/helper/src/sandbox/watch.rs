//! Reports which test holds a lock that a statement of a sandbox waits for. It does so during the wait, because the server ends a deadlock
//! after a second, and its error does not name the other test.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;

use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::pg::blockers::blockers;
use kapsel_testdb_core::pg::connect::{RetryLimits, quiet};
use kapsel_testdb_core::pg::session::Session;
use kapsel_testdb_core::protocol::RunFile;

use crate::sandbox::Sandbox;
use crate::{background, report};

/// How often the task checks how long the connection has been in use.
const INTERVAL: Duration = Duration::from_millis(200);
/// A use of this length is checked. With an interval and a connect this is well below PostgreSQL's `deadlock_timeout` of 1 s.
const LONG_USE: Duration = Duration::from_millis(400);

/// Starts a task in the test's runtime, and the task ends with that runtime. It connects to the server only while the application holds
/// the connection for long; then it closes its session.
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
    let mut reported = BTreeSet::new();
    while background::tick(INTERVAL).await {
        let Some(sandbox) = sandbox.upgrade() else {
            return;
        };
        let is_long = sandbox.held_for().is_some_and(|held| held > LONG_USE);
        session = match is_long {
            true => check(session, &address, &sandbox, &application, &mut reported).await,
            false => None,
        };
    }
}

/// Reports new blockers once. If the server has no free connection, or does not answer, the next check tries again.
async fn check(
    session: Option<Session>,
    address: &Address,
    sandbox: &Sandbox,
    application: &str,
    reported: &mut BTreeSet<i32>,
) -> Option<Session> {
    let mut session = match session {
        Some(session) => session,
        None => {
            let options = quiet(address.options(&sandbox.database.to_string()));
            let options = options.application_name("kapsel-testdb watch");
            Session::connect(address, &options, RetryLimits::ONCE)
                .await
                .ok()?
        }
    };
    let blockers = blockers(&mut session, application).await.ok()?;
    let new: Vec<_> = blockers
        .into_iter()
        .filter(|blocker| reported.insert(blocker.pid))
        .collect();
    if let Some(first) = new.first() {
        let others: Vec<_> = new.iter().map(|blocker| blocker.name()).collect();
        report::waits_for_lock(&first.statement, &others);
    }
    Some(session)
}
