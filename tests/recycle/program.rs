//! Programs: what tests do with a clone, in one or more sessions.

use std::fmt;

use kapsel_testdb_core::protocol::ResetMethod;
use sqlx::{Connection, PgConnection, Row};

use crate::lab::{Clone as Database, Lab, Place, try_execute};

/// What happens on one clone until it is released.
#[derive(Debug, Clone)]
pub struct Program {
    pub steps: Vec<Step>,
    pub end: End,
}

/// An action in one of [`SESSIONS`] sessions; the first session is the test's own.
#[derive(Debug, Clone)]
pub struct Step {
    pub session: usize,
    pub action: Action,
}

/// How many sessions a program may have.
pub const SESSIONS: usize = 3;

#[derive(Debug, Clone)]
pub enum Action {
    /// One statement.
    Sql(String),
    /// A transaction, statement by statement; it is committed or rolled back.
    Block(Vec<String>, bool),
    /// Statements of two sessions at the same time.
    Together(String, String),
    /// A transaction whose last statement sleeps, until it is canceled.
    Cancel(String),
    /// The same, and the session is ended.
    Kill(String),
    /// The session is closed.
    Close,
}

/// What is left when the clone is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The program's first session, idle: it cleans the clone.
    Warm,
    /// No session: a new one cleans the clone.
    Cold,
    /// The first session, in a transaction that used a sequence.
    Open,
    /// Another session, idle.
    Other,
}

/// Programs on one clone, one after the other.
#[derive(Debug, Clone)]
pub struct Case {
    pub method: ResetMethod,
    pub programs: Vec<Program>,
}

impl Program {
    /// Runs it, and returns the session that cleans the clone.
    pub async fn run(
        &self,
        lab: &mut Lab,
        clone: &Database,
    ) -> (PgConnection, Option<PgConnection>) {
        let place = lab.place.clone();
        let mut sessions = Sessions {
            place: &place,
            clone,
            open: Default::default(),
        };
        for step in &self.steps {
            sessions.act(step).await;
        }
        let mut own = sessions.take(0).await;
        let mut other = None;
        for session in 1..SESSIONS {
            if let Some(open) = sessions.open[session].take() {
                if self.end == End::Other && other.is_none() {
                    other = Some(open);
                } else {
                    let _ = open.close().await;
                }
            }
        }
        match self.end {
            End::Warm => {}
            End::Cold => {
                let _ = own.close().await;
                own = place.program(&clone.name).await;
            }
            End::Open => {
                let _ = try_execute(&mut own, "BEGIN").await;
                let _ = try_execute(&mut own, "SELECT nextval('app.used_seq')").await;
            }
            End::Other if other.is_none() => other = Some(place.program(&clone.name).await),
            End::Other => {}
        }
        lab.wait_for_sessions(&clone.name, 1 + i64::from(other.is_some()))
            .await;
        (own, other)
    }
}

struct Sessions<'a> {
    place: &'a Place,
    clone: &'a Database,
    open: [Option<PgConnection>; SESSIONS],
}

impl Sessions<'_> {
    /// Removes a session from the table, and opens it if need be.
    async fn take(&mut self, session: usize) -> PgConnection {
        match self.open[session].take() {
            Some(open) => open,
            None => self.place.program(&self.clone.name).await,
        }
    }

    async fn act(&mut self, step: &Step) {
        let mut session = self.take(step.session).await;
        let kept = match &step.action {
            Action::Sql(sql) => {
                let _ = try_execute(&mut session, sql).await;
                true
            }
            Action::Block(statements, commit) => {
                block(&mut session, statements).await;
                let end = if *commit { "COMMIT" } else { "ROLLBACK" };
                let _ = try_execute(&mut session, end).await;
                true
            }
            Action::Together(one, two) => {
                let next = (step.session + 1) % SESSIONS;
                let mut other = self.take(next).await;
                let _ = tokio::join!(try_execute(&mut session, one), try_execute(&mut other, two));
                self.open[next] = Some(other);
                true
            }
            Action::Cancel(sql) => {
                self.interrupt(&mut session, sql, "pg_cancel_backend").await;
                let _ = try_execute(&mut session, "COMMIT").await;
                true
            }
            Action::Kill(sql) => {
                self.interrupt(&mut session, sql, "pg_terminate_backend")
                    .await;
                false
            }
            Action::Close => {
                let _ = session.close().await;
                return;
            }
        };
        if kept {
            self.open[step.session] = Some(session);
        }
    }

    async fn interrupt(&self, session: &mut PgConnection, sql: &str, function: &str) {
        let query = sqlx::raw_sql("SELECT pg_backend_pid() AS pid");
        let Ok(row) = query.fetch_one(&mut *session).await else {
            return;
        };
        let pid: i32 = row.get("pid");
        block(session, &[sql.to_owned()]).await;
        let sleep = "SELECT pg_sleep(0.5)";
        let signal = Lab::signal_sleeper(self.place, pid, function);
        let _ = tokio::join!(try_execute(session, sleep), signal);
    }
}

async fn block(session: &mut PgConnection, statements: &[String]) {
    let _ = try_execute(session, "BEGIN").await;
    for statement in statements {
        let _ = try_execute(session, statement).await;
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "-- {:?}", self.method)?;
        for (at, program) in self.programs.iter().enumerate() {
            writeln!(f, "-- use {}\n{program}", at + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Step { session, action } in &self.steps {
            write!(f, "/* session {session} */ ")?;
            match action {
                Action::Sql(sql) => writeln!(f, "{sql};")?,
                Action::Block(statements, commit) => {
                    let end = if *commit { "COMMIT" } else { "ROLLBACK" };
                    writeln!(f, "BEGIN; {}; {end};", statements.join("; "))?;
                }
                Action::Together(one, two) => {
                    writeln!(f, "{one}; /* and the next session */ {two};")?
                }
                Action::Cancel(sql) => writeln!(
                    f,
                    "BEGIN; {sql}; SELECT pg_sleep(0.5); /* canceled */ COMMIT;"
                )?,
                Action::Kill(sql) => {
                    writeln!(f, "BEGIN; {sql}; SELECT pg_sleep(0.5); /* terminated */")?
                }
                Action::Close => writeln!(f, "/* closed */")?,
            }
        }
        write!(f, "-- {:?}", self.end)
    }
}
