use super::*;

mod random;
mod rewind;
mod stale;
mod stream;
mod trouble;

type Body = &'static [u8];

fn version(number: u64) -> ResourceVersion {
    ResourceVersion::new(&number.to_string())
}

fn settings() -> Settings {
    Settings { epoch: 0, seed: 42, streaming: false, idle_ms: WATCH_IDLE_MS }
}

/// A machine with its clock, driven by hand.
struct Loop {
    machine: Machine<Body>,
    now: Millis,
}

impl Loop {
    fn start(start: Start) -> (Self, Vec<Output<Body>>) {
        Self::with(settings(), start)
    }

    fn with(settings: Settings, start: Start) -> (Self, Vec<Output<Body>>) {
        let mut out = Vec::new();
        let mut machine = Machine::new(settings);
        machine.start(start, &mut out);
        (Self { machine, now: 0 }, out)
    }

    fn fail(&mut self, failure: RequestFailure) -> Vec<Output<Body>> {
        self.step(Input::Failed(failure))
    }

    fn event(&mut self, event: Event<Body>) -> Vec<Output<Body>> {
        self.step(Input::Event(event))
    }

    /// A later input, so many ms after the one before.
    fn after(&mut self, ms: Millis, input: Input<Body>) -> Vec<Output<Body>> {
        self.now += ms;
        self.step(input)
    }

    fn failing(&self) -> Option<(&RequestFailure, Millis)> {
        match self.machine.health() {
            Health::Failing { reason, since } => Some((reason, *since)),
            _ => None,
        }
    }

    fn step(&mut self, input: Input<Body>) -> Vec<Output<Body>> {
        self.now += 10;
        let mut out = Vec::new();
        self.machine.step(input, self.now, &mut out);
        assert!(
            out.iter().filter(|o| matches!(o, Output::Command(_))).count() <= 1,
            "one command at a time: {out:?}"
        );
        out
    }

    /// A machine with an open watch from version 7.
    fn live() -> Self {
        let (mut at, _) = Self::start(Start::Checkpoint(version(7)));
        at.step(Input::Probed { resource_version: version(9) });
        at.step(Input::Opened);
        at
    }
}

fn page(items: &[Body], token: Option<&str>, rv: u64) -> Input<Body> {
    Input::Page {
        items: items.to_vec(),
        continue_token: token.map(str::to_owned),
        resource_version: version(rv),
    }
}

/// How long a sleep was asked for.
fn sleep(out: &[Output<Body>]) -> Option<u64> {
    match command(out) {
        Some(Command::Sleep { ms }) => Some(*ms),
        _ => None,
    }
}

fn is_first_page(out: &[Output<Body>]) -> bool {
    matches!(command(out), Some(Command::List { continue_token: None, .. }))
}

fn is_probe(out: &[Output<Body>]) -> bool {
    matches!(command(out), Some(Command::Probe { .. }))
}

/// The absence that a completed list told of.
fn absence(out: &[Output<Body>]) -> Option<Absence> {
    out.iter().find_map(|o| match o {
        Output::Observation(Observation::ListCompleted { absence, .. }) => Some(*absence),
        _ => None,
    })
}

fn suspected(out: &[Output<Body>]) -> Option<(&str, &str)> {
    out.iter().find_map(|o| match o {
        Output::Observation(Observation::RewindSuspected { checkpoint, server }) => {
            Some((checkpoint.as_str(), server.as_str()))
        }
        _ => None,
    })
}

fn command(out: &[Output<Body>]) -> Option<&Command> {
    out.iter().find_map(|o| if let Output::Command(c) = o { Some(c) } else { None })
}

fn observations(out: Vec<Output<Body>>) -> Vec<Observation<Body>> {
    out.into_iter().filter_map(|o| if let Output::Observation(o) = o { Some(o) } else { None }).collect()
}

fn watch_from(out: &[Output<Body>]) -> Option<&str> {
    match command(out) {
        Some(Command::Watch { from, timeout_s, cut_off_ms, .. }) => {
            assert!((WATCH_TIMEOUT_MIN_S..=WATCH_TIMEOUT_MAX_S).contains(timeout_s));
            assert!(*cut_off_ms > u64::from(*timeout_s) * 1_000);
            Some(from.as_str())
        }
        _ => None,
    }
}

const A: Body = br#"{"metadata":{"name":"a","resourceVersion":"8"}}"#;
const B: Body = br#"{"metadata":{"name":"b","resourceVersion":"9"}}"#;

#[test]
fn from_nothing_all_pages_are_listed_then_watched_from_the_first_pages_version() {
    let (mut at, out) = Loop::start(Start::Nothing);
    assert_eq!(command(&out), Some(&Command::List { limit: PAGE_START, continue_token: None }));
    assert!(observations(out).contains(&Observation::ListStarted { epoch: 1 }));
    let out = at.step(page(&[A], Some("t"), 10));
    assert_eq!(
        command(&out),
        Some(&Command::List { limit: PAGE_START * PAGE_GROWTH, continue_token: Some("t".to_owned()) })
    );
    let out = at.step(page(&[B], None, 12));
    assert_eq!(watch_from(&out), Some("10"));
    let seen = observations(out);
    assert!(matches!(seen.first(), Some(Observation::Applied { body, listed: true, .. }) if *body == B));
    assert_eq!(
        seen.last(),
        Some(&Observation::ListCompleted {
            epoch: 1,
            resource_version: version(10),
            absence: Absence::Conclusive
        })
    );
    assert_eq!(observations(at.step(Input::Opened)), [Observation::StateChanged(Health::Live)]);
}

#[test]
fn from_a_checkpoint_it_probes_then_watches_without_a_list() {
    let (mut at, out) = Loop::start(Start::Checkpoint(version(7)));
    assert!(is_probe(&out));
    let out = at.step(Input::Probed { resource_version: version(7) });
    assert_eq!(watch_from(&out), Some("7"));
}

#[test]
fn i3_a_server_behind_the_checkpoint_is_a_rewind_and_absence_means_nothing() {
    for refused in [false, true] {
        let (mut at, _) = Loop::start(Start::Checkpoint(version(7)));
        let (input, server) = if refused {
            (Input::Failed(RequestFailure::FutureVersion), ResourceVersion::default())
        } else {
            (Input::Probed { resource_version: version(6) }, version(6))
        };
        let out = observations(at.step(input));
        assert!(out.contains(&Observation::RewindSuspected { checkpoint: version(7), server }), "{out:?}");
        assert!(out.contains(&Observation::ListStarted { epoch: 1 }));
        let out = observations(at.step(page(&[], None, 6)));
        assert!(
            matches!(out.last(), Some(Observation::ListCompleted { absence: Absence::Rewound, .. })),
            "{out:?}"
        );
        assert_eq!(at.machine.checkpoint(), Some(&version(6)));
    }
}

#[test]
fn i3_a_relist_older_than_the_checkpoint_is_a_rewind_too() {
    let mut at = Loop::live();
    at.step(Input::Event(Event::Error(RequestFailure::Expired)));
    let out = observations(at.step(page(&[A], None, 3)));
    assert!(out.contains(&Observation::RewindSuspected { checkpoint: version(7), server: version(3) }));
    assert!(matches!(out.last(), Some(Observation::ListCompleted { absence: Absence::Rewound, .. })));
}

#[test]
fn i3_items_without_a_key_make_absence_mean_nothing_and_stop_nothing() {
    let (mut at, _) = Loop::start(Start::Nothing);
    let out = observations(at.step(page(&[br#"{"metadata":{}}"#, A, b"5"], None, 10)));
    assert_eq!(out.iter().filter(|o| matches!(o, Observation::Undecodable { listed: true, .. })).count(), 2);
    assert!(out.iter().any(|o| matches!(o, Observation::Applied { .. })));
    assert!(matches!(out.last(), Some(Observation::ListCompleted { absence: Absence::Undecodable(2), .. })));
}

#[test]
fn expired_in_both_forms_lists_again() {
    let mut at = Loop::live();
    let out = at.step(Input::Event(Event::Error(RequestFailure::Expired)));
    assert!(matches!(command(&out), Some(Command::List { continue_token: None, .. })));
    let (mut at, _) = Loop::start(Start::Checkpoint(version(7)));
    at.step(Input::Probed { resource_version: version(9) });
    let out = at.step(Input::Failed(RequestFailure::Expired));
    assert!(matches!(command(&out), Some(Command::List { continue_token: None, .. })));
}

#[test]
fn an_expired_continue_token_starts_the_list_again_with_a_new_epoch() {
    let (mut at, _) = Loop::start(Start::Nothing);
    at.step(page(&[A], Some("t"), 10));
    let out = at.step(Input::Failed(RequestFailure::Expired));
    assert!(matches!(command(&out), Some(Command::Sleep { .. })));
    let out = at.step(Input::Fired);
    assert!(matches!(command(&out), Some(Command::List { continue_token: None, .. })));
    assert!(observations(out).contains(&Observation::ListStarted { epoch: 2 }));
    let out = observations(at.step(page(&[A], None, 11)));
    assert!(matches!(out.last(), Some(Observation::ListCompleted { epoch: 2, .. })));
}

#[test]
fn a_page_that_failed_in_passing_is_asked_again_with_its_token() {
    let (mut at, _) = Loop::start(Start::Nothing);
    at.step(page(&[A], Some("t"), 10));
    at.step(Input::Failed(RequestFailure::Unreachable));
    let out = at.step(Input::Fired);
    assert_eq!(
        command(&out),
        Some(&Command::List { limit: PAGE_START * PAGE_GROWTH, continue_token: Some("t".to_owned()) })
    );
    let out = observations(at.step(page(&[B], None, 10)));
    assert!(matches!(
        out.last(),
        Some(Observation::ListCompleted { epoch: 1, absence: Absence::Conclusive, .. })
    ));
}

#[test]
fn forbidden_is_a_state_and_retried_with_backoff() {
    let (mut at, _) = Loop::start(Start::Nothing);
    let out = at.step(Input::Failed(RequestFailure::Forbidden));
    assert!(matches!(command(&out), Some(Command::Sleep { ms: 500..=1_000 })), "{out:?}");
    let failing = Health::Failing { reason: RequestFailure::Forbidden, since: 10 };
    assert_eq!(observations(out), [Observation::StateChanged(failing.clone())]);
    at.step(Input::Fired);
    let out = at.step(Input::Failed(RequestFailure::Forbidden));
    assert!(matches!(command(&out), Some(Command::Sleep { ms: 1_000..=2_000 })), "{out:?}");
    assert_eq!(at.machine.health(), &failing, "since when does not move");
}

#[test]
fn events_and_bookmarks_move_the_checkpoint() {
    let mut at = Loop::live();
    let out = observations(at.step(Input::Event(Event::Applied(A))));
    assert_eq!(out, [Observation::Applied { body: A, resource_version: version(8), listed: false }]);
    at.step(Input::Event(Event::Deleted(B)));
    assert_eq!(at.machine.checkpoint(), Some(&version(9)));
    let bookmark: Body = br#"{"kind":"Secret","metadata":{"resourceVersion":"20","creationTimestamp":null}}"#;
    let out = observations(at.step(Input::Event(Event::Bookmark(bookmark))));
    assert_eq!(out, [Observation::Bookmark(version(20))]);
    let out = at.step(Input::Ended);
    assert!(is_probe(&out), "every resume is probed");
    let out = at.step(Input::Probed { resource_version: version(20) });
    assert_eq!(watch_from(&out), Some("20"));
}

#[test]
fn an_undecodable_event_stops_nothing() {
    let mut at = Loop::live();
    let out = at.step(Input::Event(Event::Undecodable { why: "x".to_owned() }));
    assert_eq!(observations(out), [Observation::Undecodable { listed: false, why: "x".to_owned() }]);
    let out = at.step(Input::Event(Event::Applied(br#"{"metadata":{"name":3}}"#)));
    assert!(command(&out).is_none());
    assert!(matches!(observations(out).first(), Some(Observation::Undecodable { listed: false, .. })));
    assert_eq!(observations(at.step(Input::Event(Event::Applied(A)))).len(), 1);
}

#[test]
fn a_watch_that_ends_at_once_is_slowed_down_and_given_up_in_the_end() {
    let mut at = Loop::live();
    for round in 1..=WATCH_FAILURES_BEFORE_RELIST {
        let out = at.step(Input::Ended);
        assert!(matches!(command(&out), Some(Command::Sleep { .. })), "{round}");
        let out = at.step(Input::Fired);
        if round == WATCH_FAILURES_BEFORE_RELIST {
            assert!(matches!(command(&out), Some(Command::List { .. })));
        } else {
            assert!(is_probe(&out));
            at.step(Input::Probed { resource_version: version(9) });
            at.step(Input::Opened);
        }
    }
}

#[test]
fn an_unreachable_server_is_never_a_reason_to_list() {
    let mut at = Loop::live();
    at.step(Input::Event(Event::Applied(A)));
    at.step(Input::Ended);
    for _ in 0..50 {
        at.step(Input::Failed(RequestFailure::Unreachable));
        assert!(is_probe(&at.step(Input::Fired)));
    }
}

#[test]
fn late_events_of_a_closed_stream_are_ignored() {
    let mut at = Loop::live();
    at.step(Input::Ended);
    assert!(at.step(Input::Event(Event::Applied(A))).is_empty());
}

#[test]
fn statuses_become_failures() {
    use crate::outcome::Status;
    let read = |http, body: &str| RequestFailure::from_status(http, &Status::parse(body.as_bytes()), None);
    assert_eq!(read(410, ""), RequestFailure::Expired);
    assert_eq!(read(200, r#"{"code":410,"reason":"Expired"}"#), RequestFailure::Expired);
    assert_eq!(
        read(504, r#"{"details":{"causes":[{"reason":"ResourceVersionTooLarge"}]}}"#),
        RequestFailure::FutureVersion
    );
    assert_eq!(
        read(500, r#"{"message":"etcdserver: mvcc: required revision is a future revision"}"#),
        RequestFailure::FutureVersion
    );
    assert_eq!(read(403, ""), RequestFailure::Forbidden);
    assert_eq!(read(404, ""), RequestFailure::NotServed);
    assert_eq!(
        read(429, r#"{"details":{"retryAfterSeconds":2}}"#),
        RequestFailure::Throttled { retry_after_ms: 2_000 }
    );
    assert_eq!(read(500, ""), RequestFailure::Server { code: 500 });
    assert_eq!(read(400, ""), RequestFailure::Rejected);
}
