//! Servers that fail in tedious ways: nothing is concluded, nobody is hammered, and the health says
//! since when and why.

use super::*;

#[test]
fn i3_a_page_refused_midway_never_concludes_and_says_since_when_and_why() {
    for failure in [RequestFailure::Forbidden, RequestFailure::Server { code: 500 }] {
        let (mut at, _) = Loop::start(Start::Nothing);
        at.step(page(&[A], Some("t"), 10));
        let began = at.now + 10;
        for _ in 0..100 {
            let out = at.fail(failure.clone());
            assert!(sleep(&out).is_some() && absence(&out).is_none());
            assert_eq!(at.failing(), Some((&failure, began)));
            let out = at.after(60_000, Input::Fired);
            let again =
                Command::List { limit: PAGE_START * PAGE_GROWTH, continue_token: Some("t".to_owned()) };
            assert_eq!(command(&out), Some(&again), "the same page");
            assert!(!observations(out).iter().any(|o| matches!(o, Observation::ListStarted { .. })));
        }
        // The token has expired meanwhile: a new list, and the old one concluded nothing.
        at.fail(RequestFailure::Expired);
        assert_eq!(at.failing(), Some((&RequestFailure::Expired, began)));
        assert!(is_first_page(&at.step(Input::Fired)));
        let out = at.step(page(&[A], Some("u"), 20));
        assert!(observations(out).contains(&Observation::StateChanged(Health::Listing)));
        at.fail(failure.clone());
        assert_eq!(at.failing(), Some((&failure, began)), "the second page has not worked since");
        at.step(Input::Fired);
        let out = at.step(page(&[B], None, 20));
        assert_eq!((absence(&out), watch_from(&out)), (Some(Absence::Conclusive), Some("20")));
        at.step(Input::Opened);
        assert_eq!(at.machine.health(), &Health::Live);
        at.after(500, Input::Ended);
        assert_eq!(at.failing(), Some((&RequestFailure::EndedAtOnce, at.now)), "a new failure");
    }
}

#[test]
fn a_list_whose_second_page_always_expires_is_slowed_down() {
    let (mut at, _) = Loop::start(Start::Nothing);
    let mut slept = 0;
    for _ in 0..10 {
        at.step(page(&[A], Some("t"), 10));
        slept = sleep(&at.fail(RequestFailure::Expired)).unwrap();
        at.step(Input::Fired);
    }
    assert!(slept >= 30_000, "{slept}");
    assert_eq!(at.failing(), Some((&RequestFailure::Expired, 20)));
}

#[test]
fn a_page_that_came_after_all_starts_the_delays_anew() {
    let (mut at, _) = Loop::start(Start::Nothing);
    at.step(page(&[A], Some("t"), 10));
    for token in ["u", "v", "w", "x", "y", "z"] {
        let ms = sleep(&at.fail(RequestFailure::Timeout));
        assert!(ms.is_some_and(|ms| ms <= 1_000), "{ms:?}");
        at.step(Input::Fired);
        at.step(page(&[A], Some(token), 10));
        assert_eq!(at.machine.health(), &Health::Listing);
    }
}

#[test]
fn a_watch_that_expires_after_every_list_is_slowed_down() {
    for opens in [true, false] {
        let mut at = Loop::live();
        let mut slept = 0;
        for round in 0..10 {
            let out = if opens {
                at.event(Event::Applied(A));
                at.event(Event::Error(RequestFailure::Expired))
            } else if round == 0 {
                at.event(Event::Error(RequestFailure::Expired))
            } else {
                at.fail(RequestFailure::Expired)
            };
            assert_eq!(round == 0, is_first_page(&out), "at once the first time: {out:?}");
            if round > 0 {
                slept = sleep(&out).unwrap();
                assert_eq!(at.failing().map(|(reason, _)| reason), Some(&RequestFailure::Expired));
                at.step(Input::Fired);
            }
            // Listing takes long, and does not count as the watch's success.
            at.after(100_000, page(&[A], Some("t"), 10));
            at.step(page(&[B], None, 10));
            if opens {
                at.step(Input::Opened);
            }
        }
        assert!(slept >= 30_000, "{slept}");
    }
}

#[test]
fn after_a_watch_that_lasted_a_list_is_made_at_once_again() {
    let mut at = Loop::live();
    for _ in 0..3 {
        let out = at.after(CALM_WATCH_MS, Input::Event(Event::Error(RequestFailure::Expired)));
        assert!(is_first_page(&out));
        at.step(page(&[A], None, 10));
        at.step(Input::Opened);
    }
    assert_eq!(at.machine.health(), &Health::Live);
}

#[test]
fn a_watch_that_opens_and_fails_again_is_failing_since_the_first_time() {
    let mut at = Loop::live();
    at.event(Event::Error(RequestFailure::Server { code: 500 }));
    let began = at.now;
    // Beyond the list that is made when the checkpoint is given up.
    for _ in 0..20 {
        if is_first_page(&at.after(30_000, Input::Fired)) {
            at.step(page(&[A], None, 10));
        } else {
            at.step(Input::Probed { resource_version: version(20) });
        }
        at.step(Input::Opened);
        assert_eq!(at.machine.health(), &Health::Live);
        at.event(Event::Error(RequestFailure::Server { code: 500 }));
        assert_eq!(at.failing(), Some((&RequestFailure::Server { code: 500 }, began)));
    }
}

#[test]
fn a_stream_of_nonsense_is_no_success() {
    // An HTML page with status 200, line by line.
    let mut at = Loop::live();
    for _ in 1..WATCH_FAILURES_BEFORE_RELIST {
        at.event(Event::Undecodable { why: "x".to_owned() });
        assert!(sleep(&at.step(Input::Ended)).is_some());
        assert!(is_probe(&at.step(Input::Fired)));
        at.step(Input::Probed { resource_version: version(9) });
        at.step(Input::Opened);
    }
    at.event(Event::Undecodable { why: "x".to_owned() });
    at.step(Input::Ended);
    assert!(is_first_page(&at.step(Input::Fired)), "given up in the end");
}

#[test]
fn a_bookmark_and_an_end_at_once_is_no_success_an_object_is() {
    let mark: Body = br#"{"metadata":{"resourceVersion":"9"}}"#;
    let mut at = Loop::live();
    at.event(Event::Bookmark(mark));
    assert!(sleep(&at.step(Input::Ended)).is_some());
    at.step(Input::Fired);
    at.step(Input::Probed { resource_version: version(9) });
    at.step(Input::Opened);
    at.event(Event::Applied(A));
    assert!(is_probe(&at.step(Input::Ended)));
}

#[test]
fn a_server_without_versions_is_listed_ever_more_slowly() {
    let (mut at, _) = Loop::start(Start::Nothing);
    let mut slept = 0;
    for _ in 0..10 {
        let out = at.step(Input::Page {
            items: vec![],
            continue_token: None,
            resource_version: ResourceVersion::default(),
        });
        assert_eq!(absence(&out), Some(Absence::Conclusive));
        slept = sleep(&out).unwrap();
        assert!(is_first_page(&at.step(Input::Fired)));
        assert_eq!(at.failing(), Some((&RequestFailure::Undecodable, 10)));
        assert_eq!(at.machine.checkpoint(), None);
    }
    assert!(slept >= 30_000, "{slept}");
}

#[test]
fn a_page_that_is_too_much_is_asked_for_in_parts() {
    let limit = |out: &[Output<Body>]| match command(out) {
        Some(Command::List { limit, .. }) => *limit,
        other => panic!("{other:?}"),
    };
    let (mut at, _) = Loop::start(Start::Nothing);
    let mut limits = Vec::new();
    // It has grown as far as it may.
    for _ in 0..3 {
        limits.push(limit(&at.step(page(&[A], Some("t"), 10))));
    }
    assert_eq!(limits, [128, 500, 500]);
    limits.clear();
    for failure in [RequestFailure::Timeout, RequestFailure::Timeout, RequestFailure::Timeout]
        .into_iter()
        .chain(std::iter::repeat_n(RequestFailure::TooLong, 4))
        .chain([RequestFailure::Timeout])
    {
        at.fail(failure);
        limits.push(limit(&at.step(Input::Fired)));
    }
    assert_eq!(limits, [125, 50, 50, 12, 3, 1, 1, 1]);
    at.step(page(&[A], None, 10));
    at.step(Input::Opened);
    let out = at.event(Event::Error(RequestFailure::Expired));
    assert_eq!(limit(&out), PAGE_START, "the next list begins as usual");
}

#[test]
fn i14_pages_begin_small_and_grow_by_their_bytes() {
    const LARGE: usize = 1_500_000;
    let page_of = |bytes: usize, count: usize| {
        let object =
            format!(r#"{{"metadata":{{"name":"a","resourceVersion":"8"}},"d":"{}"}}"#, "x".repeat(bytes));
        let items = vec![object; count];
        Input::Page { items, continue_token: Some("t".to_owned()), resource_version: version(10) }
    };
    let limit = |out: &[Output<String>]| {
        out.iter().find_map(|output| match output {
            Output::Command(Command::List { limit, .. }) => Some(*limit),
            _ => None,
        })
    };
    let settings = Settings { epoch: 0, seed: 1, streaming: false, idle_ms: WATCH_IDLE_MS };
    let mut machine: Machine<String> = Machine::new(settings);
    let mut step = |input: Option<Input<String>>| {
        let mut out = Vec::new();
        match input {
            None => machine.start(Start::Nothing, &mut out),
            Some(input) => machine.step(input, 1_000, &mut out),
        }
        limit(&out)
    };
    assert_eq!(step(None), Some(PAGE_START));
    assert!(PAGE_START as usize * LARGE <= PAGE_BYTES, "the first page fits whatever is on it");
    // Small ones: as many as there may be, soon.
    assert_eq!(step(Some(page_of(100, 32))), Some(128));
    assert_eq!(step(Some(page_of(100, 128))), Some(PAGE_LIMIT));
    // Helm releases and the like: so few that ones eight times as large would still fit.
    let few = step(Some(page_of(LARGE, 40))).unwrap();
    assert!(few >= 1 && few as usize * LARGE <= PAGE_BYTES / 8, "{few}");
    // And back, in steps.
    assert_eq!(step(Some(page_of(100, few as usize))), Some(few * PAGE_GROWTH));
    // A page without objects tells nothing.
    assert_eq!(step(Some(page_of(0, 0))), Some(few * PAGE_GROWTH));
}

#[test]
fn a_kind_that_is_gone_and_comes_back_is_listed() {
    let mut at = Loop::live();
    at.event(Event::Applied(A));
    at.step(Input::Ended);
    for _ in 0..20 {
        at.fail(RequestFailure::NotServed);
        assert!(is_probe(&at.after(60_000, Input::Fired)), "no list while it is gone");
    }
    at.step(Input::Probed { resource_version: version(900) });
    assert!(is_first_page(&at.fail(RequestFailure::Expired)));
    assert_eq!(absence(&at.step(page(&[], None, 901))), Some(Absence::Conclusive));
}
