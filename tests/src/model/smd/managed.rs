//! Who owns which fields: what an apply and every other write make of `managedFields`.
//!
//! A port of `merge.Updater` and of the chain of managers in the API server's `fieldmanager` (1.20).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::fields::{FieldSet, Step};
use super::schema::{Schema, TypeId};
use super::typed::{compare, field_set, joined, merge, remove, validate};

/// More entries of updates than this are merged, oldest first.
const MAX_UPDATERS: usize = 10;
/// Under which name they are merged.
const ANCIENT: &str = "ancient-changes";
/// Who owns what was there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// What nobody owns.
const STRIPPED: [&[&str]; 12] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// Of an entry. An applier has one whatever the version, an updater one per version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Manager {
    applies: bool,
    name: String,
    /// Empty for appliers.
    version: String,
}

impl Manager {
    pub(crate) fn applier(name: &str) -> Self {
        Self { applies: true, name: name.to_owned(), version: String::new() }
    }

    pub(crate) fn updater(name: &str, version: &str) -> Self {
        let name = if name.is_empty() { "unknown" } else { name };
        Self { applies: false, name: name.to_owned(), version: version.to_owned() }
    }

    /// As a conflict names it.
    fn text(&self) -> String {
        let name = Value::from(self.name.as_str());
        if self.applies { name.to_string() } else { format!("{name} using {}", self.version) }
    }
}

/// What one manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    set: FieldSet,
    version: String,
    /// RFC 3339, of the last change.
    time: Option<String>,
}

/// `metadata.managedFields`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Managed(BTreeMap<Manager, Owned>);

/// One conflict: who owns the field, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) manager: String,
    pub(crate) field: String,
}

/// Why an apply was refused.
#[derive(Debug)]
pub(crate) enum Refused {
    Conflicts(Vec<Conflict>),
    /// Answered with 500 and this text.
    Failed(String),
}

/// A type in its schema, with what an object of it is before anything is set.
#[derive(Clone, Copy)]
pub(crate) struct Typed<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) id: TypeId,
    pub(crate) version: &'a str,
    pub(crate) zero: &'a Value,
}

impl Managed {
    /// From a list of entries; nothing when it cannot be read.
    pub(crate) fn decode(entries: Option<&Value>) -> Option<Self> {
        let mut managed = Self::default();
        for entry in entries.and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            if text("fieldsType") != "FieldsV1" {
                return None;
            }
            let applies = text("operation") == "Apply";
            let version = text("apiVersion");
            let manager = if applies {
                Manager::applier(&text("manager"))
            } else {
                Manager { applies, name: text("manager"), version: version.clone() }
            };
            let set = match &entry["fieldsV1"] {
                Value::Null => FieldSet::default(),
                fields => FieldSet::decode(fields)?,
            };
            let time = entry["time"].as_str().map(str::to_owned);
            managed.0.insert(manager, Owned { set, version, time });
        }
        Some(managed)
    }

    /// As a list of entries; nothing when there are none.
    pub(crate) fn encode(&self) -> Option<Value> {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by(|(a, x), (b, y)| {
            let key =
                |m: &Manager, o: &Owned| (!m.applies, o.time.clone(), m.name.clone(), o.version.clone());
            key(a, x).cmp(&key(b, y))
        });
        let entries = entries.into_iter().map(|(manager, owned)| {
            let mut entry = json!({
                "manager": manager.name,
                "operation": if manager.applies { "Apply" } else { "Update" },
                "apiVersion": owned.version,
                "fieldsType": "FieldsV1",
                "fieldsV1": owned.set.encode(),
            });
            if let Some(time) = &owned.time {
                entry["time"] = time.as_str().into();
            }
            entry
        });
        let entries: Vec<Value> = entries.collect();
        (!entries.is_empty()).then_some(Value::Array(entries))
    }

    fn drop_empty(&mut self) {
        self.0.retain(|_, owned| !owned.set.is_empty());
    }

    /// The same owners of the same fields in the same versions; times do not count.
    fn same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().all(|(manager, owned)| {
                other.0.get(manager).is_some_and(|o| o.set == owned.set && o.version == owned.version)
            })
    }
}

/// Is it a wish to forget all owners: an empty list, or one empty entry?
fn is_reset(entries: Option<&Value>) -> bool {
    match entries.and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Takes the entries off an object.
pub(crate) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

fn put(object: &mut Value, managed: &Managed) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    match managed.encode() {
        Some(entries) => metadata.insert("managedFields".to_owned(), entries),
        None => metadata.remove("managedFields"),
    };
}

/// Takes what changed from all managers but one. Without force a change of what others own is a conflict.
fn settle(
    of: Typed<'_>,
    live: &Value,
    new: &Value,
    managed: &mut Managed,
    by: &Manager,
    force: bool,
) -> Result<super::typed::Comparison, Refused> {
    let compared = compare(of.schema, of.id, live, new);
    let changed = compared.modified.clone().union(&compared.added);
    let mut conflicts = Vec::new();
    for (manager, owned) in managed.0.iter().filter(|(manager, _)| *manager != by) {
        for field in owned.set.intersection(&changed).paths() {
            conflicts.push(Conflict { manager: manager.text(), field });
        }
    }
    if !force && !conflicts.is_empty() {
        return Err(Refused::Conflicts(conflicts));
    }
    for (_, owned) in managed.0.iter_mut().filter(|(manager, _)| *manager != by) {
        let taken = owned.set.intersection(&changed);
        owned.set = owned.set.difference(&taken).difference(&compared.removed);
    }
    managed.drop_empty();
    Ok(compared)
}

fn strip(managed: &mut Managed, manager: &Manager) {
    let mut stripped = FieldSet::default();
    for path in STRIPPED {
        let path: Vec<Step> = path.iter().map(|name| Step::Field((*name).to_owned())).collect();
        stripped.insert(&path);
    }
    if let Some(owned) = managed.0.get_mut(manager) {
        owned.set = owned.set.difference(&stripped);
    }
    managed.drop_empty();
}

/// Sets `managedFields` of an object that somebody wrote by other means than apply. `live` is what was there, or
/// nothing when it is being created. The field managers of an object that the types cannot follow are dropped.
pub(crate) fn updated(of: Typed<'_>, live: Option<&Value>, new: &mut Value, manager: &str, now: &str) {
    let sent = take(new);
    let reset = is_reset(sent.as_ref());
    let mut managed =
        if reset { Managed::default() } else { Managed::decode(sent.as_ref()).unwrap_or_default() };
    if managed.0.is_empty() && !reset {
        let entries = live.and_then(|live| live["metadata"].get("managedFields"));
        managed = Managed::decode(entries).unwrap_or_default();
    }
    // Who never was applied to is not followed.
    if managed.0.is_empty() && live.is_some() {
        return;
    }
    let mut before = live.unwrap_or(of.zero).clone();
    take(&mut before);
    let manager = Manager::updater(manager, of.version);
    if update(of, &before, new, &mut managed, &manager, now).is_ok() {
        cap(&mut managed);
        put(new, &managed);
    }
}

fn update(
    of: Typed<'_>,
    live: &Value,
    new: &Value,
    managed: &mut Managed,
    manager: &Manager,
    now: &str,
) -> Result<(), Refused> {
    for value in [live, new] {
        let errors = validate(of.schema, of.id, value);
        if !errors.is_empty() {
            return Err(Refused::Failed(joined(&errors)));
        }
    }
    let me = Manager::updater("current-operation", of.version);
    let compared = settle(of, live, new, managed, &me, true)?;
    let set = compared.modified.union(&compared.added).difference(&compared.removed);
    managed.0.insert(me.clone(), Owned { set, version: of.version.to_owned(), time: None });
    strip(managed, &me);
    let Some(mine) = managed.0.remove(&me) else { return Ok(()) };
    let former = managed.0.get(manager).cloned();
    let set = match &former {
        Some(former) => mine.set.union(&former.set),
        None => mine.set,
    };
    let time = match &former {
        Some(former) if former.set == set => former.time.clone(),
        _ => Some(now.to_owned()),
    };
    managed.0.insert(manager.clone(), Owned { set, version: of.version.to_owned(), time });
    Ok(())
}

fn cap(managed: &mut Managed) {
    let mut updaters: Vec<_> = managed.0.iter().filter(|(manager, _)| !manager.applies).collect();
    updaters.sort_by(|(a, x), (b, y)| (&x.time, a).cmp(&(&y.time, b)));
    let updaters: Vec<Manager> = updaters.into_iter().map(|(manager, _)| manager.clone()).collect();
    let mut count = updaters.len();
    let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
    for manager in updaters {
        if count <= MAX_UPDATERS {
            break;
        }
        let bucket = Manager::updater(ANCIENT, &manager.version);
        match first_of.get(&manager.version) {
            None => {
                first_of.insert(manager.version.clone(), manager);
            }
            Some(first) => {
                if !managed.0.contains_key(&bucket)
                    && let Some(owned) = managed.0.remove(first)
                {
                    managed.0.insert(bucket.clone(), owned);
                }
                if let (Some(owned), Some(old)) = (managed.0.remove(&manager), managed.0.remove(&bucket)) {
                    let merged = Owned { set: owned.set.clone().union(&old.set), ..owned };
                    managed.0.insert(bucket, merged);
                }
                count -= 1;
            }
        }
    }
}

/// Applies `config` to `live`: the object as it is to be, with its owners. `live` is nothing when it is created.
pub(crate) fn applied(
    of: Typed<'_>,
    live: Option<&Value>,
    config: &Value,
    manager: &str,
    force: bool,
    now: &str,
) -> Result<Value, Refused> {
    let mut live = live.unwrap_or(of.zero).clone();
    let entries = take(&mut live);
    let mut managed = Managed::decode(entries.as_ref()).ok_or_else(|| {
        Refused::Failed(
            "failed to decode managed fields: failed to convert managed fields from API".to_owned(),
        )
    })?;
    if managed.0.is_empty() {
        let first = Manager::updater(BEFORE_FIRST_APPLY, of.version);
        update(of, of.zero, &live, &mut managed, &first, now)?;
        cap(&mut managed);
    }
    for (value, what) in [(config, "patch"), (&live, "live")] {
        let errors = validate(of.schema, of.id, value);
        if !errors.is_empty() {
            return Err(Refused::Failed(format!(
                "failed to create typed {what} object: {}",
                joined(&errors)
            )));
        }
    }
    let former = managed.clone();
    let me = Manager::applier(manager);
    let merged = merge(of.schema, of.id, Some(&live), Some(config)).unwrap_or(Value::Null);
    let last = managed.0.get(&me).cloned();
    let set = field_set(of.schema, of.id, config);
    let time = last.as_ref().and_then(|last| last.time.clone());
    managed.0.insert(me.clone(), Owned { set, version: of.version.to_owned(), time });
    let new = match last.filter(|last| !last.set.is_empty()) {
        Some(last) => prune(of, merged, &managed, &last.set),
        None => merged,
    };
    let compared = settle(of, &live, &new, &mut managed, &me, force)?;
    strip(&mut managed, &me);
    let changed = !compared.is_same();
    if (changed || !managed.same(&former))
        && let Some(owned) = managed.0.get_mut(&me)
    {
        owned.time = Some(now.to_owned());
    }
    let mut out = if changed { new } else { live };
    put(&mut out, &managed);
    Ok(out)
}

/// Without what this manager applied before and does not any more, unless somebody else owns it.
fn prune(of: Typed<'_>, merged: Value, managed: &Managed, last: &FieldSet) -> Value {
    let pruned = remove(of.schema, of.id, &merged, last);
    let mut owned = FieldSet::default();
    for other in managed.0.values() {
        owned.extend(&other.set);
    }
    let all = field_set(of.schema, of.id, &merged);
    let kept = field_set(of.schema, of.id, &pruned).union(&owned);
    let pruned = remove(of.schema, of.id, &merged, &all.difference(&kept));
    // What was never applied, but hangs below something that was, stays.
    let left = field_set(of.schema, of.id, &pruned);
    let gone = all.difference(&left).intersection(last);
    remove(of.schema, of.id, &merged, &gone)
}
