//! Sends a script's statements and data in one transaction.

use std::io::Read;

use sqlx::{Connection, Error as Sqlx, PgConnection, Row};

use crate::pg::connect;
use crate::pg::error::ErrorDetails;
use crate::pg::script::batch::{Batch, LIMIT};
use crate::pg::script::error::{LocatedError, ScriptPosition, ScriptProblem};
use crate::pg::script::splitter::{Splitter, Statement};
use crate::pg::script::words::StatementKind;
use crate::sqlx_compat::internal;

/// A running script.
pub(super) struct Runner<'a, R> {
    connection: &'a mut PgConnection,
    splitter: Splitter<R>,
    batch: Batch,
    /// Number of statements that were read.
    count: usize,
    transaction: Transaction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transaction {
    /// The caller's transaction: we neither begin nor end it.
    Callers,
    /// No transaction is open: we begin one before the next statement.
    None,
    /// A transaction that we or the script began.
    Open,
    /// Each statement is a transaction, unless the script begins one.
    Never,
}

/// Why a COPY failed.
enum StatementFailure {
    Server(Sqlx),
    Script(LocatedError),
}

impl From<Sqlx> for StatementFailure {
    fn from(error: Sqlx) -> Self {
        Self::Server(error)
    }
}

impl From<LocatedError> for StatementFailure {
    fn from(error: LocatedError) -> Self {
        Self::Script(error)
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

    /// Sends each statement alone and begins no transaction.
    pub fn without_transaction(mut self) -> Self {
        self.transaction = Transaction::Never;
        self
    }

    pub async fn run(mut self) -> Result<(), LocatedError> {
        let result = self.statements().await;
        if result.is_err() && self.transaction == Transaction::Open {
            // If this fails, the session is lost, and the transaction with it.
            let _ = self.execute("ROLLBACK").await;
        }
        result
    }

    async fn statements(&mut self) -> Result<(), LocatedError> {
        while let Some(statement) = self.splitter.next()? {
            if self.batch.is_full_for(&statement) {
                self.flush().await?;
            }
            self.count += 1;
            // A setting applies only to statements that the server has not parsed yet.
            let is_alone = self.transaction == Transaction::Never || sets_strings(&statement.text);
            if is_alone {
                self.flush().await?;
            }
            match statement.kind {
                StatementKind::Plain => {
                    self.batch.push(self.count, &statement);
                    if is_alone {
                        self.flush().await?;
                    }
                }
                // All of a batch is in one transaction, so this statement starts a batch.
                StatementKind::Begin => {
                    self.flush().await?;
                    self.batch.push(self.count, &statement);
                    if self.transaction == Transaction::None {
                        self.transaction = Transaction::Open;
                    }
                }
                StatementKind::End => self.end_transaction(&statement).await?,
                StatementKind::CopyIn => self.copy(&statement).await?,
                StatementKind::CopyOut => {
                    let line = statement.at.line;
                    return Err(LocatedError::at_line(line, ScriptProblem::CopyOut));
                }
            }
        }
        // A single statement may be one that cannot run in a transaction.
        if self.count > 1 {
            self.begin().await?;
        }
        self.send().await?;
        self.commit().await
    }

    /// Sends the batch in a transaction.
    async fn flush(&mut self) -> Result<(), LocatedError> {
        if self.batch.len() == 0 {
            return Ok(());
        }
        self.begin().await?;
        self.send().await
    }

    async fn send(&mut self) -> Result<(), LocatedError> {
        if let Some(line) = self.batch.backslash() {
            self.check_strings(line).await?;
        }
        let sent = connect::run_script(self.connection, self.batch.text()).await;
        sent.map_err(|(succeeded, error)| self.batch.locate(succeeded, &error))?;
        if self.batch.text().len() > LIMIT {
            // Frees the memory of a long statement.
            self.connection.shrink_buffers();
        }
        self.batch.clear();
        Ok(())
    }

    /// Refuses a statement with a backslash in a string if the server would find another end of that string than the lexer.
    async fn check_strings(&mut self, line: usize) -> Result<(), LocatedError> {
        let sql = "SELECT current_setting('standard_conforming_strings')";
        let failed = |error| LocatedError::from_server(ScriptPosition::Whole, &error);
        let rows = internal::rows(self.connection, sql).await.map_err(failed)?;
        let value = rows.first().map(|row| row.try_get::<String, _>(0));
        match value.transpose().map_err(failed)?.as_deref() {
            Some("off") => Err(LocatedError::at_line(line, ScriptProblem::Backslash)),
            _ => Ok(()),
        }
    }

    async fn begin(&mut self) -> Result<(), LocatedError> {
        if self.transaction == Transaction::None {
            let begun = self.execute("BEGIN").await;
            begun.map_err(|error| LocatedError::from_server(ScriptPosition::Whole, &error))?;
            self.transaction = Transaction::Open;
        }
        Ok(())
    }

    /// Sends a statement that ends the transaction. The next statement begins another one, as in one simple query.
    async fn end_transaction(&mut self, statement: &Statement) -> Result<(), LocatedError> {
        self.batch.push(self.count, statement);
        self.flush().await?;
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::None;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), LocatedError> {
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::None;
            let committed = self.execute("COMMIT").await;
            committed.map_err(|error| LocatedError::from_server(ScriptPosition::Commit, &error))?;
        }
        Ok(())
    }

    /// Sends a COPY and its data. sqlx reads the server's response only after all data.
    async fn copy(&mut self, statement: &Statement) -> Result<(), LocatedError> {
        self.flush().await?;
        self.begin().await?;
        if statement.has_backslash {
            self.check_strings(statement.at.line).await?;
        }
        self.splitter.begin_data(statement)?;
        let first = self.splitter.line_number();
        let copied = self.send_data(statement).await;
        copied.map_err(|failure| match failure {
            StatementFailure::Script(error) => error,
            StatementFailure::Server(error) => self.locate_copy_error(statement, first, &error),
        })
    }

    async fn send_data(&mut self, statement: &Statement) -> Result<(), StatementFailure> {
        let level = self.suppress_notices().await?;
        let mut copy = self.connection.copy_in_raw(&statement.text).await?;
        if !copy.is_textual() {
            let line = statement.at.line;
            copy.abort("binary data").await?;
            return Err(LocatedError::at_line(line, ScriptProblem::BinaryData).into());
        }
        loop {
            match self.splitter.data() {
                Ok(Some(data)) => copy.send(data).await?,
                Ok(None) => break,
                Err(error) => {
                    copy.abort("failed to read the data").await?;
                    return Err(error.into());
                }
            };
        }
        copy.finish().await?;
        Ok(self.set_message_level(level.as_deref()).await?)
    }

    /// Locates an error by the server's line number in the data; `first` is the line in the file where the data start.
    fn locate_copy_error(&self, statement: &Statement, first: usize, error: &Sqlx) -> LocatedError {
        let Some(line) = ErrorDetails::of(error).copy_line else {
            let mut single = Batch::default();
            single.push(self.count, statement);
            return single.locate(0, error);
        };
        let position = ScriptPosition::Within {
            number: self.count,
            line: first + line - 1,
            column: None,
        };
        LocatedError::from_server(position, error)
    }

    /// Turns notices off, because sqlx does not read while it sends data: notices (such as one per row from a trigger) would fill
    /// the socket until both sides block. Returns the previous level if it changed.
    async fn suppress_notices(&mut self) -> Result<Option<String>, Sqlx> {
        let sql = "SELECT current_setting('client_min_messages')";
        let rows = internal::rows(self.connection, sql).await?;
        let row = rows.first().ok_or(Sqlx::RowNotFound)?;
        let level: String = row.try_get(0)?;
        if level == "error" {
            return Ok(None);
        }
        self.set_message_level(Some("error")).await?;
        Ok(Some(level))
    }

    /// Sets `client_min_messages` for the transaction only, so that the script's session setting stays.
    async fn set_message_level(&mut self, level: Option<&str>) -> Result<(), Sqlx> {
        let Some(level) = level else { return Ok(()) };
        self.execute(&format!("SET LOCAL client_min_messages = {level}"))
            .await
    }

    async fn execute(&mut self, sql: &str) -> Result<(), Sqlx> {
        let result = connect::run_script(self.connection, sql).await;
        result.map_err(|(_, error)| error)
    }
}

/// Whether a statement may change `standard_conforming_strings`.
fn sets_strings(text: &str) -> bool {
    ["standard_conforming_strings", "STANDARD_CONFORMING_STRINGS"]
        .iter()
        .any(|name| text.contains(name))
}
