//! The fingerprint: a chain of hashes, one link per migration, so that a template of the first `k` migrations is found again
//! when the `k+1`st is added or edited.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::source::Source;
use crate::config::Config;
use crate::name::{Fingerprint, hex};
use crate::pg::ServerFacts;

/// Changes when templates of an older version of this tool must not be used any more.
const FORMAT: &str = "1";

/// One thing that a template depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What it is: `migration 20240101 create users`.
    pub label: String,
    /// Its value, or its hash.
    pub value: String,
}

impl Input {
    fn new(label: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            value: value.into(),
        }
    }
}

/// A link of the chain: everything up to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link([u8; 32]);

impl Link {
    /// The short form that stands in names.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::from_hash(&self.0)
    }

    /// The whole hash in hexadecimal.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    fn start() -> Self {
        Self(Sha256::digest("kapsel-testdb template").into())
    }

    fn then(&self, input: &Input) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update((input.label.len() as u64).to_le_bytes());
        hash.update(&input.label);
        hash.update(&input.value);
        Self(hash.finalize().into())
    }
}

/// All links, and the inputs that made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// What the server and the configuration contribute; then one input per migration; then one per seed file.
    pub inputs: Vec<Input>,
    /// `schema[k]` is the template of the first `k` migrations, without seeds.
    pub schema: Vec<Link>,
    /// The template with seeds, where there are any.
    pub seeded: Option<Link>,
    settings: usize,
}

impl Chain {
    /// Computes the chain for what was read, on this server.
    pub fn new(source: &Source, config: &Config, facts: &ServerFacts) -> Self {
        let mut inputs = settings(config, facts);
        let settings = inputs.len();
        let mut schema = vec![inputs.iter().fold(Link::start(), |link, i| link.then(i))];
        for migration in &source.migrations {
            let label = format!("migration {} {}", migration.version, migration.description);
            let transaction = if migration.no_tx {
                "no-transaction"
            } else {
                "transaction"
            };
            let value = format!("{} {transaction}", hex(&migration.checksum));
            let input = Input::new(label, value);
            schema.push(schema[schema.len() - 1].then(&input));
            inputs.push(input);
        }
        let mut seeded = None;
        for seed in &source.seeds {
            let input = Input::new(format!("seed {}", seed.file), &seed.checksum);
            let before = seeded.as_ref().unwrap_or(&schema[schema.len() - 1]);
            seeded = Some(before.then(&input));
            inputs.push(input);
        }
        Self {
            inputs,
            schema,
            seeded,
            settings,
        }
    }

    /// The finished template.
    pub fn last(&self) -> &Link {
        self.seeded.as_ref().unwrap_or(self.migrated())
    }

    /// The template of all migrations, without seeds.
    pub fn migrated(&self) -> &Link {
        &self.schema[self.schema.len() - 1]
    }

    /// The inputs of the template of all migrations, without seeds.
    pub fn migrated_inputs(&self) -> &[Input] {
        &self.inputs[..self.settings + self.schema.len() - 1]
    }
}

fn settings(config: &Config, facts: &ServerFacts) -> Vec<Input> {
    let mut extensions = config.template.extensions.clone();
    extensions.sort();
    vec![
        Input::new("format", FORMAT),
        Input::new("migrator", "sqlx"),
        Input::new("server version", facts.major().to_string()),
        Input::new("owner", &facts.role),
        Input::new("base", &config.template.base),
        Input::new("locale", &facts.base_locale),
        Input::new("extensions", extensions.join(", ")),
    ]
}
