//! Numbers with their nouns, and lists of names, for messages.

use std::fmt::Display;

/// A number with its noun: `1 run`, `2 runs`, `0 run directories`, `3 test processes`.
pub fn count<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    if number == N::from(1) {
        return format!("{number} {noun}");
    }
    let after_vowel = |stem: &str| stem.ends_with(['a', 'e', 'o', 'u']);
    match noun.strip_suffix('y') {
        Some(stem) if !after_vowel(stem) => format!("{number} {stem}ies"),
        _ if noun.ends_with('s') => format!("{number} {noun}es"),
        _ => format!("{number} {noun}s"),
    }
}

/// Names in backquotes, separated by commas; `none` if there are no names.
pub fn quoted(names: &[String], none: &str) -> String {
    if names.is_empty() {
        return none.to_owned();
    }
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn only_one_is_singular() {
        assert_eq!(count(1_u32, "run"), "1 run");
        assert_eq!(count(0_usize, "run"), "0 runs");
        assert_eq!(count(2_i64, "run directory"), "2 run directories");
        assert_eq!(count(3_u64, "test process"), "3 test processes");
        assert_eq!(count(4_u64, "day"), "4 days");
    }
}
