//! How a test gets its database. The steps are the same for a clone of its own, the shared clone and a sandbox:
//!
//! 1. Join the run that `prepare` exported; if there is none, open a standalone run ([`current`]).
//! 2. Get connection slots: those that the run reserved, or slots from the ledger.
//! 3. Get the database: a ready clone, else a new one; or the shared clone, which its first user creates.
//! 4. Open the pool. If the database is gone (swept, or lost with the server), try once with another database.
//! 5. If the run's template is gone, repeat steps 2 to 4 in a standalone run, once.
//! 6. If the failure is transient (the server is shutting down or starting), repeat all steps for up to 30 s.

use std::ops::Deref;
use std::sync::Arc;

use kapsel_testdb_core::pg::connect::{Retry, RetryLimits};
use kapsel_testdb_core::protocol::{Claim, DbName};

use crate::sandbox::Sandboxed;
use crate::session::{Session, TemplateRequest, current, standalone};
use crate::shared_use::{SharedCloneUse, SharedRequest};
use crate::slots::Permit;
use crate::sqlx_compat::Version;
use crate::template::{CustomTemplate, SchemaRequest};
use crate::{TestDbError, identity, report};

/// The database that a test requests.
#[derive(Debug, Clone, Copy)]
pub enum LeaseRequest {
    /// A clone of the run's template, or of the template that the schema request resolves to.
    Clone(Option<SchemaRequest>),
    /// The shared clone.
    Shared(SharedRequest),
    /// A sandbox on the shared clone.
    Sandbox,
}

/// A test's claim on a database.
#[derive(Debug)]
pub enum Lease {
    /// A clone of its own.
    Clone(Claim),
    /// The shared clone, and the record of its use.
    Shared(Option<SharedCloneUse>),
    /// A sandbox on the shared clone, and the record of its use.
    Sandbox(Sandboxed, Option<SharedCloneUse>),
    /// The lease has ended.
    Ended,
}

/// A lease with an open pool on its database.
#[derive(Debug)]
pub struct Leased<V: Version> {
    pub session: Arc<Session>,
    pub permit: Permit,
    pub name: DbName,
    pub lease: Lease,
    pub pool: V::Pool,
}

/// Obtains a lease. `connections` is the number of connections that the test declares.
pub async fn obtain<V: Version>(
    request: LeaseRequest,
    template: TemplateRequest,
    connections: Option<u32>,
) -> Result<Leased<V>, TestDbError> {
    let mut retry = Retry::within(RetryLimits::RUNNING.busy);
    loop {
        match try_obtain(request, template, connections).await {
            Err(error) if error.is_transient() => retry.pause(error).await?,
            result => return result,
        }
    }
}

async fn try_obtain<V: Version>(
    request: LeaseRequest,
    template: TemplateRequest,
    connections: Option<u32>,
) -> Result<Leased<V>, TestDbError> {
    let session = current(template, connections).await?;
    match obtain_in(session, request, connections).await {
        Err(error) if error.is_missing_template() => {
            report::lost_template(&error);
            let session = standalone(template, connections).await?;
            obtain_in(session, request, connections).await
        }
        result => result,
    }
}

async fn obtain_in<V: Version>(
    session: Arc<Session>,
    request: LeaseRequest,
    connections: Option<u32>,
) -> Result<Leased<V>, TestDbError> {
    let template = match request {
        LeaseRequest::Clone(Some(schema))
            if !(schema.is_inferred() && session.is_for_package()) =>
        {
            schema.custom_template(&session.file).await?.map(Arc::new)
        }
        LeaseRequest::Clone(_) | LeaseRequest::Shared(_) | LeaseRequest::Sandbox => None,
    };
    let permit = session.permit(connections).await?;
    let target = Target::select(&session, request, template.as_ref()).await?;
    let mut target = Unused::new(&session, target);
    let mut opened = target.open::<V>(&session, request, &permit).await;
    if let Err(error) = &opened
        && (error.is_missing_database() || session.is_gone(target.name(), error).await)
    {
        let replaced = target.take().replace(&session, template.as_ref()).await?;
        target = Unused::new(&session, replaced);
        opened = target.open::<V>(&session, request, &permit).await;
    }
    let (pool, opened) = opened?;
    let (name, lease) = target.take().into_lease(opened);
    drop(target);
    Ok(Leased {
        session,
        permit,
        name,
        lease,
        pool,
    })
}

/// The database of a future lease, which is released if the future that obtains the lease fails or is dropped.
struct Unused<'a> {
    session: &'a Session,
    /// `None` once it is taken.
    target: Option<Target>,
}

impl<'a> Unused<'a> {
    fn new(session: &'a Session, target: Target) -> Self {
        let target = Some(target);
        Self { session, target }
    }

    fn take(&mut self) -> Target {
        self.target.take().expect("it is taken once")
    }
}

impl Deref for Unused<'_> {
    type Target = Target;
    fn deref(&self) -> &Target {
        self.target.as_ref().expect("it is not taken")
    }
}

impl Drop for Unused<'_> {
    fn drop(&mut self) {
        if let Some(Target::Clone(claim)) = self.target.take() {
            self.session.release_unused(claim);
        }
    }
}

/// The database of a future lease.
enum Target {
    Clone(Claim),
    Shared(DbName),
}

/// The parts of a lease that exist once its pool is open.
enum Opened {
    Plain(Option<SharedCloneUse>),
    Sandbox(Sandboxed, Option<SharedCloneUse>),
}

impl Target {
    fn name(&self) -> &DbName {
        match self {
            Self::Clone(claim) => &claim.name,
            Self::Shared(name) => name,
        }
    }

    async fn select(
        session: &Session,
        request: LeaseRequest,
        template: Option<&Arc<CustomTemplate>>,
    ) -> Result<Self, TestDbError> {
        Ok(match request {
            LeaseRequest::Clone(_) => {
                Self::Clone(session.claim(template, Some(identity::claimant())).await?)
            }
            LeaseRequest::Shared(_) | LeaseRequest::Sandbox => {
                Self::Shared(session.shared_clone(None).await?)
            }
        })
    }

    /// Replaces a database that is gone, although its entry or its name is still there.
    async fn replace(
        self,
        session: &Session,
        template: Option<&Arc<CustomTemplate>>,
    ) -> Result<Self, TestDbError> {
        Ok(match self {
            Self::Clone(claim) => {
                session.release(claim.without_claimant())?;
                let claimant = Some(identity::claimant());
                Self::Clone(session.create_clone(template, claimant).await?)
            }
            Self::Shared(lost) => Self::Shared(session.shared_clone(Some(lost)).await?),
        })
    }

    async fn open<V: Version>(
        &self,
        session: &Session,
        request: LeaseRequest,
        permit: &Permit,
    ) -> Result<(V::Pool, Opened), TestDbError> {
        match (self, request) {
            (Self::Clone(claim), _) => {
                let pool = session.open_pool::<V>(&claim.name, permit).await?;
                Ok((pool, Opened::Plain(None)))
            }
            (Self::Shared(name), LeaseRequest::Sandbox) => {
                let shared = SharedRequest::TRANSACTION;
                let opening = session.open_sandbox::<V>(name, permit);
                let (opened, shared_use) = session.with_use_record(name, shared, opening).await;
                let (pool, sandbox) = opened?;
                Ok((pool, Opened::Sandbox(sandbox, shared_use)))
            }
            (Self::Shared(name), LeaseRequest::Shared(shared)) => {
                let opening = session.open_pool::<V>(name, permit);
                let (opened, shared_use) = session.with_use_record(name, shared, opening).await;
                Ok((opened?, Opened::Plain(shared_use)))
            }
            (Self::Shared(_), LeaseRequest::Clone(_)) => {
                unreachable!("the target of a clone request is a clone")
            }
        }
    }

    fn into_lease(self, opened: Opened) -> (DbName, Lease) {
        match (self, opened) {
            (Self::Clone(claim), _) => (claim.name.clone(), Lease::Clone(claim)),
            (Self::Shared(name), Opened::Plain(shared_use)) => (name, Lease::Shared(shared_use)),
            (Self::Shared(name), Opened::Sandbox(sandbox, shared_use)) => {
                (name, Lease::Sandbox(sandbox, shared_use))
            }
        }
    }
}
