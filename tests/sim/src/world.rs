//! A fleet, and what is done to it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use anyhow::Result;
use lockstep_engine::Millis;
use lockstep_engine::clock::Clock;
use lockstep_hub::core::command::{Approval, Command};
use lockstep_tests::model::{ApiServer, Config, ForbidId};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::archive::MemoryArchive;
use crate::hub::Hub;
use crate::journal::Actor;
use crate::link::{Link, Mode};
use crate::log::Log;
use crate::member::Member;
use crate::objects::{self, CLUSTERS, FileState, NAMESPACES, POLICIES, Refusal};
use crate::oracle::{Counts, Oracle};
use crate::plan::Plan;
use crate::settle;

/// When all histories begin: 2026-11-18.
const EPOCH: Millis = 1_795_000_000_000;
/// For agents to connect and list, ms, before anything is done.
const LEAD_MS: u32 = 2_000;

/// What came of a history.
#[derive(Debug)]
pub struct Outcome {
    /// What happened, one line each.
    pub log: String,
    /// The first invariant that was violated, and how.
    pub violation: Option<String>,
    /// Faults that were met, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Situations that came of them, and how often.
    pub met: BTreeMap<&'static str, u64>,
    /// What was looked at.
    pub counts: Counts,
    /// Virtual time that passed, ms.
    pub took_ms: i64,
}

impl Outcome {
    /// The invariant that was violated.
    #[must_use]
    pub fn invariant(&self) -> Option<&str> {
        self.violation.as_deref()?.split(':').next()
    }
}

thread_local! {
    /// What panicked in this thread's history.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Carries a plan out.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANIC.with_borrow_mut(|noted| {
                noted.get_or_insert_with(|| panic.to_string());
            });
            before(panic);
        }));
    });
    PANIC.take();
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        runtime.block_on(history(plan))
    }));
    let mut outcome = match ran {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => failed(format!("harness: {error:#}")),
        Err(_) => failed("panic: the history ended".to_owned()),
    };
    if let Some(panic) = PANIC.take() {
        outcome.violation = Some(format!("panic: {panic}"));
    }
    outcome
}

fn failed(why: String) -> Outcome {
    let (log, counts) = (String::new(), Counts::default());
    let (faults, met) = (BTreeMap::new(), BTreeMap::new());
    Outcome { log, violation: Some(why), faults, met, counts, took_ms: 0 }
}

async fn history(plan: &Plan) -> Result<Outcome> {
    let mut world = World::new(plan).await?;
    world.carry_out(plan).await?;
    if world.oracle.violation().is_none() {
        settle::settle(&mut world).await?;
    }
    if world.oracle.violation().is_none() {
        settle::one_frozen(&mut world).await;
    }
    Ok(Outcome {
        log: world.log.text(),
        violation: world.oracle.violation(),
        faults: world.faults,
        met: world.oracle.met(),
        counts: world.oracle.counts(),
        took_ms: world.log.elapsed(),
    })
}

/// What ends a disturbance.
#[derive(Debug)]
pub(crate) enum End {
    Namespace(usize),
    Definition(usize),
    Allow(usize, ForbidId),
    Open(usize, bool),
    Fast(usize, bool),
    Agent(usize),
    Hub,
    Disk,
    Archive,
    Policy(usize),
    /// The hub is killed, and starts after so many ms.
    KillHub(u32),
}

pub(crate) struct World {
    pub(crate) log: Log,
    pub(crate) oracle: Oracle,
    pub(crate) members: Vec<Arc<Member>>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) hub: Hub,
    pub(crate) archive: MemoryArchive,
    pub(crate) clock: Clock,
    /// Of the agents and, last, of the hub.
    pub(crate) skews: Vec<Arc<AtomicI64>>,
    pub(crate) tokens: Vec<String>,
    pub(crate) files: Vec<FileState>,
    budget: u32,
    grace_s: u32,
    pub(crate) refusal: Refusal,
    /// What another hub wrote: all contents, by cluster and uid.
    pub(crate) others: BTreeMap<(usize, String), BTreeSet<String>>,
    pub(crate) serial: u64,
    ends: BTreeMap<(i64, u64), End>,
    ended: u64,
    pub(crate) traps: Vec<Option<(CancellationToken, u32)>>,
    faults: BTreeMap<String, u64>,
    /// When each cluster's etcd was saved last, and the counter in its agent's Lease then.
    pub(crate) saved: [(i64, u64); 3],
    /// When the hub's data was backed up last, and whether that came back.
    pub(crate) backed_up: i64,
    pub(crate) hub_restored: bool,
    /// A cluster was restored to what it was before that backup, and after it.
    pub(crate) rewound_since: bool,
    /// Restores that nobody can notice are left out, wherever they come from.
    pub(crate) noticed_only: bool,
    /// The hub's data was lost once, or an answer may have been lost with its process or connection.
    pub(crate) forgot: [bool; CLUSTERS.len()],
    /// Policies or targets were taken away for a while: what lost its source then is nobody's.
    pub(crate) released: bool,
}

impl World {
    async fn new(plan: &Plan) -> Result<Self> {
        let log = Log::new();
        let begun = Instant::now();
        let skewed = |skew: &Arc<AtomicI64>| {
            let skew = Arc::clone(skew);
            Clock::new(move || {
                let elapsed = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
                EPOCH + elapsed + skew.load(Ordering::Relaxed)
            })
        };
        let skews: Vec<Arc<AtomicI64>> = (0..=CLUSTERS.len()).map(|_| Arc::default()).collect();
        let clock = skewed(&Arc::default());
        let archive = MemoryArchive::default();
        let oracle = Oracle::new(archive.clone(), log.clone(), plan.refusal, plan.budget);
        let members: Vec<Arc<Member>> = (0..CLUSTERS.len())
            .map(|index| {
                let config = Config {
                    watch_cache_events: 30,
                    bookmark_ms: 10_000,
                    compaction_ms: Some(60_000),
                    namespace_delay_ms: 300,
                    ..Config::new(plan.versions[index], plan.seed.wrapping_add(index as u64))
                };
                let server = ApiServer::new(clock.now(), config);
                Arc::new(Member::new(index, server, clock.clone(), log.clone(), oracle.clone()))
            })
            .collect();
        oracle.watch(&members);
        let hub_clock = skewed(&skews[CLUSTERS.len()]);
        let hub = Hub::new(archive.clone(), hub_clock, log.clone(), oracle.clone(), plan.builds.hub())?;
        let mut world = Self {
            log,
            oracle,
            members,
            agents: Vec::new(),
            hub,
            archive,
            clock,
            skews,
            tokens: Vec::new(),
            files: vec![FileState::Whole; POLICIES.len()],
            budget: plan.budget,
            grace_s: plan.grace_s,
            refusal: plan.refusal,
            others: BTreeMap::new(),
            serial: 0,
            ends: BTreeMap::new(),
            ended: 0,
            traps: vec![None; CLUSTERS.len()],
            faults: BTreeMap::new(),
            saved: [(0, 0); 3],
            backed_up: 0,
            hub_restored: false,
            rewound_since: false,
            noticed_only: plan.noticed_only(),
            forgot: [false; CLUSTERS.len()],
            released: false,
        };
        world.hub.start()?;
        for (index, name) in CLUSTERS.iter().enumerate() {
            tokio::spawn(Arc::clone(&world.members[index]).controllers());
            for namespace in NAMESPACES {
                world.create_namespace(index, namespace);
            }
            world.create_definition(index);
            let token = world.hub.token(name).await?;
            world.tokens.push(token.clone());
            let (member, clock) = (Arc::clone(&world.members[index]), skewed(&world.skews[index]));
            let (hub, oracle) = (world.hub.clone(), world.oracle.clone());
            let mut agent = Agent::new(index, member, hub, token, clock, plan, oracle);
            agent.start();
            world.agents.push(agent);
        }
        world.publish().await;
        tokio::time::sleep(Duration::from_millis(LEAD_MS.into())).await;
        Ok(world)
    }

    async fn carry_out(&mut self, plan: &Plan) -> Result<()> {
        let begun = self.log.elapsed();
        for (at, act) in &plan.acts {
            let at = begun + i64::from(*at);
            self.end_until(at).await?;
            if self.is_over() {
                return Ok(());
            }
            self.log.say("act", format_args!("{act:?}"));
            if let Some(fault) = act.fault() {
                *self.faults.entry(fault).or_default() += 1;
            }
            self.act(act).await?;
            self.spring_traps();
        }
        Ok(())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.oracle.violation().is_some() || PANIC.with_borrow(Option::is_some)
    }

    /// Lets time pass, and disturbances end.
    async fn end_until(&mut self, until: i64) -> Result<()> {
        while let Some((at, _)) = self.ends.keys().next().copied().filter(|(at, _)| *at <= until) {
            self.sleep_until(at).await;
            if let Some((_, end)) = self.ends.pop_first() {
                self.log.say("end", format_args!("{end:?}"));
                self.end(end).await?;
            }
        }
        self.sleep_until(until).await;
        self.spring_traps();
        Ok(())
    }

    async fn sleep_until(&self, at: i64) {
        let wait = u64::try_from(at - self.log.elapsed()).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }

    pub(crate) fn later(&mut self, after_ms: u32, end: End) {
        self.ended += 1;
        self.ends.insert((self.log.elapsed() + i64::from(after_ms), self.ended), end);
    }

    /// May the agent of a cluster not look at something now?
    pub(crate) fn forbids(&self, cluster: usize) -> bool {
        self.ends.values().any(|end| matches!(end, End::Allow(member, _) if *member == cluster))
    }

    /// Agents whose trap a write has sprung are killed.
    fn spring_traps(&mut self) {
        self.note_ambushes();
        for index in 0..self.traps.len() {
            let sprung = self.traps[index].as_ref().is_some_and(|(trap, _)| trap.is_cancelled());
            if sprung && let Some((_, for_ms)) = self.traps[index].take() {
                self.log.say("act", format_args!("agent {index} is killed at its write"));
                self.oracle.met_with("an agent killed between its write and the answer");
                self.agents[index].kill();
                self.later(for_ms, End::Agent(index));
            }
        }
    }

    /// What other hubs made in ambushes is theirs.
    fn note_ambushes(&mut self) {
        for (index, member) in self.members.iter().enumerate() {
            for (uid, content) in member.ambushed() {
                self.others.entry((index, uid)).or_default().insert(content);
            }
        }
    }

    async fn end(&mut self, end: End) -> Result<()> {
        match end {
            End::Namespace(cluster) => self.create_namespace(cluster, NAMESPACES[1]),
            End::Definition(cluster) => self.create_definition(cluster),
            End::Allow(cluster, id) => self.members[cluster].with(Actor::User, |server, _| server.allow(id)),
            End::Open(agent, to_hub) => self.link(agent, to_hub).set(Mode::Open),
            End::Fast(agent, to_hub) => self.link(agent, to_hub).slow(false),
            End::Agent(agent) => self.agents[agent].start(),
            End::Hub => self.hub.start()?,
            End::Disk => self.hub.set_full(false),
            End::Archive => self.archive.set_away(false),
            End::Policy(policy) => {
                self.files[policy] = FileState::Whole;
                self.publish().await;
            }
            End::KillHub(for_ms) => {
                self.hub.kill().await;
                self.later(for_ms, End::Hub);
            }
        }
        Ok(())
    }

    /// All disturbances end now.
    pub(crate) async fn heal(&mut self) -> Result<()> {
        self.log.say("heal", format_args!("from here on nothing is disturbed"));
        self.note_ambushes();
        let ends = std::mem::take(&mut self.ends);
        for end in ends.into_values().filter(|end| !matches!(end, End::KillHub(_))) {
            self.end(end).await?;
        }
        for skew in &self.skews {
            skew.store(0, Ordering::Relaxed);
        }
        for index in 0..self.members.len() {
            self.members[index].with(Actor::User, |server, _| server.heal_all());
            self.members[index].set_trap(None);
            self.members[index].set_ambush(None);
            self.traps[index] = None;
            self.create_namespace(index, NAMESPACES[0]);
            self.create_namespace(index, NAMESPACES[1]);
            self.create_definition(index);
            for to_hub in [false, true] {
                self.link(index, to_hub).set(Mode::Open);
                self.link(index, to_hub).slow(false);
            }
            self.agents[index].start();
        }
        self.archive.set_away(false);
        self.hub.set_full(false);
        self.hub.start()?;
        self.files.fill(FileState::Whole);
        self.publish().await;
        Ok(())
    }

    pub(crate) fn link(&self, agent: usize, to_hub: bool) -> &Link {
        if to_hub { &self.agents[agent].to_hub } else { &self.agents[agent].to_api }
    }

    pub(crate) fn create_namespace(&self, cluster: usize, name: &str) {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        self.members[cluster].with(Actor::User, |server, now| server.user_create(now, "user", &namespace));
    }

    pub(crate) fn create_definition(&self, cluster: usize) {
        let definition = objects::definition();
        self.members[cluster].with(Actor::User, |server, now| server.user_create(now, "user", &definition));
    }

    /// The policies directory as it is to be.
    pub(crate) async fn publish(&self) {
        let files = POLICIES.iter().zip(&self.files).filter_map(|(policy, state)| {
            Some((format!("{}.yaml", policy.name), policy.file(*state, self.budget, self.grace_s)?))
        });
        self.hub.policies(files.collect()).await;
    }

    /// A person approves whatever is held, and accepts what was restored.
    pub(crate) async fn approve(&self, rewinds: bool) {
        self.oracle.approved(self.clock.now());
        if rewinds {
            let rewound =
                |index: &usize| self.members[*index].with_journal(|journal| !journal.rewinds.is_empty());
            for index in (0..CLUSTERS.len()).filter(rewound) {
                let name = CLUSTERS[index];
                let accept = |reply| Command::AcceptRewind { cluster: name.to_owned(), reply };
                // Refused where there was no rewind, or not everything was listed since.
                if let Some(Ok(accepted)) = self.hub.ask(accept).await
                    && accepted.objects > 0
                {
                    self.oracle.met_with("an accepted rewind that had lost objects");
                }
            }
        }
        for policy in &POLICIES {
            let approve = |reply| Command::Approve {
                policy: policy.name.to_owned(),
                target: None,
                how: Approval::Whatever,
                reply,
            };
            // Refused where nothing is held.
            if let Some(Ok(released)) = self.hub.ask(approve).await
                && released.iter().any(|released| !released.objects.is_empty())
            {
                self.oracle.met_with("an approval that released deletes");
            }
        }
    }
}
