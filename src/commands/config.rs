//! `kapsel-testdb config`: the resolved configuration and the origin of each value.

use std::process::ExitCode;

use serde_json::json;

use kapsel_testdb_core::config::{Config, KEYS};

use crate::failure::Result;
use crate::printer::Printer;

pub fn run(config: &Config, as_json: bool, printer: &Printer) -> Result<ExitCode> {
    if as_json {
        printer.data(&format!("{:#}\n", to_json(config)));
        return Ok(ExitCode::SUCCESS);
    }
    printer.line(&format!("workspace root: {}", config.root.display()));
    printer.line(&format!("namespace: {}", config.namespace));
    let width = |of: &dyn Fn(&str) -> usize| KEYS.iter().map(|k| of(&k.name)).max().unwrap_or(0);
    let names = width(&str::len);
    let values = width(&|name| config.origins[name].0.chars().count());
    for key in KEYS.iter() {
        let (value, origin) = &config.origins[key.name.as_str()];
        printer.data(&format!("{:names$}  {value:values$}  {origin}\n", key.name));
    }
    Ok(ExitCode::SUCCESS)
}

fn to_json(config: &Config) -> serde_json::Value {
    let keys: serde_json::Map<_, _> = KEYS
        .iter()
        .map(|key| {
            let (value, origin) = &config.origins[key.name.as_str()];
            let entry =
                json!({ "value": value, "origin": origin.to_string(), "variable": key.variable() });
            (key.name.clone(), entry)
        })
        .collect();
    json!({
        "schema": 1,
        "root": config.root,
        "namespace": config.namespace,
        "keys": keys,
    })
}
