//! Errors of configuration for people: where, what, and what was probably meant.

use figment::error::Kind;

use super::layers::Layers;
use crate::error::CliError;

/// Keys whose values never appear in an error.
pub(super) const SECRET: [&str; 2] = ["token", "keys"];

/// The first error of a failed extraction.
pub(super) fn error(error: figment::Error, layers: &Layers, also: &[&str]) -> CliError {
    let Some(error) = error.into_iter().next() else {
        return CliError::new("LS0004", "the configuration cannot be used", "");
    };
    let parents = error.path.join(".");
    // figment's path ends with an unknown key, and with the parent of a missing one.
    let below = |key: &str| match error.path.last() {
        None => key.to_owned(),
        Some(last) if last == key => parents.clone(),
        Some(_) => format!("{parents}.{key}"),
    };
    let top = error.path.len() < 2;
    let all = "deploy/examples/hub.yaml and agent.yaml show every setting";
    match &error.kind {
        Kind::UnknownField(field, known) => {
            let key = below(field);
            let known = known.iter().copied().chain(also.iter().copied().filter(|_| top));
            let known: Vec<&str> = known.collect();
            let remedy = nearest(field, &known).map_or_else(
                || format!("known here: {}", known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            CliError::new("LS0004", format!("{}unknown key `{key}`", layers.place(&key)), remedy)
        }
        Kind::MissingField(field) => {
            let remedy = format!("set it in the file, or as LOCKSTEP_CONFIG__{}", field.to_ascii_uppercase());
            let key = below(field);
            CliError::new("LS0004", format!("the setting `{key}` is missing{}", layers.origin()), remedy)
        }
        _ if SECRET.iter().any(|secret| error.path.last().is_some_and(|last| last == secret)) => {
            let place = layers.place(&parents);
            CliError::new("LS0004", format!("{place}`{parents}` is not text"), "put it in quotes")
        }
        kind => CliError::new("LS0004", format!("{}`{parents}`: {kind}", layers.place(&parents)), all),
    }
}

/// The nearest of some names, when one is near enough to be meant.
fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = (typed.chars().count() / 3).max(1);
    let distances = known.iter().map(|name| (distance(typed, name), *name));
    distances.filter(|(distance, _)| *distance <= limit).min().map(|(_, name)| name)
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The line, from 1, where a key stands in block or flow style.
pub(super) fn key_line(text: &str, parts: &[&str]) -> Option<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let (mut from, mut found) = (0, None);
    for part in parts {
        let stands = |line: &&str| {
            let code = line.split(" #").next().unwrap_or_default();
            let trimmed = code.trim_start_matches([' ', '-', '{']);
            !trimmed.starts_with('#')
                && [format!("{part}:"), format!("\"{part}\":"), format!("'{part}':")].iter().any(|key| {
                    trimmed.starts_with(key)
                        || code.contains(&format!(" {key}"))
                        || code.contains(&format!("{{{key}"))
                })
        };
        let at = lines.iter().skip(from).position(stands)? + from;
        found = Some(at + 1);
        from = at;
    }
    found
}
