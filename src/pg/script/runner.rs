//! Sends a script's statements and data, and keeps it in one transaction.

use std::io::Read;

use sqlx::{Connection, Error as Sqlx, PgConnection, Row};

use super::batch::{Batch, LIMIT};
use super::error::{Place, Problem, Trouble};
use super::splitter::{Splitter, Statement};
use super::words::Kind;
use crate::driver::own;
use crate::pg::connect;
use crate::pg::error::Refusal;

/// A script that is being run.
pub(super) struct Runner<'a, R> {
    connection: &'a mut PgConnection,
    splitter: Splitter<R>,
    batch: Batch,
    /// Statements that have been read.
    count: usize,
    transaction: Transaction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transaction {
    /// The caller's: nothing is begun or ended here.
    Callers,
    /// None is open: one is begun before the next statement.
    None,
    /// Begun here or by the script.
    Open,
}

/// Why a COPY failed.
enum Failure {
    Server(Sqlx),
    Script(Trouble),
}

impl From<Sqlx> for Failure {
    fn from(error: Sqlx) -> Self {
        Self::Server(error)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::Script(trouble)
    }
}

impl<'a, R: Read> Runner<'a, R> {
    pub fn new(connection: &'a mut PgConnection, source: R) -> Self {
        let transaction = match connection.is_in_transaction() {
            true => Transaction::Callers,
            false => Transaction::None,
        };
        Self {
            connection,
            splitter: Splitter::new(source),
            batch: Batch::default(),
            count: 0,
            transaction,
        }
    }

    pub async fn run(mut self) -> Result<(), Trouble> {
        let result = self.statements().await;
        if result.is_err() && self.transaction == Transaction::Open {
            // Where this fails, the session is gone, and the transaction with it.
            let _ = self.execute("ROLLBACK").await;
        }
        result
    }

    async fn statements(&mut self) -> Result<(), Trouble> {
        while let Some(statement) = self.splitter.next()? {
            if self.batch.is_full_for(&statement) {
                self.flush().await?;
            }
            self.count += 1;
            match statement.kind {
                Kind::Plain => self.batch.push(self.count, &statement),
                // A batch is in one transaction from its beginning, so this one begins a batch.
                Kind::Begin => {
                    self.flush().await?;
                    self.batch.push(self.count, &statement);
                    if self.transaction == Transaction::None {
                        self.transaction = Transaction::Open;
                    }
                }
                Kind::End => self.end(&statement).await?,
                Kind::CopyIn => self.copy(&statement).await?,
                Kind::CopyOut => {
                    let line = statement.at.line;
                    return Err(Trouble::at_line(line, Problem::CopyOut));
                }
            }
        }
        // Alone, it may be one that refuses to be in a transaction.
        if self.count > 1 {
            self.begin().await?;
        }
        self.send().await?;
        self.commit().await
    }

    /// Sends what has been read, in a transaction.
    async fn flush(&mut self) -> Result<(), Trouble> {
        if self.batch.len() == 0 {
            return Ok(());
        }
        self.begin().await?;
        self.send().await
    }

    async fn send(&mut self) -> Result<(), Trouble> {
        let sent = connect::run_script(self.connection, self.batch.text()).await;
        sent.map_err(|(succeeded, error)| self.batch.trouble(succeeded, &error))?;
        if self.batch.text().len() > LIMIT {
            // One long statement's memory is not kept for all that follow.
            self.connection.shrink_buffers();
        }
        self.batch.clear();
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), Trouble> {
        if self.transaction == Transaction::None {
            let begun = self.execute("BEGIN").await;
            begun.map_err(|error| Trouble::refused(Place::Whole, &error))?;
            self.transaction = Transaction::Open;
        }
        Ok(())
    }

    /// A transaction that the script ends: the rest is in another one, as it would be if the whole text were sent at once.
    async fn end(&mut self, statement: &Statement) -> Result<(), Trouble> {
        self.batch.push(self.count, statement);
        self.flush().await?;
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::None;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Trouble> {
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::None;
            let committed = self.execute("COMMIT").await;
            committed.map_err(|error| Trouble::refused(Place::Commit, &error))?;
        }
        Ok(())
    }

    /// A COPY and its data. The server looks at them as they come, but sqlx learns what it thinks of them only at their end.
    async fn copy(&mut self, statement: &Statement) -> Result<(), Trouble> {
        self.flush().await?;
        self.begin().await?;
        self.splitter.begin_data(statement)?;
        let first = self.splitter.line_number();
        let copied = self.send_data(statement).await;
        copied.map_err(|failure| match failure {
            Failure::Script(trouble) => trouble,
            Failure::Server(error) => self.copy_trouble(statement, first, &error),
        })
    }

    async fn send_data(&mut self, statement: &Statement) -> Result<(), Failure> {
        let level = self.quiet().await?;
        let mut copy = self.connection.copy_in_raw(&statement.text).await?;
        if !copy.is_textual() {
            let line = statement.at.line;
            copy.abort("binary data").await?;
            return Err(Trouble::at_line(line, Problem::BinaryData).into());
        }
        loop {
            match self.splitter.data() {
                Ok(Some(data)) => copy.send(data).await?,
                Ok(None) => break,
                Err(trouble) => {
                    copy.abort("the data cannot be read").await?;
                    return Err(trouble.into());
                }
            };
        }
        copy.finish().await?;
        Ok(self.set_level(level.as_deref()).await?)
    }

    /// The server counts the lines of the data; `first` is where they begin in the file.
    fn copy_trouble(&self, statement: &Statement, first: usize, error: &Sqlx) -> Trouble {
        let Some(line) = Refusal::of(error).copy_line else {
            let mut single = Batch::default();
            single.push(self.count, statement);
            return single.trouble(0, error);
        };
        let place = Place::Within {
            number: self.count,
            line: first + line - 1,
            column: None,
        };
        Trouble::refused(place, error)
    }

    /// While data are sent nobody reads: notices (a trigger's, one per row) would fill up the socket until both sides wait for each
    /// other. So the server is told to keep them to itself; what it sent before comes back.
    async fn quiet(&mut self) -> Result<Option<String>, Sqlx> {
        let sql = "SELECT current_setting('client_min_messages')";
        let rows = own::rows(self.connection, sql).await?;
        let row = rows.first().ok_or(Sqlx::RowNotFound)?;
        let level: String = row.try_get(0)?;
        if level == "error" {
            return Ok(None);
        }
        self.set_level(Some("error")).await?;
        Ok(Some(level))
    }

    /// For the transaction, so that it hides nothing that the script sets for its session.
    async fn set_level(&mut self, level: Option<&str>) -> Result<(), Sqlx> {
        let Some(level) = level else { return Ok(()) };
        self.execute(&format!("SET LOCAL client_min_messages = {level}"))
            .await
    }

    async fn execute(&mut self, sql: &str) -> Result<(), Sqlx> {
        let ran = connect::run_script(self.connection, sql).await;
        ran.map_err(|(_, error)| error)
    }
}
