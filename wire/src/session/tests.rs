//! Both sides against each other, with a connection that breaks wherever it likes.

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::PROTOCOL;
use crate::v1::{
    Ack, AgentMessage, Batch, Hello, HubMessage, IndexEntry, InterestSet, Resume, Section, WatchInterest,
    Welcome, agent_message, hub_message::Body,
};

const KEY: Bytes = Bytes::from_static(&[7; 32]);

fn hub_message(body: Body) -> HubMessage {
    HubMessage { body: Some(body) }
}

fn hello_of(message: &AgentMessage) -> &Hello {
    match &message.body {
        Some(agent_message::Body::Hello(hello)) => hello,
        other => panic!("no hello: {other:?}"),
    }
}

fn welcome(same_instance: bool, committed: u64) -> HubMessage {
    hub_message(Body::Welcome(Welcome {
        protocol: 1,
        same_instance,
        committed,
        window_bytes: 1 << 20,
        window_batches: 4,
        secret_key: KEY,
        ..Welcome::default()
    }))
}

fn opened() -> AgentSession {
    let mut agent = AgentSession::new("i".into(), Protocols::BUILT_IN);
    agent.connected(Hello::default());
    agent.handle(welcome(false, 0)).unwrap();
    agent
}

fn section(n: u32) -> Vec<Section> {
    vec![Section { watch: n, checkpoint: n.to_string(), ..Section::default() }]
}

fn sent(effects: &[AgentEffect]) -> Vec<u64> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            AgentEffect::Send(AgentMessage { body: Some(agent_message::Body::Batch(batch)) }) => {
                Some(batch.sequence)
            }
            _ => None,
        })
        .collect()
}

#[test]
fn the_same_instance_sends_again_what_was_not_committed() {
    let mut agent = opened();
    for n in 1..=3 {
        assert!(agent.room().is_some());
        agent.batch(section(n));
    }
    agent.handle(hub_message(Body::Ack(Ack { sequence: 1 }))).unwrap();
    assert_eq!(agent.unacked_batches(), 2);
    let hello = agent.connected(Hello::default());
    assert_eq!(hello_of(&hello).oldest_unacked, 2);
    let effects = agent.handle(welcome(true, 2)).unwrap();
    assert_eq!(sent(&effects), [3]);
    assert_eq!(agent.unacked_batches(), 1);
}

#[test]
fn another_hub_makes_it_forget() {
    let mut agent = opened();
    agent.handle(interest(1, &[(1, "x")])).unwrap();
    agent.batch(section(1));
    agent.connected(Hello::default());
    let effects = agent.handle(welcome(false, 0)).unwrap();
    assert!(matches!(effects.as_slice(), [AgentEffect::Opened(_), AgentEffect::Forget]));
    assert_eq!((agent.unacked_batches(), agent.unacked_bytes()), (0, 0));
    let AgentMessage { body: Some(agent_message::Body::Batch(batch)) } = agent.batch(section(1)) else {
        panic!()
    };
    assert_eq!(batch.sequence, 1);
    assert_eq!(
        agent.handle(interest(1, &[(1, "x")])).unwrap(),
        [AgentEffect::Started { watch: 1, interest: "x".into() }]
    );
}

#[test]
fn a_hub_that_lost_what_it_acknowledged_is_noticed() {
    let mut agent = opened();
    agent.batch(section(1));
    agent.batch(section(2));
    agent.handle(hub_message(Body::Ack(Ack { sequence: 2 }))).unwrap();
    agent.connected(Hello::default());
    assert_eq!(agent.handle(welcome(true, 1)), Err(ProtocolError::HubBehind { committed: 1, acked: 2 }));
    agent.renew("j".into());
    assert_eq!(hello_of(&agent.connected(Hello::default())).instance, "j");
}

#[test]
fn the_window_bounds_batches_and_bytes_but_always_lets_one_pass() {
    let mut agent = opened();
    let big = vec![Section { checkpoint: "x".repeat(2 << 20), ..Section::default() }];
    assert!(agent.room().is_some());
    agent.batch(big);
    assert_eq!(agent.room(), None);
    agent.handle(hub_message(Body::Ack(Ack { sequence: 1 }))).unwrap();
    for n in 0..4 {
        assert!(agent.room().is_some());
        agent.batch(section(n));
    }
    assert_eq!(agent.room(), None);
    agent.disconnected();
    assert_eq!(agent.room(), None);
}

#[test]
fn an_ack_of_the_future_is_an_error() {
    let mut agent = opened();
    let ack = |sequence| hub_message(Body::Ack(Ack { sequence }));
    assert_eq!(agent.handle(ack(1)), Err(ProtocolError::AckAhead { sequence: 1, sent: 0 }));
    let mut away = AgentSession::new("i".into(), Protocols::BUILT_IN);
    assert_eq!(away.handle(ack(0)), Err(ProtocolError::BeforeGreeting));
}

fn interest(generation: u64, watches: &[(u32, &'static str)]) -> HubMessage {
    let watches =
        watches.iter().map(|(watch, text)| WatchInterest { watch: *watch, interest: Bytes::from(*text) });
    hub_message(Body::Interest(InterestSet { generation, watches: watches.collect() }))
}

#[test]
fn an_interest_set_is_told_as_what_changed() {
    let mut agent = opened();
    agent.handle(interest(1, &[(1, "a"), (2, "b")])).unwrap();
    assert_eq!(
        agent.handle(interest(2, &[(2, "c"), (3, "d")])).unwrap(),
        [
            AgentEffect::Stopped { watch: 1 },
            AgentEffect::Changed { watch: 2, interest: "c".into() },
            AgentEffect::Started { watch: 3, interest: "d".into() },
        ]
    );
    assert_eq!(agent.handle(interest(1, &[])).unwrap(), [], "an older set is late");
    // The same instance keeps its watches over a reconnect.
    agent.connected(Hello::default());
    agent.handle(welcome(true, 0)).unwrap();
    assert_eq!(agent.handle(interest(1, &[(2, "c"), (3, "d")])).unwrap(), []);
}

#[test]
fn the_chunks_of_a_resume_are_put_together() {
    let mut agent = opened();
    agent.handle(interest(1, &[(1, "a")])).unwrap();
    let chunk = |watch, name: &str, last| {
        let entries = vec![IndexEntry { name: name.into(), ..IndexEntry::default() }];
        hub_message(Body::Resume(Resume { watch, epoch: 4, entries, last, ..Resume::default() }))
    };
    assert_eq!(agent.handle(chunk(1, "x", false)).unwrap(), []);
    assert_eq!(agent.handle(chunk(9, "other", true)).unwrap(), [], "nobody asked for 9");
    let effects = agent.handle(chunk(1, "y", true)).unwrap();
    let [AgentEffect::Resume(resumed)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(resumed.epoch, 4);
    assert_eq!(resumed.entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["x", "y"]);
}

#[test]
fn the_hub_acknowledges_duplicates_and_refuses_gaps() {
    let hello = Hello { instance: "i".into(), oldest_unacked: 3, ..Hello::default() };
    let mut hub = HubSession::open(&hello, PROTOCOL, Some(("i", 3)), Window::default());
    assert!(hub.same_instance());
    let batch = |sequence| {
        let batch = Batch { sequence, sections: section(1) };
        AgentMessage { body: Some(agent_message::Body::Batch(batch)) }
    };
    let ack = |sequence| hub_message(Body::Ack(Ack { sequence }));
    assert_eq!(hub.handle(batch(3)).unwrap(), Some(HubEffect::Send(ack(3))));
    assert!(matches!(hub.handle(batch(4)).unwrap(), Some(HubEffect::Commit { .. })));
    assert_eq!(hub.handle(batch(4)).unwrap(), None);
    assert_eq!(hub.handle(batch(6)), Err(ProtocolError::Gap { expected: 5, got: 6 }));
    assert!(hub.outstanding_bytes() > 0);
    assert_eq!(hub.committed(4), Some(ack(4)));
    assert_eq!(hub.committed(4), None);
    assert_eq!((hub.outstanding_bytes(), hub.outstanding_batches()), (0, 0));
}

#[test]
fn an_instance_whose_past_the_hub_lacks_is_not_resumed() {
    let hello = |oldest_unacked| Hello { instance: "i".into(), oldest_unacked, ..Hello::default() };
    let resumes = |oldest, stored| {
        HubSession::open(&hello(oldest), PROTOCOL, stored, Window::default()).same_instance()
    };
    assert!(resumes(4, Some(("i", 3))));
    assert!(!resumes(5, Some(("i", 3))));
    assert!(!resumes(1, Some(("j", 3))));
    assert!(!resumes(0, None));
}

/// A greeting between builds that speak these versions: what the agent makes of the answer.
fn greet(hub: Protocols, agent: Protocols) -> (HubSession, Vec<AgentEffect>) {
    let mut session = AgentSession::new("i".into(), agent);
    let hello = session.connected(Hello {
        cluster_name: "a".into(),
        cluster_uid: "u".into(),
        server_version: "v1.20.2".into(),
        ..Hello::default()
    });
    let known = crate::hello::Known { token_cluster: "a", ..Default::default() };
    let protocol = crate::hello::check(hello_of(&hello), &known, hub).unwrap();
    let hub = HubSession::open(hello_of(&hello), protocol, None, Window::default());
    let welcome = hub.welcome(Welcome { secret_key: KEY, ..Welcome::default() });
    (hub, session.handle(welcome).unwrap())
}

#[test]
fn a_newer_hub_speaks_the_older_version_with_an_older_agent_and_the_reverse() {
    let now = Protocols { oldest: PROTOCOL, newest: PROTOCOL };
    let next = Protocols { oldest: PROTOCOL, newest: PROTOCOL + 1 };
    for (hub, agent, spoken) in
        [(next, now, PROTOCOL), (now, next, PROTOCOL), (next, next, PROTOCOL + 1), (now, now, PROTOCOL)]
    {
        let (session, effects) = greet(hub, agent);
        assert_eq!(session.protocol(), spoken);
        let [AgentEffect::Opened(opened), AgentEffect::Forget] = effects.as_slice() else {
            panic!("{effects:?}")
        };
        assert_eq!(opened.protocol, spoken);
    }
}

#[test]
fn a_version_that_was_not_offered_is_not_taken() {
    let mut agent = AgentSession::new("i".into(), Protocols { oldest: 3, newest: 4 });
    for chosen in [2, 5] {
        agent.connected(Hello::default());
        let body = Body::Welcome(Welcome { protocol: chosen, secret_key: KEY, ..Welcome::default() });
        assert!(matches!(agent.handle(hub_message(body)), Err(ProtocolError::Version { .. })), "{chosen}");
    }
}

/// Field 1000 of a message, of the length-delimited wire type: no version has it yet.
const FIELD_OF_THE_FUTURE: &[u8] = &[0xc2, 0x3e, 0x02, 0x08, 0x01];

#[test]
fn kinds_of_messages_that_are_not_known_are_left_out_and_told_once() {
    let (mut hub, _) = greet(Protocols::BUILT_IN, Protocols::BUILT_IN);
    let unknown = || AgentMessage::decode(FIELD_OF_THE_FUTURE).unwrap();
    assert_eq!(unknown(), AgentMessage::default());
    assert_eq!(hub.handle(unknown()).unwrap(), Some(HubEffect::Unknown));
    assert_eq!(hub.handle(unknown()).unwrap(), None);
    let batch = Batch { sequence: 1, sections: section(1) };
    let batch = AgentMessage { body: Some(agent_message::Body::Batch(batch)) };
    assert!(matches!(hub.handle(batch).unwrap(), Some(HubEffect::Commit { .. })), "it goes on");

    let unknown = || HubMessage::decode(FIELD_OF_THE_FUTURE).unwrap();
    let mut agent = AgentSession::new("i".into(), Protocols::BUILT_IN);
    agent.connected(Hello::default());
    assert_eq!(agent.handle(unknown()).unwrap(), [AgentEffect::Unknown], "also before the greeting");
    agent.handle(welcome(false, 0)).unwrap();
    assert_eq!(agent.handle(unknown()).unwrap(), []);
    agent.batch(section(1));
    let acked = agent.handle(hub_message(Body::Ack(Ack { sequence: 1 }))).unwrap();
    assert_eq!(acked, [AgentEffect::Acked { sequence: 1 }], "it goes on");
    agent.connected(Hello::default());
    assert_eq!(agent.handle(unknown()).unwrap(), [AgentEffect::Unknown], "told again on a new connection");
}

#[test]
fn fields_that_are_not_known_are_left_out_of_every_message() {
    let known = Ack { sequence: 7 };
    let bytes = [known.encode_to_vec(), FIELD_OF_THE_FUTURE.to_vec()].concat();
    assert_eq!(Ack::decode(bytes.as_slice()).unwrap(), known);
    let known = Hello { cluster_name: "a".into(), ..Hello::default() };
    let bytes = [known.encode_to_vec(), FIELD_OF_THE_FUTURE.to_vec()].concat();
    assert_eq!(Hello::decode(bytes.as_slice()).unwrap(), known);
}

/// What a run of the simulation does next.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// The agent makes a batch, if it may.
    Make,
    /// One message arrives at the hub.
    ToHub,
    /// One message arrives at the agent.
    ToAgent,
    /// The hub commits the oldest batch that it has received.
    Commit,
    /// The connection breaks with everything on it, and comes back.
    Break,
    /// The hub dies: what it had not committed is gone.
    CrashHub,
}

/// Both machines, the two directions of a connection, and a store that survives the hub.
struct World {
    agent: AgentSession,
    hub: HubSession,
    up: VecDeque<AgentMessage>,
    down: VecDeque<HubMessage>,
    received: VecDeque<u64>,
    store: Vec<u64>,
    made: u64,
    acked: u64,
    window: Window,
}

impl World {
    fn new(window: Window) -> Self {
        let mut world = Self {
            agent: AgentSession::new("i".into(), Protocols::BUILT_IN),
            hub: HubSession::open(&Hello::default(), PROTOCOL, None, window),
            up: VecDeque::new(),
            down: VecDeque::new(),
            received: VecDeque::new(),
            store: Vec::new(),
            made: 0,
            acked: 0,
            window,
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.up.clear();
        self.down.clear();
        self.received.clear();
        let hello = self.agent.connected(Hello::default());
        // The store knows the instance from its first commit on; before that nothing was sent.
        let stored = (self.made > 0).then_some(("i", self.store.len() as u64));
        self.hub = HubSession::open(hello_of(&hello), PROTOCOL, stored, self.window);
        self.down.push_back(self.hub.welcome(Welcome { secret_key: KEY, ..Welcome::default() }));
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Make => {
                if self.agent.room().is_some() {
                    self.made += 1;
                    let message = self.agent.batch(section(1));
                    self.up.push_back(message);
                }
            }
            Op::ToHub => {
                let Some(message) = self.up.pop_front() else { return };
                match self.hub.handle(message).unwrap() {
                    Some(HubEffect::Commit { batch, .. }) => self.received.push_back(batch.sequence),
                    Some(HubEffect::Send(message)) => self.down.push_back(message),
                    other => assert_eq!(other, None),
                }
            }
            Op::ToAgent => {
                let Some(message) = self.down.pop_front() else { return };
                for effect in self.agent.handle(message).unwrap() {
                    match effect {
                        AgentEffect::Send(message) => self.up.push_back(message),
                        AgentEffect::Acked { sequence } => self.acked = sequence,
                        AgentEffect::Opened(_) => {}
                        AgentEffect::Forget => assert_eq!(self.made, 0),
                        other => panic!("{other:?}"),
                    }
                }
                assert!(self.acked <= self.store.len() as u64, "acked before the commit");
            }
            Op::Commit => {
                let Some(sequence) = self.received.pop_front() else { return };
                self.store.push(sequence);
                self.down.extend(self.hub.committed(sequence));
            }
            Op::Break | Op::CrashHub => self.connect(),
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Make),
        6 => Just(Op::ToHub),
        6 => Just(Op::ToAgent),
        4 => Just(Op::Commit),
        1 => Just(Op::Break),
        1 => Just(Op::CrashHub),
    ]
}

proptest! {
    /// I1: an ack means committed; what was not acked is sent again; nothing is applied twice.
    #[test]
    fn i1_every_batch_is_committed_exactly_once_in_order(
        ops in prop::collection::vec(op(), 0..200),
        bytes in 1..200u64,
        batches in 1..6u32,
    ) {
        let mut world = World::new(Window { bytes, batches });
        ops.iter().for_each(|op| world.step(*op));
        world.connect();
        for _ in 0..4 * (world.made + 2) {
            [Op::ToAgent, Op::ToHub, Op::Commit].into_iter().for_each(|op| world.step(op));
        }
        prop_assert_eq!(&world.store, &(1..=world.made).collect::<Vec<_>>());
        prop_assert_eq!(world.agent.unacked_batches(), 0);
        prop_assert_eq!(world.agent.unacked_bytes(), 0);
        prop_assert_eq!(world.hub.outstanding_batches(), 0);
    }
}
