//! Which of several templates a test uses: the one that it names, else its package's, else the one with the migrations that it names, else the first.

use std::path::{Path, PathBuf};

use kapsel_testdb_core::config::{self, Config, ConfigError, Layer, SchemaSource, TemplateConfig};
use kapsel_testdb_core::env;
use kapsel_testdb_core::platform::is_same_dir;
use kapsel_testdb_core::protocol::{RunDir, RunDirError};
use kapsel_testdb_core::run::templates::TemplateRun;

use crate::TestDbError;
use crate::session::start_of_search;
use crate::template::SchemaRequest;

/// What a test says about its template.
#[derive(Debug, Clone, Copy, Default)]
pub struct TemplateRequest {
    /// The name in the configuration.
    pub name: Option<&'static str>,
    /// The package, and the migrations that the test names.
    pub schema: Option<SchemaRequest>,
}

/// The name of the test's package.
pub fn package_name() -> Option<String> {
    std::env::var(env::PACKAGE_NAME).ok()
}

/// An exported run.
#[derive(Debug, Clone)]
pub struct ExportedRun {
    /// Its directory.
    pub path: PathBuf,
    /// The packages whose tests use its template.
    pub packages: Vec<String>,
}

/// The exported run for a test; `None` if no run was exported.
pub async fn exported(request: TemplateRequest) -> Result<Option<ExportedRun>, TestDbError> {
    let Some(first) = std::env::var_os(env::RUN_DIR).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let runs = TemplateRun::exported()?;
    if runs.is_empty() && request.name.is_none() {
        return Ok(Some(unlisted(first.into())));
    }
    if let Some(run) = TemplateRun::choose(&runs, request.name, package_name().as_deref())? {
        return Ok(Some(ExportedRun {
            path: run.run_dir.clone(),
            packages: run.packages.clone(),
        }));
    }
    if let Some(schema) = request.schema {
        for run in &runs {
            if has_schema(&run.run_dir, schema).await? {
                return Ok(Some(unlisted(run.run_dir.clone())));
            }
        }
    }
    Ok(Some(unlisted(first.into())))
}

fn unlisted(path: PathBuf) -> ExportedRun {
    ExportedRun {
        path,
        packages: Vec::new(),
    }
}

/// Whether a run's template has the migrations that a test names.
async fn has_schema(run_dir: &Path, schema: SchemaRequest) -> Result<bool, TestDbError> {
    let file = match RunDir::join(run_dir) {
        Ok(dir) => dir.read()?,
        Err(RunDirError::Gone { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    Ok(schema.custom_template(&file).await?.is_none())
}

/// The configuration with the template for a test, and whether it has no other.
pub fn configured(request: TemplateRequest) -> Result<(Config, bool), ConfigError> {
    let config = config::load(&config::find_root(&start_of_search()), Layer::default())?;
    if config.more_templates.is_empty() && request.name.is_none() {
        return Ok((config, true));
    }
    let package = package_name();
    let by_schema = || {
        let directory = request.schema?.named_directory(config.sqlx_toml)?;
        let has_it = |template: &&TemplateConfig| {
            let mut sources = template.migrations.iter();
            sources.any(|source| {
                matches!(source, SchemaSource::Directory(source) if is_same_dir(&source.path, &directory))
            })
        };
        config.templates().find(has_it)
    };
    let chosen = config.choose_template(request.name, package.as_deref())?;
    let chosen = chosen.or_else(by_schema).unwrap_or(&config.template);
    let chosen = TemplateConfig::clone(chosen);
    let chosen = Config {
        template: chosen,
        more_templates: Vec::new(),
        ..config
    };
    Ok((chosen, false))
}
