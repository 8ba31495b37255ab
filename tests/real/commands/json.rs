//! `--json` of every command has the schema and the fields that the documentation lists.

use serde_json::Value;

use crate::support::{Attempt, Project, Server};

const DOCUMENT: &str = include_str!("../../../docs/COMMANDS.md");

/// The rows of the table: command, schema, description of the fields.
fn documented() -> Vec<(String, u64, String)> {
    let (_, section) = DOCUMENT.split_once("\n## JSON\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("the next section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (command, rest) = row.split_once("` | ").expect("a command");
        let (schema, fields) = rest.split_once(" | ").expect("a schema");
        let schema = schema.parse().expect("a number");
        (command.to_owned(), schema, fields.to_owned())
    })
    .collect()
}

#[test]
fn json_has_the_documented_schemas_and_fields() {
    let server = Server::start();
    let project = Project::on(&server);
    Attempt::first("", "pays").run(&project, "panic").code(101);
    let documented = documented();
    assert_eq!(documented.len(), 9);
    for (command, schema, fields) in documented {
        let words = command.replace("kept diff", "kept diff pays");
        let outcome = project.run(&words);
        let json = outcome.json();
        assert_eq!(json["schema"], schema, "{command}");
        for key in keys(&json, &command) {
            assert!(
                fields.contains(&format!("`{key}`")),
                "`{key}` of `{command}` is not documented"
            );
        }
    }
}

/// The keys of the object, and those of one element of a list that the table describes.
fn keys(json: &Value, command: &str) -> Vec<String> {
    let inner = match command {
        "config --json" => json["keys"]["keep.max"].clone(),
        "doctor --json" => json["checks"][0].clone(),
        "kept list --json" => json["kept"][0].clone(),
        "kept diff --json" => json["difference"].clone(),
        "template list --json" | "template why --json" => json["templates"][0].clone(),
        _ => Value::Null,
    };
    let of = |value: &Value| -> Vec<String> {
        let object = value.as_object();
        object
            .into_iter()
            .flat_map(|object| object.keys().cloned())
            .collect()
    };
    let all = of(json).into_iter().chain(of(&inner));
    all.filter(|key| key != "schema").collect()
}
