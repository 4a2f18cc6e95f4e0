//! What tombstones are found by beside the columns of their own: the tables `tombstone_labels` and
//! `tombstone_words`.
//!
//! Both are walked from the newest tombstone on, so that a filter which much matches ends as soon as
//! enough is found, and one that nothing matches looks at nothing.

use lockstep_engine::selector::{LabelSelector, Operator, Requirement};
use rusqlite::types::Value;
use rusqlite::{Connection, params};

use super::row::execute;
use crate::redact::{LAST_APPLIED, is_secret};
use crate::store::{StoreError, TombstoneRow};

/// Bytes of text that one tombstone is found by at most: a large object is found by its beginning.
const TEXT_MAX: usize = 16_384;
/// Of one string in it: what is longer is no text that somebody types.
const STRING_MAX: usize = 512;
/// Deeper is nobody's text.
const DEPTH_MAX: usize = 40;

/// Puts a tombstone where labels and words lead to it.
pub(super) fn put(db: &Connection, id: i64, row: &TombstoneRow) -> Result<(), StoreError> {
    for (label, value) in &row.facts.labels {
        let sql = "INSERT OR REPLACE INTO tombstone_labels (label, tombstone, value) VALUES (?1, ?2, ?3)";
        execute(db, sql, params![label, id, value])?;
    }
    let sql = "INSERT INTO tombstone_words (rowid, words) VALUES (?1, ?2)";
    execute(db, sql, params![id, words(row)])?;
    Ok(())
}

/// Takes it away from there.
pub(super) fn delete(db: &Connection, id: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM tombstone_labels WHERE tombstone = ?1 AND label IN \
               (SELECT key FROM tombstones, json_each(tombstones.labels) WHERE tombstones.id = ?1)";
    execute(db, sql, [id])?;
    execute(db, "DELETE FROM tombstone_words WHERE rowid = ?1", [id])?;
    Ok(())
}

/// Its text: names and labels; of what is not kept secret, every string of the object.
fn words(row: &TombstoneRow) -> String {
    let mut text = format!("{} {} {}", row.key.name, row.key.namespace, row.key.gk.kind);
    for (label, value) in &row.facts.labels {
        add(&mut text, label);
        add(&mut text, value);
    }
    let withheld = row.facts.sealed || is_secret(&row.key.gk.group, &row.key.gk.kind);
    let body = row.body.as_deref().filter(|_| !withheld);
    if let Some(body) = body.and_then(|body| serde_json::from_slice(body).ok()) {
        collect(&mut text, &body, DEPTH_MAX);
    }
    text
}

fn collect(text: &mut String, value: &serde_json::Value, depth: usize) {
    if depth == 0 || text.len() >= TEXT_MAX {
        return;
    }
    match value {
        serde_json::Value::String(string) => add(text, string),
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(text, item, depth - 1)),
        serde_json::Value::Object(members) => {
            // A copy of the whole object says nothing more.
            for (name, member) in members.iter().filter(|(name, _)| *name != LAST_APPLIED) {
                add(text, name);
                collect(text, member, depth - 1);
            }
        }
        _ => {}
    }
}

fn add(text: &mut String, string: &str) {
    if text.len() < TEXT_MAX {
        let end = string.floor_char_boundary(STRING_MAX);
        text.push('\n');
        text.push_str(&string[..end]);
    }
}

/// Where a listing begins, and in which order it goes.
pub(super) struct Way {
    /// Rest of the statement after FROM, up to the first condition.
    pub(super) from: String,
    /// What it is ordered by.
    pub(super) order: &'static str,
    /// Values of its marks.
    pub(super) values: Vec<Value>,
}

/// The way to the tombstones with these words and labels; of all of them where neither is asked for.
pub(super) fn way(text: Option<&str>, selector: &LabelSelector) -> Way {
    let mut wanted: Vec<Requirement> = selector.match_expressions.iter().cloned().collect();
    wanted.extend(selector.match_labels.iter().map(|(key, value)| Requirement {
        key: key.clone(),
        operator: Operator::In,
        values: [value.clone()].into(),
    }));
    // What must be there leads the way, what must not be there cannot.
    wanted.sort_by_key(|requirement| (requirement.operator, requirement.values.len()));
    let leads = wanted.first().is_some_and(|first| matches!(first.operator, Operator::In | Operator::Exists));
    let mut way = if let Some(text) = text {
        let from = "tombstone_words CROSS JOIN tombstones ON tombstones.id = tombstone_words.rowid \
                    WHERE tombstone_words MATCH ?";
        let values = vec![Value::Text(phrase(text))];
        Way { from: from.to_owned(), order: "tombstone_words.rowid DESC", values }
    } else if leads {
        let from = "tombstone_labels AS l CROSS JOIN tombstones ON tombstones.id = l.tombstone WHERE true";
        Way { from: from.to_owned(), order: "l.tombstone DESC", values: Vec::new() }
    } else {
        Way {
            from: "tombstones WHERE true".to_owned(),
            order: "deleted_at DESC, id DESC",
            values: Vec::new(),
        }
    };
    for (n, requirement) in wanted.into_iter().enumerate() {
        let led = n == 0 && leads && text.is_none();
        way.require(requirement, led);
    }
    way
}

impl Way {
    fn require(&mut self, requirement: Requirement, led: bool) {
        let Requirement { key, operator, values } = requirement;
        let alias = if led { "l" } else { "x" };
        let mut condition = format!("{alias}.label = ?");
        self.values.push(Value::Text(key));
        if matches!(operator, Operator::In | Operator::NotIn) {
            let marks = vec!["?"; values.len()].join(", ");
            condition.push_str(&format!(" AND {alias}.value IN ({marks})"));
            self.values.extend(values.into_iter().map(Value::Text));
        }
        let not = if matches!(operator, Operator::NotIn | Operator::DoesNotExist) { "NOT " } else { "" };
        if led {
            self.from.push_str(&format!(" AND {condition}"));
        } else {
            self.from.push_str(&format!(
                " AND {not}EXISTS (SELECT 1 FROM tombstone_labels AS x \
                 WHERE x.tombstone = tombstones.id AND {condition})"
            ));
        }
    }
}

/// The words one after the other; a `*` behind them stands for the rest of the last one.
fn phrase(text: &str) -> String {
    let (words, rest) = match text.trim_end().strip_suffix('*') {
        Some(words) => (words, " *"),
        None => (text, ""),
    };
    format!("\"{}\"{rest}", words.replace('"', "\"\""))
}
