//! Rules of the limit one by one, as laws, and against a server that is played in time.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const MS: u32 = 1_000;

fn limit() -> Limit<u8> {
    Limit::new(1, 32, 8)
}

/// Answers that take this long, with all the limit allows under way, one per millisecond.
fn answers(limit: &mut Limit<u8>, took_us: u32, from: Millis, count: i64) -> Millis {
    for now in from..from + count {
        let in_flight = limit.limit(now);
        limit.on_answer(0, took_us, in_flight, now);
    }
    from + count
}

#[test]
fn it_grows_by_one_a_round_while_it_is_used() {
    let mut limit = limit();
    let now = answers(&mut limit, 3 * MS, 0, 9);
    assert_eq!(limit.limit(now), 9);
    for now in now..200 {
        limit.on_answer(0, 3 * MS, 4, now);
    }
    assert_eq!(limit.limit(200), 9, "what is not used tells nothing");
    assert_eq!(answers(&mut limit, 3 * MS, 200, 2_000), 2_200);
    assert_eq!(limit.limit(2_200), 32);
}

#[test]
fn one_slow_answer_does_not_halve_it() {
    let mut limit = limit();
    let now = answers(&mut limit, 3 * MS, 0, 100);
    let before = limit.limit(now);
    limit.on_answer(0, 30_000 * MS, before, 40_000);
    assert_eq!(limit.limit(40_000), before);
    answers(&mut limit, 3 * MS, 40_001, 100);
    assert!(limit.limit(40_101) > before);
}

#[test]
fn an_episode_of_congestion_costs_once() {
    let mut limit = limit();
    // Eight steps that began at 100 are refused one after the other.
    for now in 110..118 {
        let took = u32::try_from(now - 100).unwrap() * MS;
        limit.on_throttled(took, 0, now);
    }
    assert_eq!(limit.limit(118), 5);
    limit.on_timeout(MS, 130);
    assert_eq!(limit.limit(130), 2, "this one began after the decrease");
    let counts: Vec<_> = limit.decreases().map(|(why, count)| (why.code(), count)).collect();
    assert_eq!(counts, [("Throttled", 1), ("Unanswered", 1)]);
}

#[test]
fn retry_after_pauses_everything_and_never_for_days() {
    let mut limit = limit();
    limit.on_throttled(MS, 2_000, 100);
    limit.on_throttled(20 * MS, 1_000, 105);
    assert_eq!((limit.limit(2_099), limit.limit(2_100)), (0, 5), "the longest counts");
    limit.on_throttled(MS, u64::MAX, 3_000);
    assert_eq!(limit.limit(3_000 + 299_999), 0);
    assert_eq!(limit.limit(3_000 + 300_000), 3);
}

#[test]
fn slow_answers_alone_shrink_it() {
    let mut limit = limit();
    let now = answers(&mut limit, 3 * MS, 0, 100);
    let before = limit.limit(now);
    answers(&mut limit, 200 * MS, now + 500, 18);
    assert!(limit.limit(now + 600) < before, "{before}");
    assert_eq!(limit.decreases().map(|(why, _)| why).collect::<Vec<_>>(), [Congestion::Latency]);
}

#[test]
fn a_quick_server_is_not_spared() {
    // Thirteen times the floor, as measured of an API server that does its most.
    let mut limit = limit();
    for now in 0..2_000_i64 {
        let in_flight = limit.limit(now);
        let took = if in_flight < 9 { 3 * MS } else { 40 * MS };
        limit.on_answer(0, took, in_flight, now * 50);
    }
    assert_eq!(limit.limit(100_000), 32);
}

#[test]
fn sorts_of_steps_have_floors_of_their_own() {
    let mut limit = limit();
    for now in 0..400_i64 {
        let in_flight = limit.limit(now);
        // Reads take 1 ms, applies behind a webhook 500 ms.
        let (lane, took) = if now % 2 == 0 { (0, MS) } else { (1, 500 * MS) };
        limit.on_answer(lane, took, in_flight, now);
    }
    assert!(limit.limit(400) > 16);
    assert_eq!(limit.decreases().count(), 0);
}

#[test]
fn a_server_that_is_slow_for_good_is_believed() {
    let mut limit = limit();
    let now = answers(&mut limit, 3 * MS, 0, 100);
    let mut now = now;
    while limit.limit(now) > 1 {
        now = answers(&mut limit, 400 * MS, now + 500, 20);
    }
    // Alone at the server, the slow answers are its own.
    let mut steps = 0;
    while limit.limit(now) < 16 {
        now = answers(&mut limit, 400 * MS, now + 500, 1);
        steps += 1;
        assert!(steps < 2_000, "still at {}", limit.limit(now));
    }
}

/// A server played in time: `capacity` steps at once take `base_ms` each, more take proportionally
/// longer, and above `refuses` it answers 429 at once.
struct Server {
    capacity: usize,
    base_ms: u64,
    refuses: usize,
}

#[derive(Default)]
struct Seen {
    done: u64,
    refused: u64,
    /// Sum and number of the limits looked at.
    limits: (usize, usize),
}

impl Seen {
    fn mean(&self) -> usize {
        self.limits.0 / self.limits.1.max(1)
    }
}

/// Keeps the server busy from `from` to `to`: (end of the step, number, began, refused).
fn serve(
    limit: &mut Limit<u8>,
    server: &Server,
    under_way: &mut BTreeSet<(Millis, u64, Millis, bool)>,
    (from, to): (Millis, Millis),
) -> Seen {
    let mut seen = Seen::default();
    let mut number = 0;
    for now in from..to {
        while under_way.first().is_some_and(|(end, ..)| *end <= now) {
            let in_flight = under_way.len();
            let Some((_, _, began, refused)) = under_way.pop_first() else { break };
            let took = u32::try_from(now - began).unwrap() * MS;
            if refused {
                seen.refused += 1;
                limit.on_throttled(took, 0, now);
            } else {
                seen.done += 1;
                limit.on_answer(0, took, in_flight, now);
            }
        }
        while under_way.len() < limit.limit(now) {
            let working = under_way.iter().filter(|(.., refused)| !refused).count();
            let refused = working >= server.refuses;
            // A little of the noise that every server has.
            number += 1;
            let noise = crate::backoff::mix(number) % (server.base_ms / 2 + 1);
            let load = u64::try_from((working + 1).max(server.capacity)).unwrap();
            let queued = server.base_ms * load / u64::try_from(server.capacity).unwrap();
            let took = if refused { 1 } else { queued + noise };
            let end = now + i64::try_from(took).unwrap();
            under_way.insert((end, number + u64::try_from(now).unwrap() * 1_000, now, refused));
        }
        seen.limits.0 += limit.limit(now);
        seen.limits.1 += 1;
    }
    seen
}

/// What a server can do in this time.
fn possible(server: &Server, ms: Millis) -> u64 {
    let mean = server.base_ms + server.base_ms / 4;
    u64::try_from(ms).unwrap() * u64::try_from(server.capacity).unwrap() / mean
}

#[test]
fn it_finds_the_capacity_of_a_server_that_throttles() {
    let mut limit = Limit::new(1, 64, 8);
    let server = Server { capacity: 12, base_ms: 60, refuses: 16 };
    let mut under_way = BTreeSet::new();
    serve(&mut limit, &server, &mut under_way, (0, 20_000));
    let seen = serve(&mut limit, &server, &mut under_way, (20_000, 60_000));
    assert!((8..=16).contains(&seen.mean()), "mean limit {}", seen.mean());
    assert!(
        seen.done * 10 >= possible(&server, 40_000) * 8,
        "{} of {}",
        seen.done,
        possible(&server, 40_000)
    );
    assert!(seen.refused * 20 < seen.done, "{} refused, {} done", seen.refused, seen.done);
}

#[test]
fn it_relieves_a_server_that_never_refuses() {
    let mut limit = Limit::new(1, 64, 8);
    let server = Server { capacity: 6, base_ms: 60, refuses: usize::MAX };
    let mut under_way = BTreeSet::new();
    serve(&mut limit, &server, &mut under_way, (0, 20_000));
    let seen = serve(&mut limit, &server, &mut under_way, (20_000, 60_000));
    assert!((6..=24).contains(&seen.mean()), "mean limit {}", seen.mean());
    assert!(
        seen.done * 10 >= possible(&server, 40_000) * 8,
        "{} of {}",
        seen.done,
        possible(&server, 40_000)
    );
}

#[test]
fn it_recovers_when_the_trouble_is_over() {
    let mut limit = Limit::new(1, 32, 8);
    let well = Server { capacity: 64, base_ms: 60, refuses: usize::MAX };
    let ill = Server { capacity: 2, base_ms: 200, refuses: 3 };
    let mut under_way = BTreeSet::new();
    serve(&mut limit, &well, &mut under_way, (0, 20_000));
    assert_eq!(limit.limit(20_000), 32);
    serve(&mut limit, &ill, &mut under_way, (20_000, 40_000));
    assert!(limit.limit(40_000) <= 4, "{}", limit.limit(40_000));
    serve(&mut limit, &well, &mut under_way, (40_000, 60_000));
    assert_eq!(limit.limit(60_000), 32);
}

#[derive(Clone, Debug)]
enum Event {
    Answer { lane: u8, took_us: u32, in_flight: usize },
    Throttled { took_us: u32, retry_after_ms: u64 },
    Timeout { took_us: u32 },
}

fn events() -> impl Strategy<Value = Vec<(Event, i64)>> {
    let took = || prop_oneof![0..20_000_u32, any::<u32>()];
    let event = prop_oneof![
        6 => (0..3_u8, took(), 0..100_usize)
            .prop_map(|(lane, took_us, in_flight)| Event::Answer { lane, took_us, in_flight }),
        1 => (took(), prop_oneof![0..5_000_u64, any::<u64>()])
            .prop_map(|(took_us, retry_after_ms)| Event::Throttled { took_us, retry_after_ms }),
        1 => took().prop_map(|took_us| Event::Timeout { took_us }),
    ];
    prop::collection::vec((event, -5..2_000_i64), 0..300)
}

proptest! {
    /// Never below the minimum (but for a pause), never above the maximum, whatever is answered;
    /// and what was paused goes on.
    #[test]
    fn the_limit_stays_within_its_bounds(
        min in 0..5_usize, max in 0..50_usize, start in 0..80_usize, events in events(),
    ) {
        let mut limit = Limit::new(min, max, start);
        let (low, high) = (min.max(1), max.max(min).max(1));
        let mut now = 0;
        for (event, later) in events {
            now += later;
            match event {
                Event::Answer { lane, took_us, in_flight } => limit.on_answer(lane, took_us, in_flight, now),
                Event::Throttled { took_us, retry_after_ms } => limit.on_throttled(took_us, retry_after_ms, now),
                Event::Timeout { took_us } => limit.on_timeout(took_us, now),
            }
            let after = limit.paused_until().unwrap_or(now);
            prop_assert!(after <= now + 5 * 60 * 1_000 + 5 * 300, "paused until {after} at {now}");
            let resumed = limit.limit(after.max(now));
            prop_assert!((low..=high).contains(&resumed), "{resumed} is not in {low}..={high}");
            prop_assert!(limit.limit(now) == resumed || limit.limit(now) == 0);
        }
    }

    /// A decrease leaves at least half, and never more than there was.
    #[test]
    fn a_decrease_is_at_most_by_half(took_us in 0..100_000_u32, rounds in 1..40_i64) {
        let mut limit = limit();
        let mut now = answers(&mut limit, took_us, 0, rounds * 8) + 1_000;
        for _ in 0..6 {
            let before = limit.limit(now);
            limit.on_timeout(MS, now);
            prop_assert!(limit.limit(now) <= before && limit.limit(now) * 2 + 1 >= before);
            now += 1_000;
        }
        prop_assert_eq!(limit.limit(now), 1);
    }
}
