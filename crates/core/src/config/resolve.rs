//! Resolves the layers into one [`Config`], and checks types and ranges. Errors name the origin of the value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

use crate::address::{Address, has_password, unused_variables};
use crate::config::dotenv::{self, MemberUrl};
use crate::config::keys::KEYS;
use crate::config::layers::{Layer, Origin, Values, unknown_variables};
use crate::config::steps::{self, SchemaSource, StepConfig};
use crate::config::{
    ComposeConfig, Config, ConfigError, ExportUrl, OriginalValue, OthersLimits, ServerConfig,
    ServerMode, TemplateConfig, is_read_by_sqlx, server_settings,
};
use crate::env;
use crate::protocol::{KeepConfig, Leaks, MigrateSettings, Namespace, Pollution, PoolConfig};

/// Resolves the configuration of the workspace at `root`, with `flags` on top.
///
/// # Errors
/// [`ConfigError`] names the key, its value and its origin.
pub fn load(root: &Path, flags: Layer) -> Result<Config, ConfigError> {
    load_with(root, flags, &|name| std::env::var(name).ok())
}

/// [`load`] with an environment other than the process's own.
///
/// # Errors
/// See [`load`].
pub fn load_with(
    root: &Path,
    flags: Layer,
    var: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    check_paths(var)?;
    let sqlx_toml = is_read_by_sqlx(root);
    let (mut values, mut more_templates) = (Values::new(), Vec::new());
    for layer in [
        Layer::defaults(),
        Layer::sqlx_toml(root, sqlx_toml)?,
        Layer::file(root, var)?,
        Layer::environment(root, var)?,
        flags,
    ] {
        values.extend(layer.values);
        more_templates.extend(layer.more_templates);
    }
    let ambiguous_dotenv = add_url_of_members(root, &mut values)?;
    let resolver = Resolver {
        root,
        values,
        sqlx_toml,
    };
    let mut config = resolver.config()?;
    config.ambiguous_dotenv = ambiguous_dotenv;
    let unread = MigrateSettings::of_package(root, !sqlx_toml);
    config.is_sqlx_toml_ignored = unread.is_ok_and(|unread| unread != MigrateSettings::default());
    for values in more_templates {
        add_template(&mut config, values, sqlx_toml)?;
    }
    Ok(config)
}

/// Adds a `[[template]]` after the first. The environment and `sqlx.toml` set keys of the first one only.
fn add_template(config: &mut Config, values: Values, sqlx_toml: bool) -> Result<(), ConfigError> {
    let problem = |problem: String| Err(ConfigError::Templates(problem));
    let set = Layer::defaults().values.into_iter().chain(values.clone());
    let root = config.root.clone();
    let resolver = Resolver {
        root: &root,
        values: set.collect(),
        sqlx_toml,
    };
    let template = resolver.template()?;
    for key in [
        "template.keep",
        "template.others_max_age_days",
        "template.others_max_mb",
    ] {
        if values.contains_key(key) {
            return problem(format!(
                "`{key}` applies to all templates; set it in the first `[[template]]`"
            ));
        }
    }
    let known: Vec<&TemplateConfig> = config.templates().collect();
    let (Some(name), true) = (
        &template.name,
        known.iter().all(|known| known.name.is_some()),
    ) else {
        return problem("each `[[template]]` needs a `name` if there are several".to_owned());
    };
    if known.iter().any(|known| known.name.as_ref() == Some(name)) {
        return problem(format!("two templates are called `{name}`"));
    }
    let mut packages = template.packages.iter();
    if let Some(package) =
        packages.find(|package| known.iter().any(|known| known.packages.contains(package)))
    {
        return problem(format!(
            "the package `{package}` is in the lists of two templates"
        ));
    }
    let keep = (config.template.keep, config.template.others);
    config.more_templates.push(TemplateConfig {
        keep: keep.0,
        others: keep.1,
        ..template
    });
    config.unknown.extend(resolver.unknown_keys());
    Ok(())
}

/// Without any other URL, that of the members' `.env` files counts: sqlx's macros read them. Returns the files if they name different servers.
fn add_url_of_members(root: &Path, values: &mut Values) -> Result<Vec<PathBuf>, ConfigError> {
    const KEY: &str = "server.url";
    let mode = values
        .get("server.mode")
        .and_then(|(mode, _)| mode.as_str());
    if values.contains_key(KEY) || !matches!(mode, Some("auto" | "adopt")) {
        return Ok(Vec::new());
    }
    match dotenv::url_of_members(root)? {
        MemberUrl::None => {}
        MemberUrl::One(path, url) => {
            values.insert(KEY.to_owned(), (Value::String(url), Origin::File(path)));
        }
        MemberUrl::Several(paths) => return Ok(paths),
    }
    Ok(Vec::new())
}

/// Refuses relative paths in variables: the keeper, the server and the tests have working directories of their own.
fn check_paths(var: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
    for variable in env::ABSOLUTE_PATHS {
        let path = var(variable).filter(|path| !path.is_empty());
        if let Some(path) = path.filter(|path| Path::new(path).is_relative()) {
            return Err(ConfigError::RelativePath { variable, path });
        }
    }
    Ok(())
}

const NAMESPACE_RULE: &str = "1 to 16 of a-z and 0-9, beginning with a letter";

struct Resolver<'a> {
    root: &'a Path,
    values: Values,
    sqlx_toml: bool,
}

impl Resolver<'_> {
    fn config(&self) -> Result<Config, ConfigError> {
        let namespace = match self.string("namespace")? {
            Some(text) => {
                Namespace::new(&text).map_err(|_| self.invalid("namespace", NAMESPACE_RULE))?
            }
            None => Namespace::from_directory_name(
                &self.root.file_name().unwrap_or_default().to_string_lossy(),
            ),
        };
        let server = self.server()?;
        let is_adopted = server.adopted.is_some();
        Ok(Config {
            root: self.root.to_path_buf(),
            namespace,
            server,
            template: self.template()?,
            more_templates: Vec::new(),
            pool: PoolConfig {
                max_connections: self.number("pool.max_connections", 1..=10_000)? as u32,
                acquire_timeout_secs: self.number("pool.acquire_timeout_secs", 1..=86_400)?,
                sandbox_acquire_timeout_ms: self
                    .number("pool.sandbox_acquire_timeout_ms", 1..=86_400_000)?,
                sandbox_lock_timeout_ms: self
                    .number("pool.sandbox_lock_timeout_ms", 0..=86_400_000)?,
                leaks: self.choice(
                    "pool.leaks",
                    "\"warn\", \"fail\" or \"off\"",
                    &[
                        ("warn", Leaks::Warn),
                        ("fail", Leaks::Fail),
                        ("off", Leaks::Off),
                    ],
                )?,
            },
            export_url: self.choice(
                "export.database_url",
                "\"shared\", \"admin\" or \"off\"",
                &[
                    ("off", ExportUrl::Off),
                    ("shared", ExportUrl::Shared),
                    ("admin", ExportUrl::Admin),
                ],
            )?,
            keep: KeepConfig {
                failed: self.flag("keep.failed")?,
                max: self.number("keep.max", 0..=100_000)? as usize,
                max_age_days: self.number("keep.max_age_days", 0..=36_500)?,
            },
            pollution: self.choice(
                "shared.pollution",
                "\"warn\", \"fail\" or \"off\"",
                &[
                    ("warn", Pollution::Warn),
                    ("fail", Pollution::Fail),
                    ("off", Pollution::Off),
                ],
            )?,
            own_keys: self.flag("shared.own_keys")?,
            persistent: self.string("persistent.database")?,
            keeper: self.flag("run.keeper")?,
            keepers: 1,
            disk_budget_mb: match self.values.contains_key("run.disk_budget_mb") {
                true => Some(self.number("run.disk_budget_mb", 1..=1 << 40)?),
                false => None,
            },
            recycle: self.choice(
                "run.recycle",
                "\"auto\" or \"off\"",
                &[("auto", true), ("off", false)],
            )?,
            spares: self.spares()?,
            origins: self.origins(),
            unknown: self.unknown(),
            sqlx_toml: self.sqlx_toml,
            is_sqlx_toml_ignored: false,
            ambiguous_dotenv: Vec::new(),
            unused_variables: unused_variables().filter(|_| is_adopted).collect(),
        })
    }

    fn spares(&self) -> Result<Option<usize>, ConfigError> {
        match self.values.get("run.spares") {
            Some((Value::Integer(_), _)) => {
                Ok(Some(self.number("run.spares", 0..=10_000)? as usize))
            }
            Some((Value::String(text), _)) if text == "auto" => Ok(None),
            _ => Err(self.invalid("run.spares", "\"auto\" or a number from 0 to 10000")),
        }
    }

    fn server(&self) -> Result<ServerConfig, ConfigError> {
        let mode = self.choice(
            "server.mode",
            "\"auto\", \"adopt\", \"local\" or \"compose\"",
            &[
                ("auto", ServerMode::Auto),
                ("adopt", ServerMode::Adopt),
                ("local", ServerMode::Local),
                ("managed", ServerMode::Local),
                ("compose", ServerMode::Compose),
            ],
        )?;
        let adopted = match mode {
            ServerMode::Local | ServerMode::Compose => None,
            ServerMode::Auto | ServerMode::Adopt => self.address("server.url")?,
        };
        if mode == ServerMode::Adopt && adopted.is_none() {
            return Err(ConfigError::NoUrl);
        }
        Ok(ServerConfig {
            mode,
            adopted,
            admin: self
                .address("server.admin_url")?
                .map(|(address, _)| address),
            maintenance_database: self.required_string("server.maintenance_database")?,
            allow_remote: self.flag("server.allow_remote")?,
            version: self.version()?,
            bin_dir: self.path("server.bin_dir")?,
            state_dir: self.path("server.state_dir")?,
            run_as: self.required_string("server.run_as")?,
            compose: ComposeConfig {
                file: self.path("server.compose_file")?,
                service: self.string("server.compose_service")?,
                port: self.number("server.compose_port", 1..=65_535)? as u16,
                command: self.strings("server.compose_command")?,
            },
            start_timeout: self.seconds("server.start_timeout_secs")?,
            wait: self.seconds("server.wait_secs")?,
            cache: self.flag("server.cache")?,
            idle_stop: match self.number("server.idle_stop_secs", 0..=30 * 86_400)? {
                0 => None,
                seconds => Some(Duration::from_secs(seconds)),
            },
            test_role: self
                .string("server.test_role")?
                .filter(|role| !role.is_empty()),
            settings: self.server_settings()?,
        })
    }

    fn version(&self) -> Result<Option<u32>, ConfigError> {
        const KEY: &str = "server.version";
        let version = match self.values.get(KEY) {
            None => return Ok(None),
            Some((Value::Integer(number), _)) => u32::try_from(*number).ok(),
            Some((Value::String(text), _)) => text.parse().ok(),
            Some(_) => None,
        };
        match version.filter(|version| (1..100).contains(version)) {
            Some(version) => Ok(Some(version)),
            None => Err(self.invalid(KEY, "a major version such as \"17\"")),
        }
    }

    fn server_settings(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        const KEY: &str = "server.settings";
        let Some((value, origin)) = self.values.get(KEY) else {
            return Ok(BTreeMap::new());
        };
        let Value::Table(table) = value else {
            return Err(self.invalid(KEY, "a table such as `{ wal_level = \"logical\" }`"));
        };
        server_settings::read(table).map_err(|problem| ConfigError::Value {
            key: format!("{KEY}.{}", problem.name),
            value: problem.value.to_string(),
            origin: origin.clone(),
            expected: problem.expected,
        })
    }

    fn template(&self) -> Result<TemplateConfig, ConfigError> {
        let migrations = self.steps("template.migrations")?;
        let migrations = migrations
            .into_iter()
            .map(|step| SchemaSource::of(self.root, step, self.sqlx_toml));
        let name = self.string("template.name")?;
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name
            .as_ref()
            .is_some_and(|name| name.is_empty() || !name.chars().all(is_word))
        {
            return Err(self.invalid("template.name", "letters, digits, `-` and `_`"));
        }
        Ok(TemplateConfig {
            name,
            packages: self.strings("template.packages")?,
            migrations: migrations.collect::<Result<_, _>>()?,
            before: self.step_list("template.before")?,
            after: self.step_list("template.after")?,
            seeds: self.step_list("template.seeds")?,
            extensions: self.strings("template.extensions")?,
            roles: self.strings("template.roles")?,
            base: self.required_string("template.base")?,
            keep: self.number("template.keep", 1..=10_000)? as usize,
            others: OthersLimits {
                max_age_days: self.number("template.others_max_age_days", 0..=36_500)?,
                max_mb: self.number("template.others_max_mb", 0..=1_000_000_000)?,
            },
        })
    }

    /// A list of files and commands.
    fn step_list(&self, name: &str) -> Result<Vec<StepConfig>, ConfigError> {
        match self.values.get(name) {
            None | Some((Value::Array(_), _)) => self.steps(name),
            Some(_) => {
                let expected = "a list of strings (files of SQL) and tables (commands)";
                Err(self.invalid(name, expected))
            }
        }
    }

    /// A list of files and commands; a single one needs no list, and "" is none.
    fn steps(&self, name: &str) -> Result<Vec<StepConfig>, ConfigError> {
        let Some((value, origin)) = self.values.get(name) else {
            return Ok(Vec::new());
        };
        steps::read(self.root, value).map_err(|problem| ConfigError::Value {
            key: name.to_owned(),
            value: problem.value.to_string(),
            origin: origin.clone(),
            expected: problem.expected,
        })
    }

    fn invalid(&self, name: &str, expected: impl Into<Cow<'static, str>>) -> ConfigError {
        let (value, origin) = &self.values[name];
        ConfigError::Value {
            key: name.to_owned(),
            value: without_password(name, value).to_string(),
            origin: origin.clone(),
            expected: expected.into(),
        }
    }

    fn string(&self, name: &str) -> Result<Option<String>, ConfigError> {
        match self.values.get(name) {
            None => Ok(None),
            Some((Value::String(text), _)) => Ok(Some(text.clone())),
            // The environment layer parses a variable of digits as a number.
            Some((value @ (Value::Integer(_) | Value::Boolean(_)), Origin::Environment(_))) => {
                Ok(Some(value.to_string()))
            }
            Some(_) => Err(self.invalid(name, "a string")),
        }
    }

    /// A string with a default.
    fn required_string(&self, name: &str) -> Result<String, ConfigError> {
        self.string(name)?
            .ok_or_else(|| self.invalid(name, "a string"))
    }

    fn strings(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let expected = "a list of strings";
        match self.values.get(name) {
            None => Ok(Vec::new()),
            Some((Value::Array(items), _)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or_else(|| self.invalid(name, expected)),
            Some(_) => Err(self.invalid(name, expected)),
        }
    }

    fn path(&self, name: &str) -> Result<Option<PathBuf>, ConfigError> {
        Ok(self.string(name)?.map(|text| self.root.join(text)))
    }

    fn flag(&self, name: &str) -> Result<bool, ConfigError> {
        match self.values.get(name) {
            Some((Value::Boolean(flag), _)) => Ok(*flag),
            Some((Value::Integer(n @ 0..=1), Origin::Environment(_))) => Ok(*n == 1),
            _ => Err(self.invalid(name, "true or false (in the environment also 1 or 0)")),
        }
    }

    fn number(&self, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let number = match self.values.get(name) {
            Some((Value::Integer(n), _)) => u64::try_from(*n).ok(),
            _ => None,
        };
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        number
            .filter(|n| range.contains(n))
            .ok_or_else(|| self.invalid(name, expected()))
    }

    fn seconds(&self, name: &str) -> Result<Duration, ConfigError> {
        self.number(name, 0..=3600).map(Duration::from_secs)
    }

    fn choice<T: Copy>(
        &self,
        name: &str,
        expected: &'static str,
        choices: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        let text = self.required_string(name)?;
        choices
            .iter()
            .find(|(choice, _)| *choice == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| self.invalid(name, expected))
    }

    fn address(&self, name: &str) -> Result<Option<(Address, Option<String>)>, ConfigError> {
        let Some(text) = self.string(name)? else {
            return Ok(None);
        };
        let parsed = Address::parse(&text).map_err(|source| ConfigError::Url {
            source,
            origin: self.values[name].1.clone(),
        });
        let (mut address, database) = parsed?;
        if self.values[name].1 == Origin::Flag && has_password(&text) {
            return Err(ConfigError::PasswordInFlag);
        }
        address.tls.resolve_paths(self.root);
        Ok(Some((address, database)))
    }

    fn origins(&self) -> BTreeMap<&'static str, OriginalValue> {
        KEYS.iter()
            .map(|key| {
                let entry = match self.values.get(&key.name) {
                    Some((value, origin)) => {
                        let value = without_password(&key.name, value);
                        OriginalValue {
                            text: value.to_string(),
                            value: Some(value),
                            origin: origin.clone(),
                        }
                    }
                    None => OriginalValue {
                        value: None,
                        text: key.default.clone(),
                        origin: Origin::Default,
                    },
                };
                (key.name.as_str(), entry)
            })
            .collect()
    }

    fn unknown(&self) -> Vec<(String, Origin)> {
        self.unknown_keys().chain(unknown_variables()).collect()
    }

    fn unknown_keys(&self) -> impl Iterator<Item = (String, Origin)> {
        let values = self.values.iter();
        let unknown = values.filter(|(name, _)| KEYS.iter().all(|key| key.name != **name));
        unknown.map(|(name, (_, origin))| (name.clone(), origin.clone()))
    }
}

/// A value; the password of a URL is left out.
fn without_password(name: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if matches!(name, "server.url" | "server.admin_url") => {
            Value::String(match Address::parse(text) {
                Ok((address, database)) => address.url(database.as_deref().unwrap_or("")),
                Err(_) => "…".to_owned(),
            })
        }
        value => value.clone(),
    }
}
