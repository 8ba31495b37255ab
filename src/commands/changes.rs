//! Notices that migrations or seeds change while the command of a run is running: the run's databases keep those of its start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kapsel_testdb_core::config::{Config, SchemaSource, StepConfig};
use kapsel_testdb_core::pg::ServerFacts;
use kapsel_testdb_core::protocol::DbName;
use kapsel_testdb_core::run::OpenRun;
use kapsel_testdb_core::template::{Input, TemplatePlan, explain_change};

/// Time between two looks at the files.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Time of the last change and size, by path.
type Files = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// The files of the run's template.
pub struct Changes<'a> {
    config: &'a Config,
    facts: &'a ServerFacts,
    template: &'a DbName,
    /// What the run's template was made from.
    inputs: Vec<Input>,
    files: Files,
    /// The template of the present files, as far as it was reported.
    current: DbName,
}

impl<'a> Changes<'a> {
    pub async fn since_start_of(run: &'a OpenRun, config: &'a Config) -> Self {
        let (facts, template) = (&run.server.facts, &run.template.name);
        let files = files(config);
        let plan = TemplatePlan::new(config, facts).await;
        let plan = plan.ok().filter(|plan| plan.name == *template);
        let (files, inputs) = match plan {
            Some(plan) => (files, plan.chain.inputs),
            // They have changed already: the first look reports that.
            None => (Files::new(), Vec::new()),
        };
        Self {
            config,
            facts,
            template,
            inputs,
            files,
            current: template.clone(),
        }
    }

    /// What to report, once for each change. Files that cannot be used, as while they are being written, are read again the next time.
    pub async fn report(&mut self) -> Option<String> {
        let files = files(self.config);
        if files == self.files {
            return None;
        }
        let plan = TemplatePlan::new(self.config, self.facts).await.ok()?;
        self.files = files;
        if plan.name == self.current {
            return None;
        }
        self.current = plan.name.clone();
        if plan.name == *self.template {
            return Some("the migrations match the run's template again".to_owned());
        }
        let changes = match explain_change(&self.inputs, &plan.chain.inputs) {
            changes if self.inputs.is_empty() || changes.is_empty() => String::new(),
            changes => format!(" ({})", changes.join(", ")),
        };
        Some(format!(
            "the migrations have changed since the run began{changes}; its databases still have the old ones: to use the new ones, run the command again"
        ))
    }
}

fn files(config: &Config) -> Files {
    let template = &config.template;
    let mut paths = Vec::new();
    for source in &template.migrations {
        match source {
            SchemaSource::Directory(directory) => {
                let entries = std::fs::read_dir(&directory.path).into_iter().flatten();
                paths.extend(entries.flatten().map(|entry| entry.path()));
            }
            SchemaSource::Step(step) => paths.extend(path_of(step)),
        }
    }
    let steps = [&template.before, &template.after, &template.seeds];
    paths.extend(steps.into_iter().flatten().filter_map(path_of));
    let states = paths
        .into_iter()
        .filter_map(|path| state(&path).map(|state| (path, state)));
    states.collect()
}

/// The file of a step. What a command reads is not watched: its patterns may name many files.
fn path_of(step: &StepConfig) -> Option<PathBuf> {
    match step {
        StepConfig::Path(path) => Some(path.clone()),
        StepConfig::Command(_) => None,
    }
}

fn state(path: &Path) -> Option<(Option<SystemTime>, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok(), metadata.len()))
}
