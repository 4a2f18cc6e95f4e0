//! The machine against a small model of an API server that is written to, compacted, restored and
//! failing at random: what it reports leads to the server's state, and no conclusion is wrong.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

type Objects = BTreeMap<u8, u64>;

#[derive(Debug, Clone)]
enum Op {
    /// The server answers what was asked, or sends the next event.
    Answer,
    Fail(RequestFailure),
    /// An open stream breaks.
    Break {
        silent: bool,
    },
    Write(u8),
    Delete(u8),
    /// Versions before now are forgotten.
    Compact,
    /// Back by so many versions.
    Restore(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let failure = prop_oneof![
        Just(RequestFailure::Timeout),
        Just(RequestFailure::Forbidden),
        Just(RequestFailure::Server { code: 500 }),
        Just(RequestFailure::Unreachable),
    ];
    prop_oneof![
        20 => Just(Op::Answer),
        3 => failure.prop_map(Op::Fail),
        2 => any::<bool>().prop_map(|silent| Op::Break { silent }),
        6 => (0..8_u8).prop_map(Op::Write),
        4 => (0..8_u8).prop_map(Op::Delete),
        2 => Just(Op::Compact),
        1 => (1..6_u64).prop_map(Op::Restore),
    ]
}

/// What it was at every version since the beginning.
struct Server {
    states: Vec<Objects>,
    compacted: u64,
    /// Nobody writes until the restore was noticed; else it cannot be told by versions alone.
    restored: bool,
}

impl Server {
    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn now(&self) -> &Objects {
        &self.states[self.states.len() - 1]
    }

    fn write(&mut self, change: impl FnOnce(&mut Objects, u64)) {
        if self.restored {
            return;
        }
        let mut objects = self.now().clone();
        change(&mut objects, self.states.len() as u64);
        if objects != *self.now() {
            self.states.push(objects);
        }
    }

    /// The event that made this version.
    fn event(&self, revision: u64) -> Event<Vec<u8>> {
        let (before, after) = (&self.states[revision as usize - 1], &self.states[revision as usize]);
        match after.iter().find(|(_, version)| **version == revision) {
            Some((name, _)) => Event::Applied(body(*name, revision)),
            None => {
                let name = before.keys().find(|name| !after.contains_key(name)).unwrap();
                Event::Deleted(body(*name, revision))
            }
        }
    }

    /// Two objects a page; a token is version and next name.
    fn page(&self, token: Option<&str>) -> Input<Vec<u8>> {
        let (revision, from) = match token {
            None => (self.revision(), 0),
            Some(token) => {
                let (revision, from) = token.split_once('/').unwrap();
                (revision.parse().unwrap(), from.parse().unwrap())
            }
        };
        if revision > self.revision() {
            return Input::Failed(RequestFailure::FutureVersion);
        }
        if revision < self.compacted {
            return Input::Failed(RequestFailure::Expired);
        }
        let mut rest = self.states[revision as usize].range(from..);
        let items = rest.by_ref().take(2).map(|(name, version)| body(*name, *version)).collect();
        let continue_token = rest.next().map(|(name, _)| format!("{revision}/{name}"));
        Input::Page { items, continue_token, resource_version: version(revision) }
    }
}

fn body(name: u8, version: u64) -> Vec<u8> {
    format!(r#"{{"metadata":{{"name":"n{name}","resourceVersion":"{version}"}}}}"#).into_bytes()
}

fn name_of(body: &[u8]) -> u8 {
    body.iter()
        .skip_while(|byte| **byte != b'n' || !body.starts_with(b"{"))
        .find(|b| b.is_ascii_digit())
        .unwrap()
        - b'0'
}

/// An open stream: what it sends next.
struct Sending {
    initial: Vec<(u8, u64)>,
    /// Events up to here were sent.
    sent: u64,
    /// The version at which the initial events end; taken when that was said.
    ends: Option<u64>,
    opened: bool,
}

struct World {
    server: Server,
    machine: Machine<Vec<u8>>,
    command: Option<Command>,
    sending: Option<Sending>,
    now: Millis,
    /// What somebody who follows the observations believes: name, version, epoch.
    mirror: BTreeMap<u8, (u64, u64)>,
    epoch: u64,
    listing: bool,
    /// The newest version that a page of the list under way showed.
    page: u64,
    /// Objects that a restore took away and that were known.
    lost: BTreeSet<u8>,
}

impl World {
    fn new(streaming: bool) -> Self {
        let mut machine = Machine::new(Settings { streaming, ..settings() });
        let mut out = Vec::new();
        machine.start(Start::Nothing, &mut out);
        let server = Server { states: vec![Objects::new(); 2], compacted: 0, restored: false };
        let (mirror, lost) = (BTreeMap::new(), BTreeSet::new());
        let mut this = Self {
            server,
            machine,
            command: None,
            sending: None,
            now: 0,
            mirror,
            epoch: 0,
            listing: false,
            page: 0,
            lost,
        };
        this.take(out);
        this
    }

    fn feed(&mut self, input: Input<Vec<u8>>) {
        if !matches!(input, Input::Opened | Input::Event(_)) {
            self.sending = None;
            self.command = None;
        }
        self.now += 20_000;
        let mut out = Vec::new();
        let before = self.machine.checkpoint().cloned();
        self.machine.step(input, self.now, &mut out);
        self.take(out);
        if self.listing {
            assert_eq!(self.machine.checkpoint(), before.as_ref(), "I2");
        }
    }

    fn take(&mut self, out: Vec<Output<Vec<u8>>>) {
        for output in out {
            match output {
                Output::Command(command) => {
                    assert!(self.command.is_none() || self.sending.take().is_some(), "{command:?}");
                    self.command = Some(command);
                }
                Output::Observation(observation) => self.observe(observation),
            }
        }
        assert!(self.command.is_some(), "there is always something to wait for");
    }

    fn observe(&mut self, observation: Observation<Vec<u8>>) {
        match observation {
            Observation::ListStarted { epoch } => {
                assert!(epoch > self.epoch);
                (self.epoch, self.listing) = (epoch, true);
            }
            Observation::Applied { body, resource_version, listed } => {
                assert_eq!(listed, self.listing);
                let entry = (resource_version.ordinal().unwrap(), self.epoch);
                self.mirror.insert(name_of(&body), entry);
                self.lost.remove(&name_of(&body));
            }
            Observation::Deleted { body, .. } => {
                assert!(!self.listing, "I2: a delete moves checkpoints");
                self.mirror.remove(&name_of(&body));
            }
            Observation::ListCompleted { epoch, resource_version, absence } => {
                assert_eq!(epoch, self.epoch);
                (self.listing, self.page) = (false, 0);
                let unseen: Vec<u8> =
                    self.mirror.iter().filter(|(_, (_, e))| *e != epoch).map(|(name, _)| *name).collect();
                let shown = &self.server.states[resource_version.ordinal().unwrap() as usize];
                for name in unseen {
                    assert!(!shown.contains_key(&name), "I3: {name} is there");
                    if absence == Absence::Conclusive {
                        assert!(!self.lost.contains(&name), "I3: {name} was lost by a restore");
                    }
                    self.mirror.remove(&name);
                    self.lost.remove(&name);
                }
            }
            Observation::RewindSuspected { .. } => self.server.restored = false,
            Observation::Bookmark(_) | Observation::StateChanged(_) => {}
            Observation::Undecodable { why, .. } => panic!("{why}"),
        }
    }

    /// The server's answer to the command; false when there is nothing left to say.
    fn answer(&mut self) -> bool {
        let input = match self.command.clone().unwrap() {
            Command::Sleep { .. } => Input::Fired,
            Command::Probe { .. } => Input::Probed { resource_version: version(self.server.revision()) },
            Command::List { continue_token, .. } => {
                let page = self.server.page(continue_token.as_deref());
                if let Input::Page { resource_version, .. } = &page {
                    self.page = resource_version.ordinal().unwrap();
                }
                page
            }
            Command::Watch { from, .. } => return self.send(Some(from.ordinal().unwrap())),
            Command::Stream { .. } => return self.send(None),
        };
        self.feed(input);
        true
    }

    fn send(&mut self, from: Option<u64>) -> bool {
        let server = &self.server;
        let revision = server.revision();
        let sending = self.sending.get_or_insert_with(|| Sending {
            initial: match from {
                Some(_) => vec![],
                None => server.now().iter().map(|(name, version)| (*name, *version)).collect(),
            },
            sent: from.unwrap_or(revision),
            // Some events come before the bookmark that ends the list.
            ends: from.is_none().then_some(revision + 1),
            opened: false,
        });
        let input = if !sending.opened {
            sending.opened = true;
            if sending.sent < server.compacted {
                Input::Failed(RequestFailure::Expired)
            } else {
                Input::Opened
            }
        } else if let Some((name, version)) = sending.initial.pop() {
            Input::Event(Event::Applied(body(name, version)))
        } else if sending.ends.is_some_and(|ends| sending.sent >= ends || sending.sent >= revision) {
            sending.ends = None;
            let metadata = r#""annotations":{"k8s.io/initial-events-end":"true"}"#;
            let mark = format!(r#"{{"metadata":{{"resourceVersion":"{}",{metadata}}}}}"#, sending.sent);
            Input::Event(Event::Bookmark(mark.into_bytes()))
        } else if sending.sent < revision {
            sending.sent += 1;
            Input::Event(server.event(sending.sent))
        } else {
            return false;
        };
        self.feed(input);
        true
    }

    fn apply(&mut self, op: Op) {
        let open = self.sending.as_ref().is_some_and(|sending| sending.opened);
        let asleep = matches!(self.command, Some(Command::Sleep { .. }));
        match op {
            Op::Answer => {
                self.answer();
            }
            Op::Fail(failure) if !asleep => self.feed(Input::Failed(failure)),
            Op::Break { silent } if open => self.feed(if silent { Input::Stale } else { Input::Ended }),
            Op::Write(name) => self.server.write(|objects, version| {
                objects.insert(name, version);
            }),
            Op::Delete(name) => self.server.write(|objects, _| {
                objects.remove(&name);
            }),
            Op::Compact => self.server.compacted = self.server.revision(),
            Op::Restore(back) if !self.server.restored => self.restore(back),
            Op::Fail(_) | Op::Break { .. } | Op::Restore(_) => {}
        }
    }

    fn restore(&mut self, back: u64) {
        let to = self.server.revision().saturating_sub(back).max(1);
        self.server.states.truncate(to as usize + 1);
        self.server.compacted = self.server.compacted.min(to);
        for (name, (version, _)) in &self.mirror {
            if *version > to && !self.server.now().contains_key(name) {
                self.lost.insert(*name);
            }
        }
        let reached = self.machine.checkpoint().and_then(ResourceVersion::ordinal);
        self.server.restored = self.page > to
            || reached.is_some_and(|reached| reached > to)
            || self.mirror.values().any(|(seen, _)| *seen > to);
        if self.sending.is_some() {
            self.feed(Input::Ended);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i3_what_is_reported_leads_to_the_servers_state_and_no_conclusion_is_wrong(
        streaming: bool,
        ops in proptest::collection::vec(op(), 0..200),
    ) {
        let mut world = World::new(streaming);
        for op in ops {
            world.apply(op);
        }
        // A watch that was opened after a restore hears nothing until it is renewed, and another
        // streamed list may break in between.
        for _ in 0..3 {
            let mut rounds = 0;
            while world.answer() {
                rounds += 1;
                prop_assert!(rounds < 1_000, "it comes to rest");
            }
            world.apply(Op::Break { silent: true });
        }
        while world.answer() {}
        prop_assert_eq!(world.machine.health(), &Health::Live);
        let believed: Objects = world.mirror.iter().map(|(name, (version, _))| (*name, *version)).collect();
        prop_assert_eq!(&believed, world.server.now());
    }
}
