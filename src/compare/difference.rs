//! What a comparison finds, as data and as text for people.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// How a database differs from the template that it was made from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Objects of the schema, by name; at most [`super::MOST_OBJECTS`].
    pub schema: Vec<ObjectDifference>,
    /// How many more objects differ.
    pub more_objects: usize,
    /// Tables whose rows differ.
    pub tables: Vec<TableDifference>,
    /// Sequences that stand elsewhere. No difference: `nextval` is not undone by a rollback.
    pub sequences: Vec<SequenceValues>,
    /// Tables that could not be compared.
    pub unread: Vec<Unread>,
}

/// An object of the schema that only one of the two has, or that is defined differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectDifference {
    /// Kind and name.
    pub object: String,
    /// Its definition in the template; none where the template has no such object.
    pub template: Option<String>,
    /// Its definition in the database; none where the database has no such object.
    pub database: Option<String>,
}

/// A table whose rows differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableDifference {
    /// Its qualified name, quoted where it needs to be.
    pub table: String,
    /// Rows that only the database has.
    pub added: u64,
    /// Rows that only the template has.
    pub removed: u64,
    /// Rows of the same primary key that differ.
    pub changed: u64,
    /// Some of them: at most [`super::MOST_ROWS`].
    pub rows: Vec<RowDifference>,
    /// When the transactions committed that left the added and changed rows, in seconds since 1970. None where that does not tell
    /// everything: rows were removed, too many differ, or the server does not keep those times.
    #[serde(skip)]
    pub commits: Option<Vec<f64>>,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum RowDifference {
    /// Only the database has it.
    Added {
        /// Its values.
        values: Vec<Value>,
        /// How many such rows, in a table without primary key.
        times: u64,
    },
    /// Only the template has it.
    Removed {
        /// Its values.
        values: Vec<Value>,
        /// How many such rows, in a table without primary key.
        times: u64,
    },
    /// The row with this primary key differs.
    Changed {
        /// The primary key.
        key: Vec<Value>,
        /// The columns that differ.
        columns: Vec<ChangedValue>,
    },
}

/// A column's value, cut after [`super::MOST_CHARACTERS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The column.
    pub column: String,
    /// As text; none for NULL.
    pub value: Option<String>,
}

/// A column's two values, each cut after [`super::MOST_CHARACTERS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedValue {
    /// The column.
    pub column: String,
    /// In the template.
    pub template: Option<String>,
    /// In the database.
    pub database: Option<String>,
}

/// A sequence that stands elsewhere than in the template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceValues {
    /// The sequence.
    pub sequence: String,
    /// Its last value in the template; none where it was never used.
    pub template: Option<i64>,
    /// Its last value in the database.
    pub database: Option<i64>,
}

/// A table that could not be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// The table.
    pub table: String,
    /// What the server said.
    pub reason: String,
}

impl Comparison {
    /// Whether schema and rows are the template's, as far as they could be read.
    pub fn is_equal(&self) -> bool {
        self.schema.is_empty() && self.tables.is_empty()
    }
}

impl TableDifference {
    /// Rows that differ and are not listed.
    pub fn more(&self) -> u64 {
        let listed = |row: &RowDifference| match row {
            RowDifference::Added { times, .. } | RowDifference::Removed { times, .. } => *times,
            RowDifference::Changed { .. } => 1,
        };
        let listed: u64 = self.rows.iter().map(listed).sum();
        (self.added + self.removed + self.changed).saturating_sub(listed)
    }
}

/// How long a line of values may become.
const LINE: usize = 300;

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.schema.is_empty() {
            writeln!(f, "schema")?;
        }
        for object in &self.schema {
            write!(f, "{object}")?;
        }
        if self.more_objects > 0 {
            writeln!(f, "  and {} more objects", self.more_objects)?;
        }
        if !self.tables.is_empty() {
            writeln!(f, "rows")?;
        }
        for table in &self.tables {
            write!(f, "{table}")?;
        }
        if !self.sequences.is_empty() {
            writeln!(
                f,
                "sequences (no difference: a rollback does not undo nextval)"
            )?;
        }
        for SequenceValues {
            sequence,
            template,
            database,
        } in &self.sequences
        {
            let at = |value: &Option<i64>| value.map_or("unused".to_owned(), |n| n.to_string());
            writeln!(f, "    {sequence}: {} → {}", at(template), at(database))?;
        }
        if !self.unread.is_empty() {
            writeln!(f, "not compared")?;
        }
        for Unread { table, reason } in &self.unread {
            writeln!(f, "    {table}: {reason}")?;
        }
        Ok(())
    }
}

impl Display for ObjectDifference {
    /// A changed definition by the lines that differ.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (Some(template), Some(database)) = (&self.template, &self.database) else {
            let sign = if self.template.is_none() { '+' } else { '-' };
            return writeln!(f, "  {sign} {}", self.object);
        };
        writeln!(f, "  ~ {}", self.object)?;
        for (sign, own, other) in [('-', template, database), ('+', database, template)] {
            for line in own.lines().filter(|line| other.lines().all(|l| l != *line)) {
                writeln!(f, "      {sign} {}", cut(line.trim_end(), LINE))?;
            }
        }
        Ok(())
    }
}

impl Display for TableDifference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.added, "added"),
            (self.removed, "removed"),
            (self.changed, "changed"),
        ];
        let counts = counts.iter().filter(|(n, _)| *n > 0);
        let counts: Vec<_> = counts.map(|(n, what)| format!("{n} {what}")).collect();
        writeln!(f, "    {}: {}", self.table, counts.join(", "))?;
        for row in &self.rows {
            writeln!(f, "      {row}")?;
        }
        match self.more() {
            0 => Ok(()),
            n => writeln!(f, "      and {n} more"),
        }
    }
}

impl Display for RowDifference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (sign, values, times) = match self {
            Self::Added { values, times } => ('+', values, *times),
            Self::Removed { values, times } => ('-', values, *times),
            Self::Changed { key, columns } => {
                let columns = columns.iter().map(ToString::to_string);
                let columns: Vec<_> = columns.collect();
                let text = format!("{}: {}", line(key), columns.join(", "));
                return write!(f, "~ {}", cut(&text, LINE));
            }
        };
        write!(f, "{sign} {}", cut(&line(values), LINE))?;
        match times {
            1 => Ok(()),
            n => write!(f, " ({n} times)"),
        }
    }
}

impl Display for ChangedValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (from, to) = (quoted(&self.template), quoted(&self.database));
        write!(f, "{} {from} → {to}", self.column)
    }
}

fn line(values: &[Value]) -> String {
    let value = |v: &Value| format!("{}={}", v.column, quoted(&v.value));
    values.iter().map(value).collect::<Vec<_>>().join(", ")
}

/// On one line, and told from NULL.
fn quoted(value: &Option<String>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(text) => {
            let escape = |c: char| match c.is_control() {
                true => c.escape_default().to_string(),
                false => c.to_string(),
            };
            format!("'{}'", text.chars().map(escape).collect::<String>())
        }
    }
}

/// At most so many characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
