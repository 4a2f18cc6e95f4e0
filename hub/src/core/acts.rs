//! Acts: what was deleted together, worked out as tombstones are made and as namespaces and
//! definitions are told to go. `lockstep_engine::acts` decides; here are its book and what it is told.
//! Everything is derived from the store, so a restart changes nothing.

use lockstep_engine::acts::{self, ActKind, Book, Deleted, Life, Span};
use lockstep_engine::object::defined_kind;
use lockstep_engine::{ClusterId, GroupKind, Millis, ObjectKey, ResourceVersion, Uid};

use super::Core;
use super::containers::{definitions, is_custom, namespaces};
use crate::store::{ActRow, Cause, Kin, Lives, ObjectRow, Store, StoreError};

/// lockstep deletes for one policy at one target in one go as long as no more time than this passes
/// between two deletes: several waves, and an archive that is slow.
const IDLE_MS: i64 = 60_000;
/// How long an act without members is remembered: a watch that fails tells its deletes late.
const REMEMBERED_MS: i64 = 30 * 24 * 3_600_000;

/// What a delta tells of a namespace or definition.
pub(super) struct Turn<'a> {
    /// The watch that tells it.
    pub(super) watch: u32,
    /// Which.
    pub(super) key: &'a ObjectKey,
    /// What was known of it.
    pub(super) before: Option<&'a ObjectRow>,
    /// Whose state or end is told.
    pub(super) uid: &'a str,
    /// That state or end.
    pub(super) to: Turned,
    /// resourceVersion at which it was first seen deleting, where the agent says so.
    pub(super) since: &'a str,
}

/// What became of it.
pub(super) enum Turned {
    /// It is there at that resourceVersion.
    There { version: ResourceVersion, deleting: bool },
    /// It is gone; by that resourceVersion, where that is known.
    Gone { by: Option<u64> },
}

/// The acts of one cluster.
struct Acts<'a, S> {
    store: &'a mut S,
    cluster: ClusterId,
    now: Millis,
}

impl<S: Store> Book for Acts<'_, S> {
    type Error = StoreError;

    fn lives(&mut self, of: &Deleted) -> Result<Vec<Life>, StoreError> {
        let mut rows = self.store.lives(self.cluster, Lives::Of(&of.uid))?;
        if !of.key.namespace.is_empty() {
            rows.extend(self.store.lives(self.cluster, Lives::Namespace(&of.key.namespace))?);
        }
        if is_custom(&of.key.gk) {
            rows.extend(self.store.lives(self.cluster, Lives::Definition(&of.key.gk))?);
        }
        Ok(rows.into_iter().filter_map(life).collect())
    }

    fn with_uid(&mut self, uid: &Uid) -> Result<Vec<Deleted>, StoreError> {
        self.store.kin(self.cluster, Kin::Uid(uid))
    }

    fn dependents(&mut self, owner: &Uid) -> Result<Vec<Deleted>, StoreError> {
        self.store.kin(self.cluster, Kin::Owner(owner))
    }

    fn act(&mut self, id: i64) -> Result<Option<i64>, StoreError> {
        Ok(self.store.kin(self.cluster, Kin::Id(id))?.pop().and_then(|deleted| deleted.act))
    }

    fn is_rooted(&mut self, act: i64, root: &Deleted) -> Result<bool, StoreError> {
        let row = self.store.act(act)?.filter(|row| row.kind == ActKind::Owner && !row.over);
        Ok(row.and_then(|row| row.root).is_some_and(|(_, uid)| uid == root.uid))
    }

    fn open(&mut self, root: &Deleted) -> Result<i64, StoreError> {
        let root = Some((root.key.clone(), root.uid.clone()));
        let row = ActRow { root, ..fresh(self.cluster, ActKind::Owner, self.now) };
        self.store.create_act(&row, self.now.saturating_sub(REMEMBERED_MS))
    }

    fn assign(&mut self, id: i64, act: Option<i64>) -> Result<(), StoreError> {
        self.store.set_act(id, act)
    }
}

fn fresh(cluster: ClusterId, kind: ActKind, now: Millis) -> ActRow {
    ActRow {
        id: 0,
        cluster,
        kind,
        root: None,
        contents: None,
        policy: None,
        began: None,
        ended: None,
        over: false,
        started_at: now,
        last_at: now,
        members: 0,
    }
}

fn life(row: ActRow) -> Option<Life> {
    let kind = matches!(row.kind, ActKind::Namespace | ActKind::Definition).then_some(row.kind)?;
    let (_, uid) = row.root?;
    Some(Life { act: row.id, kind, uid, began: row.began.unwrap_or(0), ended: row.ended })
}

impl<S: Store> Core<S> {
    fn acts(&mut self, cluster: ClusterId, now: Millis) -> Acts<'_, S> {
        Acts { store: &mut self.store, cluster, now }
    }

    /// A tombstone was made, or its delete was carried out: it joins what deleted it.
    pub(super) fn join_act(&mut self, id: ClusterId, tombstone: i64, now: Millis) -> Result<(), StoreError> {
        match self.store.kin(id, Kin::Id(tombstone))?.pop() {
            Some(deleted) => acts::joined(&mut self.acts(id, now), deleted),
            None => Ok(()),
        }
    }

    /// The delete that a tombstone was made for was carried out.
    pub(super) fn carried_out(&mut self, tombstone: i64, now: Millis) -> Result<(), StoreError> {
        self.store.set_deleted(tombstone, true)?;
        let Some(row) = self.store.tombstone(tombstone)? else { return Ok(()) };
        if let (Cause::Lockstep { policy }, None) = (&row.cause, row.facts.act) {
            let open = self.store.lives(row.cluster, Lives::Lockstep(policy))?.pop();
            let act = match open.filter(|act| now.saturating_sub(act.last_at) <= IDLE_MS) {
                Some(act) => act.id,
                None => {
                    let act = fresh(row.cluster, ActKind::Lockstep, now);
                    let act = ActRow { policy: Some(policy.clone()), ..act };
                    self.store.create_act(&act, now.saturating_sub(REMEMBERED_MS))?
                }
            };
            self.store.set_act(tombstone, Some(act))?;
            self.store.touch_act(act, now)?;
        }
        self.join_act(row.cluster, tombstone, now)
    }

    /// A namespace or definition was told of: what is in it, or was, may have gone with it.
    pub(super) fn turned(&mut self, id: ClusterId, turn: &Turn<'_>, now: Millis) -> Result<(), StoreError> {
        let Some(watch) = self.clusters.get(&id).and_then(|cluster| cluster.watches.get(&turn.watch)) else {
            return Ok(());
        };
        // Of an end that shows only after a rewind versions say nothing.
        if watch.row.rewound {
            return Ok(());
        }
        let (live, reached) = (watch.is_live(), watch.row.checkpoint.ordinal().unwrap_or(0));
        let after =
            |row: &ObjectRow| row.resource_version.ordinal().unwrap_or(0).max(reached).saturating_add(1);
        if let Some(former) = turn.before.filter(|row| row.uid.as_str() != turn.uid) {
            let by = match &turn.to {
                Turned::There { version, .. } => version.ordinal(),
                Turned::Gone { by } => *by,
            };
            self.life(id, turn.key, &former.uid, after(former), Some(by), now)?;
        }
        let same = turn.before.filter(|row| row.uid.as_str() == turn.uid);
        let uid = Uid::new(turn.uid);
        // While a watch follows its events, the first that shows it deleting tells when that began.
        let told = ResourceVersion::new(turn.since).ordinal().filter(|_| live);
        let earliest = same.map_or_else(|| reached.saturating_add(1), after);
        match &turn.to {
            Turned::There { deleting: false, .. } => Ok(()),
            Turned::There { version, .. } => {
                let began = told.or_else(|| version.ordinal().filter(|_| live)).unwrap_or(earliest);
                self.life(id, turn.key, &uid, began, None, now)
            }
            Turned::Gone { by } => {
                let began = told.unwrap_or(earliest);
                self.life(id, turn.key, &uid, began, Some(*by), now)
            }
        }
    }

    /// Notes that the delete of a namespace or definition began, and whether it ended, by that
    /// resourceVersion where it is known; and looks at what that may concern. What was noted first of
    /// its beginning is nearest.
    fn life(
        &mut self,
        id: ClusterId,
        key: &ObjectKey,
        uid: &Uid,
        began: u64,
        ended: Option<Option<u64>>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let by = ended.flatten();
        let known = self
            .store
            .lives(id, Lives::Of(uid))?
            .into_iter()
            .find(|row| matches!(row.kind, ActKind::Namespace | ActKind::Definition));
        let (contents, since) = match known {
            Some(row) if ended.is_none() || row.ended.is_some() => return Ok(()),
            Some(row) => {
                self.store.end_life(row.id, by)?;
                (row.contents, by.unwrap_or(u64::MAX))
            }
            None => {
                let contents = if key.gk == definitions() { self.defined(id, key)? } else { None };
                let kind = if key.gk == namespaces() { ActKind::Namespace } else { ActKind::Definition };
                let act = ActRow {
                    root: Some((key.clone(), uid.clone())),
                    contents: contents.clone(),
                    began: Some(began),
                    ended: by,
                    ..fresh(id, kind, now)
                };
                self.store.create_act(&act, now.saturating_sub(REMEMBERED_MS))?;
                (contents, began)
            }
        };
        let mut inside = match &contents {
            Some(gk) => self.store.kin(id, Kin::Kind(gk, since))?,
            None if key.gk == namespaces() => self.store.kin(id, Kin::Namespace(&key.name, since))?,
            None => Vec::new(),
        };
        inside.extend(self.store.kin(id, Kin::Uid(uid))?);
        acts::turned(&mut self.acts(id, now), inside)
    }

    /// The kind that a definition defines: as discovery told it, else as it says itself.
    fn defined(&mut self, id: ClusterId, key: &ObjectKey) -> Result<Option<GroupKind>, StoreError> {
        let served = self.clusters.get(&id).and_then(|cluster| cluster.served.as_ref());
        let named = served.into_iter().flatten().find(|(gk, kind)| {
            key.name
                .split_once('.')
                .is_some_and(|(plural, group)| kind.plural == plural && *gk.group == *group)
        });
        if let Some((gk, _)) = named {
            return Ok(Some(gk.clone()));
        }
        let body = self.store.object(id, key)?.and_then(|row| row.body);
        Ok(body.and_then(|body| defined_kind(&body)))
    }
}

/// When an object ended that was last seen as `row`, and gone by that resourceVersion.
pub(super) fn ended_by(row: &ObjectRow, by: &str) -> Option<Span> {
    Span::between(&row.resource_version, &ResourceVersion::new(by)).filter(|_| row.unseen.is_none())
}
