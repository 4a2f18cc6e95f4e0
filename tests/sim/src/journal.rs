//! What really happened to the objects of one cluster, by whom and when.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_engine::Millis;
use lockstep_tests::model::Changed;

use crate::objects::{Key, Kind};

/// Who made a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    User,
    /// Of namespaces and definitions.
    Controller,
    Agent,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) revision: u64,
    pub(crate) ms: Millis,
}

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) at: At,
    pub(crate) selected: bool,
    pub(crate) deleting: bool,
    pub(crate) content: String,
}

/// One object from creation to end: one uid.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) key: Key,
    pub(crate) by: Actor,
    pub(crate) states: Vec<State>,
    pub(crate) end: Option<(At, Actor)>,
    /// Somebody else than who made it wrote to it.
    pub(crate) touched: bool,
}

impl Life {
    pub(crate) fn latest(&self) -> Option<&State> {
        self.states.last()
    }

    /// The revision that made it.
    pub(crate) fn born(&self) -> u64 {
        self.states.first().map_or(0, |state| state.at.revision)
    }

    /// Was it ever not selected, once it had this content? Of what never had it: ever.
    pub(crate) fn unselected_since(&self, content: &str) -> bool {
        let known = self.states.iter().position(|state| state.content == content);
        self.states.iter().skip(known.unwrap_or(0)).any(|state| !state.selected)
    }

    /// The resourceVersion that it had at a revision, if it was there.
    pub(crate) fn version_at(&self, revision: u64) -> Option<u64> {
        if self.end.is_some_and(|(end, _)| end.revision <= revision) {
            return None;
        }
        self.states.iter().rev().find(|state| state.at.revision <= revision).map(|state| state.at.revision)
    }
}

/// The journal of one cluster. A copy of it goes with a snapshot of etcd.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    /// By uid.
    pub(crate) lives: BTreeMap<String, Life>,
    pub(crate) current: BTreeMap<Key, String>,
    /// Lives that a restore threw away, or their ends, or that they were unselected.
    pub(crate) lost: BTreeMap<String, Life>,
    /// Were unselected once, be it in a history that a restore threw away: their bodies need not be held any more.
    pub(crate) unselected: BTreeSet<String>,
    /// When it was restored.
    pub(crate) rewinds: Vec<Millis>,
    /// How often its history was forgotten.
    pub(crate) compactions: u32,
    revision: u64,
}

impl Journal {
    pub(crate) fn seen(&self) -> u64 {
        self.revision
    }

    pub(crate) fn absorb(&mut self, changes: Vec<Changed>, actor: Actor, now: Millis) {
        for changed in changes {
            self.revision = self.revision.max(changed.revision);
            let Some(kind) = Kind::of_table(&changed.table) else { continue };
            let key = Key { kind, namespace: changed.namespace, name: changed.name };
            let at = At { revision: changed.revision, ms: now };
            let Some(object) = changed.after else {
                self.current.remove(&key);
                if let Some(life) = self.lives.get_mut(&changed.uid) {
                    life.end = Some((at, actor));
                }
                continue;
            };
            let state = State {
                at,
                selected: object["metadata"]["labels"]["sync"] == "yes",
                deleting: !object["metadata"]["deletionTimestamp"].is_null(),
                content: kind.content(&object),
            };
            if !state.selected {
                self.unselected.insert(changed.uid.clone());
            }
            self.current.insert(key.clone(), changed.uid.clone());
            let new = || Life { key, by: actor, states: Vec::new(), end: None, touched: false };
            let life = self.lives.entry(changed.uid).or_insert_with(new);
            life.touched |= actor != life.by;
            life.states.push(state);
        }
    }

    pub(crate) fn live(&self, key: &Key) -> Option<(&String, &Life)> {
        let uid = self.current.get(key)?;
        Some((uid, self.lives.get(uid)?))
    }

    /// The cluster is as it was when `saved` was taken; its revisions go on from `revision`.
    pub(crate) fn restore(&mut self, saved: &Self, revision: u64, now: Millis) {
        let mut lost = std::mem::take(&mut self.lost);
        for (uid, life) in std::mem::take(&mut self.lives) {
            let parted = |before: &Life| {
                // A delete that follows an unselection may be under way.
                let since = life.states.get(before.states.len()..).unwrap_or_default();
                before.end.is_none() && (life.end.is_some() || since.iter().any(|state| !state.selected))
            };
            if saved.lives.get(&uid).is_none_or(parted) {
                lost.insert(uid, life);
            }
        }
        let unselected = std::mem::take(&mut self.unselected);
        let mut rewinds = std::mem::take(&mut self.rewinds);
        rewinds.push(now);
        // Of revisions before it no list tells.
        let compactions = self.compactions + 1;
        *self = Self { lost, unselected, rewinds, compactions, revision, ..saved.clone() };
    }
}
