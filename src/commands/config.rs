//! `kapsel-testdb config`: the resolved configuration and the origin of each value.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anstyle::Style;
use serde::Serialize;

use kapsel_testdb_core::config::{Config, KEYS, Origin};

use crate::failure::Result;
use crate::printer::Printer;
use crate::screen::{DETAIL, OK, TITLE, paint, wrap};

/// The output of `--json`. `schema` changes when a field is removed or changes its meaning.
#[derive(Debug, Serialize)]
struct Settings<'a> {
    schema: u32,
    root: &'a Path,
    namespace: &'a str,
    keys: BTreeMap<&'static str, Setting<'a>>,
}

#[derive(Debug, Serialize)]
struct Setting<'a> {
    /// Null if the key is not set and its default depends on the machine or the project.
    value: Option<serde_json::Value>,
    /// Such a default in words.
    default: Option<&'a str>,
    /// `default`, `file`, `environment` or `flag`.
    origin: &'static str,
    /// The path of the file, or the name of the environment variable.
    source: Option<String>,
    /// The environment variable that sets the key.
    variable: String,
}

pub fn run(config: &Config, as_json: bool, printer: &Printer) -> Result<ExitCode> {
    if as_json {
        let settings = serde_json::to_value(settings(config)?)?;
        printer.data(&format!("{settings:#}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    printer.line(&format!("workspace root: {}", config.root.display()));
    printer.line(&format!("namespace: {}", config.namespace));
    printer.screen(&screen(config, printer.width()));
    Ok(ExitCode::SUCCESS)
}

fn settings(config: &Config) -> Result<Settings<'_>> {
    let mut keys = BTreeMap::new();
    for key in KEYS.iter() {
        let original = &config.origins[key.name.as_str()];
        let value = original.value.as_ref().map(serde_json::to_value);
        let (origin, source) = match &original.origin {
            Origin::Default => ("default", None),
            Origin::File(path) => ("file", Some(path.display().to_string())),
            Origin::Environment(name) => ("environment", Some(name.clone())),
            Origin::Flag => ("flag", None),
        };
        let setting = Setting {
            value: value.transpose()?,
            default: original.value.is_none().then_some(&original.text),
            origin,
            source,
            variable: key.variable(),
        };
        keys.insert(key.name.as_str(), setting);
    }
    Ok(Settings {
        schema: 2,
        root: &config.root,
        namespace: config.namespace.as_str(),
        keys,
    })
}

/// A row for each key, with the origin at the right edge: what is set stands out, paths are relative to the workspace root.
fn screen(config: &Config, width: usize) -> String {
    let names = KEYS.iter().map(|key| key.name.len()).max().unwrap_or(0) + 2;
    let room = width.saturating_sub(names);
    let mut text = String::new();
    for key in KEYS.iter() {
        let original = &config.origins[key.name.as_str()];
        let (name_style, style) = match original.origin {
            Origin::Default => (Style::new(), DETAIL),
            _ => (TITLE, OK),
        };
        let indent = format!("\n{}", " ".repeat(names));
        let lines = lines(&original.text, &origin(config, &original.origin), room);
        let lines: Vec<String> = lines.iter().map(|line| paint(style, line)).collect();
        let gap = " ".repeat(names - key.name.len());
        let name = paint(name_style, &key.name);
        text.push_str(&format!("{name}{gap}{}\n", lines.join(&indent)));
    }
    text
}

fn origin(config: &Config, origin: &Origin) -> String {
    match origin {
        Origin::File(path) => {
            let path = path.strip_prefix(&config.root).unwrap_or(path);
            path.display().to_string()
        }
        origin => origin.to_string(),
    }
}

/// The value, with its origin on the last line if there is room, else below it.
fn lines(value: &str, origin: &str, room: usize) -> Vec<String> {
    let mut lines = wrap(value, room);
    let used = lines.last().map_or(0, |line| line.chars().count());
    let beside = lines
        .last_mut()
        .filter(|_| used + 2 + origin.chars().count() <= room);
    match beside {
        Some(line) => line.push_str(&format!("{origin:>width$}", width = room - used)),
        None => lines.push(format!("{origin:>room$}")),
    }
    lines
}

#[cfg(test)]
mod tests {
    use kapsel_testdb_core::config::{Layer, load_with};

    use super::*;

    #[test]
    fn screen_shows_what_is_set_and_what_is_default() {
        let mut flags = Layer::default();
        flags.flag("server.allow_remote", true);
        let variables = |name: &str| match name {
            "DATABASE_URL" => Some("postgres://me:hunter2@db.example/shop".to_owned()),
            "KAPSEL_TESTDB_KEEP_MAX" => Some("3".to_owned()),
            _ => None,
        };
        let root = Path::new("/nowhere/shop");
        let config = load_with(root, flags, &variables).expect("a configuration");
        let text = screen(&config, 80);
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert!(
            plain.lines().all(|line| line.chars().count() <= 80),
            "{plain}"
        );
        insta::assert_snapshot!("config", plain);
        insta::assert_snapshot!("config_coloured", text.replace('\u{1b}', "ESC"));
    }
}
