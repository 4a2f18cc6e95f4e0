//! Lists that come as the beginning of a watch.

use super::*;

fn streaming(start: Start) -> (Loop, Vec<Output<Body>>) {
    Loop::with(Settings { streaming: true, ..settings() }, start)
}

/// A machine whose stream from nothing is open.
fn opened() -> Loop {
    let (mut at, _) = streaming(Start::Nothing);
    assert!(at.step(Input::Opened).is_empty(), "a list is under way, not a watch");
    at
}

fn is_stream(out: &[Output<Body>]) -> bool {
    matches!(command(out), Some(Command::Stream { .. }))
}

const END: Body =
    br#"{"kind":"Secret","metadata":{"resourceVersion":"20","annotations":{"k8s.io/initial-events-end":"true"}}}"#;
const MARK: Body = br#"{"metadata":{"resourceVersion":"30","annotations":null}}"#;

#[test]
fn objects_before_the_bookmark_are_listed_and_the_stream_goes_on_as_the_watch() {
    let (mut at, out) = streaming(Start::Nothing);
    let Some(Command::Stream { timeout_s, cut_off_ms, idle_ms }) = command(&out) else { panic!("{out:?}") };
    assert!((WATCH_TIMEOUT_MIN_S..=WATCH_TIMEOUT_MAX_S).contains(timeout_s));
    assert!(*cut_off_ms > u64::from(*timeout_s) * 1_000 && *idle_ms == WATCH_IDLE_MS);
    assert!(observations(out).contains(&Observation::ListStarted { epoch: 1 }));
    at.step(Input::Opened);
    for body in [A, B] {
        let out = observations(at.event(Event::Applied(body)));
        assert!(
            matches!(out[..], [Observation::Applied { body: b, listed: true, .. }] if b == body),
            "{out:?}"
        );
    }
    assert_eq!(at.machine.checkpoint(), None, "nothing to resume from yet (I2)");
    let out = at.event(Event::Bookmark(END));
    assert!(command(&out).is_none());
    let completed =
        Observation::ListCompleted { epoch: 1, resource_version: version(20), absence: Absence::Conclusive };
    assert_eq!(observations(out), [completed, Observation::StateChanged(Health::Live)]);
    let out = observations(at.event(Event::Bookmark(MARK)));
    assert_eq!(out, [Observation::Bookmark(version(30))]);
    let out = observations(at.event(Event::Deleted(A)));
    assert!(matches!(out[..], [Observation::Deleted { .. }]));
    assert!(is_probe(&at.step(Input::Ended)), "resumed like any watch");
}

#[test]
fn i2_deletes_before_the_bookmark_wait_for_it() {
    let mut at = opened();
    at.event(Event::Applied(A));
    assert!(observations(at.event(Event::Deleted(A))).is_empty());
    at.event(Event::Applied(A));
    let out = observations(at.event(Event::Bookmark(END)));
    assert!(
        matches!(
            &out[..],
            [
                Observation::ListCompleted { .. },
                Observation::Deleted { body, .. },
                Observation::Bookmark(reached),
                Observation::StateChanged(Health::Live)
            ] if *body == A && *reached == version(20)
        ),
        "{out:?}"
    );
    assert_eq!(at.machine.checkpoint(), Some(&version(20)));
}

#[test]
fn deletes_of_a_list_that_broke_are_forgotten_with_it() {
    let mut at = opened();
    at.event(Event::Deleted(A));
    at.step(Input::Ended);
    assert!(is_stream(&at.step(Input::Fired)));
    at.step(Input::Opened);
    let out = observations(at.event(Event::Bookmark(END)));
    assert!(!out.iter().any(|o| matches!(o, Observation::Deleted { .. })), "{out:?}");
}

#[test]
fn i14_a_storm_of_deletes_breaks_the_list_rather_than_the_memory() {
    let mut at = opened();
    let broke = (0..).position(|_| command(&at.event(Event::Deleted(A))).is_some());
    assert_eq!(broke, Some(1_000));
    assert_eq!(at.failing().map(|(reason, _)| reason), Some(&RequestFailure::Incomplete));
}

#[test]
fn i3_items_of_a_stream_without_a_key_make_absence_mean_nothing() {
    let bad: Body = br#"{"metadata":{}}"#;
    let mut at = opened();
    let inputs = [
        Event::Applied(bad),
        Event::Deleted(bad),
        Event::Bookmark(b"5"),
        Event::Undecodable { why: "x".to_owned() },
    ];
    for event in inputs {
        let out = observations(at.event(event));
        assert!(matches!(out[..], [Observation::Undecodable { listed: true, .. }]), "{out:?}");
    }
    assert_eq!(absence(&at.event(Event::Bookmark(END))), Some(Absence::Undecodable(4)));
}

#[test]
fn i3_a_stream_that_breaks_midway_is_listed_again_from_the_start() {
    let ends = [Input::Ended, Input::Stale, Input::Failed(RequestFailure::TooLong)].into_iter().chain([
        Input::Event(Event::Error(RequestFailure::Expired)),
        Input::Event(Event::Error(RequestFailure::Server { code: 500 })),
    ]);
    for end in ends {
        let mut at = opened();
        at.event(Event::Applied(A));
        let out = at.step(end.clone());
        assert!(sleep(&out).is_some() && absence(&out).is_none(), "{end:?}: {out:?}");
        assert_eq!(at.failing().map(|(_, since)| since), Some(30));
        let out = at.step(Input::Fired);
        assert!(is_stream(&out), "{end:?}");
        assert!(observations(out).contains(&Observation::ListStarted { epoch: 2 }));
        at.step(Input::Opened);
        let out = at.event(Event::Applied(A));
        assert!(observations(out).contains(&Observation::StateChanged(Health::Listing)));
        let out = at.event(Event::Bookmark(END));
        assert_eq!(absence(&out), Some(Absence::Conclusive));
    }
}

#[test]
fn a_server_that_refuses_is_listed_in_pages_from_then_on() {
    for open in [false, true] {
        let (mut at, _) = streaming(Start::Nothing);
        let out = if open {
            at.step(Input::Opened);
            at.event(Event::Error(RequestFailure::Rejected))
        } else {
            at.fail(RequestFailure::Rejected)
        };
        assert!(is_first_page(&out), "{out:?}");
        assert!(at.failing().is_none(), "no failure, only another way");
        assert!(observations(out).contains(&Observation::ListStarted { epoch: 2 }));
        assert_eq!(watch_from(&at.step(page(&[A], None, 10))), Some("10"));
        at.step(Input::Opened);
        assert!(is_first_page(&at.event(Event::Error(RequestFailure::Expired))), "remembered");
    }
}

#[test]
fn a_server_that_takes_it_for_a_plain_watch_is_listed_in_pages() {
    let mut at = opened();
    at.event(Event::Applied(A));
    let out = at.event(Event::Bookmark(MARK));
    assert!(is_first_page(&out), "a bookmark without the mark: {out:?}");
    assert_eq!(at.machine.checkpoint(), None);
}

#[test]
fn a_server_that_never_ends_the_list_is_listed_in_pages_after_some_attempts() {
    let mut at = opened();
    for attempt in 1..=STREAM_ATTEMPTS {
        at.event(Event::Applied(A));
        assert!(sleep(&at.step(Input::Ended)).is_some());
        let out = at.step(Input::Fired);
        assert_eq!(is_stream(&out), attempt < STREAM_ATTEMPTS);
        assert_eq!(is_first_page(&out), attempt == STREAM_ATTEMPTS);
    }
    assert_eq!(absence(&at.step(page(&[A], None, 10))), Some(Absence::Conclusive));
    assert_eq!(observations(at.step(Input::Opened)), [Observation::StateChanged(Health::Live)]);
}

#[test]
fn attempts_are_counted_in_a_row_and_only_against_servers_that_answer() {
    let (mut at, _) = streaming(Start::Nothing);
    for _ in 0..20 {
        for failure in [
            RequestFailure::Unreachable,
            RequestFailure::Forbidden,
            RequestFailure::Timeout,
            RequestFailure::NotServed,
        ] {
            assert!(sleep(&at.fail(failure)).is_some());
            assert!(is_stream(&at.step(Input::Fired)));
        }
    }
    for _ in 0..20 {
        at.step(Input::Ended);
        at.step(Input::Fired);
        at.step(Input::Opened);
        at.event(Event::Bookmark(END));
        assert!(at.failing().is_none());
        at.after(CALM_WATCH_MS, Input::Event(Event::Error(RequestFailure::Expired)));
    }
    let out = at.fail(RequestFailure::Throttled { retry_after_ms: 100_000 });
    assert_eq!(sleep(&out), Some(100_000));
    assert!(is_stream(&at.step(Input::Fired)));
}

#[test]
fn i3_a_streamed_list_older_than_the_checkpoint_is_a_rewind() {
    let (mut at, _) = streaming(Start::Checkpoint(version(25)));
    at.step(Input::Probed { resource_version: version(26) });
    at.step(Input::Opened);
    assert!(is_stream(&at.event(Event::Error(RequestFailure::Expired))));
    at.step(Input::Opened);
    at.event(Event::Applied(A));
    let out = at.event(Event::Bookmark(END));
    assert_eq!((suspected(&out), absence(&out)), (Some(("25", "20")), Some(Absence::Rewound)));
    assert_eq!(at.machine.checkpoint(), Some(&version(20)), "in the new history");
}

#[test]
fn i3_a_stream_of_a_rewound_server_keeps_the_flag_when_it_breaks() {
    let (mut at, _) = streaming(Start::Rewound);
    at.step(Input::Opened);
    at.event(Event::Applied(A));
    at.step(Input::Ended);
    at.step(Input::Fired);
    at.fail(RequestFailure::Rejected);
    assert_eq!(absence(&at.step(page(&[A], None, 10))), Some(Absence::Rewound), "also in pages");
}

#[test]
fn i3_a_stream_older_than_what_the_broken_one_showed_is_a_rewind() {
    let new: Body = br#"{"metadata":{"name":"new","resourceVersion":"21"}}"#;
    let mut at = opened();
    at.event(Event::Applied(new));
    at.event(Event::Applied(A));
    at.step(Input::Ended);
    at.step(Input::Fired);
    let out = at.event(Event::Bookmark(END));
    assert_eq!((suspected(&out), absence(&out)), (Some(("21", "20")), Some(Absence::Rewound)));
}

#[test]
fn a_watch_cache_that_lags_behind_is_no_rewind() {
    // No version was asked for, so the server speaks of its own delay.
    let (mut at, _) = streaming(Start::Nothing);
    let out = at.fail(RequestFailure::FutureVersion);
    assert!(sleep(&out).is_some() && suspected(&out).is_none());
    at.step(Input::Fired);
    at.step(Input::Opened);
    assert_eq!(absence(&at.event(Event::Bookmark(END))), Some(Absence::Conclusive));
}
