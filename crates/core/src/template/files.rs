//! Migrations of other tools: refinery, diesel, goose and dbmate. Their files are read as the tool reads them, run, and recorded in the tool's own
//! table, so that the tool finds nothing to do when a test calls it.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use sha2::{Digest, Sha384};
use sqlx::{Connection, PgConnection};

use crate::pg::error::Context;
use crate::pg::script;
use crate::pg::sql::literal;
use crate::protocol::hex;
use crate::sqlx_compat::internal;
use crate::template::TemplateError;

/// A migration of another tool than sqlx.
#[derive(Debug, Clone)]
pub struct MigrationFile {
    /// The file, for output.
    pub file: String,
    /// The part that migrates upwards. Its lines have the numbers that they have in the file.
    sql: String,
    /// Whether it runs in a transaction.
    transaction: bool,
    record: Record,
}

/// SQL with which a tool records a migration.
#[derive(Debug, Clone)]
struct Record {
    tool: &'static str,
    /// Creates the table unless it exists.
    create: String,
    /// Finds the migration in it.
    find: String,
    insert: String,
}

impl MigrationFile {
    /// What it runs.
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    /// SHA-384 of what is run and recorded, in hexadecimal.
    pub(super) fn checksum(&self) -> String {
        let transaction = if self.transaction { "transaction" } else { "" };
        let parts = [&*self.sql, transaction, self.record.tool];
        let mut hash = Sha384::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hex(&hash.finalize())
    }

    /// Runs and records the migration; `false` if it is recorded already.
    ///
    /// # Errors
    /// A statement failed.
    pub(super) async fn apply(&self, connection: &mut PgConnection) -> Result<bool, TemplateError> {
        let context = || {
            format!(
                "record the migration `{}` in the table of {}",
                self.file, self.record.tool
            )
        };
        let created = internal::execute(connection, &self.record.create).await;
        created.context(context)?;
        let found = internal::rows(connection, &self.record.find).await;
        if !found.context(context)?.is_empty() {
            return Ok(false);
        }
        if self.transaction {
            let begun = connection.begin().await;
            let mut transaction = begun.context(|| "begin a transaction".to_owned())?;
            let ran = script::run_text(&mut transaction, &self.file, &self.sql).await;
            ran.map_err(|error| error.with_source(self.sql.as_bytes()))?;
            let inserted = internal::execute(&mut transaction, &self.record.insert).await;
            inserted.context(context)?;
            let committed = transaction.commit().await;
            committed.context(|| format!("commit the migration `{}`", self.file))?;
        } else {
            let ran = script::run_statements(connection, &self.file, &self.sql).await;
            ran.map_err(|error| error.with_source(self.sql.as_bytes()))?;
            let inserted = internal::execute(connection, &self.record.insert).await;
            inserted.context(context)?;
        }
        Ok(true)
    }
}

/// The migrations of a directory, in their order; `None` if they are sqlx's.
pub(super) fn read(directory: &Path) -> Result<Option<Vec<MigrationFile>>, TemplateError> {
    let names = names(directory)?;
    let is_diesel = |name: &String| directory.join(name).join("up.sql").is_file();
    let may_be_diesel = |name: &&String| !name.contains(".sql") && !name.starts_with('.');
    if names.iter().filter(may_be_diesel).any(is_diesel) {
        return diesel(directory, &names).map(Some);
    }
    if names.iter().any(|name| refinery_parts(name).is_some()) {
        return refinery(directory).map(Some);
    }
    let mut sql = names.iter().filter(|name| name.ends_with(".sql"));
    match sql.next() {
        Some(first) => match marker(&directory.join(first))? {
            Some(Marker::Goose) => goose(directory, &names).map(Some),
            Some(Marker::Dbmate) => dbmate(directory, &names).map(Some),
            None => Ok(None),
        },
        None => Ok(None),
    }
}

/// Whether a directory looks like one of migrations, of any tool that can be recognized.
pub fn is_migrations_directory(directory: &Path) -> bool {
    let is_sqlx = |name: &String| {
        let parts = name.split_once('_');
        parts
            .is_some_and(|(version, rest)| version.parse::<i64>().is_ok() && rest.ends_with(".sql"))
    };
    let is_migration = |name: &String| {
        is_sqlx(name)
            || refinery_parts(name).is_some()
            || directory.join(name).join("up.sql").is_file()
    };
    names(directory).is_ok_and(|names| names.iter().any(is_migration))
}

fn names(directory: &Path) -> Result<Vec<String>, TemplateError> {
    let read = || -> io::Result<Vec<String>> {
        let entries = fs::read_dir(directory)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    };
    let mut names = read().map_err(|error| unreadable(directory, &error))?;
    names.sort();
    Ok(names)
}

fn unreadable(path: &Path, error: &io::Error) -> TemplateError {
    invalid(path, error.to_string())
}

fn invalid(path: &Path, message: impl Into<String>) -> TemplateError {
    TemplateError::Read {
        path: path.to_path_buf(),
        message: message.into(),
    }
}

fn text(path: &Path) -> Result<String, TemplateError> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Ok(text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    Goose,
    Dbmate,
}

/// The tool that a file with up and down parts is for.
fn marker(path: &Path) -> Result<Option<Marker>, TemplateError> {
    let file = fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    for line in BufReader::new(file).lines() {
        // Text that is not UTF-8 is sqlx's to refuse.
        let Ok(line) = line else { return Ok(None) };
        if goose_command(&line).as_deref() == Some("up") {
            return Ok(Some(Marker::Goose));
        }
        if dbmate_command(&line).is_some_and(|(command, _)| command == "up") {
            return Ok(Some(Marker::Dbmate));
        }
    }
    Ok(None)
}

/// The version of a file name: the digits before the first `_`, or the whole stem.
fn leading_digits(name: &str) -> Option<&str> {
    let end = name
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(name.len());
    (end > 0).then(|| &name[..end])
}

fn check_unique<'a>(
    directory: &Path,
    versions: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), TemplateError> {
    let mut seen = std::collections::BTreeMap::new();
    for (version, name) in versions {
        if let Some(other) = seen.insert(version, name) {
            let message =
                format!("`{other}` and `{name}` both have the version {version}; rename one");
            return Err(invalid(directory, message));
        }
    }
    Ok(())
}

/// The lines of the up part, and empty lines for all others.
fn up_part(
    path: &Path,
    is_up: impl Fn(&str) -> bool,
    is_down: impl Fn(&str) -> bool,
    marker: &str,
) -> Result<String, TemplateError> {
    let text = text(path)?;
    let mut up = String::with_capacity(text.len());
    let (mut inside, mut found) = (false, false);
    for line in text.split_inclusive('\n') {
        if is_up(line) {
            (inside, found) = (true, true);
        } else if is_down(line) {
            inside = false;
        } else if inside {
            up.push_str(line);
            continue;
        }
        up.push('\n');
    }
    match found {
        true => Ok(up),
        false => Err(invalid(
            path,
            format!("it has no line `{marker}`, as other files of this directory have; add it"),
        )),
    }
}

fn refuse_code(
    directory: &Path,
    names: &[String],
    extension: &str,
    tool: &str,
) -> Result<(), TemplateError> {
    match names
        .iter()
        .find(|name| name.ends_with(extension) && leading_digits(name).is_some())
    {
        Some(name) => Err(code(&directory.join(name), tool)),
        None => Ok(()),
    }
}

fn code(path: &Path, tool: &str) -> TemplateError {
    invalid(
        path,
        format!(
            "it is a migration in code, which only {tool} can run; let a command run the migrations: \
             `template.migrations = {{ command = \"…\", inputs = [\"…\"] }}`"
        ),
    )
}

// diesel: a directory for each migration, with `up.sql` and `down.sql`.

fn diesel(directory: &Path, names: &[String]) -> Result<Vec<MigrationFile>, TemplateError> {
    let mut found = Vec::new();
    for name in names {
        let path = directory.join(name).join("up.sql");
        if name.starts_with('.') || !path.is_file() {
            continue;
        }
        let version = name.split('_').next().unwrap_or(name).replace('-', "");
        let metadata = directory.join(name).join("metadata.toml");
        found.push((
            version,
            name.as_str(),
            text(&path)?,
            runs_in_transaction(&metadata)?,
        ));
    }
    found.sort();
    check_unique(
        directory,
        found.iter().map(|(version, name, ..)| (&**version, *name)),
    )?;
    let files = found.into_iter().map(|(version, name, sql, transaction)| {
        let version = literal(&version);
        MigrationFile {
            file: format!("{name}/up.sql"),
            sql,
            transaction,
            record: Record {
                tool: "diesel",
                create: "CREATE TABLE IF NOT EXISTS __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, \
                         run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
                    .to_owned(),
                find: format!("SELECT 1 FROM __diesel_schema_migrations WHERE version = {version}"),
                insert: format!("INSERT INTO __diesel_schema_migrations (version) VALUES ({version})"),
            },
        }
    });
    Ok(files.collect())
}

fn runs_in_transaction(metadata: &Path) -> Result<bool, TemplateError> {
    if !metadata.is_file() {
        return Ok(true);
    }
    let table: toml::Table = toml::from_str(&text(metadata)?)
        .map_err(|error| invalid(metadata, error.message().to_owned()))?;
    let value = table
        .get("run_in_transaction")
        .and_then(toml::Value::as_bool);
    Ok(value.unwrap_or(true))
}

// refinery: `V1__name.sql`, in subdirectories too.

/// Kind, version and name of a file such as `V1__name.sql`.
fn refinery_parts(name: &str) -> Option<(char, &str, &str, &str)> {
    let kind = name
        .chars()
        .next()
        .filter(|kind| matches!(kind, 'U' | 'V'))?;
    let (version, rest) = name[1..].split_once("__")?;
    let (title, extension) = rest.rsplit_once('.')?;
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let valid = leading_digits(version) == Some(version)
        && !title.is_empty()
        && title.chars().all(is_word)
        && matches!(extension, "sql" | "rs");
    valid.then_some((kind, version, title, extension))
}

fn refinery(directory: &Path) -> Result<Vec<MigrationFile>, TemplateError> {
    let mut paths = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(inner) = directories.pop() {
        for name in names(&inner)? {
            let path = inner.join(&name);
            if path.is_dir() {
                directories.push(path);
            } else if refinery_parts(&name).is_some() {
                paths.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for path in &paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((_, version, title, extension)) = refinery_parts(&name) else {
            continue;
        };
        if extension == "rs" {
            return Err(code(path, "refinery"));
        }
        let number: i64 = version
            .parse()
            .map_err(|_| invalid(path, "its version is too large"))?;
        let file = path.strip_prefix(directory).unwrap_or(path);
        found.push((
            number,
            file.to_string_lossy().into_owned(),
            title.to_owned(),
            text(path)?,
        ));
    }
    found.sort();
    let versions: Vec<String> = found
        .iter()
        .map(|(number, ..)| number.to_string())
        .collect();
    let names = found.iter().map(|(_, file, ..)| file.as_str());
    check_unique(directory, versions.iter().map(String::as_str).zip(names))?;
    // With larger versions refinery must have its feature `int8-versions`.
    let is_large = found
        .iter()
        .any(|(number, ..)| i32::try_from(*number).is_err());
    let kind = if is_large { "INT8" } else { "INT4" };
    let files = found.into_iter().map(|(number, file, title, sql)| {
        let checksum = refinery_checksum(&title, number, is_large, &sql);
        MigrationFile {
            file,
            transaction: true,
            record: Record {
                tool: "refinery",
                create: format!(
                    "CREATE TABLE IF NOT EXISTS refinery_schema_history (version {kind} PRIMARY KEY, name VARCHAR(255), \
                     applied_on VARCHAR(255), checksum VARCHAR(255))"
                ),
                find: format!("SELECT 1 FROM refinery_schema_history WHERE version = {number}"),
                insert: format!(
                    "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES ({number}, {}, \
                     to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '{checksum}')",
                    literal(&title)
                ),
            },
            sql,
        }
    });
    Ok(files.collect())
}

/// refinery compares this checksum with that of its own file, and refuses to run if they differ.
fn refinery_checksum(title: &str, number: i64, is_large: bool, sql: &str) -> u64 {
    use std::hash::{Hash, Hasher};
    // SipHash 1-3 with the keys 0, as refinery's. A test fails if the standard library changes it.
    let mut hash = std::hash::DefaultHasher::new();
    title.hash(&mut hash);
    match i32::try_from(number) {
        Ok(small) if !is_large => small.hash(&mut hash),
        _ => number.hash(&mut hash),
    }
    sql.hash(&mut hash);
    hash.finish()
}

// goose: `-- +goose Up` and `-- +goose Down` in one file.

/// The command in a line `-- +goose Command`, in lower case.
fn goose_command(line: &str) -> Option<String> {
    let text = line.trim().strip_prefix("--")?.trim_start();
    Some(text.strip_prefix("+goose")?.trim().to_ascii_lowercase())
}

fn goose(directory: &Path, names: &[String]) -> Result<Vec<MigrationFile>, TemplateError> {
    refuse_code(directory, names, ".go", "goose")?;
    let mut found = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".sql")) {
        let path = directory.join(name);
        let Some(version) = leading_digits(name) else {
            continue;
        };
        let number: i64 = version
            .parse()
            .map_err(|_| invalid(&path, "its version is too large"))?;
        let whole = text(&path)?;
        let commands: Vec<String> = whole.lines().filter_map(goose_command).collect();
        if commands.iter().any(|command| command == "envsub on") {
            let message = "`-- +goose ENVSUB ON` is not supported; let a command run the migrations \
                           (`template.migrations = { command = \"goose …\", inputs = [\"…\"] }`)";
            return Err(invalid(&path, message));
        }
        let is = |wanted: &'static str| {
            move |line: &str| goose_command(line).is_some_and(|command| command == wanted)
        };
        let sql = up_part(&path, is("up"), is("down"), "-- +goose Up")?;
        let transaction = !commands.iter().any(|command| command == "no transaction");
        found.push((number, name.clone(), sql, transaction));
    }
    found.sort();
    let versions: Vec<String> = found
        .iter()
        .map(|(number, ..)| number.to_string())
        .collect();
    let files = found.iter().map(|(_, file, ..)| file.as_str());
    check_unique(directory, versions.iter().map(String::as_str).zip(files))?;
    let files = found.into_iter().map(|(number, file, sql, transaction)| MigrationFile {
        file,
        sql,
        transaction,
        record: Record {
            tool: "goose",
            // As goose does, with a row for the state before the first migration.
            create: "CREATE TABLE IF NOT EXISTS goose_db_version (id integer PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, \
                     version_id bigint NOT NULL, is_applied boolean NOT NULL, tstamp timestamp NOT NULL DEFAULT now()); \
                     INSERT INTO goose_db_version (version_id, is_applied) SELECT 0, true WHERE NOT EXISTS (SELECT FROM goose_db_version)"
                .to_owned(),
            find: format!("SELECT 1 FROM goose_db_version WHERE version_id = {number} AND is_applied"),
            insert: format!("INSERT INTO goose_db_version (version_id, is_applied) VALUES ({number}, true)"),
        },
    });
    Ok(files.collect())
}

// dbmate: `-- migrate:up` and `-- migrate:down` in one file.

/// The command in a line `-- migrate:command options`, and the options.
fn dbmate_command(line: &str) -> Option<(&str, &str)> {
    let text = line.trim_end().strip_prefix("--")?.trim_start();
    let text = text.strip_prefix("migrate:")?;
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    Some((&text[..end], text[end..].trim()))
}

fn dbmate(directory: &Path, names: &[String]) -> Result<Vec<MigrationFile>, TemplateError> {
    let mut found = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".sql")) {
        let path = directory.join(name);
        let Some(version) = leading_digits(name) else {
            continue;
        };
        let whole = text(&path)?;
        let mut commands = whole.lines().filter_map(dbmate_command);
        let transaction = !commands.any(|(command, options)| {
            command == "up"
                && options
                    .split_whitespace()
                    .any(|option| option == "transaction:false")
        });
        let is = |wanted: &'static str| {
            move |line: &str| dbmate_command(line).is_some_and(|(command, _)| command == wanted)
        };
        let sql = up_part(&path, is("up"), is("down"), "-- migrate:up")?;
        found.push((version.to_owned(), name.clone(), sql, transaction));
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    check_unique(
        directory,
        found
            .iter()
            .map(|(version, file, ..)| (&**version, &**file)),
    )?;
    let files = found.into_iter().map(|(version, file, sql, transaction)| {
        let version = literal(&version);
        MigrationFile {
            file,
            sql,
            transaction,
            record: Record {
                tool: "dbmate",
                create: "CREATE TABLE IF NOT EXISTS schema_migrations (version varchar(128) PRIMARY KEY)".to_owned(),
                find: format!("SELECT 1 FROM schema_migrations WHERE version = {version}"),
                insert: format!("INSERT INTO schema_migrations (version) VALUES ({version})"),
            },
        }
    });
    Ok(files.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        dir
    }

    /// Tool, file, SQL without empty lines, and whether it runs in a transaction.
    fn found(files: &[(&str, &str)]) -> Vec<(&'static str, String, String, bool)> {
        let dir = directory(files);
        let found = read(dir.path())
            .expect("valid files")
            .expect("another tool's");
        let found = found.into_iter().map(|file| {
            let lines: Vec<&str> = file.sql.lines().filter(|line| !line.is_empty()).collect();
            (
                file.record.tool,
                file.file.clone(),
                lines.join("\n"),
                file.transaction,
            )
        });
        found.collect()
    }

    fn error(files: &[(&str, &str)]) -> String {
        let dir = directory(files);
        read(dir.path()).expect_err("they are invalid").to_string()
    }

    #[test]
    fn each_tool_is_recognized_by_its_files() {
        let none = [
            ("0001_a.sql", "SELECT 1; -- goose Up"),
            ("0002_b.up.sql", ""),
            ("inner/x.sql", ""),
        ];
        assert!(read(directory(&none).path()).expect("sqlx's").is_none());
        let diesel = found(&[
            ("2024-01-02-000000_b/up.sql", "B"),
            ("2024-01-01-000000_a/up.sql", "A"),
            ("2024-01-01-000000_a/down.sql", "no"),
            (
                "2024-01-02-000000_b/metadata.toml",
                "run_in_transaction = false",
            ),
            (".hidden/up.sql", "no"),
        ]);
        let expected = [
            ("2024-01-01-000000_a/up.sql", "A", true),
            ("2024-01-02-000000_b/up.sql", "B", false),
        ];
        let expected =
            expected.map(|(file, sql, tx)| ("diesel", file.to_owned(), sql.to_owned(), tx));
        assert_eq!(diesel, expected);
        let refinery = found(&[
            ("V10__b.sql", "B"),
            ("inner/V2__a_a.sql", "A"),
            ("U1__u.sql", "U"),
            ("README", ""),
        ]);
        let files: Vec<&str> = refinery.iter().map(|(_, file, ..)| &**file).collect();
        assert_eq!(files, ["U1__u.sql", "inner/V2__a_a.sql", "V10__b.sql"]);
        let goose = found(&[
            (
                "00002_b.sql",
                "--  +goose  up\nB;\n-- +goose StatementBegin\nC;\n-- +goose StatementEnd\n",
            ),
            (
                "00001_a.sql",
                "-- +goose NO TRANSACTION\n-- +goose Up\nA;\n-- +goose Down\nno;\n",
            ),
        ]);
        assert_eq!(
            goose[0],
            ("goose", "00001_a.sql".to_owned(), "A;".to_owned(), false)
        );
        assert!(goose[1].2.contains("B;") && goose[1].2.contains("C;") && goose[1].3);
        let dbmate = found(&[
            (
                "20200101_a.sql",
                "-- migrate:up transaction:false\nA;\n-- migrate:down\nno;\n",
            ),
            (
                "20200102_b.sql",
                "-- migrate:down\nno;\n-- migrate:up\nB;\n",
            ),
        ]);
        assert_eq!(
            dbmate[0],
            (
                "dbmate",
                "20200101_a.sql".to_owned(),
                "A;".to_owned(),
                false
            )
        );
        assert_eq!(
            dbmate[1],
            ("dbmate", "20200102_b.sql".to_owned(), "B;".to_owned(), true)
        );
    }

    #[test]
    fn a_directory_of_migrations_is_recognized_by_a_name() {
        for (file, expected) in [
            ("0001_a.sql", true),
            ("20240101_a.up.sql", true),
            ("V1__a.sql", true),
            ("2024-01-01-000000_a/up.sql", true),
            ("a.sql", false),
            ("0001.sql", false),
            ("inner/0001_a.sql", false),
        ] {
            let dir = directory(&[(file, "")]);
            assert_eq!(is_migrations_directory(dir.path()), expected, "{file}");
        }
        assert!(!is_migrations_directory(Path::new("/nowhere")));
    }

    #[test]
    fn the_checksum_is_that_of_refinery() {
        // By an implementation of its own of SipHash 1-3.
        let sql = "CREATE TABLE a (id int);";
        assert_eq!(
            refinery_checksum("initial", 1, false, sql),
            3_690_123_573_521_278_881
        );
        assert_eq!(
            refinery_checksum("initial", 1, true, sql),
            9_641_875_792_324_827_643
        );
    }

    #[test]
    fn lines_keep_their_numbers() {
        let dir = directory(&[("1_a.sql", "-- x\n-- migrate:up\nA;\n-- migrate:down\nno;\n")]);
        let files = read(dir.path()).expect("valid").expect("dbmate's");
        assert_eq!(files[0].sql, "\n\nA;\n\n\n");
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        for (files, expected) in [
            (
                &[("1_a.sql", "-- +goose Up\n"), ("2_b.sql", "B;")][..],
                "`-- +goose Up`",
            ),
            (
                &[("1_a.sql", "-- migrate:up\n"), ("2_b.sql", "B;")],
                "`-- migrate:up`",
            ),
            (&[("1_a.sql", "-- +goose Up\n"), ("2_b.go", "")], "in code"),
            (&[("V1__a.sql", ""), ("V2__b.rs", "")], "in code"),
            (
                &[("V1__a.sql", ""), ("V01__b.sql", "")],
                "both have the version 1",
            ),
            (
                &[
                    ("1_a.sql", "-- +goose Up\n"),
                    ("01_b.sql", "-- +goose Up\n"),
                ],
                "both have the version 1",
            ),
            (
                &[("1_a.sql", "-- +goose ENVSUB ON\n-- +goose Up\n")],
                "ENVSUB",
            ),
            (
                &[("1_a/up.sql", ""), ("1_b/up.sql", "")],
                "both have the version 1",
            ),
            (
                &[("1_a/up.sql", ""), ("1_a/metadata.toml", "=")],
                "metadata.toml",
            ),
        ] {
            let message = error(files);
            assert!(message.contains(expected), "{expected}: {message}");
        }
    }
}
