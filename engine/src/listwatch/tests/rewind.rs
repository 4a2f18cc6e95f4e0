//! Lists of servers that were taken back in time.

use super::*;

#[test]
fn i3_a_rewound_list_keeps_its_flag_through_failures() {
    let failures = [
        RequestFailure::Expired,
        RequestFailure::Rejected,
        RequestFailure::FutureVersion,
        RequestFailure::Server { code: 500 },
        RequestFailure::Forbidden,
    ];
    for failure in failures {
        let (mut at, out) = Loop::start(Start::Rewound);
        assert!(is_first_page(&out) && suspected(&out).is_none(), "whoever says so knows");
        // On the first page, then on the second.
        at.fail(failure.clone());
        at.step(Input::Fired);
        at.step(page(&[A], Some("t"), 10));
        let out = at.fail(failure.clone());
        assert!(sleep(&out).is_some() && suspected(&out).is_none(), "{failure}: {out:?}");
        let out = at.step(Input::Fired);
        if is_first_page(&out) {
            at.step(page(&[A], Some("t"), 12));
        }
        assert_eq!(absence(&at.step(page(&[B], None, 12))), Some(Absence::Rewound), "{failure}");
    }
}

#[test]
fn a_rewound_list_has_a_checkpoint_and_is_followed_by_a_watch() {
    let (mut at, _) = Loop::start(Start::Rewound);
    let out = at.step(page(&[A], None, 10));
    assert_eq!((absence(&out), watch_from(&out)), (Some(Absence::Rewound), Some("10")));
    assert_eq!(at.machine.checkpoint(), Some(&version(10)));
    at.step(Input::Opened);
    assert_eq!(at.machine.health(), &Health::Live);
}

#[test]
fn i3_a_compaction_during_a_rewound_list_is_no_special_case() {
    // On the continue token.
    let (mut at, _) = Loop::start(Start::Rewound);
    at.step(page(&[A], Some("t"), 10));
    at.fail(RequestFailure::Expired);
    assert!(is_first_page(&at.step(Input::Fired)));
    assert_eq!(absence(&at.step(page(&[A], None, 50))), Some(Absence::Rewound));
    // On the watch that follows: the new history is known by then, and an ordinary list goes on in it.
    at.step(Input::Opened);
    assert!(is_first_page(&at.event(Event::Error(RequestFailure::Expired))));
    let out = at.step(page(&[A], None, 60));
    assert_eq!((suspected(&out), absence(&out)), (None, Some(Absence::Conclusive)));
}

#[test]
fn i3_a_rewind_between_two_pages_is_flagged_and_listed_anew() {
    for start in [Start::Nothing, Start::Checkpoint(version(7))] {
        let known = start != Start::Nothing;
        let (mut at, _) = Loop::start(start);
        if known {
            at.fail(RequestFailure::FutureVersion);
        }
        at.step(page(&[A], Some("t"), 10));
        let out = at.step(page(&[B], None, 5));
        assert_eq!(absence(&out), None, "its first page is of another history");
        let out = if known { at.step(Input::Fired) } else { out };
        assert!(is_first_page(&out), "{out:?}");
        let out = at.step(page(&[B], None, 6));
        assert_eq!((absence(&out), watch_from(&out)), (Some(Absence::Rewound), Some("6")));
    }
}

#[test]
fn i3_a_page_older_than_the_checkpoint_is_flagged_before_its_objects_are_told() {
    let mut at = Loop::live();
    at.event(Event::Error(RequestFailure::Expired));
    let out = at.step(page(&[A], Some("t"), 3));
    assert_eq!(suspected(&out), Some(("7", "3")));
    assert!(matches!(out.first(), Some(Output::Observation(Observation::RewindSuspected { .. }))));
    let out = at.step(page(&[B], None, 3));
    assert_eq!((suspected(&out), absence(&out)), (None, Some(Absence::Rewound)), "told once");
}

#[test]
fn i3_a_list_older_than_the_unfinished_one_before_it_is_flagged() {
    let (mut at, _) = Loop::start(Start::Nothing);
    at.step(page(&[A], Some("t"), 10));
    at.fail(RequestFailure::Expired);
    at.step(Input::Fired);
    let out = at.step(page(&[A], None, 9));
    assert_eq!((suspected(&out), absence(&out)), (Some(("10", "9")), Some(Absence::Rewound)));
    // The next list is compared with this one.
    at.step(Input::Opened);
    at.after(CALM_WATCH_MS, Input::Event(Event::Error(RequestFailure::Expired)));
    assert_eq!(absence(&at.step(page(&[A], None, 9))), Some(Absence::Conclusive));
}

#[test]
fn i3_a_continue_token_from_the_future_is_a_rewind_whatever_the_next_list_says() {
    let (mut at, _) = Loop::start(Start::Nothing);
    at.step(page(&[A], Some("t"), 10));
    let out = at.fail(RequestFailure::FutureVersion);
    assert_eq!(suspected(&out), Some(("10", "")));
    at.step(Input::Fired);
    // Writes since the restore have brought it beyond the old version.
    assert_eq!(absence(&at.step(page(&[A], None, 11))), Some(Absence::Rewound));
}

#[test]
fn a_server_that_is_rewound_again_and_again_is_listed_ever_more_slowly() {
    let mut at = Loop::live();
    let mut slept = Vec::new();
    for round in 0..6 {
        let out = at.event(Event::Error(RequestFailure::FutureVersion));
        assert!(suspected(&out).is_some());
        if let Some(ms) = sleep(&out) {
            slept.push(ms);
            at.step(Input::Fired);
        } else {
            assert_eq!(round, 0, "only the first list is made at once");
        }
        assert_eq!(absence(&at.step(page(&[], None, 6))), Some(Absence::Rewound));
        at.step(Input::Opened);
    }
    assert!(slept.len() == 5 && slept.last() > slept.first(), "{slept:?}");
}
