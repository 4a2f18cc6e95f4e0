use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn seen(uid: &str, version: u64) -> Seen<'_> {
    Seen {
        uid,
        resource_version: ResourceVersion::new(&version.to_string()),
        digest: [0; 16],
        flags: Flags::default(),
    }
}

#[test]
fn an_entry_stays_small() {
    assert!(size_of::<Entry>() <= 64, "{}", size_of::<Entry>());
    // Key and entry in a tree node filled in order (6 of 11), beside the name's own bytes and the
    // allocator's rounding of at most 16.
    let per_key = (size_of::<Entry>() + size_of::<Box<str>>()) * 11 / 6;
    assert!(per_key <= 150, "{per_key}");
}

#[test]
fn uids_and_versions_come_back_as_they_were() {
    let texts =
        ["3fa85f64-5717-4562-b3fc-2c963f66afa6", "3FA85F64-5717-4562-B3FC-2C963F66AFA6", "x", "", "ä-"];
    for text in texts {
        assert_eq!(PackedUid::new(text).uid().as_str(), text);
    }
    for text in ["0", "7", "007", "opaque", "18446744073709551615", "18446744073709551616", "+1"] {
        let version = ResourceVersion::new(text);
        assert_eq!(PackedVersion::new(&version).version(), version);
    }
}

#[test]
fn i5_a_uid_change_under_one_name_is_a_delete_and_a_create() {
    let mut index = KeyIndex::new();
    assert_eq!(index.observe("n", "a", &seen("u1", 1)), Change::Created);
    let Change::Recreated { gone } = index.observe("n", "a", &seen("u2", 2)) else { panic!("not recreated") };
    assert_eq!((gone.last.uid().as_str(), gone.how), ("u1", Delete::Inferred));
    assert_eq!(index.delete("n", "a", "u1"), None, "the old one's DELETED must not take the new one");
    assert_eq!(index.delete("n", "a", "u2").map(|gone| gone.how), Some(Delete::Observed));
    assert!(index.is_empty());
}

#[test]
fn i3_nothing_is_concluded_from_an_incomplete_or_inconclusive_list() {
    let mut index = KeyIndex::new();
    index.observe("n", "a", &seen("u", 1));
    assert!(index.complete(0, Absence::Conclusive).is_err(), "no list had begun");
    index.begin(1);
    index.begin(2);
    assert_eq!(
        index.complete(1, Absence::Conclusive),
        Err(Inconclusive::OtherEpoch { ended: 1, current: 2 })
    );
    assert!(index.complete(2, Absence::Rewound).is_err());
    assert_eq!(index.unseen().count(), 1);
    index.begin(3);
    assert!(index.complete(3, Absence::Undecodable(1)).is_err());
    assert_eq!(index.len(), 1);
    index.begin(4);
    assert_eq!(index.complete(4, Absence::Conclusive).map(|gone| gone.len()), Ok(1));
    assert!(index.complete(4, Absence::Conclusive).is_err(), "a list completes once");
}

#[test]
fn i3_what_a_list_after_a_rewind_lacks_is_taken_out_and_not_called_gone() {
    let mut index = KeyIndex::new();
    for name in ["a", "lost"] {
        index.observe("n", name, &seen(name, 1));
    }
    index.begin(5);
    index.observe("n", "a", &seen("a", 1));
    assert_eq!(
        index.take_unseen(4).map(|unseen| unseen.len()),
        Err(Inconclusive::OtherEpoch { ended: 4, current: 5 })
    );
    let unseen = index.take_unseen(5).unwrap();
    let [Unseen { name, last, .. }] = unseen.as_slice() else { panic!("{unseen:?}") };
    assert_eq!((&**name, last.uid().as_str()), ("lost", "lost"));
    assert_eq!(index.len(), 1);
    assert!(index.take_unseen(5).is_err(), "a list completes once");
}

#[test]
fn namespaces_are_walked_in_order_and_those_emptied_are_not_forgotten() {
    let mut index = KeyIndex::new();
    for (namespace, name) in [("b", "1"), ("b", "2"), ("a", "1"), ("c", "1")] {
        index.observe(namespace, name, &seen("u", 1));
    }
    let walk = |index: &KeyIndex| {
        let mut found: Vec<(String, usize)> = Vec::new();
        while let Some((name, count)) = index.namespace_after(found.last().map(|(name, _)| name.as_str())) {
            found.push((name.to_owned(), count));
        }
        found.into_iter().map(|(name, count)| format!("{name}{count}")).collect::<String>()
    };
    assert_eq!(walk(&index), "a1b2c1");
    index.delete("a", "1", "u");
    index.begin(1);
    index.observe("b", "1", &seen("u", 1));
    index.complete(1, Absence::Conclusive).unwrap();
    assert_eq!(walk(&index), "a0b1c0");
    index.forget_empty("a");
    index.forget_empty("b");
    index.observe("c", "3", &seen("u", 1));
    assert_eq!(walk(&index), "b1c1");
    index.delete("c", "3", "u");
    index.forget_all_empty();
    assert_eq!(walk(&index), "b1");
    assert_eq!(index.namespace("b").map(|(name, _)| name).collect::<String>(), "1");
}

type Model = BTreeMap<(String, String), (String, u64)>;

fn objects() -> impl Strategy<Value = Model> {
    let key = ("[ab]?", "[a-f]");
    let object = ("[uv]", 1_u64..4);
    proptest::collection::btree_map(key, object, 0..12)
}

proptest! {
    /// Whatever was listed before an interruption, the next complete list leaves the index equal to
    /// the server, and the deltas equal to a set difference.
    #[test]
    fn an_interrupted_relist_equals_a_set_difference(
        known in objects(),
        partial in objects(),
        listed in objects(),
        cut in 0_usize..12,
    ) {
        let mut index = KeyIndex::new();
        for ((namespace, name), (uid, version)) in &known {
            index.observe(namespace, name, &seen(uid, *version));
        }
        let mut before = known;
        index.begin(1);
        for ((namespace, name), (uid, version)) in partial.iter().take(cut) {
            index.observe(namespace, name, &seen(uid, *version));
            before.insert((namespace.clone(), name.clone()), (uid.clone(), *version));
        }
        prop_assert!(index.complete(0, Absence::Conclusive).is_err());
        index.begin(2);
        for ((namespace, name), (uid, version)) in &listed {
            let change = index.observe(namespace, name, &seen(uid, *version));
            let expected = match before.get(&(namespace.clone(), name.clone())) {
                None => "created",
                Some((old, _)) if old != uid => "recreated",
                Some((_, old)) if old != version => "updated",
                Some(_) => "unchanged",
            };
            let got = match change {
                Change::Created => "created",
                Change::Recreated { .. } => "recreated",
                Change::Updated { .. } => "updated",
                Change::Unchanged => "unchanged",
            };
            prop_assert_eq!(got, expected);
        }
        let gone = index.complete(2, Absence::Conclusive).unwrap();
        let gone: Vec<_> = gone.iter().map(|g| (g.namespace.to_string(), g.name.to_string())).collect();
        let missing: Vec<_> = before.keys().filter(|key| !listed.contains_key(*key)).cloned().collect();
        prop_assert_eq!(gone, missing);
        let now: Model = index
            .iter()
            .map(|(namespace, name, entry)| {
                let version = entry.resource_version().ordinal().unwrap();
                ((namespace.to_owned(), name.to_owned()), (entry.uid().as_str().to_owned(), version))
            })
            .collect();
        prop_assert_eq!(index.len(), now.len());
        prop_assert_eq!(now, listed);
    }
}
