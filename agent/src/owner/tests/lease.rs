//! The rewind guard: when the Lease is read and raised, and what its counter says.

use super::*;
use crate::lease::Raise;

fn silent() -> LeaseRead {
    LeaseRead::Unreadable("no answer".into())
}

fn forbidden() -> LeaseRead {
    LeaseRead::Forbidden("no".into())
}

/// The counter that a Hello among the effects told.
fn greeted(effects: &[Effect]) -> Option<u64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send(AgentMessage { body: Some(agent_message::Body::Hello(hello)) }) => {
            Some(hello.lease_counter)
        }
        _ => None,
    })
}

fn reads(effects: &[Effect]) -> Vec<u64> {
    let read = |effect: &Effect| match effect {
        Effect::ReadLease { read } => Some(*read),
        _ => None,
    };
    effects.iter().filter_map(read).collect()
}

fn raises(effects: &[Effect]) -> Vec<Raise> {
    let raise = |effect: &Effect| match effect {
        Effect::RaiseLease(raise) => Some(raise.clone()),
        _ => None,
    };
    effects.iter().filter_map(raise).collect()
}

/// A rig whose Lease is read and written by the test, with nothing under way.
fn by_hand(lease: Option<u64>) -> Rig {
    let mut rig = Rig::new(bounds());
    rig.lease = lease;
    rig.pass(10);
    rig.by_hand = true;
    rig.take_effects();
    rig.beats.clear();
    rig
}

#[test]
fn the_lease_is_read_before_each_hello() {
    let mut rig = by_hand(Some(7));
    rig.apply(Action::Disconnected).apply(Action::Connected);
    let effects = rig.take_effects();
    assert_eq!((greeted(&effects), reads(&effects).len()), (None, 1));
    let read = reads(&effects)[0];
    rig.read(read, held(9));
    assert_eq!(greeted(&rig.take_effects()), Some(9), "another agent raised it meanwhile");
}

#[test]
fn a_read_from_before_the_stream_says_nothing_to_the_hello() {
    let mut rig = by_hand(Some(7));
    rig.apply(Action::Heartbeat);
    let early = reads(&rig.take_effects());
    rig.apply(Action::Disconnected).apply(Action::Connected);
    assert_eq!(rig.take_effects(), [], "one at a time");
    rig.read(early[0], held(8));
    let effects = rig.take_effects();
    assert_eq!((greeted(&effects), reads(&effects).len()), (None, 1));
}

#[test]
fn i3_a_lease_that_cannot_be_read_is_not_taken_for_missing() {
    let mut rig = by_hand(Some(7));
    rig.apply(Action::Disconnected).apply(Action::Connected);
    for _ in 0..3 {
        let effects = rig.take_effects();
        rig.read(reads(&effects)[0], silent());
        assert_eq!(rig.take_effects(), [], "not before the next second");
        rig.pass(1);
    }
    let read = reads(&rig.take_effects())[0];
    rig.read(read, held(8));
    assert_eq!(greeted(&rig.take_effects()), Some(8));
}

#[test]
fn a_refusal_is_believed_when_it_lasts() {
    let mut rig = Rig::new(bounds());
    rig.by_hand = true;
    rig.apply(Action::Disconnected).take_effects();
    // A process that never saw a Lease.
    rig.owner.guard = Guard::default();
    rig.apply(Action::Connected);
    let mut seconds = 0;
    let told = loop {
        let effects = rig.take_effects();
        if let Some(told) = greeted(&effects) {
            break told;
        }
        if let Some(read) = reads(&effects).first() {
            rig.read(*read, forbidden());
        }
        rig.pass(1);
        seconds += 1;
        assert!(seconds < 30);
    };
    assert_eq!((told, seconds), (u64::MAX, 6), "unknown, which is not the same as none");
}

#[test]
fn the_counter_is_raised_with_a_session_only_and_told_at_once() {
    let mut rig = by_hand(Some(7));
    rig.apply(Action::Heartbeat);
    let effects = rig.take_effects();
    assert_eq!(raises(&effects), []);
    rig.read(reads(&effects)[0], held(8));
    let raised = raises(&rig.take_effects());
    assert_eq!(raised, [Raise { counter: 9, holder: "i".into(), over: Some(lease(8)) }]);
    rig.beats.clear();
    rig.apply(Action::LeaseWritten(LeaseWritten::Raised(lease(9))));
    assert_eq!(rig.beats, [9]);

    rig.apply(Action::Disconnected).apply(Action::Heartbeat);
    let read = reads(&rig.take_effects())[0];
    rig.read(read, held(9));
    assert_eq!(raises(&rig.take_effects()), [], "no session: read, and not raised");
}

#[test]
fn a_write_that_somebody_else_overtook_is_read_again() {
    let mut rig = by_hand(None);
    rig.apply(Action::Heartbeat);
    let read = reads(&rig.take_effects())[0];
    rig.read(read, held(8)).take_effects();
    rig.apply(Action::LeaseWritten(LeaseWritten::Conflict));
    let effects = rig.take_effects();
    assert_eq!(raises(&effects), []);
    rig.read(reads(&effects)[0], held(20));
    assert_eq!(raises(&rig.take_effects())[0].counter, 21);
}

#[test]
fn nothing_is_read_while_it_is_written() {
    let mut rig = by_hand(Some(7));
    rig.apply(Action::Heartbeat);
    let read = reads(&rig.take_effects())[0];
    rig.read(read, held(8)).take_effects();
    // The answer of a read that began now might be older than the write.
    rig.apply(Action::Heartbeat);
    assert_eq!(reads(&rig.take_effects()), [0; 0]);
    rig.apply(Action::LeaseWritten(LeaseWritten::Raised(lease(9))));
    assert_eq!(reads(&rig.take_effects()).len(), 1);
}

#[test]
fn i3_after_a_rewind_the_counter_stays_until_the_hub_has_heard_of_it() {
    let mut rig = by_hand(Some(7));
    rig.by_hand = false;
    rig.listing(&interest("ConfigMap", "prod"), &[("a", 1, "prod")]);
    rig.sections();
    let before = rig.lease.unwrap();
    rig.lease = Some(before - 2);
    rig.beats.clear();
    rig.apply(Action::Heartbeat);
    assert_eq!(rig.beats, [before, before - 2], "at once, and as it was read");
    rig.pass(30);
    assert_eq!(rig.lease, Some(before - 2), "not raised");
    assert!(rig.beats.iter().all(|told| *told <= before));
    // A batch that was made after it is acked: the hub knows.
    rig.sections();
    rig.pass(10);
    assert_eq!(rig.lease, Some(before - 1));
}

#[test]
fn i3_a_rewind_found_before_a_hello_is_told_by_it() {
    let mut rig = by_hand(Some(7));
    rig.by_hand = false;
    rig.listing(&interest("ConfigMap", "prod"), &[("a", 1, "prod")]);
    rig.apply(Action::Disconnected);
    rig.take_effects();
    rig.lease = Some(3);
    rig.apply(Action::Connected);
    let effects = rig.take_effects();
    assert_eq!(greeted(&effects), Some(3));
    assert!(effects.contains(&Effect::Stop { watch: 1 }));
    rig.welcome(true);
    assert_eq!(rig.lease, Some(4), "the hub heard it in the Hello");
}
