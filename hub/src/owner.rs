//! The thread that owns the core: takes what has queued up, has it worked through in one
//! transaction, and does so again. While it waits for the disk, inputs gather for the next commit.
//!
//! It also looks after the disk: where there is no room it takes nothing in, and where the file is
//! damaged it ends.

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockstep_engine::Millis;
use lockstep_engine::clock::Clock;
use lockstep_wire::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::core::{Core, Counts, Input, PolicyFiles};
use crate::metrics::Metrics;
use crate::problem::Problems;
use crate::pulse::Pulse;
use crate::space::{FULL, Gauge, News, REMEDY, Space, free_bytes};
use crate::store::sqlite::Damage;
use crate::store::{Store, StoreError};

/// Inputs that wait for the core. Full: sessions stop reading, and so do their agents (I14).
pub const INPUTS: usize = 1024;
/// Inputs worked through in one transaction.
const BATCH: usize = 256;
/// After the store refused: how long before the next attempt.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Longest sleep without anything due.
const IDLE: Duration = Duration::from_secs(60);
/// Between two looks at the room on the disk: one call of the system.
const LOOK: Duration = Duration::from_secs(1);
/// Between two writes that see whether the store takes anything again.
const TRY: Duration = Duration::from_secs(2);
/// When an agent that is turned away comes again, ms: at the earliest, and spread over as much more.
const AWAY_MS: u64 = 5_000;

/// The hub's clock, milliseconds since the epoch.
#[must_use]
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

/// Told after every transaction.
pub type Observer = Box<dyn FnMut(&Counts, usize, Duration) + Send>;

/// What the owner looks after beside the core.
pub struct Care {
    /// Where room is looked for.
    pub space: Space,
    /// Where it tells of the lack of it.
    pub problems: Problems,
    /// Told when the file is found damaged; ends the hub.
    pub damage: Damage,
    /// Figures.
    pub metrics: Metrics,
    /// Signs of life.
    pub pulse: Pulse,
    /// The time.
    pub clock: Clock,
}

/// Why the owner stops for a moment, or for good.
enum Stop {
    Over,
    Damaged,
}

/// Runs the core until every sender of inputs is gone, or the store is found damaged. Starts no
/// runtime of its own: it is called on a thread made for it.
pub fn run<S: Store>(core: Core<S>, inputs: mpsc::Receiver<Input>, observe: Observer, care: Care) {
    match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime.block_on(serve(core, inputs, observe, care)),
        Err(error) => tracing::error!("the core cannot run: {error}"),
    }
}

/// The same, in a runtime of the caller's, which it blocks while it works.
pub async fn serve<S: Store>(core: Core<S>, inputs: mpsc::Receiver<Input>, observe: Observer, care: Care) {
    let gauge = Gauge::new(care.space.min_free);
    let begun = Instant::now();
    let mut owner = Owner {
        core,
        inputs,
        observe,
        care,
        gauge,
        policies: None,
        next_look: begun,
        next_try: begun,
        idle_until: begun,
        turned_away: 0,
    };
    let mut more = true;
    while let Ok(again) = owner.turn(more).await {
        more = again;
    }
}

struct Owner<S> {
    core: Core<S>,
    inputs: mpsc::Receiver<Input>,
    observe: Observer,
    care: Care,
    gauge: Gauge,
    /// The policies directory as last told, if the core may not know it: it is told once only.
    policies: Option<PolicyFiles>,
    next_look: Instant,
    next_try: Instant,
    idle_until: Instant,
    turned_away: u64,
}

impl<S: Store> Owner<S> {
    /// One batch; is there more to do at once?
    async fn turn(&mut self, more: bool) -> Result<bool, Stop> {
        let mut batch = Vec::new();
        if !more {
            self.wait(&mut batch).await?;
        }
        self.care.pulse.turned();
        while batch.len() < BATCH {
            match self.inputs.try_recv() {
                Ok(input) => batch.push(input),
                Err(mpsc::error::TryRecvError::Disconnected) if batch.is_empty() => return Err(Stop::Over),
                Err(_) => break,
            }
        }
        self.look()?;
        if self.gauge.short().is_some() {
            return batch.into_iter().try_for_each(|input| self.decline(input)).map(|()| false);
        }
        if let Some(files) = self.policies.take() {
            batch.insert(0, Input::Policies(files));
        }
        if batch.is_empty() && !more {
            return Ok(false);
        }
        self.work(batch).await
    }

    /// Until something comes, or is due.
    async fn wait(&mut self, batch: &mut Vec<Input>) -> Result<(), Stop> {
        let begun = Instant::now();
        let due = match self.core.wake_at() {
            _ if self.gauge.short().is_some() => self.next_look,
            Some(at) => {
                begun
                    + Duration::from_millis(u64::try_from(at - self.care.clock.now()).unwrap_or(0)).min(IDLE)
            }
            None => self.idle_until.max(begun),
        };
        let until = due.min(self.next_look.max(begun));
        match tokio::time::timeout_at(until, self.inputs.recv()).await {
            Ok(Some(input)) => batch.push(input),
            Ok(None) => return Err(Stop::Over),
            Err(_) if Instant::now() >= due => batch.push(Input::Tick),
            Err(_) => {}
        }
        Ok(())
    }

    async fn work(&mut self, batch: Vec<Input>) -> Result<bool, Stop> {
        // What a transaction that fails does not take is lost with it; of all of it only this is not
        // told again.
        let policies = batch.iter().rev().find_map(|input| match input {
            Input::Policies(files) => Some(files.clone()),
            _ => None,
        });
        let started = Instant::now();
        self.idle_until = started + IDLE;
        match self.core.handle(batch, self.care.clock.now()) {
            Ok(again) => {
                self.care.pulse.committed(self.care.clock.now());
                (self.observe)(&self.core.counts(), self.core.connected(), started.elapsed());
                Ok(again)
            }
            Err(error) => {
                self.care.pulse.refused();
                self.policies = policies;
                if self.refused(&error)? {
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                Ok(false)
            }
        }
    }

    /// Is a pause called for?
    fn refused(&mut self, error: &StoreError) -> Result<bool, Stop> {
        match error {
            StoreError::Full | StoreError::Disk(_) => {
                self.next_try = Instant::now() + TRY;
                let news = self.gauge.refused(&error.to_string(), self.care.clock.now());
                self.tell(news);
                Ok(false)
            }
            // A row that cannot be read is met again and again: a file that says it is sound is then
            // looked at whole, and not believed for ever.
            StoreError::Damaged(why) | StoreError::Row { why, .. } => {
                self.care.damage.note(why);
                Err(Stop::Damaged)
            }
            StoreError::Database(_) => {
                tracing::error!("{error}; nothing was acknowledged, trying again");
                Ok(true)
            }
        }
    }

    /// Looks at the room on the disk, and tries to go on where there is some again.
    fn look(&mut self) -> Result<(), Stop> {
        let at = Instant::now();
        if at < self.next_look {
            return Ok(());
        }
        self.next_look = at + LOOK;
        let free = match free_bytes(&self.care.space.dir) {
            Ok(free) => free,
            Err(error) => {
                tracing::debug!("the free space cannot be asked for: {error}");
                u64::MAX
            }
        };
        self.care.metrics.free(free);
        let news = self.gauge.looked(free, self.care.clock.now());
        self.tell(news);
        if self.gauge.short().is_none() || !self.gauge.may_try(free) || at < self.next_try {
            return Ok(());
        }
        self.next_try = at + TRY;
        match self.core.probe(self.care.clock.now()) {
            Ok(()) => {
                let news = self.gauge.recovered(self.care.clock.now());
                self.tell(news);
                Ok(())
            }
            Err(error) => self.refused(&error).map(drop),
        }
    }

    fn tell(&mut self, news: News) {
        let code = FULL.code;
        match news {
            News::None => return,
            News::Began(why) => {
                tracing::error!(
                    "{code}: {why}: nothing new is taken, nothing is lost, and agents wait; {REMEDY}"
                );
                let refused = self.refusal();
                let at = self.care.clock.now();
                self.core.turn_away(&refused, at);
            }
            News::Still(why) => tracing::error!("{code}: {why}: still nothing new is taken; {REMEDY}"),
            News::Ended(after) => {
                tracing::info!(after_ms = after, "there is room on the disk again: the hub goes on");
                self.care.problems.clear(FULL);
            }
        }
        self.care.metrics.out_of_space(self.gauge.short().is_some());
        if let Some(why) = self.gauge.short() {
            let message = format!("the hub takes nothing new: {why}");
            self.care.problems.set(FULL, message, REMEDY, true, self.care.clock.now());
        }
    }

    /// Agents come back one after the other: each is told another time.
    fn refusal(&mut self) -> v1::Refused {
        self.turned_away += 1;
        // Multiples of the golden ratio fill a range evenly, however many there are.
        let spread = self.turned_away.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        v1::Refused {
            code: FULL.code.to_owned(),
            message: format!("the hub takes nothing new: {}", self.gauge.short().unwrap_or("no room")),
            remedy: REMEDY.to_owned(),
            retry_after_ms: AWAY_MS + ((spread * AWAY_MS) >> 32),
        }
    }

    fn decline(&mut self, input: Input) -> Result<(), Stop> {
        let refused = self.refusal();
        match self.core.decline(input, &refused, self.care.clock.now()) {
            Ok(None) => Ok(()),
            Ok(Some(files)) => {
                self.policies = Some(files);
                Ok(())
            }
            Err(error) => self.refused(&error).map(drop),
        }
    }
}
