//! Acts, one by one; and that the order in which things are told does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::GroupKind;

/// What is known of one cluster, in memory.
#[derive(Debug, Default)]
struct Memory {
    deleted: BTreeMap<i64, Deleted>,
    lives: Vec<(String, Life)>,
    owners: BTreeMap<i64, Uid>,
    next: i64,
}

impl Memory {
    fn next(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn join(&mut self, deleted: &Deleted) {
        self.deleted.insert(deleted.id, deleted.clone());
        let Ok(()) = joined(self, deleted.clone());
    }

    fn begin(&mut self, namespace: &str, uid: &str, began: u64) {
        let act = self.next();
        let life = Life { act, kind: ActKind::Namespace, uid: Uid::new(uid), began, ended: None };
        self.lives.push((namespace.to_owned(), life));
        self.turn(namespace, began);
    }

    fn end(&mut self, namespace: &str, uid: &str, ended: u64) {
        let (_, life) = self.lives.iter_mut().find(|(_, life)| life.uid.as_str() == uid).unwrap();
        life.ended = Some(ended);
        self.turn(namespace, ended);
    }

    fn turn(&mut self, namespace: &str, since: u64) {
        let concerns = |d: &&Deleted| {
            (&*d.key.namespace == namespace && d.ended.is_some_and(|ended| ended.to >= since))
                || (&*d.key.gk.kind == "Namespace" && &*d.key.name == namespace)
        };
        let inside = self.deleted.values().filter(concerns).cloned().collect();
        let Ok(()) = turned(self, inside);
    }

    /// Groups: the ids of those that are of one act, where there are several.
    fn groups(&self) -> BTreeSet<Vec<i64>> {
        let mut groups: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for deleted in self.deleted.values() {
            groups.entry(deleted.act.unwrap_or(-deleted.id)).or_default().push(deleted.id);
        }
        groups.into_values().filter(|members| members.len() > 1).collect()
    }
}

impl Book for Memory {
    type Error = Infallible;

    fn lives(&mut self, of: &Deleted) -> Result<Vec<Life>, Infallible> {
        let lives = self.lives.iter();
        let mine = lives.filter(|(name, life)| **name == *of.key.namespace || life.uid == of.uid);
        Ok(mine.map(|(_, life)| life.clone()).collect())
    }
    fn with_uid(&mut self, uid: &Uid) -> Result<Vec<Deleted>, Infallible> {
        Ok(self.deleted.values().filter(|d| d.uid == *uid).cloned().collect())
    }
    fn dependents(&mut self, owner: &Uid) -> Result<Vec<Deleted>, Infallible> {
        Ok(self.deleted.values().filter(|d| d.owner.as_ref() == Some(owner)).cloned().collect())
    }
    fn act(&mut self, id: i64) -> Result<Option<i64>, Infallible> {
        Ok(self.deleted[&id].act)
    }
    fn is_rooted(&mut self, act: i64, root: &Deleted) -> Result<bool, Infallible> {
        Ok(self.owners.get(&act) == Some(&root.uid))
    }
    fn open(&mut self, root: &Deleted) -> Result<i64, Infallible> {
        let act = self.next();
        self.owners.insert(act, root.uid.clone());
        Ok(act)
    }
    fn assign(&mut self, id: i64, act: Option<i64>) -> Result<(), Infallible> {
        self.deleted.get_mut(&id).unwrap().act = act;
        Ok(())
    }
}

fn gone(id: i64, namespace: &str, ended: Option<Span>) -> Deleted {
    Deleted {
        id,
        key: ObjectKey::new(GroupKind::new("", "ConfigMap"), namespace, &format!("o{id}")),
        uid: Uid::new(&format!("u{id}")),
        owner: None,
        ended,
        alive: ended.map_or(0, |ended| ended.from.saturating_sub(1)),
        by_lockstep: false,
        act: None,
    }
}

fn at(version: u64) -> Option<Span> {
    Some(Span { from: version, to: version })
}

fn owned(id: i64, owner: i64, version: u64) -> Deleted {
    Deleted { owner: Some(Uid::new(&format!("u{owner}"))), ..gone(id, "n", at(version)) }
}

fn check(groups: &[&[i64]], told: impl FnOnce(&mut Memory)) {
    let mut memory = Memory::default();
    told(&mut memory);
    assert_eq!(memory.groups(), groups.iter().map(|group| group.to_vec()).collect());
}

#[test]
fn what_ends_between_the_deletion_of_a_namespace_and_its_end_is_of_that_act() {
    let namespace = Deleted {
        key: ObjectKey::new(GroupKind::new("", "Namespace"), "", "n"),
        uid: Uid::new("n1"),
        ..gone(9, "", at(20))
    };
    check(&[&[2, 3, 4, 9]], |memory| {
        // By hand, before it.
        memory.join(&gone(1, "n", at(9)));
        // Told before the namespace.
        memory.join(&gone(2, "n", at(11)));
        memory.begin("n", "n1", 10);
        memory.join(&gone(3, "n", at(12)));
        memory.join(&gone(6, "other", at(13)));
        memory.join(&namespace);
        memory.end("n", "n1", 20);
        // A watch that is late; and another namespace of the name.
        memory.join(&gone(4, "n", at(19)));
        memory.join(&gone(5, "n", at(25)));
    });
}

#[test]
fn what_was_only_inferred_is_of_the_act_unless_it_is_known_to_have_ended_before() {
    check(&[&[2, 3]], |memory| {
        memory.join(&gone(1, "n", Some(Span { from: 3, to: 9 })));
        memory.join(&gone(2, "n", Some(Span { from: 3, to: 30 })));
        memory.begin("n", "n1", 10);
        memory.end("n", "n1", u64::MAX);
        memory.join(&gone(3, "n", Some(Span { from: 5, to: 30 })));
    });
}

#[test]
fn a_namespace_made_anew_begins_a_new_life() {
    check(&[&[1, 2], &[3, 4]], |memory| {
        memory.begin("n", "n1", 10);
        memory.join(&gone(1, "n", at(11)));
        memory.join(&gone(2, "n", at(12)));
        // Of the second one, whose news is late.
        memory.join(&gone(3, "n", at(31)));
        memory.end("n", "n1", 20);
        memory.begin("n", "n2", 30);
        memory.join(&gone(4, "n", at(32)));
        memory.join(&gone(5, "n", at(25)));
    });
}

#[test]
fn a_cascade_is_one_act_with_its_topmost_owner() {
    for order in [[1, 2, 3, 4], [4, 3, 2, 1], [3, 1, 4, 2], [2, 4, 1, 3]] {
        check(&[&[1, 2, 3, 4]], |memory| {
            for id in order {
                memory.join(&match id {
                    1 => gone(1, "n", at(10)),
                    2 => owned(2, 1, 11),
                    id => owned(id, 2, 11 + u64::try_from(id).unwrap()),
                });
            }
        });
    }
}

#[test]
fn a_dependent_that_went_before_its_owner_was_deleted_is_not_part_of_that() {
    check(&[&[1, 3]], |memory| {
        memory.join(&owned(2, 1, 8));
        memory.join(&Deleted { alive: 9, ..gone(1, "n", at(20)) });
        // Foreground: the owner waits for it.
        memory.join(&owned(3, 1, 12));
        // Orphaned: its last state names no owner.
        memory.join(&gone(4, "n", at(40)));
    });
}

#[test]
fn the_larger_act_takes_over_and_what_lockstep_deleted_stays_with_it() {
    let ours = |id, act| Deleted { by_lockstep: true, act: Some(act), ..gone(id, "n", None) };
    check(&[&[1, 2, 3], &[4, 5, 6]], |memory| {
        memory.join(&gone(1, "n", at(11)));
        memory.join(&owned(2, 1, 12));
        memory.begin("n", "n1", 10);
        memory.join(&gone(3, "n", at(13)));
        memory.join(&ours(4, 100));
        memory.join(&ours(5, 100));
        memory.join(&Deleted { key: gone(6, "m", None).key, ..owned(6, 5, 14) });
    });
}

#[test]
fn one_alone_is_no_group_and_what_nobody_deleted_is_in_none() {
    check(&[], |memory| {
        memory.begin("n", "n1", 10);
        memory.join(&gone(1, "n", at(11)));
        memory.join(&gone(2, "n", None));
        memory.join(&Deleted { owner: Some(Uid::new("u2")), ..gone(3, "m", at(9)) });
    });
    check(&[&[1, 2]], |memory| {
        // Owners that name each other.
        memory.join(&Deleted { owner: Some(Uid::new("u2")), alive: 0, ..gone(1, "n", at(11)) });
        memory.join(&Deleted { owner: Some(Uid::new("u1")), alive: 0, ..gone(2, "n", at(12)) });
    });
}

#[derive(Clone, Debug)]
enum Told {
    Joined(Deleted),
    Began(&'static str, String, u64),
    Ended(&'static str, String, u64),
}

/// Two lives of a namespace, and objects with owners among those of lower numbers.
fn soup() -> impl Strategy<Value = Vec<Told>> {
    let object = (
        0..40_u64,
        0..6_u64,
        any::<bool>(),
        0..3_usize,
        proptest::option::of(any::<prop::sample::Index>()),
        0..8_u8,
    );
    let objects = proptest::collection::vec(object, 1..12);
    let lives = proptest::collection::vec(1..12_u64, 4);
    (objects, lives, 0..5_usize).prop_map(|(objects, steps, turns)| {
        let mut told = Vec::new();
        for (n, (from, width, exact, namespace, owner, ours)) in objects.into_iter().enumerate() {
            let id = i64::try_from(n).unwrap() + 1;
            let span = Span { from, to: if exact { from } else { from + width } };
            let owner = owner.filter(|_| n > 0).map(|index| Uid::new(&format!("u{}", index.index(n) + 1)));
            let by_lockstep = ours == 0;
            told.push(Told::Joined(Deleted {
                owner,
                by_lockstep,
                act: by_lockstep.then_some(-1_000),
                ..gone(id, ["n", "m", ""][namespace], Some(span).filter(|_| !by_lockstep))
            }));
        }
        let mut version = 0;
        for (n, step) in steps.into_iter().enumerate().take(turns) {
            version += step;
            let uid = format!("n{}", n / 2);
            told.push(if n % 2 == 0 {
                Told::Began("n", uid, version)
            } else {
                Told::Ended("n", uid, version)
            });
        }
        told
    })
}

fn replay(told: &[Told]) -> BTreeSet<Vec<i64>> {
    let mut memory = Memory::default();
    for told in told {
        match told {
            Told::Joined(deleted) => memory.join(deleted),
            Told::Began(namespace, uid, at) => memory.begin(namespace, uid, *at),
            Told::Ended(namespace, uid, at) => memory.end(namespace, uid, *at),
        }
    }
    memory.groups()
}

proptest! {
    /// Each watch tells in order; between watches there is none.
    #[test]
    fn the_order_of_arrival_does_not_change_the_groups(
        (told, keys) in soup().prop_flat_map(|told| {
            let count = told.len();
            (Just(told), proptest::collection::vec(any::<u32>(), count))
        })
    ) {
        let (objects, turns): (Vec<Told>, Vec<Told>) =
            told.iter().cloned().partition(|told| matches!(told, Told::Joined(_)));
        let mut turns = turns.into_iter();
        let mut slots: Vec<(u32, Option<Told>)> = objects.into_iter().map(Some).zip(&keys).map(|(told, key)| (*key, told)).collect();
        slots.extend(keys.iter().skip(slots.len()).map(|key| (*key, None)));
        slots.sort_by_key(|(key, _)| *key);
        let shuffled: Vec<Told> =
            slots.into_iter().filter_map(|(_, told)| told.or_else(|| turns.next())).collect();
        prop_assert_eq!(shuffled.len(), told.len());
        prop_assert_eq!(replay(&told), replay(&shuffled), "{:?}", shuffled);
    }
}
