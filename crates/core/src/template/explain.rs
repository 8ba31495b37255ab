//! Explains why a template must be built: compares its inputs with those of the existing templates.

use crate::template::{Input, TemplateInfo};

/// The differences between `inputs` and the most similar template, one per line. Empty if there is no template.
pub fn explain_build(inputs: &[Input], templates: &[TemplateInfo]) -> Vec<String> {
    // A template with an older version of a file is more similar than one without the file; age decides between equals.
    let similarity = |template: &&TemplateInfo| {
        let common = inputs.iter().filter(|i| has_label(&template.inputs, i));
        let prefix = shared_prefix(inputs, &template.inputs);
        (prefix, common.count(), template.used_at)
    };
    let nearest = templates.iter().max_by_key(similarity);
    // The template of another part of the project explains nothing.
    let is_related = |template: &&TemplateInfo| {
        let mut steps = inputs.iter().filter(|input| input.is_step()).peekable();
        steps.peek().is_none() || steps.any(|step| has_label(&template.inputs, step))
    };
    match nearest.filter(is_related) {
        Some(template) => differences(&template.inputs, inputs),
        None => Vec::new(),
    }
}

/// The differences between two versions of the inputs of one template, one per line.
pub fn explain_change(old: &[Input], new: &[Input]) -> Vec<String> {
    differences(old, new)
}

/// The differences between the migrations that are compiled into a test and the run's, one per line. `None` if they are
/// unrelated: they are related if both have the same versions, except that one may have more.
pub fn explain_stale(run: &[Input], compiled: &[Input]) -> Option<Vec<String>> {
    let migrations = |inputs: &[Input]| -> Vec<Input> {
        let mut migrations = inputs.to_vec();
        migrations.retain(|input| version(input).is_some());
        migrations
    };
    let (run, compiled) = (migrations(run), migrations(compiled));
    let mut pairs = run.iter().zip(&compiled);
    let related =
        !run.is_empty() && !compiled.is_empty() && pairs.all(|(a, b)| version(a) == version(b));
    related.then(|| differences(&compiled, &run))
}

fn version(input: &Input) -> Option<&str> {
    let label = input.label.strip_prefix("migration ")?;
    label.split(' ').next()
}

fn shared_prefix(a: &[Input], b: &[Input]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn has_label(inputs: &[Input], wanted: &Input) -> bool {
    inputs.iter().any(|input| input.label == wanted.label)
}

fn differences(old: &[Input], new: &[Input]) -> Vec<String> {
    let find = |inputs: &[Input], label: &str| {
        inputs
            .iter()
            .find(|i| i.label == label)
            .map(|i| i.value.clone())
    };
    let mut lines = Vec::new();
    for input in new {
        match find(old, &input.label) {
            None => lines.push(format!("{} is new", input.label)),
            Some(value) if value == input.value => {}
            Some(_) if input.is_step() => lines.push(format!("{} was edited", input.label)),
            Some(value) => lines.push(format!(
                "{} changed from `{value}` to `{}`",
                input.label, input.value
            )),
        }
    }
    for input in old {
        if find(new, &input.label).is_none() {
            lines.push(format!("{} is gone", input.label));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Contents;

    fn input(label: &str, value: &str) -> Input {
        Input {
            label: label.to_owned(),
            value: value.to_owned(),
        }
    }

    fn template(inputs: Vec<Input>, used_at: u64) -> TemplateInfo {
        TemplateInfo {
            tool: String::new(),
            fingerprint: String::new(),
            inputs,
            profile: None,
            settings: Vec::new(),
            session: None,
            contents: Contents::default(),
            built_at: 0,
            used_at,
        }
    }

    #[test]
    fn each_difference_to_the_most_similar_template_is_named() {
        let base = input("server version", "15");
        let far = template(vec![input("server version", "14")], 99);
        let near = template(
            vec![
                base.clone(),
                input("migration 1 a", "x"),
                input("migration 2 b", "x"),
            ],
            1,
        );
        let now = [
            base,
            input("migration 1 a", "y"),
            input("migration 3 c", "x"),
        ];
        let lines = explain_build(&now, &[far.clone(), near]);
        assert_eq!(
            lines,
            [
                "migration 1 a was edited",
                "migration 3 c is new",
                "migration 2 b is gone"
            ]
        );
        assert_eq!(
            explain_build(&now[..1], &[far]),
            ["server version changed from `14` to `15`"]
        );
        assert!(explain_build(&now, &[]).is_empty());
        let unrelated = template(vec![input("migration 7 z", "x")], 1);
        assert!(explain_build(&now, &[unrelated]).is_empty());
    }

    #[test]
    fn only_related_migrations_are_stale() {
        let of = |texts: &[(&str, &str)]| -> Vec<Input> {
            texts
                .iter()
                .map(|(label, value)| input(label, value))
                .collect()
        };
        let run = of(&[
            ("base", "x"),
            ("migration 1 a", "x"),
            ("migration 2 b", "x"),
            ("seed s", "x"),
        ]);
        let edited = of(&[
            ("base", "x"),
            ("migration 1 a", "y"),
            ("migration 2 b", "x"),
        ]);
        assert_eq!(
            explain_stale(&run, &edited),
            Some(vec!["migration 1 a was edited".to_owned()])
        );
        assert_eq!(
            explain_stale(&run, &run[..2]),
            Some(vec!["migration 2 b is new".to_owned()])
        );
        assert_eq!(
            explain_stale(&run[..2], &run),
            Some(vec!["migration 2 b is gone".to_owned()])
        );
        assert_eq!(explain_stale(&run, &of(&[("migration 7 a", "x")])), None);
        assert_eq!(explain_stale(&run, &[]), None);
    }

    #[test]
    fn an_edited_file_is_not_reported_as_new_in_any_order_of_templates() {
        let (first, old) = (input("migration 1 a", "x"), input("migration 2 b", "x"));
        let without = template(vec![first.clone()], 5);
        let with = template(vec![first.clone(), old], 5);
        let now = [first, input("migration 2 b", "y")];
        for templates in [[without.clone(), with.clone()], [with, without]] {
            assert_eq!(
                explain_build(&now, &templates),
                ["migration 2 b was edited"]
            );
        }
    }
}
