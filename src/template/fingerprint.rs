//! The fingerprint: a chain of hashes, one link per migration, so that a template of the first `k` migrations is found again
//! when the `k+1`st is added or edited.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use sqlx::migrate::Migration;

use super::Basis;
use super::source::{Notes, Source};
use crate::driver::own::{self, MIGRATIONS_TABLE};
use crate::driver::{EmbeddedMigration, EmbeddedMigrator};
use crate::name::{Fingerprint, from_hex, hex};
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

    /// The link whose [`Self::hex`] that is.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// The template of a schema that the migrator makes from what this link stands for.
    pub fn migrated_by(&self, migrator: &dyn EmbeddedMigrator) -> Self {
        let notes = Notes::of(migrator);
        let up = migrator.up();
        let inputs = notes.inputs(up.is_empty()).into_iter();
        let inputs = inputs.chain(up.iter().map(EmbeddedMigration::input));
        inputs.fold(self.clone(), |link, input| link.then(&input))
    }

    /// The template of a schema that those migrations make from what this link stands for.
    pub fn migrated_from(&self, source: &Source) -> Self {
        let notes = source.notes.as_ref();
        let notes = notes.map(|notes| notes.inputs(source.migrations.is_empty()));
        let link = self.clone().after(&notes.unwrap_or_default());
        let up = source.migrations.iter().map(|m| embedded(m).input());
        up.fold(link, |link, input| link.then(&input))
    }

    fn start() -> Self {
        Self(Sha256::digest("kapsel-testdb template").into())
    }

    fn after(self, inputs: &[Input]) -> Self {
        inputs.iter().fold(self, |link, input| link.then(input))
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
    /// What the server and the configuration contribute, and nothing else.
    pub start: Link,
    /// `schema[k]` is the template of the first `k` migrations, without seeds.
    pub schema: Vec<Link>,
    /// The template with seeds, where there are any.
    pub seeded: Option<Link>,
    settings: usize,
}

impl Chain {
    /// Computes the chain for what was read, on this server.
    pub fn new(source: &Source, basis: &Basis, facts: &ServerFacts) -> Self {
        let mut inputs = settings(basis, facts);
        let start = Link::start().after(&inputs);
        if let Some(notes) = &source.notes {
            inputs.extend(notes.inputs(source.migrations.is_empty()));
        }
        let settings = inputs.len();
        let mut schema = vec![Link::start().after(&inputs)];
        for migration in &source.migrations {
            let input = embedded(migration).input();
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
            start,
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

fn settings(basis: &Basis, facts: &ServerFacts) -> Vec<Input> {
    let mut extensions = basis.extensions.clone();
    extensions.sort();
    vec![
        Input::new("format", FORMAT),
        Input::new("migrator", "sqlx"),
        Input::new("server version", facts.major().to_string()),
        Input::new("owner", &facts.role),
        Input::new("base", &basis.base),
        Input::new("locale", &facts.base_locale),
        Input::new("extensions", extensions.join(", ")),
    ]
}

impl Notes {
    /// Nothing where the migrator is like those of a folder, so that both have the same templates.
    fn inputs(&self, alone: bool) -> Vec<Input> {
        let mut inputs = Vec::new();
        if alone || self.table != MIGRATIONS_TABLE {
            inputs.push(Input::new("migrations table", &self.table));
        }
        if !self.schemas.is_empty() {
            inputs.push(Input::new("schemas", self.schemas.join(", ")));
        }
        inputs
    }
}

impl EmbeddedMigration<'_> {
    fn input(&self) -> Input {
        let transaction = if self.no_tx {
            "no-transaction"
        } else {
            "transaction"
        };
        Input::new(
            format!("migration {} {}", self.version, self.description),
            format!("{} {transaction}", hex(self.checksum)),
        )
    }
}

fn embedded(migration: &Migration) -> EmbeddedMigration<'_> {
    EmbeddedMigration {
        version: migration.version,
        description: &migration.description,
        sql: own::text(migration),
        checksum: &migration.checksum,
        no_tx: migration.no_tx,
    }
}
