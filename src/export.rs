//! What a run or a preparation tells the processes that come after it: environment variables, in several spellings.
//!
//! nextest writes every exported value into JUnit files and recordings, so no value here ever holds a password.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config::ExportUrl;
use crate::env;
use crate::pg::Address;
use crate::run_dir::{RunDir, RunFile};

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file cannot be written.
    #[error("failed to write the variables to `{}`: {source}; {} must name a file that can be written", path.display(), env::NEXTEST_ENV)]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A value cannot stand in a file of `KEY=VALUE` lines.
    #[error(
        "the value of `{0}` holds a line break, which cannot be exported; change the path that it comes from"
    )]
    LineBreak(String),
}

/// Names and values, in order.
pub type Variables = Vec<(String, String)>;

/// How variables are written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `export NAME='value'`, for a shell's `eval`.
    Env,
    /// `NAME="value"`, for a `.env` file.
    Dotenv,
    /// One JSON object.
    Json,
    /// `NAME=value`, to be appended to `$GITHUB_ENV`.
    Github,
}

/// What the test processes of a run are told.
pub fn for_run(dir: &RunDir, file: &RunFile, url: ExportUrl) -> Variables {
    let path = dir.path().to_string_lossy().into_owned();
    let mut variables = vec![(env::RUN_DIR.to_owned(), path)];
    let database = match url {
        ExportUrl::Off => return variables,
        ExportUrl::Admin => Some(file.maintenance_database.clone()),
        ExportUrl::Shared => dir.shared().map(|name| name.to_string()),
    };
    if let Some(database) = database {
        variables.extend(for_database(&file.server, &database));
        if file.server.password.is_some() {
            let passfile = dir.passfile().to_string_lossy().into_owned();
            variables.push(("PGPASSFILE".to_owned(), passfile));
        }
    }
    variables
}

/// What leads to one database.
pub fn for_database(server: &Address, database: &str) -> Variables {
    let libpq = server.libpq_variables(database).into_iter();
    let mut variables = vec![(env::DATABASE_URL.to_owned(), server.url(database))];
    variables.extend(libpq.map(|(name, value)| (name.to_owned(), value)));
    variables
}

/// Checks that nextest's file can be written, before any work is done.
///
/// # Errors
/// [`ExportError::Write`].
pub fn check_writable(path: &Path) -> Result<(), ExportError> {
    write_nextest(path, &Vec::new())
}

/// Appends to nextest's file: `KEY=VALUE` lines, values literal.
///
/// # Errors
/// [`ExportError`].
pub fn write_nextest(path: &Path, variables: &Variables) -> Result<(), ExportError> {
    let failed = |source| ExportError::Write {
        path: path.to_path_buf(),
        source,
    };
    let text = format(variables, Format::Github)?;
    let mut file = OpenOptions::new().append(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// Spells the variables out.
///
/// # Errors
/// [`ExportError::LineBreak`].
pub fn format(variables: &Variables, format: Format) -> Result<String, ExportError> {
    if let Some((name, _)) = variables
        .iter()
        .find(|(_, value)| value.contains(['\n', '\r']))
    {
        return Err(ExportError::LineBreak(name.clone()));
    }
    if format == Format::Json {
        let map: serde_json::Map<_, _> = variables
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect();
        return Ok(format!("{:#}\n", serde_json::Value::Object(map)));
    }
    let line = |(name, value): &(String, String)| match format {
        Format::Env => format!("export {name}='{}'\n", value.replace('\'', r"'\''")),
        Format::Dotenv => {
            let escaped = value
                .replace('\\', r"\\")
                .replace('"', "\\\"")
                .replace('$', r"\$");
            format!("{name}=\"{escaped}\"\n")
        }
        Format::Github | Format::Json => format!("{name}={value}\n"),
    };
    Ok(variables.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: &str) -> Variables {
        vec![("NAME".to_owned(), value.to_owned())]
    }

    #[test]
    fn each_format_quotes_as_its_reader_unquotes() {
        let variables = one(r#"it's "$5" \ here"#);
        let text = |f| format(&variables, f).expect("one line");
        assert_eq!(text(Format::Env), "export NAME='it'\\''s \"$5\" \\ here'\n");
        assert_eq!(text(Format::Github), "NAME=it's \"$5\" \\ here\n");
        let json: serde_json::Value = serde_json::from_str(&text(Format::Json)).expect("JSON");
        assert_eq!(json["NAME"], variables[0].1.as_str());
        let read: Vec<_> = dotenvy::from_read_iter(text(Format::Dotenv).as_bytes())
            .collect::<Result<_, _>>()
            .expect("a .env file");
        assert_eq!(read, variables);
    }

    #[test]
    fn a_line_break_is_refused_by_name() {
        let error = format(&one("a\nb"), Format::Github).expect_err("two lines");
        assert!(error.to_string().contains("`NAME`"));
    }
}
