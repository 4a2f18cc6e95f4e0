//! What a hub asks for and may not read.

use super::*;

/// Everything but Secrets, and nothing of the cluster's own namespaces.
fn default() -> Reading {
    let rule = ReadRule { kinds: [KindRule::All].into(), namespaces: [NamespaceRule::All].into() };
    Reading { rules: vec![rule], protected: BTreeSet::from(["agents".to_owned()]) }
}

fn asking(kind: &str, namespaces: &[&str]) -> Interest {
    let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
    let condition = Condition { namespaces, ..Condition::default() };
    Interest { conditions: BTreeSet::from([condition]), ..Interest::of_keys(GroupKind::new("", kind), "") }
}

#[test]
fn i16_a_hub_that_asks_for_more_than_it_may_read_gets_nothing() {
    for (kind, namespaces) in [
        ("Secret", &[][..]),
        ("Secret", &["shop"]),
        ("ConfigMap", &["kube-system"]),
        ("ConfigMap", &["agents"]),
    ] {
        let mut rig = Rig::reading(bounds(), default());
        let asked = asking(kind, namespaces);
        rig.interests(&[(1, &asked)]).resume(1, "", &asked, &[]);
        assert_eq!(rig.starts(), [], "{kind} in {namespaces:?}");
        assert_eq!(phase(rig.sections().last().unwrap()), Some((WatchPhase::Failing, "NotAccepted")));
        assert!(!rig.owner.awaits_kinds(), "there is nothing to look for");
    }
}

#[test]
fn i16_what_is_cut_to_what_may_be_read_is_watched() {
    let reading = default();
    for (kind, namespaces) in
        [("Secret", &[][..]), ("ConfigMap", &["shop", "kube-system"]), ("ConfigMap", &[])]
    {
        let mut rig = Rig::reading(bounds(), default());
        let cut = reading.cut(&asking(kind, namespaces));
        rig.interests(&[(1, &cut)]).resume(1, "", &cut, &[]);
        assert_eq!(rig.starts().len(), 1, "{kind} in {namespaces:?}");
    }
}

#[test]
fn i16_an_interest_that_grows_beyond_what_may_be_read_ends_the_watch_and_concludes_nothing() {
    let mut rig = Rig::reading(bounds(), default());
    rig.listing(&asking("ConfigMap", &["shop"]), &[("a", 1, "prod")]);
    assert_eq!(rig.told(), ["+a"]);
    rig.take_effects();
    rig.interests(&[(1, &asking("ConfigMap", &["shop", "kube-system"]))]);
    let effects = rig.take_effects();
    assert!(matches!(effects.as_slice(), [Effect::Stop { watch: 1 }]), "{effects:?}");
    let sections = rig.sections();
    assert_eq!(phase(sections.last().unwrap()), Some((WatchPhase::Failing, "NotAccepted")));
    assert!(sections.iter().all(|section| section.items.is_empty()), "{sections:?}");
}
