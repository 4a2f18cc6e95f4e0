use super::*;
use crate::ownership::{Difference, DifferenceKind, Holder};

const D1: [u8; 32] = [1; 32];
const D2: [u8; 32] = [2; 32];
const O1: [u8; 16] = [1; 16];
const O2: [u8; 16] = [2; 16];

struct Case {
    source: Uid,
    uid: Uid,
    other: Uid,
}

impl Case {
    fn new() -> Self {
        Self { source: Uid::new("s1"), uid: Uid::new("u1"), other: Uid::new("u2") }
    }
    fn wish(&self) -> Wish<'_> {
        Wish::Present {
            source_uid: &self.source,
            desired: D1,
            source_deleting: false,
            obstacle: None,
            run_once: false,
            on_conflict: OnConflict::Fail,
            create_only: false,
        }
    }
    fn gone() -> Wish<'static> {
        Wish::Gone { why: "the source object was deleted", takes_others: false }
    }
    fn known(&self, marks: Marks<'static>, owned: OwnedView) -> Observed<'_> {
        Observed::Known(Known {
            uid: &self.uid,
            deleting: false,
            marks,
            owned,
            as_written: false,
            tracked: None,
        })
    }
    fn ours(&self) -> Observed<'_> {
        self.known(genuine("s1", D1), OwnedView::Digest(O1))
    }
    fn record(&self) -> Option<RecordView<'_>> {
        Some(RecordView {
            uid: Some(&self.uid),
            rendered: D1,
            owned: Some(O1),
            implicit: false,
            holds: Holds::AsAsked,
        })
    }
}

fn genuine(source_uid: &'static str, rendered: [u8; 32]) -> Marks<'static> {
    Marks::Genuine { source_uid, rendered, prevent_deletion: false }
}

fn input<'a>(wish: Wish<'a>, record: Option<RecordView<'a>>, observed: Observed<'a>) -> Input<'a> {
    Input {
        wish,
        record,
        observed,
        served: Some(true),
        paused: None,
        delete: DeleteProgress::Asking,
        grace: None,
        taken: Taken::default(),
        unanswered: false,
    }
}

fn check(input: &Input<'_>, act: Act, state: State, reason: &str) -> Decision {
    let decision = decide(input);
    assert_eq!(
        (decision.act, decision.status.state, decision.status.reason.as_str()),
        (act, state, reason),
        "{input:?}"
    );
    decision
}

const UNKNOWN: Observed<'static> = Observed::Unknown { reason: "Listing", message: "m" };

#[test]
fn i3_unknown_never_leads_to_an_act() {
    let c = Case::new();
    for wish in [c.wish(), Case::gone(), Wish::Left { reason: "PolicyRemoved", why: "w", release: true }] {
        for record in [None, c.record()] {
            for delete in [DeleteProgress::Asking, DeleteProgress::Granted, DeleteProgress::Archived] {
                let input = Input { delete, ..input(wish.clone(), record.clone(), UNKNOWN) };
                let act = decide(&input).act;
                assert!(matches!(act, Act::Rest | Act::Forget), "{input:?}: {act:?}");
                assert!(act == Act::Rest || record.is_none());
            }
        }
    }
    let unknown = Wish::Unknown { reason: "SourceUnknown", message: "m" };
    check(&input(unknown, c.record(), c.ours()), Act::Rest, State::Unknown, "SourceUnknown");
}

#[test]
fn absent_is_created_and_in_step_rests() {
    let c = Case::new();
    check(&input(c.wish(), None, Observed::Absent), Act::Create, State::Pending, "Creating");
    check(&input(c.wish(), c.record(), c.ours()), Act::Rest, State::InStep, "InStep");
}

#[test]
fn i8_after_executing_nothing_is_planned() {
    let c = Case::new();
    let done = RecordView { rendered: D1, owned: Some(O2), ..c.record().unwrap() };
    let observed = c.known(genuine("s1", D1), OwnedView::Digest(O2));
    check(&input(c.wish(), Some(done), observed), Act::Rest, State::InStep, "InStep");
}

#[test]
fn a_change_at_the_source_updates_and_a_change_of_owned_fields_is_set_back() {
    let c = Case::new();
    let old = RecordView { rendered: D2, ..c.record().unwrap() };
    check(&input(c.wish(), Some(old), c.ours()), Act::Update, State::Pending, "Updating");
    let drifted = c.known(genuine("s1", D1), OwnedView::Digest(O2));
    check(&input(c.wish(), c.record(), drifted), Act::Update, State::Pending, "Drifted");
}

#[test]
fn i8_what_our_own_write_left_and_what_cannot_be_compared_is_not_written_again() {
    let c = Case::new();
    for owned in [OwnedView::NoEntry, OwnedView::OtherVersion, OwnedView::Digest(O2)] {
        let Observed::Known(known) = c.known(genuine("s1", D1), owned) else { unreachable!() };
        let observed = Observed::Known(Known { as_written: true, ..known });
        check(&input(c.wish(), c.record(), observed), Act::Rest, State::InStep, "InStep");
    }
    let stripped = c.known(genuine("s1", D1), OwnedView::NoEntry);
    check(&input(c.wish(), c.record(), stripped), Act::Update, State::Pending, "Drifted");
}

#[test]
fn a_copy_that_a_tool_tracks_is_neither_written_nor_deleted() {
    const TOOL: &str = "Argo CD (argocd.argoproj.io/instance=shop)";
    let c = Case::new();
    let Observed::Known(known) = c.ours() else { unreachable!() };
    let tracked = || Observed::Known(Known { tracked: Some(TOOL), ..known.clone() });
    let old = RecordView { rendered: D2, ..c.record().unwrap() };
    for record in [c.record(), Some(old)] {
        let decision = check(&input(c.wish(), record, tracked()), Act::Rest, State::Conflict, TRACKED);
        assert!(decision.status.message.contains(TOOL), "{decision:?}");
    }
    let asked = Input { delete: DeleteProgress::Archived, ..input(Case::gone(), c.record(), tracked()) };
    check(&asked, Act::Rest, State::Conflict, TRACKED);
    // To let go of it takes nothing from the tool.
    assert_eq!(decide(&input(Wish::Release, c.record(), tracked())).act, Act::Release);
}

#[test]
fn what_is_not_ours_is_a_conflict_and_forged_marks_change_nothing() {
    let c = Case::new();
    for (marks, reason) in [
        (Marks::Absent, "Exists"),
        (Marks::Forged, "ForgedMarks"),
        (Marks::ForeignHub, "ForeignHub"),
        (genuine("other-source", D1), "OtherSource"),
    ] {
        let observed = c.known(marks, OwnedView::Digest(O1));
        check(&input(c.wish(), None, observed.clone()), Act::Rest, State::Conflict, reason);
        check(&input(Case::gone(), None, observed), Act::Forget, State::InStep, "NeverWritten");
    }
}

#[test]
fn only_what_nobody_marked_is_adopted_and_only_where_the_policy_says_so() {
    let c = Case::new();
    let replaced = RecordView { uid: Some(&c.other), ..c.record().unwrap() };
    for mode in [OnConflict::AdoptIfEqual, OnConflict::TakeOver] {
        let Wish::Present { source_uid, desired, .. } = c.wish() else { unreachable!() };
        let wish = Wish::Present {
            source_uid,
            desired,
            source_deleting: false,
            obstacle: None,
            run_once: false,
            on_conflict: mode,
            create_only: false,
        };
        let observed = |marks| c.known(marks, OwnedView::NoEntry);
        for record in [None, Some(replaced.clone())] {
            let input = input(wish.clone(), record, observed(Marks::Absent));
            check(&input, Act::Adopt, State::Pending, "Adopting");
        }
        for marks in [Marks::Forged, Marks::ForeignHub, genuine("other-source", D1)] {
            for record in [None, Some(replaced.clone())] {
                let decision = decide(&input(wish.clone(), record, observed(marks)));
                assert_eq!((decision.act, decision.status.state), (Act::Rest, State::Conflict), "{marks:?}");
            }
        }
        let Observed::Known(known) = observed(Marks::Absent) else { unreachable!() };
        let deleting = Observed::Known(Known { deleting: true, ..known });
        check(&input(wish.clone(), None, deleting), Act::Rest, State::Conflict, "Exists");
        let paused = Input { paused: Some("p"), ..input(wish, None, observed(Marks::Absent)) };
        check(&paused, Act::Rest, State::Paused, "Paused");
    }
}

#[test]
fn i5_i6_a_replaced_object_is_neither_updated_nor_deleted() {
    let c = Case::new();
    let record = Some(RecordView { uid: Some(&c.other), ..c.record().unwrap() });
    check(&input(c.wish(), record.clone(), c.ours()), Act::Rest, State::Conflict, "Replaced");
    check(&input(Case::gone(), record, c.ours()), Act::Forget, State::InStep, "Replaced");
}

#[test]
fn i11_genuine_marks_without_a_record_are_ours_and_may_have_drifted_since() {
    let c = Case::new();
    let decision = check(&input(c.wish(), None, c.ours()), Act::Verify, State::Pending, "Verifying");
    assert_eq!(decision.record, RecordChange::TakeOver);
    let older = c.known(genuine("s1", D2), OwnedView::Digest(O1));
    let decision = check(&input(c.wish(), None, older), Act::Update, State::Pending, "Updating");
    assert_eq!(decision.record, RecordChange::TakeOver);
}

#[test]
fn a_delete_asks_reads_archives_and_then_deletes() {
    let c = Case::new();
    let step = |delete| Input { delete, ..input(Case::gone(), c.record(), c.ours()) };
    check(&step(DeleteProgress::Asking), Act::AskToDelete, State::Pending, "Deleting");
    check(&step(DeleteProgress::Granted), Act::ReadImage, State::Pending, "Archiving");
    check(&step(DeleteProgress::Archiving), Act::Rest, State::Pending, "Archiving");
    check(&step(DeleteProgress::Archived), Act::Delete, State::Pending, "Deleting");
    check(&input(Case::gone(), c.record(), Observed::Absent), Act::Forget, State::InStep, "Deleted");
}

#[test]
fn i6_implicit_namespaces_are_never_deleted_and_namespaces_are_held_first() {
    let c = Case::new();
    let implicit = Some(RecordView { implicit: true, ..c.record().unwrap() });
    for delete in [DeleteProgress::Asking, DeleteProgress::Granted, DeleteProgress::Archived] {
        let input = Input { delete, ..input(Case::gone(), implicit.clone(), c.ours()) };
        check(&input, Act::Rest, State::Orphaned, "ImplicitNamespace");
    }
    let namespace = Wish::Gone { why: "w", takes_others: true };
    check(&input(namespace, c.record(), c.ours()), Act::Rest, State::Held, "TakesOthers");
}

#[test]
fn prevent_deletion_and_pauses_hold() {
    let c = Case::new();
    let marks = Marks::Genuine { source_uid: "s1", rendered: D1, prevent_deletion: true };
    let observed = c.known(marks, OwnedView::Digest(O1));
    check(&input(Case::gone(), c.record(), observed), Act::Rest, State::Held, "DeletionPrevented");
    let paused = Input { paused: Some("the policy is paused"), ..input(c.wish(), None, Observed::Absent) };
    check(&paused, Act::Rest, State::Paused, "Paused");
    let paused = Input {
        paused: Some("p"),
        delete: DeleteProgress::Archived,
        ..input(Case::gone(), c.record(), c.ours())
    };
    check(&paused, Act::Rest, State::Paused, "Paused");
}

#[test]
fn a_removed_policy_orphans() {
    let c = Case::new();
    let left = Wish::Left { reason: "PolicyRemoved", why: "the policy was removed", release: false };
    check(&input(left.clone(), c.record(), c.ours()), Act::Rest, State::Orphaned, "PolicyRemoved");
    check(&input(left, c.record(), Observed::Absent), Act::Forget, State::Orphaned, "Gone");
}

#[test]
fn what_is_let_go_of_loses_our_marks_and_only_what_we_wrote_does() {
    let c = Case::new();
    let left = Wish::Left { reason: "SourceDeleted", why: "the source object was deleted", release: true };
    check(&input(left.clone(), c.record(), c.ours()), Act::Release, State::Pending, "Releasing");
    check(&input(left.clone(), c.record(), UNKNOWN), Act::Rest, State::Orphaned, "SourceDeleted");
    let record = Some(RecordView { uid: Some(&c.other), ..c.record().unwrap() });
    check(&input(left.clone(), record.clone(), c.ours()), Act::Forget, State::Orphaned, "Replaced");
    let waits = Input { grace: Some("at noon"), ..input(left, c.record(), c.ours()) };
    check(&waits, Act::Rest, State::Pending, "GracePeriod");
    // A person asks: the agent looks whether it is still the one with that uid.
    check(&input(Wish::Release, c.record(), UNKNOWN), Act::Release, State::Pending, "Releasing");
    check(&input(Wish::Release, record, c.ours()), Act::Forget, State::Orphaned, "Released");
    check(&input(Wish::Release, None, c.ours()), Act::Forget, State::Orphaned, "Released");
}

#[test]
fn i6_what_a_create_left_is_known_before_its_placement_ends() {
    let c = Case::new();
    let left = Wish::Left { reason: "PolicyRemoved", why: "the policy was removed", release: false };
    for wish in [Case::gone(), left, Wish::Release] {
        let unanswered = |observed| Input { unanswered: true, ..input(wish.clone(), None, observed) };
        check(&unanswered(Observed::Absent), Act::Retract, State::Pending, "Retracting");
        check(&unanswered(UNKNOWN), Act::Rest, State::Unknown, "Listing");
        let paused = Input { paused: Some("p"), ..unanswered(Observed::Absent) };
        check(&paused, Act::Rest, State::Paused, "Paused");
        let gone = Input { served: Some(false), ..unanswered(Observed::Absent) };
        assert_eq!(decide(&gone).act, Act::Forget);
    }
    // As long as it is asked for, the create is sent again.
    let again = Input { unanswered: true, ..input(c.wish(), None, Observed::Absent) };
    check(&again, Act::Create, State::Pending, "Creating");
}

#[test]
fn within_its_grace_period_a_delete_does_not_even_ask() {
    let c = Case::new();
    for (delete, act, reason) in [
        (DeleteProgress::Asking, Act::Rest, "GracePeriod"),
        (DeleteProgress::Granted, Act::ReadImage, "Archiving"),
    ] {
        let input = Input { delete, grace: Some("at noon"), ..input(Case::gone(), c.record(), c.ours()) };
        check(&input, act, State::Pending, reason);
    }
}

#[test]
fn what_others_took_is_reported_and_written_again_once_it_is_free() {
    let c = Case::new();
    let taken = |reported, free| Taken { reported, free, by: ".k by x" };
    let with = |taken, observed| Input { taken, ..input(c.wish(), c.record(), observed) };
    let by = Some(".k by x");
    let reported = check(&with(taken(by, false), c.ours()), Act::Rest, State::Conflict, DRIFT_REPORTED);
    assert!(reported.status.message.ends_with(".k by x"));
    check(&with(taken(by, true), c.ours()), Act::Update, State::Pending, "Returned");
    check(&with(taken(None, false), c.ours()), Act::Rest, State::InStep, "InStep");
    // A change of what is still ours names who made it.
    let drifted = c.known(genuine("s1", D1), OwnedView::Digest(O2));
    let named = check(&with(taken(by, false), drifted), Act::Update, State::Pending, "Drifted");
    assert!(named.status.message.ends_with("they are set back: .k by x"));
}

#[test]
fn what_is_only_created_is_never_written_again() {
    let c = Case::new();
    let Wish::Present { source_uid, on_conflict, .. } = c.wish() else { unreachable!() };
    let wish = Wish::Present {
        source_uid,
        desired: D2,
        source_deleting: false,
        obstacle: None,
        run_once: false,
        on_conflict,
        create_only: true,
    };
    let drifted = c.known(genuine("s1", D1), OwnedView::Digest(O2));
    check(&input(wish.clone(), c.record(), drifted), Act::Rest, State::InStep, "CreateOnly");
    check(&input(wish.clone(), c.record(), Observed::Absent), Act::Create, State::Pending, "Creating");
    let theirs = c.known(Marks::Absent, OwnedView::NoEntry);
    check(&input(wish, None, theirs), Act::Rest, State::Conflict, "Exists");
}

#[test]
fn a_collected_job_is_not_run_again_unless_it_changed() {
    let c = Case::new();
    let job = |desired| Wish::Present {
        source_uid: &c.source,
        desired,
        source_deleting: false,
        obstacle: None,
        run_once: true,
        on_conflict: OnConflict::Fail,
        create_only: false,
    };
    check(&input(job(D1), c.record(), Observed::Absent), Act::Rest, State::InStep, "Collected");
    check(&input(job(D2), c.record(), Observed::Absent), Act::Create, State::Pending, "Creating");
    check(&input(job(D1), None, Observed::Absent), Act::Create, State::Pending, "Creating");
}

#[test]
fn a_kind_the_target_lacks_is_blocked_and_partial_discovery_is_unknown() {
    let c = Case::new();
    let lacks = Input { served: Some(false), ..input(c.wish(), None, Observed::Absent) };
    check(&lacks, Act::Rest, State::Blocked, "KindNotServed");
    let partial = Input { served: None, ..input(c.wish(), None, Observed::Absent) };
    check(&partial, Act::Rest, State::Unknown, "DiscoveryIncomplete");
}

#[test]
fn i17_in_step_is_what_was_compared_and_never_what_was_answered() {
    let c = Case::new();
    let with = |holds, observed| {
        let record = RecordView { holds, ..c.record().unwrap() };
        input(c.wish(), Some(record), observed)
    };
    let written = |owned| {
        let Observed::Known(known) = c.known(genuine("s1", D1), owned) else { unreachable!() };
        Observed::Known(Known { as_written: true, ..known })
    };
    let held = Difference {
        path: ".data.k".to_owned(),
        kind: DifferenceKind::Extra,
        holders: vec![Holder { manager: "x".to_owned(), operation: "Apply".to_owned() }],
    };
    let by_others = Differences { named: vec![held.clone()], more: 0 };
    let by_server = Differences { named: vec![Difference { holders: Vec::new(), ..held.clone() }], more: 0 };
    let dropped = Difference { kind: DifferenceKind::Missing, holders: Vec::new(), ..held };
    let dropped = Differences { named: vec![dropped], more: 0 };
    for observed in [c.ours(), written(OwnedView::Digest(O1)), written(OwnedView::OtherVersion)] {
        check(&with(Holds::AsAsked, observed.clone()), Act::Rest, State::InStep, "InStep");
        check(&with(Holds::Unknown, observed.clone()), Act::Verify, State::Pending, "Verifying");
        check(&with(Holds::NotCompared, observed.clone()), Act::Rest, State::Unknown, "NotCompared");
        for (differences, reason) in
            [(&by_others, "HeldByOthers"), (&by_server, "NotRemoved"), (&dropped, "ChangedByServer")]
        {
            let differs = |again| with(Holds::Differs { differences, again }, observed.clone());
            let decision = check(&differs(false), Act::Rest, State::Differs, reason);
            assert!(decision.status.message.contains(".data.k"), "{}", decision.status.message);
            // It is looked at again, and stands as it is until that has an answer.
            check(&differs(true), Act::Update, State::Differs, reason);
        }
    }
    // What changed since is not what was compared.
    let other = c.known(genuine("s1", D1), OwnedView::OtherVersion);
    check(&with(Holds::AsAsked, other), Act::Verify, State::Pending, "Verifying");
    let drifted = c.known(genuine("s1", D1), OwnedView::Digest(O2));
    check(&with(Holds::AsAsked, drifted), Act::Update, State::Pending, "Drifted");
}
