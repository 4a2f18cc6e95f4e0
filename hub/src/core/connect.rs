//! Sessions: who may speak for which cluster (I15), what its agent shall watch, and from where.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_engine::catalogue::is_container;
use lockstep_engine::guard::{self, Guard};
use lockstep_engine::interest::Interest;
use lockstep_engine::reading::Reading;
use lockstep_engine::{ClusterId, ClusterName, GroupKind, Millis, Uid};
use lockstep_wire::hello::{Known, check};
use lockstep_wire::{HubSession, Window, v1};

use super::containers::{definitions, is_custom};
use super::state::{Cluster, ServedKind, Session, SessionCommand, Watch, index_served};
use super::{AfterCommit, Connect, Core};
use crate::seal::BearerToken;
use crate::store::{Phase, PlacementFilter, PlacementRow, Store, StoreError};

/// Set once a cluster came with a token that the store did not know: then there may be others that
/// have not come yet, and a policy may name them.
pub(super) const VOUCHED: &str = "vouched";
/// Takeovers within this time that mean: one identity runs in two places.
const ALTERNATION_WINDOW_MS: i64 = 60_000;
/// How many of them.
const ALTERNATION_COUNT: usize = 3;
/// Placements looked at together, when it is asked whether a watch is still needed.
const UNFINISHED_PAGE: usize = 512;
/// How long a fenced agent stays away, ms: the newer one shall get its work done.
const FENCED_RETRY_MS: u64 = 30_000;
/// How long an agent with a wrong identity waits before it asks again, ms.
const REFUSED_RETRY_MS: u64 = 30_000;

fn refuse(code: &str, message: String, remedy: &str, retry_after_ms: u64) -> v1::Refused {
    v1::Refused { code: code.to_owned(), message, remedy: remedy.to_owned(), retry_after_ms }
}

impl<S: Store> Core<S> {
    pub(super) fn connect(&mut self, connect: Connect, now: Millis) -> Result<(), StoreError> {
        let Connect { token, hello, out, reply } = connect;
        self.vouch(&token, now)?;
        let (id, protocol) = match self.identify(&token, &hello) {
            Ok(identified) => identified,
            Err(refused) => {
                // The session logs it. Anybody can name a cluster: its status shows what came with a token of ours.
                let named = ClusterName::new(&hello.cluster_name).ok();
                let genuine = self.gate.admits(&token);
                if let Some(name) = named.filter(|name| genuine && self.names.contains_key(name)) {
                    let problem = format!("{}: {}; {}", refused.code, refused.message, refused.remedy);
                    self.told(name.as_str(), |told| told.problem = Some(problem));
                }
                self.after.push(AfterCommit::Connected(reply, Err(refused)));
                return Ok(());
            }
        };
        self.fence(id, now);
        let number = self.begin_session(id, &hello, protocol, out, now)?;
        self.lease_told(id, hello.lease_counter, now)?;
        self.after.push(AfterCommit::Connected(reply, Ok((id, number))));
        self.welcome(id, &hello, now)?;
        self.counts.sessions += 1;
        Ok(())
    }

    /// A token that this hub key gave out, for a cluster of which nothing is stored: the hub's data
    /// was lost, or is older than the token (I11). The first one to come is taken; a token that was
    /// replaced by a newer one is not, as long as the store knows that one.
    fn vouch(&mut self, token: &BearerToken, now: Millis) -> Result<(), StoreError> {
        let Some(name) = token.vouched(&self.keys.token) else { return Ok(()) };
        let known = self.names.get(&name).and_then(|id| self.clusters.get(id));
        if known.is_some_and(|cluster| cluster.row.token_hash.is_some()) || self.is_removed(&name) {
            return Ok(());
        }
        tracing::warn!(cluster = %name, "an agent came with a token of this hub that the store does not know: it is taken, as after a loss of the hub's data");
        self.store.put_meta(VOUCHED, "true")?;
        let id = self.registered(&name, now)?;
        if let Some(cluster) = self.clusters.get_mut(&id) {
            cluster.row.token_hash = Some(token.hash());
            self.store.put_cluster(&cluster.row)?;
        }
        self.open_gate();
        // A policy that named the cluster before it was known may be good now.
        match self.last_files.clone() {
            Some(files) => self.policies_read(Ok(files), now),
            None => Ok(()),
        }
    }

    /// What tokens sessions may begin with.
    pub(super) fn open_gate(&self) {
        self.gate.set(self.clusters.values().filter_map(|cluster| cluster.row.token_hash));
    }

    /// Whose agent it is, and the version of the protocol to speak with it.
    fn identify(&self, token: &BearerToken, hello: &v1::Hello) -> Result<(ClusterId, u32), v1::Refused> {
        // blake3::Hash compares in constant time.
        let given = blake3::Hash::from(token.hash());
        let cluster = self
            .clusters
            .values()
            .find(|cluster| cluster.row.token_hash.is_some_and(|hash| blake3::Hash::from(hash) == given))
            .ok_or_else(|| self.unknown_token(token))?;
        let uid = Uid::new(&hello.cluster_uid);
        let other = self.clusters.values().find(|c| c.row.uid.as_ref() == Some(&uid));
        let known = Known {
            token_cluster: cluster.row.name.as_str(),
            uid_of_name: cluster.row.uid.as_ref().map(Uid::as_str),
            name_of_uid: other.map(|other| other.row.name.as_str()),
        };
        let protocol = check(hello, &known, self.protocols)?;
        Ok((cluster.row.id, protocol))
    }

    fn unknown_token(&self, token: &BearerToken) -> v1::Refused {
        match token.vouched(&self.keys.token).filter(|name| self.is_removed(name)) {
            Some(name) => refuse(
                "LS0217",
                format!("{name} was removed from this hub"),
                "stop the agent; or join the cluster anew with a token of `lockstep token create CLUSTER`",
                REFUSED_RETRY_MS,
            ),
            None => refuse(
                "LS0201",
                "the token is not known to this hub".to_owned(),
                "create one with `lockstep token create CLUSTER` and give it to the agent",
                REFUSED_RETRY_MS,
            ),
        }
    }

    /// The newest session of a cluster fences the older.
    fn fence(&mut self, id: ClusterId, now: Millis) {
        let Some(cluster) = self.clusters.get_mut(&id) else { return };
        let Some(session) = cluster.session.take() else { return };
        cluster.takeovers.retain(|at| now - at < ALTERNATION_WINDOW_MS);
        cluster.takeovers.push(now);
        if cluster.takeovers.len() >= ALTERNATION_COUNT {
            tracing::error!(cluster = %cluster.row.name, "two agents take turns under one identity; stop one of them");
        }
        let refused = refuse(
            "LS0207",
            "a newer session of the same cluster took over".to_owned(),
            "run one agent per cluster",
            FENCED_RETRY_MS,
        );
        // If its queue is full the task notices the dropped sender instead.
        let _ = session.out.try_send(SessionCommand::Close(refused));
        cluster.end_session(now);
    }

    fn begin_session(
        &mut self,
        id: ClusterId,
        hello: &v1::Hello,
        protocol: u32,
        out: tokio::sync::mpsc::Sender<SessionCommand>,
        now: Millis,
    ) -> Result<u64, StoreError> {
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(0) };
        let row = &mut cluster.row;
        row.uid = Some(Uid::new(&hello.cluster_uid));
        row.session += 1;
        let stored = (!row.instance.is_empty()).then_some((row.instance.as_str(), row.committed));
        let stream = HubSession::open(hello, protocol, stored, Window::default());
        if !stream.same_instance() {
            row.instance.clone_from(&hello.instance);
            row.committed = 0;
        }
        row.server_version.clone_from(&hello.server_version);
        row.agent_version.clone_from(&hello.agent_version);
        row.accepts.clone_from(&hello.accepts);
        row.connected_at = Some(now);
        row.disconnected_at = None;
        let number = row.session;
        let reading = reading_of(hello);
        let told_reading = reading.clone();
        // An agent may say anything, also of its clock.
        let skew_ms = now.saturating_sub(hello.clock_ms);
        cluster.session =
            Some(Session { number, out, stream, skew_ms, reading, generation: 0, interest: BTreeMap::new() });
        self.store.put_cluster(&cluster.row)?;
        // What an earlier session told of its watches is no longer news; each is told again.
        let news =
            |watch: &&mut Watch| watch.row.phase != Phase::Pending && guard::on(Guard::SessionEndsLive);
        for watch in cluster.watches.values_mut().filter(news) {
            watch.row.phase = Phase::Pending;
            watch.row.reason.clear();
            watch.row.message.clear();
            watch.row.since = now;
            self.store.put_watch(&watch.row)?;
        }
        let name = cluster.row.name.to_string();
        self.told(&name, |told| {
            *told = super::SessionTold {
                protocol: Some(protocol),
                reading: told_reading,
                clock_skew_ms: Some(skew_ms.saturating_neg()),
                ..super::SessionTold::default()
            };
        });
        let Some(cluster) = self.clusters.get(&id) else { return Ok(number) };
        tracing::info!(cluster = %cluster.row.name, server = hello.server_version, agent = hello.agent_version, protocol, "agent connected");
        Ok(number)
    }

    fn welcome(&mut self, id: ClusterId, hello: &v1::Hello, now: Millis) -> Result<(), StoreError> {
        let Some(cluster) = self.clusters.get(&id) else { return Ok(()) };
        let Some(session) = &cluster.session else { return Ok(()) };
        let same_instance = session.stream.same_instance();
        let welcome = session.stream.welcome(v1::Welcome {
            hub_version: env!("CARGO_PKG_VERSION").to_owned(),
            hub_id: self.hub_id.clone(),
            cluster: id.0,
            session: session.number,
            clock_ms: now,
            secret_key: self.keys.of_agent(&hello.cluster_uid).to_vec().into(),
            ..v1::Welcome::default()
        });
        let number = session.number;
        self.after.push(AfterCommit::Send(id, number, SessionCommand::Message(Box::new(welcome))));
        let live = if same_instance { hello.live.as_slice() } else { &[] };
        self.expect_echoes(id)?;
        self.send_interest(id, live, now)
    }

    /// Works out what a cluster's agent shall watch, and tells it when that changed. Watches that
    /// the agent keeps running are not resumed anew.
    pub(super) fn send_interest(
        &mut self,
        id: ClusterId,
        live: &[v1::LiveWatch],
        now: Millis,
    ) -> Result<(), StoreError> {
        let Some(name) = self.clusters.get(&id).map(|c| c.row.name.clone()) else { return Ok(()) };
        let listed = self.listed_kinds(id)?;
        let mut interests = self.interests(&name, &listed);
        let kept = self.kept_interests(id, &interests)?;
        kept.into_iter().for_each(|kept| super::interests::absorb(&mut interests, kept));
        self.cut_interests(id, &mut interests);
        let mut wanted = BTreeSet::new();
        let mut message = v1::InterestSet { generation: 0, watches: Vec::with_capacity(interests.len()) };
        for interest in interests {
            let row = self.store.ensure_watch(id, &interest.gk, &interest.scope, now)?;
            wanted.insert(row.id);
            let digest = interest.digest();
            // A struct of strings and sets always serialises.
            let json = serde_json::to_vec(&interest).unwrap_or_default();
            message.watches.push(v1::WatchInterest { watch: row.id, interest: json.into() });
            if let Some(cluster) = self.clusters.get_mut(&id) {
                let watch =
                    cluster.watches.entry(row.id).or_insert(Watch { row, wanted: digest, told: false });
                watch.wanted = digest;
            }
        }
        self.drop_unwanted(id, &wanted, now)?;
        self.tell_interest(id, message, live);
        Ok(())
    }

    pub(super) fn send_interests(&mut self, now: Millis) -> Result<(), StoreError> {
        self.kept_watches = false;
        // Watches go, and what they told.
        self.autoscaled = super::fields::Autoscaled::default();
        let clusters: Vec<ClusterId> = self.clusters.keys().copied().collect();
        clusters.into_iter().try_for_each(|id| self.send_interest(id, &[], now))
    }

    /// Watches that no policy asks for any more, but without which the deletes that it asked for
    /// could not be carried out: absence and presence would both be unknown.
    fn kept_interests(&mut self, id: ClusterId, wanted: &[Interest]) -> Result<Vec<Interest>, StoreError> {
        let Some(cluster) = self.clusters.get(&id) else { return Ok(Vec::new()) };
        let others: Vec<_> = cluster
            .watches
            .values()
            .map(|watch| (watch.row.gk.clone(), watch.row.namespace.clone()))
            .filter(|(gk, scope)| !wanted.iter().any(|i| i.gk == *gk && i.scope == *scope))
            .collect();
        let (mut kept, mut containers) = (Vec::new(), Vec::new());
        for (gk, scope) in others {
            if self.has_unfinished(id, &gk, &scope, wanted)? {
                kept.push(Interest { managed: true, ..Interest::of_keys(gk, &scope) });
            } else if is_container(&gk) {
                containers.push((gk, scope));
            }
        }
        self.kept_watches |= !kept.is_empty();
        // What is in a namespace or definition may be a source again before its watch tells that it went; with what it
        // was in, nobody could tell if that had been looked away from (I7).
        let mut inside = wanted.iter().chain(&kept).filter(|interest| !is_container(&interest.gk));
        let custom = inside.clone().any(|interest| is_custom(&interest.gk));
        let any = inside.next().is_some();
        containers.retain(|(gk, _)| if *gk == definitions() { custom } else { any });
        kept.extend(containers.into_iter().map(|(gk, scope)| Interest::of_keys(gk, &scope)));
        Ok(kept)
    }

    /// Is something unfinished in the scope of a watch, that no wanted watch covers?
    fn has_unfinished(
        &mut self,
        id: ClusterId,
        gk: &GroupKind,
        scope: &str,
        wanted: &[Interest],
    ) -> Result<bool, StoreError> {
        let filter = PlacementFilter {
            target: Some(id),
            gk: Some(gk.clone()),
            states: super::scan::UNFINISHED.to_vec(),
            ..PlacementFilter::default()
        };
        let covered = |namespace: &str| {
            wanted.iter().any(|i| i.gk == *gk && (i.scope.is_empty() || i.scope == namespace))
        };
        let mut after = None;
        loop {
            let rows = self.store.placements(&filter, after.as_ref(), UNFINISHED_PAGE)?;
            let open = |row: &PlacementRow| {
                let namespace = row.key.namespace.as_ref();
                (scope.is_empty() || scope == namespace) && !covered(namespace)
            };
            if rows.iter().any(open) {
                return Ok(true);
            }
            if rows.len() < UNFINISHED_PAGE {
                return Ok(false);
            }
            after = rows.last().map(|row| (row.target, row.key.clone()));
        }
    }

    fn drop_unwanted(
        &mut self,
        id: ClusterId,
        wanted: &BTreeSet<u32>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let mut dropped = Vec::new();
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(()) };
        // Before the policies are known, nothing is known to be unwanted.
        if !self.policies_known {
            return Ok(());
        }
        let unwanted: Vec<u32> =
            cluster.watches.keys().filter(|watch| !wanted.contains(watch)).copied().collect();
        for number in unwanted {
            let Some(old) = cluster.watches.remove(&number) else { continue };
            // A watch that takes its place, and has not listed yet, starts from what it knew: what was
            // deleted meanwhile is then found missing, with its last state.
            for heir in cluster.watches.values_mut().map(|watch| &mut watch.row) {
                if heir.gk == old.row.gk && heir.checkpoint.is_empty() && wanted.contains(&heir.id) {
                    self.store.adopt_objects(number, heir.id)?;
                    if old.row.rewound && !heir.rewound {
                        heir.rewound = true;
                        self.store.put_watch(heir)?;
                    }
                }
            }
            dropped.push(number);
        }
        cluster.drop_echoes();
        for number in dropped {
            self.keep_unseen(id, number, now)?;
            self.store.drop_watch(number)?;
        }
        Ok(())
    }

    fn tell_interest(&mut self, id: ClusterId, mut message: v1::InterestSet, live: &[v1::LiveWatch]) {
        let Some(cluster) = self.clusters.get_mut(&id) else { return };
        let Some(session) = cluster.session.as_mut() else { return };
        let digests: BTreeMap<u32, [u8; 32]> = message
            .watches
            .iter()
            .filter_map(|w| cluster.watches.get(&w.watch).map(|watch| (w.watch, watch.wanted)))
            .collect();
        if session.generation > 0 && session.interest == digests {
            return;
        }
        let fresh: Vec<_> = digests
            .keys()
            .filter(|watch| !session.interest.contains_key(watch))
            .filter_map(|watch| cluster.watches.get(watch).map(|w| w.row.clone()))
            .filter(|row| row.rewound || !live.iter().any(|l| l.watch == row.id))
            .collect();
        session.generation += 1;
        message.generation = session.generation;
        session.interest = digests;
        let number = session.number;
        self.send_after(id, v1::hub_message::Body::Interest(message));
        if !fresh.is_empty() {
            self.after.push(AfterCommit::Send(id, number, SessionCommand::Resume(fresh)));
        }
    }

    pub(super) fn disconnected(&mut self, id: ClusterId, number: u64, now: Millis) -> Result<(), StoreError> {
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(()) };
        if cluster.session.as_ref().is_none_or(|session| session.number != number) {
            return Ok(());
        }
        cluster.end_session(now);
        tracing::warn!(cluster = %cluster.row.name, "agent disconnected: what it holds is unknown until it is back");
        self.store.put_cluster(&cluster.row)?;
        self.tickets.cluster_left(id);
        Ok(())
    }

    pub(super) fn served(
        &mut self,
        id: ClusterId,
        served: v1::Served,
        now: Millis,
    ) -> Result<(), StoreError> {
        let kinds: Vec<ServedKind> = served.kinds.into_iter().map(from_wire).collect();
        let index = index_served(&kinds);
        let Some(cluster) = self.clusters.get_mut(&id) else { return Ok(()) };
        let before = cluster.served.replace(index);
        let was_partial =
            std::mem::replace(&mut cluster.discovery_partial, !served.unknown_groups.is_empty());
        cluster.row.served = serde_json::to_vec(&kinds).unwrap_or_default().into();
        self.store.put_cluster(&cluster.row)?;
        if before != cluster.served || was_partial != cluster.discovery_partial {
            // Kinds came or went: what could not be decided before may be decidable now.
            self.scan_placements(PlacementFilter {
                target: Some(id),
                states: super::scan::WAITING.to_vec(),
                ..PlacementFilter::default()
            });
            // A policy may archive every kind.
            self.send_interest(id, &[], now)?;
        }
        Ok(())
    }

    pub(super) fn close_all(&mut self, code: &str, message: &str, remedy: &str, now: Millis) {
        for cluster in self.clusters.values_mut() {
            if let Some(session) = &cluster.session {
                let refused = refuse(code, message.to_owned(), remedy, 1000);
                let _ = session.out.try_send(SessionCommand::Close(refused));
                cluster.end_session(now);
            }
        }
    }

    /// Sends after the commit.
    pub(super) fn send_after(&mut self, id: ClusterId, body: v1::hub_message::Body) {
        let Some(number) = self.clusters.get(&id).and_then(|c| c.session.as_ref()).map(|s| s.number) else {
            return;
        };
        let message = Box::new(v1::HubMessage { body: Some(body) });
        self.after.push(AfterCommit::Send(id, number, SessionCommand::Message(message)));
    }

    /// Sends now. An agent that does not read its bounded queue loses its session rather than
    /// delaying others (I12).
    pub(super) fn send_to(&mut self, id: ClusterId, number: u64, command: SessionCommand) {
        let Some(cluster) = self.clusters.get_mut(&id) else { return };
        let Some(session) = cluster.session.as_ref().filter(|session| session.number == number) else {
            return;
        };
        if session.out.try_send(command).is_err() {
            tracing::warn!(cluster = %cluster.row.name, "the agent does not read its messages; its session ends");
            end(cluster);
        }
    }
}

/// What the hub may read there, as the agent says.
fn reading_of(hello: &v1::Hello) -> Option<Arc<Reading>> {
    if hello.reading.is_empty() {
        return None;
    }
    // An agent that says it in a way that is not known refuses what it does not accept, which is then unknown.
    let read = serde_json::from_slice::<Reading>(&hello.reading);
    let warn = |error: &serde_json::Error| {
        tracing::warn!(cluster = hello.cluster_name, %error, "what the agent accepts to be read cannot be understood; upgrade the hub");
    };
    read.inspect_err(warn).ok().map(Arc::new)
}

/// Dropping the sender ends the task, which then reports the disconnect like any other.
fn end(cluster: &mut Cluster) {
    if let Some(session) = cluster.session.as_mut() {
        let (closed, _) = tokio::sync::mpsc::channel(1);
        session.out = closed;
    }
}

fn from_wire(kind: v1::ServedKind) -> ServedKind {
    let v1::ServedKind { group, kind, versions, plural, singular, short_names, namespaced, verbs } = kind;
    ServedKind { group, kind, versions, plural, singular, short_names, namespaced, verbs }
}
