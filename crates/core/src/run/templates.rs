//! Several templates: each has a run of its own, and a variable tells the tests which run is whose.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{self, ConfigError};
use crate::env;

/// The run of one template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRun {
    /// The template's name.
    pub template: String,
    /// The packages whose tests use it.
    pub packages: Vec<String>,
    /// The run directory.
    pub run_dir: PathBuf,
}

impl TemplateRun {
    /// The runs that were exported to this process; empty if there is one template.
    ///
    /// # Errors
    /// The variable is not what this version writes.
    pub fn exported() -> Result<Vec<Self>, ConfigError> {
        match std::env::var(env::TEMPLATE_RUNS) {
            Ok(text) if !text.is_empty() => {
                serde_json::from_str(&text).map_err(|error| ConfigError::Variable {
                    variable: env::TEMPLATE_RUNS,
                    problem: error.to_string(),
                })
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The run of the template of that name; without a name, of the one that has the package in its list.
    ///
    /// # Errors
    /// [`ConfigError::UnknownTemplate`].
    pub fn choose<'a>(
        runs: &'a [Self],
        name: Option<&str>,
        package: Option<&str>,
    ) -> Result<Option<&'a Self>, ConfigError> {
        let label = |run: &Self| (Some(run.template.clone()), run.packages.clone());
        let index = config::choose(runs.iter().map(label), name, package)?;
        Ok(index.map(|index| &runs[index]))
    }
}
