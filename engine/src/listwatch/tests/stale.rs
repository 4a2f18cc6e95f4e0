//! Watches that go silent.

use super::*;

const MARK: Body = br#"{"metadata":{"resourceVersion":"9"}}"#;
const IDLE: Millis = 150_000;

fn idle(out: &[Output<Body>]) -> Option<u64> {
    match command(out) {
        Some(Command::Watch { idle_ms, cut_off_ms, .. }) => (idle_ms < cut_off_ms).then_some(*idle_ms),
        _ => panic!("{out:?}"),
    }
}

impl Loop {
    /// Ends a silent watch and opens the next; answers its idle time, if it has one.
    fn renew(&mut self) -> Option<u64> {
        assert!(is_probe(&self.after(IDLE, Input::Stale)));
        let out = self.step(Input::Probed { resource_version: version(9) });
        self.step(Input::Opened);
        idle(&out)
    }
}

#[test]
fn a_silent_watch_is_probed_and_resumed_without_a_trace() {
    let mut at = Loop::live();
    at.event(Event::Bookmark(MARK));
    let out = at.after(IDLE, Input::Stale);
    assert_eq!(out, [Output::Command(Command::Probe { timeout_ms: PROBE_TIMEOUT_MS })]);
    let out = at.step(Input::Probed { resource_version: version(9) });
    assert_eq!((watch_from(&out), idle(&out)), (Some("9"), Some(WATCH_IDLE_MS)));
    assert!(at.step(Input::Opened).is_empty());
    assert_eq!(at.machine.health(), &Health::Live);
    // What fails later is another matter.
    at.after(5_000, Input::Ended);
    at.fail(RequestFailure::Timeout);
    assert_eq!(at.failing(), Some((&RequestFailure::Timeout, at.now)));
}

#[test]
fn a_server_that_does_not_answer_either_is_failing_since_it_was_last_heard() {
    for failure in [RequestFailure::Timeout, RequestFailure::Unreachable] {
        let mut at = Loop::live();
        at.event(Event::Bookmark(MARK));
        let heard = at.now;
        at.after(IDLE, Input::Stale);
        assert!(sleep(&at.after(75_000, Input::Failed(failure.clone()))).is_some());
        assert_eq!(at.failing(), Some((&RequestFailure::Stale, heard)));
        assert!(is_probe(&at.step(Input::Fired)));
        at.fail(failure.clone());
        assert_eq!(at.failing(), Some((&failure, heard)), "from then on what the requests say");
        at.step(Input::Fired);
        assert_eq!(watch_from(&at.step(Input::Probed { resource_version: version(9) })), Some("9"));
        assert_eq!(observations(at.step(Input::Opened)), [Observation::StateChanged(Health::Live)]);
    }
}

#[test]
fn a_server_that_answers_says_itself_what_is_wrong() {
    let mut at = Loop::live();
    let heard = at.now;
    at.after(IDLE, Input::Stale);
    at.fail(RequestFailure::Forbidden);
    assert_eq!(at.failing(), Some((&RequestFailure::Forbidden, heard)));
}

#[test]
fn i3_a_rewind_is_noticed_behind_a_silence() {
    let mut at = Loop::live();
    at.after(IDLE, Input::Stale);
    let out = at.step(Input::Probed { resource_version: version(3) });
    assert_eq!(suspected(&out), Some(("7", "3")));
    assert_eq!(absence(&at.step(page(&[], None, 3))), Some(Absence::Rewound));
}

#[test]
fn a_server_without_bookmarks_is_renewed_at_its_cut_off_only() {
    let mut at = Loop::live();
    assert_eq!(at.renew(), None, "one silent watch is enough");
    at.after(300_000, Input::Ended);
    assert_eq!(idle(&at.step(Input::Probed { resource_version: version(9) })), None);
    at.step(Input::Opened);
    // It has learned to send them.
    at.event(Event::Bookmark(MARK));
    assert_eq!(at.renew(), Some(WATCH_IDLE_MS));
}

#[test]
fn objects_are_no_bookmarks() {
    let mut at = Loop::live();
    at.after(IDLE, Input::Event(Event::Applied(A)));
    at.step(Input::Ended);
    assert_eq!(idle(&at.step(Input::Probed { resource_version: version(9) })), None);
}

#[test]
fn watches_that_were_too_short_for_a_bookmark_say_nothing() {
    let mut at = Loop::live();
    at.after(50_000, Input::Ended);
    assert_eq!(idle(&at.step(Input::Probed { resource_version: version(9) })), Some(WATCH_IDLE_MS));
}

#[test]
fn a_frozen_server_is_not_taken_for_one_without_bookmarks() {
    let mut at = Loop::live();
    at.after(IDLE, Input::Stale);
    at.fail(RequestFailure::Timeout);
    at.step(Input::Fired);
    assert_eq!(idle(&at.step(Input::Probed { resource_version: version(9) })), Some(WATCH_IDLE_MS));
}

#[test]
fn the_end_of_a_streamed_list_is_no_sign_of_bookmarks_to_come() {
    const END: Body =
        br#"{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}"#;
    let (mut at, _) = Loop::with(Settings { streaming: true, ..settings() }, Start::Nothing);
    at.step(Input::Opened);
    at.event(Event::Bookmark(END));
    assert_eq!(at.renew(), None);
}

#[test]
fn a_short_idle_time_also_bounds_the_probe() {
    let (_, out) = Loop::with(Settings { idle_ms: 2_000, ..settings() }, Start::Checkpoint(version(7)));
    assert_eq!(command(&out), Some(&Command::Probe { timeout_ms: 2_000 }));
}
