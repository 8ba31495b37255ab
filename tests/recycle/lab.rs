//! A throwaway server with a template, and clones that are used, cleaned and renamed as the product does it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::pg::Admin;
use kapsel_testdb_core::pg::connect::RetryLimits;
use kapsel_testdb_core::pg::seen::SeenDatabase;
use kapsel_testdb_core::protocol::{
    Baseline, Cleaning, DbName, Fingerprint, Kind, Namespace, Profile, Reason, ResetMethod, RunId,
    RunKey, Strategy,
};
use kapsel_testdb_core::recycle::{self, TextSession, profile};
use kapsel_testdb_core::run::renew;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::RwLock;

use crate::support::{PATIENCE, Server};

const SCHEMA: &str = include_str!("schema.sql");
/// A program's statement may wait so long for another one's lock.
const PROGRAM: [(&str, &str); 3] = [
    ("lock_timeout", "150ms"),
    ("statement_timeout", "5s"),
    ("deadlock_timeout", "40ms"),
];
/// The server does not count what these sessions do.
const UNSEEN: [(&str, &str); 1] = [("track_counts", "off")];

/// Where a server is.
#[derive(Clone)]
pub struct Place {
    directory: PathBuf,
    port: u16,
}

impl Place {
    pub fn of(server: &Server) -> Self {
        Self {
            directory: server.folder().to_owned(),
            port: server.socket_port(),
        }
    }

    /// The directory of the socket.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The number in the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.directory)
            .port(self.port)
            .username("postgres")
            .database(database)
            .disable_statement_logging()
    }

    /// A session of the superuser.
    pub async fn connect(&self, database: &str) -> PgConnection {
        let options = self.options(database);
        options.connect().await.expect("a session")
    }

    /// A session of a program.
    pub async fn program(&self, database: &DbName) -> PgConnection {
        let options = self.options(&database.to_string()).options(PROGRAM);
        options.connect().await.expect("a session of the program")
    }

    /// A session whose work the server does not count, so that looking at a clone does not disturb it.
    pub async fn unseen(&self, database: &DbName) -> PgConnection {
        let options = self.options(&database.to_string()).options(UNSEEN);
        options.connect().await.expect("a session that looks")
    }

    async fn admin(&self) -> Admin {
        let address = Address::socket(self.directory.clone(), self.port, "postgres");
        let admin = Admin::connect(&address, "postgres", "recycle", RetryLimits::RUNNING).await;
        admin.expect("an administrative session")
    }
}

/// Why a clone is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// The cleaning says so.
    Cleaning(Reason),
    /// The cleaning failed.
    Failed,
    /// After the rename, the server's counters differ.
    Renamed(Reason),
    /// The rename failed.
    NotRenamed,
}

/// Held exclusive by each DROP DATABASE, and shared by inserts whose places are compared: a drop makes all sessions of the server close their files, and
/// an insert then forgets the page that it was filling (15.18: 2 of 8 inserts beside drops placed rows differently, 0 of 16 without).
pub static DROPS: RwLock<()> = RwLock::const_new(());

/// A clone and what is known about it.
pub struct Clone {
    pub name: DbName,
    pub baseline: Baseline,
}

/// A server's template and how clones of it are made.
pub struct Lab {
    pub place: Place,
    pub profile: Profile,
    template: DbName,
    admin: Admin,
}

impl Lab {
    /// Builds the template as `crates/core/src/template/steps.rs` does.
    pub async fn build(place: Place) -> Self {
        let namespace = Namespace::new("recycle").expect("a namespace");
        let template = DbName::template(&namespace, &Fingerprint::from_hash(&[7; 32]));
        let mut admin = place.admin().await;
        let created = admin
            .create_database(&template, "template0", Strategy::FileCopy)
            .await;
        created.expect("a database for the template");
        let mut session = place.connect(&template.to_string()).await;
        execute(&mut session, SCHEMA).await;
        profile::vacuum(&mut session, None).await.expect("vacuumed");
        let profile = profile::read(&mut session).await.expect("the profile");
        session.close().await.expect("closed");
        execute(&mut place.connect("postgres").await, "CHECKPOINT").await;
        Self {
            place,
            profile,
            template,
            admin,
        }
    }

    /// The same template, with an administrative session of its own.
    pub async fn share(&self) -> Self {
        Self {
            place: self.place.clone(),
            profile: self.profile.clone(),
            template: self.template.clone(),
            admin: self.place.admin().await,
        }
    }

    /// The same once the server has recovered from a crash, which resets its counters.
    pub async fn after_crash(&self, reset_before: &str) -> Self {
        let begun = Instant::now();
        while self
            .last_reset()
            .await
            .is_none_or(|reset| reset == reset_before)
        {
            assert!(begun.elapsed() < PATIENCE, "the server does not recover");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.share().await
    }

    /// When the server's counters were reset; `None` if it cannot be asked.
    pub async fn last_reset(&self) -> Option<String> {
        let mut session = self.place.options("postgres").connect().await.ok()?;
        let rows = session
            .texts("SELECT stats_reset::text FROM pg_stat_wal")
            .await
            .ok()?;
        rows.into_iter().flatten().next()?
    }

    /// When the server's counters were reset, in its words.
    pub async fn resets(&mut self, clone: &Clone) -> String {
        let row = self.quiet(&clone.name).await;
        row.expect("a clone without sessions").seen.resets
    }

    fn new_name(&self) -> DbName {
        let run = RunId::new(SystemTime::now(), &RunKey::new(&["recycle"]));
        let template = &self.template;
        DbName::for_run(
            template.namespace(),
            Kind::Clone,
            template.fingerprint(),
            &run,
        )
    }

    /// A fresh clone, with its baseline (`run::clone::baseline`).
    pub async fn fresh(&mut self) -> Clone {
        let name = self.new_name();
        let template = self.template.to_string();
        let created = self
            .admin
            .create_database(&name, &template, Strategy::FileCopy);
        created.await.expect("a clone");
        let row = self
            .quiet(&name)
            .await
            .expect("a new clone without sessions");
        let baseline = row.new_baseline().expect("a new clone's counters are 0");
        Clone { name, baseline }
    }

    /// Cleans a clone on a session, closes the session, renames the clone, and checks it as `run::renew` does.
    pub async fn recycle(
        &mut self,
        clone: &mut Clone,
        mut session: PgConnection,
        method: ResetMethod,
    ) -> Result<(), Dropped> {
        let cleaned = self.clean(clone, &mut session, method).await;
        let _ = session.close().await;
        self.renew(clone, cleaned?).await
    }

    /// Only the cleaning, on any session.
    pub async fn clean(
        &self,
        clone: &Clone,
        session: &mut dyn TextSession,
        method: ResetMethod,
    ) -> Result<Baseline, Dropped> {
        let profile = || Some(self.profile.clone());
        match recycle::clean(session, &clone.baseline, profile, method).await {
            Ok(Cleaning::Cleaned(baseline)) => Ok(baseline),
            Ok(Cleaning::Dirty(reason)) => Err(Dropped::Cleaning(reason)),
            Err(_) => Err(Dropped::Failed),
        }
    }

    /// Only the rename and its check.
    pub async fn renew(&mut self, clone: &mut Clone, cleaned: Baseline) -> Result<(), Dropped> {
        let Some(row) = self.quiet(&clone.name).await else {
            return Err(Dropped::Renamed(Reason::Sessions));
        };
        if row.comment.is_some() {
            return Err(Dropped::Renamed(Reason::Database));
        }
        let new = self.new_name();
        let renamed = renew::rename(&mut self.admin, &clone.name, &new, &cleaned).await;
        let Ok(difference) = renamed else {
            return Err(Dropped::NotRenamed);
        };
        clone.name = new;
        match difference {
            Some(reason) => Err(Dropped::Renamed(reason)),
            None => {
                clone.baseline = cleaned;
                Ok(())
            }
        }
    }

    /// What the server reports once no session is connected.
    async fn quiet(&mut self, name: &DbName) -> Option<SeenDatabase> {
        let begun = Instant::now();
        loop {
            let row = self.admin.seen(name).await.expect("what is seen")?;
            if row.backends == 0 {
                return Some(row);
            }
            if begun.elapsed() > Duration::from_millis(500) {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until no session but `left` are on a clone: those of a client that closed them end a moment later.
    pub async fn wait_for_sessions(&mut self, name: &DbName, left: i64) {
        let begun = Instant::now();
        while self.admin.count_sessions(name).await.expect("a count") > left {
            assert!(begun.elapsed() < PATIENCE, "sessions on {name} do not end");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub async fn drop(&mut self, clone: &Clone) {
        let _no_inserts = DROPS.write().await;
        let dropped = self.admin.drop_database(&clone.name, false, true).await;
        dropped.expect("the clone is dropped");
    }

    /// Ends a backend, or cancels its statement, as soon as it sleeps in `pg_sleep`.
    pub async fn signal_sleeper(place: &Place, pid: i32, function: &str) {
        let mut session = place.connect("postgres").await;
        let sql = format!(
            "SELECT {function}(pid)::text FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
        );
        let begun = Instant::now();
        while texts(&mut session, &sql).await.is_empty()
            && begun.elapsed() < Duration::from_millis(400)
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let _ = session.close().await;
    }
}

/// Runs a script that must not fail.
pub async fn execute(session: &mut PgConnection, sql: &str) {
    if let Err(error) = try_execute(session, sql).await {
        panic!("`{sql}` failed: {error}");
    }
}

/// Runs a script that may fail.
pub async fn try_execute(session: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    let query = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
    query.execute(session).await.map(drop)
}

/// The rows of a query whose columns are text.
pub async fn texts(session: &mut PgConnection, sql: &str) -> Vec<Vec<String>> {
    let rows = session.texts(sql).await;
    let rows = rows.unwrap_or_else(|error| panic!("`{sql}` failed: {error}"));
    let row = |row: Vec<Option<String>>| row.into_iter().map(Option::unwrap_or_default).collect();
    rows.into_iter().map(row).collect()
}
