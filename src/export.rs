//! Environment variables that a run or `prepare` exports to later processes, in several output formats.
//!
//! nextest writes every exported value into JUnit files and recordings, so no value here ever contains a password.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::config::{Config, ExportUrl, TemplateConfig};
use kapsel_testdb_core::env;
use kapsel_testdb_core::protocol::{RunDir, RunFile};
use kapsel_testdb_core::run::OpenRun;
use kapsel_testdb_core::run::templates::TemplateRun;

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file cannot be written.
    #[error("failed to write the environment variables to `{}`: {source}; {} must name a writable file", path.display(), env::NEXTEST_ENV)]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A value that does not fit on a `KEY=VALUE` line.
    #[error(
        "failed to export `{0}`: its value contains a line break; change the path that it comes from"
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

/// The variables of the runs of all templates, for the test processes.
///
/// # Errors
/// A path is not UTF-8.
pub fn for_runs(
    config: &Config,
    runs: &[OpenRun],
    url: ExportUrl,
) -> Result<Variables, serde_json::Error> {
    let mut variables = for_run(&runs[0].dir, &runs[0].file, url);
    if config.template.name.is_some() {
        let of = |(template, run): (&TemplateConfig, &OpenRun)| TemplateRun {
            template: template.name.clone().unwrap_or_default(),
            packages: template.packages.clone(),
            run_dir: run.dir.path().to_path_buf(),
        };
        let runs: Vec<TemplateRun> = config.templates().zip(runs).map(of).collect();
        variables.push((env::TEMPLATE_RUNS.to_owned(), serde_json::to_string(&runs)?));
    }
    Ok(variables)
}

/// The variable that makes each test that needs a database fail with the error of the setup script.
pub fn for_unprepared(error: &str) -> Variables {
    let quoted = serde_json::Value::from(error).to_string();
    vec![(env::UNPREPARED.to_owned(), quoted)]
}

/// The variables of a run, for its test processes.
fn for_run(dir: &RunDir, file: &RunFile, url: ExportUrl) -> Variables {
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

/// The variables that connect to one database.
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

/// Appends `KEY=VALUE` lines to nextest's file; values are literal.
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

/// Formats the variables.
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
    fn line_break_is_refused_by_name() {
        let error = format(&one("a\nb"), Format::Github).expect_err("two lines");
        assert!(error.to_string().contains("`NAME`"));
    }
}
