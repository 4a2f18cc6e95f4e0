//! `spec.deletion`: durations, and what they are refused for.
#![allow(clippy::unwrap_used)]

use lockstep_policies::{Disposition, OnContainer, PolicySet, load};

use crate::common;

fn with(deletion: &str) -> String {
    let policy = common::policy("p", "a", "b", "{ kind: ConfigMap }");
    policy.replace("spec: {", &format!("spec: {{ deletion: {{ {deletion} }},"))
}

#[test]
fn durations_and_settings_are_read() {
    let text = with("gracePeriod: 90s, budget: { window: 2h }, containerDeleted: Delete");
    let deletion = common::good(&text).by_name("p").unwrap().spec.deletion;
    assert_eq!((deletion.grace_ms, deletion.budget.window_ms), (90_000, 7_200_000));
    assert_eq!(deletion.container_deleted, OnContainer::Delete);
    assert_eq!(deletion.adopted, Disposition::Orphan);
    let text = with("adopted: Delete");
    assert_eq!(common::good(&text).by_name("p").unwrap().spec.deletion.adopted, Disposition::Delete);
    for (text, millis) in [("0s", 0), ("500ms", 500), ("10m", 600_000), ("30d", 2_592_000_000)] {
        let set = common::good(&with(&format!("gracePeriod: {text}")));
        assert_eq!(set.by_name("p").unwrap().spec.deletion.grace_ms, millis);
    }
}

#[test]
fn a_bad_duration_is_an_error_with_its_place_and_remedy() {
    for (deletion, field, code, remedy) in [
        ("gracePeriod: 10 minutes", "gracePeriod", "LS0109", "as in 10m"),
        ("gracePeriod: -5s", "gracePeriod", "LS0109", "as in 10m"),
        ("gracePeriod: s", "gracePeriod", "LS0109", "as in 10m"),
        ("gracePeriod: 5", "gracePeriod", "LS0104", "in quotes"),
        ("gracePeriod: 31d", "gracePeriod", "LS0118", "0s to 30d"),
        ("gracePeriod: 99999999999999999999d", "gracePeriod", "LS0118", "0s to 30d"),
        ("budget: { window: 0s }", "budget.window", "LS0118", "1s to 30d"),
        ("containerDeleted: delete", "containerDeleted", "LS0109", "did you mean Delete?"),
    ] {
        let outcome = load(&PolicySet::default(), &[common::file("p.yaml", &with(deletion))], None);
        let [finding] = outcome.findings.as_slice() else { panic!("{deletion}: {:?}", outcome.findings) };
        assert_eq!(
            (finding.code.as_ref(), finding.field.as_str()),
            (code, format!("spec.deletion.{field}").as_str())
        );
        assert!(finding.remedy.contains(remedy) && finding.place.column > 1, "{finding}");
    }
}
