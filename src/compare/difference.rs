//! The result of a comparison, as data and as text.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use kapsel_testdb_core::plural::count;

/// How a database differs from its template.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Objects of the schema that differ, by name; at most [`super::MAX_OBJECTS`].
    pub schema: Vec<ObjectDifference>,
    /// Number of objects that differ but are not listed.
    pub unlisted_objects: usize,
    /// Tables whose rows differ.
    pub tables: Vec<TableDifference>,
    /// Sequences with another last value. Not a difference: a rollback does not undo `nextval`.
    pub sequences: Vec<SequenceValues>,
    /// Tables that could not be compared: they may differ.
    pub not_compared: Vec<UnreadableTable>,
}

/// An object of the schema that only one of the two databases has, or that is defined differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectDifference {
    /// Kind and name.
    pub object: String,
    /// Its definition in the template; none if the template has no such object.
    pub template: Option<String>,
    /// Its definition in the database; none if the database has no such object.
    pub database: Option<String>,
}

/// A table whose rows differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableDifference {
    /// Its qualified name, quoted if necessary.
    pub table: String,
    /// Rows that only the database has.
    pub added: u64,
    /// Rows that only the template has.
    pub removed: u64,
    /// Rows with the same primary key but other values.
    pub changed: u64,
    /// Some of these rows: at most [`super::MAX_ROWS`].
    pub rows: Vec<RowDifference>,
    /// Commit times of the transactions that wrote the added and changed rows, in seconds since 1970. None if they are incomplete: rows
    /// were removed, too many rows differ, or the server does not record commit times.
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
        /// Number of equal rows, in a table without primary key.
        count: u64,
    },
    /// Only the template has it.
    Removed {
        /// Its values.
        values: Vec<Value>,
        /// Number of equal rows, in a table without primary key.
        count: u64,
    },
    /// The row with this primary key differs.
    Changed {
        /// The primary key.
        key: Vec<Value>,
        /// The columns that differ.
        columns: Vec<ChangedValue>,
    },
}

/// A column's value, truncated after [`super::MAX_VALUE_CHARS`] characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The column.
    pub column: String,
    /// The value as text; none for NULL.
    pub value: Option<String>,
}

/// A column's two values, each truncated after [`super::MAX_VALUE_CHARS`] characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedValue {
    /// The column.
    pub column: String,
    /// The value in the template.
    pub template: Option<String>,
    /// The value in the database.
    pub database: Option<String>,
}

/// A sequence whose last value differs from the template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceValues {
    /// The sequence.
    pub sequence: String,
    /// Its last value in the template; none if it was never used.
    pub template: Option<i64>,
    /// Its last value in the database.
    pub database: Option<i64>,
}

/// A table that could not be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableTable {
    /// The table, or `everything`.
    pub table: String,
    /// The error.
    pub reason: String,
}

impl Comparison {
    /// The result of a comparison that failed.
    pub fn failed(reason: String) -> Self {
        let table = "everything".to_owned();
        Self {
            not_compared: vec![UnreadableTable { table, reason }],
            ..Self::default()
        }
    }

    /// Whether schema and rows equal the template's. False if something could not be compared.
    pub fn is_equal(&self) -> bool {
        !self.has_differences() && self.not_compared.is_empty()
    }

    /// Whether the only known differences are added rows.
    pub fn is_only_added(&self) -> bool {
        let tables = || self.tables.iter();
        self.is_equal_but_rows() && tables().all(|table| table.removed + table.changed == 0)
    }

    fn is_equal_but_rows(&self) -> bool {
        self.schema.is_empty() && self.not_compared.is_empty()
    }

    /// Whether something is known to differ.
    pub fn has_differences(&self) -> bool {
        !self.schema.is_empty() || !self.tables.is_empty()
    }
}

impl TableDifference {
    /// Number of rows that differ but are not listed.
    pub fn unlisted(&self) -> u64 {
        let listed = |row: &RowDifference| match row {
            RowDifference::Added { count, .. } | RowDifference::Removed { count, .. } => *count,
            RowDifference::Changed { .. } => 1,
        };
        let listed: u64 = self.rows.iter().map(listed).sum();
        (self.added + self.removed + self.changed).saturating_sub(listed)
    }
}

/// Maximum length of a line of values.
const MAX_LINE_CHARS: usize = 300;

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.schema.is_empty() {
            writeln!(f, "schema")?;
        }
        for object in &self.schema {
            write!(f, "{object}")?;
        }
        if self.unlisted_objects > 0 {
            writeln!(f, "  and {}", count(self.unlisted_objects, "more object"))?;
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
                "sequences (not counted as a difference: a rollback does not undo nextval)"
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
        if !self.not_compared.is_empty() {
            writeln!(f, "not compared, so this may differ")?;
        }
        for UnreadableTable { table, reason } in &self.not_compared {
            writeln!(f, "    {table}: {reason}")?;
        }
        Ok(())
    }
}

impl Display for ObjectDifference {
    /// Prints only the lines of a changed definition that differ.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (Some(template), Some(database)) = (&self.template, &self.database) else {
            let sign = if self.template.is_none() { '+' } else { '-' };
            return writeln!(f, "  {sign} {}", self.object);
        };
        writeln!(f, "  ~ {}", self.object)?;
        for (sign, own, other) in [('-', template, database), ('+', database, template)] {
            for line in own.lines().filter(|line| other.lines().all(|l| l != *line)) {
                writeln!(
                    f,
                    "      {sign} {}",
                    truncate(line.trim_end(), MAX_LINE_CHARS)
                )?;
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
        match self.unlisted() {
            0 => Ok(()),
            n => writeln!(f, "      and {n} more"),
        }
    }
}

impl Display for RowDifference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (sign, values, count) = match self {
            Self::Added { values, count } => ('+', values, *count),
            Self::Removed { values, count } => ('-', values, *count),
            Self::Changed { key, columns } => {
                let columns = columns.iter().map(ToString::to_string);
                let columns: Vec<_> = columns.collect();
                let text = format!("{}: {}", line(key), columns.join(", "));
                return write!(f, "~ {}", truncate(&text, MAX_LINE_CHARS));
            }
        };
        write!(f, "{sign} {}", truncate(&line(values), MAX_LINE_CHARS))?;
        match count {
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

/// On one line, and distinguishable from NULL.
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

/// At most `max` characters.
pub(super) fn truncate(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
