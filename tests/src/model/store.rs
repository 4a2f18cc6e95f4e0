//! What etcd is to an API server: objects by key, one counter of revisions, a history up to its compaction.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

/// Namespace (empty for cluster-scoped kinds) and name. Tables are listed in this order.
pub(crate) type Key = (String, String);

/// One state of an object.
#[derive(Debug)]
pub(crate) struct Stored {
    /// With its resourceVersion, in the version that it is stored in.
    pub(crate) value: Value,
    pub(crate) revision: u64,
    /// Its JSON, made when it is first needed and shared by all who watch.
    json: OnceLock<Bytes>,
    /// The same without apiVersion and kind.
    item: OnceLock<Bytes>,
}

impl Stored {
    fn new(mut value: Value, revision: u64) -> Arc<Self> {
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        Arc::new(Self { value, revision, json: OnceLock::new(), item: OnceLock::new() })
    }

    /// As an item of a list of a built-in kind: the list says apiVersion and kind.
    pub(crate) fn item(&self) -> Bytes {
        let make = || {
            let mut value = self.value.clone();
            if let Some(members) = value.as_object_mut() {
                members.remove("apiVersion");
                members.remove("kind");
            }
            value.to_string().into()
        };
        self.item.get_or_init(make).clone()
    }

    /// The object as JSON; `api_version` is the version that was asked for.
    pub(crate) fn json(&self, api_version: &str) -> Bytes {
        if self.value["apiVersion"] == api_version {
            return self.json.get_or_init(|| self.value.to_string().into()).clone();
        }
        let mut value = self.value.clone();
        value["apiVersion"] = api_version.into();
        value.to_string().into()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

/// One revision of a table.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    pub(crate) change: Change,
    pub(crate) key: Key,
    /// After the change; of a delete the state before it, with the revision of the delete.
    pub(crate) object: Arc<Stored>,
    /// Before the change.
    pub(crate) previous: Option<Arc<Stored>>,
}

/// The objects of one resource.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    objects: BTreeMap<Key, Arc<Stored>>,
    /// Events after the compaction, oldest first.
    history: VecDeque<Event>,
}

impl Table {
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Stored>> {
        self.objects.get(key)
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = (&Key, &Arc<Stored>)> {
        self.objects.iter()
    }

    pub(crate) fn all(&self) -> &BTreeMap<Key, Arc<Stored>> {
        &self.objects
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Events after a revision, oldest first.
    pub(crate) fn since(&self, revision: u64) -> impl Iterator<Item = &Event> {
        let from = self.history.partition_point(|event| event.revision <= revision);
        self.history.iter().skip(from)
    }

    /// The revision of the newest event, if one is remembered.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.history.back().map(|event| event.revision)
    }

    /// The revision of the event that is followed by `count` others.
    pub(crate) fn before_newest(&self, count: usize) -> Option<u64> {
        let at = self.history.len().checked_sub(count.saturating_add(1))?;
        self.history.get(at).map(|event| event.revision)
    }

    /// The objects as they were at a revision that is not compacted.
    pub(crate) fn at(&self, revision: u64) -> BTreeMap<Key, Arc<Stored>> {
        let mut objects = self.objects.clone();
        for event in self.history.iter().rev().take_while(|event| event.revision > revision) {
            match &event.previous {
                Some(previous) => objects.insert(event.key.clone(), Arc::clone(previous)),
                None => objects.remove(&event.key),
            };
        }
        objects
    }
}

/// All tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    tables: BTreeMap<String, Table>,
    revision: u64,
    compacted: u64,
}

impl Store {
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(crate) fn table(&self, name: &str) -> &Table {
        static NONE: Table = Table { objects: BTreeMap::new(), history: VecDeque::new() };
        self.tables.get(name).unwrap_or(&NONE)
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = (&String, &Table)> {
        self.tables.iter()
    }

    /// Writes an object.
    pub(crate) fn put(&mut self, table: &str, key: Key, value: Value) -> Arc<Stored> {
        self.revision += 1;
        let object = Stored::new(value, self.revision);
        let table = self.tables.entry(table.to_owned()).or_default();
        let previous = table.objects.insert(key.clone(), Arc::clone(&object));
        let change = if previous.is_some() { Change::Modified } else { Change::Added };
        let event = Event { revision: self.revision, change, key, object: Arc::clone(&object), previous };
        table.history.push_back(event);
        object
    }

    /// Takes an object away.
    pub(crate) fn delete(&mut self, table: &str, key: &Key) {
        let Some(table) = self.tables.get_mut(table) else { return };
        let Some(previous) = table.objects.remove(key) else { return };
        self.revision += 1;
        let object = Stored::new(previous.value.clone(), self.revision);
        let key = key.clone();
        let change = Change::Deleted;
        table.history.push_back(Event {
            revision: self.revision,
            change,
            key,
            object,
            previous: Some(previous),
        });
    }

    /// A revision in which none of these tables changes: other writes, as any cluster has.
    pub(crate) fn advance(&mut self, revisions: u64) {
        self.revision += revisions;
    }

    /// Forgets what was before a revision.
    pub(crate) fn compact(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision.min(self.revision));
        for table in self.tables.values_mut() {
            while table.history.front().is_some_and(|event| event.revision <= self.compacted) {
                table.history.pop_front();
            }
        }
    }
}
