//! Anti-entropy over all watches: which namespaces are counted when, and what becomes of a difference.

use lockstep_engine::{Millis, ObjectKey};

use super::{Context, Effect, Owner};
use crate::reread::Reread;
use crate::watch::{Compared, Read, Watch};

/// Keys counted in one second, at least: with fewer, small clusters would take all the time there is.
const KEYS_AT_LEAST: usize = 2_000;
/// Keys counted in one second, at most: some tens of milliseconds here, and rows read at the hub.
const KEYS_AT_MOST: usize = 50_000;
const MS_PER_S: Millis = 1_000;

impl Owner {
    /// Chooses the namespaces to tell next: as many each second as it takes to get through all of them
    /// within the interval.
    pub(super) fn choose_censuses(&mut self, now: Millis) {
        let interval = self.bounds.census_interval_ms;
        if interval <= 0 {
            self.watches.values_mut().for_each(Watch::forget_census);
            return;
        }
        if !self.session.is_open() {
            return;
        }
        let seconds = usize::try_from(interval / MS_PER_S).unwrap_or(1).max(1);
        let keys: usize = self.watches.values().map(Watch::len).sum();
        let mut room = (keys / seconds).clamp(KEYS_AT_LEAST, KEYS_AT_MOST);
        for watch in self.watches.values_mut() {
            let phase = phase(self.session.instance(), watch.id, interval);
            room = room.saturating_sub(watch.choose_census(now, interval, phase, room));
            if room == 0 {
                return;
            }
        }
    }

    pub(super) fn compare(&mut self, compared: lockstep_wire::Compared, effects: &mut Vec<Effect>) {
        let lockstep_wire::Compared { watch: id, namespace, entries } = compared;
        let Some(watch) = self.watches.get_mut(&id) else { return };
        match watch.compare(&namespace, entries) {
            Compared::Nothing => {}
            Compared::Relist => effects.push(Effect::Stop { watch: id }),
            Compared::Reread(names) => {
                let Some(resource) = watch.resource() else { return };
                let (run, namespace) = (watch.run, namespace.into());
                effects.push(Effect::Reread(Reread { watch: id, run, resource, namespace, names }));
            }
        }
    }

    /// The watch tells what became of it, mostly in a moment. But one that goes on over a restore of the
    /// server that nobody noticed never does.
    pub(super) fn doubt(&mut self, key: &ObjectKey, effects: &mut Vec<Effect>) {
        let covers = |watch: &Watch| watch.interest.gk == key.gk && watch.covers(&key.namespace);
        let Some((id, watch)) = self.watches.iter_mut().find(|(_, watch)| covers(watch)) else { return };
        let Some(resource) = watch.resource() else { return };
        if watch.doubt(&key.namespace, &key.name) {
            let (namespace, names) = ((*key.namespace).into(), vec![(*key.name).into()]);
            effects.push(Effect::Reread(Reread { watch: *id, run: watch.run, resource, namespace, names }));
        }
    }

    pub(super) fn reread(
        &mut self,
        id: u32,
        run: u64,
        (namespace, name): (&str, &str),
        read: &Read,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        let context = Context {
            secret_key: &self.secret_key.0,
            now,
            next_look: self.look + 1,
            next_read: self.guard.next_read(),
        };
        let Some(watch) = self.watches.get_mut(&id).filter(|watch| watch.run == run) else { return };
        let follow = watch.reread(namespace, name, read, &context);
        self.follow(id, follow, effects);
    }
}

/// When within the interval a watch begins its first round: spread over watches, and over the agents
/// that connect when their hub starts.
fn phase(instance: &str, watch: u32, interval: Millis) -> Millis {
    // FNV-1a.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in instance.bytes().chain(watch.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    let interval = u64::try_from(interval).unwrap_or(1).max(1);
    Millis::try_from(hash % interval).unwrap_or(0)
}
