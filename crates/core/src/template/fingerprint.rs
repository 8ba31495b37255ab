//! The fingerprint: a chain of hashes with one link per migration. So the template of the first `k` migrations is still found after
//! migration `k + 1` was added or edited.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::migrate::Migration;

use crate::pg::ServerFacts;
use crate::protocol::{BuildStep, Fingerprint, TemplateBase, from_hex, hex};
use crate::sqlx_compat::{
    EmbeddedMigration, EmbeddedMigrator, MIGRATIONS_TABLE, MigrationsTable, internal,
};
use crate::template::source::{SchemaStep, Source};

/// Increased when templates of older versions of this tool must no longer be used.
const FORMAT: &str = "3";

/// One input of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its name, such as `migration 20240101 create users`.
    pub label: String,
    /// Its value or hash.
    pub value: String,
}

impl Input {
    fn new(label: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            value: value.into(),
        }
    }

    /// Whether it is a migration or another step of the build, not a setting.
    pub fn is_step(&self) -> bool {
        const KINDS: [&str; 4] = ["migration ", "before ", "after ", "seed "];
        KINDS.iter().any(|kind| self.label.starts_with(kind))
    }
}

/// A link of the chain: the hash of all inputs up to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link([u8; 32]);

impl Link {
    /// The short form, for names.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::from_hash(&self.0)
    }

    /// The whole hash in hexadecimal.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// Parses the output of [`Self::hex`].
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// The link after the migrations of a compiled migrator.
    pub fn after_migrator(&self, migrator: &dyn EmbeddedMigrator) -> Self {
        let table = MigrationsTable::of(migrator);
        let up = migrator.up();
        let inputs = table.inputs(up.is_empty()).into_iter();
        let inputs = inputs.chain(up.iter().map(EmbeddedMigration::input));
        inputs.fold(self.clone(), |link, input| link.then(&input))
    }

    /// The link after the migrations of a source, without seeds.
    pub fn after_source(&self, source: &Source) -> Self {
        let link = self.clone().after(&table_inputs(source));
        let steps = source.steps.iter().map(SchemaStep::input);
        steps.fold(link, |link, input| link.then(&input))
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

/// All links and their inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The inputs from the server and the configuration, then one per step of the schema, then one per later step.
    pub inputs: Vec<Input>,
    /// The link of the inputs from the server and the configuration.
    pub start: Link,
    /// `schema[k]` is the link of the first `k` steps of the schema.
    pub schema: Vec<Link>,
    /// The link of all steps, if there are steps after the schema.
    pub seeded: Option<Link>,
    settings: usize,
}

impl Chain {
    /// Computes the chain for a source on a server.
    pub fn new(source: &Source, template_base: &TemplateBase, facts: &ServerFacts) -> Self {
        let mut inputs = settings(template_base, facts);
        let start = Link::start().after(&inputs);
        inputs.extend(table_inputs(source));
        let settings = inputs.len();
        let mut schema = vec![Link::start().after(&inputs)];
        for step in &source.steps {
            let input = step.input();
            schema.push(schema[schema.len() - 1].then(&input));
            inputs.push(input);
        }
        let mut seeded = None;
        for later in &source.later {
            let input = later.step.input(later.kind);
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

    /// The link of the complete template.
    pub fn last(&self) -> &Link {
        self.seeded.as_ref().unwrap_or(self.migrated())
    }

    /// The link of all migrations, without seeds.
    pub fn migrated(&self) -> &Link {
        &self.schema[self.schema.len() - 1]
    }

    /// The inputs of [`Self::migrated`].
    pub fn migrated_inputs(&self) -> &[Input] {
        &self.inputs[..self.settings + self.schema.len() - 1]
    }
}

fn settings(template_base: &TemplateBase, facts: &ServerFacts) -> Vec<Input> {
    let mut extensions = template_base.extensions.clone();
    extensions.sort();
    let mut inputs = vec![
        Input::new("format", FORMAT),
        Input::new("migrator", "sqlx"),
        Input::new("server version", facts.major().to_string()),
        Input::new("owner", &facts.role),
        Input::new("base", &template_base.base),
        Input::new("locale", &facts.base_locale),
        Input::new("extensions", extensions.join(", ")),
        Input::new("role settings", &facts.role_settings),
    ];
    if let Some(base) = &facts.base {
        inputs.push(Input::new("base identity", base.oid.to_string()));
        inputs.push(Input::new("extensions of the base", &base.extensions));
    }
    // A `search_path`, for example, decides in which schema migrations create their tables.
    let options = facts.options.as_ref();
    inputs.extend(options.map(|options| Input::new("session settings", options)));
    if !template_base.roles.is_empty() {
        let mut roles = template_base.roles.clone();
        roles.sort();
        inputs.push(Input::new("roles", roles.join(", ")));
    }
    let before = template_base.before.iter();
    inputs.extend(before.map(|step| step.input("before")));
    inputs
}

/// The inputs of the tables in which sqlx records the migrations of a source.
fn table_inputs(source: &Source) -> Vec<Input> {
    let tables = source.tables.iter();
    let inputs = tables.flat_map(|table| {
        let is_empty = source.sqlx().all(|sqlx| sqlx.table != *table);
        table.inputs(is_empty)
    });
    inputs.collect()
}

impl BuildStep {
    fn input(&self, kind: &str) -> Input {
        Input::new(format!("{kind} {}", self.name()), self.checksum())
    }
}

impl SchemaStep {
    fn input(&self) -> Input {
        match self {
            Self::Sqlx(sqlx) => embedded(&sqlx.migration).input(),
            Self::File(file) => Input::new(format!("migration {}", file.file), file.checksum()),
            Self::Step(step) => step.input("migration"),
        }
    }
}

impl MigrationsTable {
    /// Empty for the default table, so that a compiled migrator and a directory with the same migrations share templates.
    fn inputs(&self, no_migrations: bool) -> Vec<Input> {
        let mut inputs = Vec::new();
        if no_migrations || self.table != MIGRATIONS_TABLE {
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
        sql: internal::migration_sql(migration),
        checksum: &migration.checksum,
        no_tx: migration.no_tx,
    }
}
