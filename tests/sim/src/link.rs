//! The network between two places: delays, cuts, black holes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::dice::Dice;
use crate::signal::Signal;

/// A connection through which nothing passes is given up by keepalives after this.
const KEEPALIVE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Open,
    /// Connections break, and new ones are refused.
    Cut,
    /// What is sent does not arrive, and nobody is told.
    Hole,
}

/// Clones are the same link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    state: Arc<Mutex<State>>,
    changed: Signal,
    dice: Arc<Mutex<Dice>>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    mode: Mode,
    /// Counts cuts: connections from before one are broken.
    generation: u64,
    delay_ms: (u32, u32),
}

/// The connection broke.
#[derive(Debug)]
pub(crate) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection broke")
    }
}

impl std::error::Error for Broken {}

impl Link {
    pub(crate) fn new(dice: Dice) -> Self {
        let state = State { mode: Mode::Open, generation: 0, delay_ms: FAST };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Signal::default(),
            dice: Arc::new(Mutex::new(dice)),
        }
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.raise();
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.change(|state| {
            state.mode = mode;
            state.generation += u64::from(mode == Mode::Cut);
        });
    }

    /// Every connection breaks; new ones work.
    pub(crate) fn reset(&self) {
        self.change(|state| state.generation += 1);
    }

    pub(crate) fn slow(&self, slow: bool) {
        self.change(|state| state.delay_ms = if slow { SLOW } else { FAST });
    }

    /// For connections that begin now.
    pub(crate) fn generation(&self) -> u64 {
        self.state().generation
    }

    /// Takes something across, on a connection of this generation.
    pub(crate) async fn pass(&self, generation: u64) -> Result<(), Broken> {
        let (low, high) = self.state().delay_ms;
        let delay = self.dice.lock().unwrap_or_else(PoisonError::into_inner).between(low, high);
        tokio::time::sleep(Duration::from_millis(delay.into())).await;
        let passable = self.until(|state| state.mode != Mode::Hole || state.generation != generation);
        let arrived = tokio::time::timeout(KEEPALIVE, passable).await.is_ok();
        let state = self.state();
        if arrived && state.mode == Mode::Open && state.generation == generation {
            Ok(())
        } else {
            Err(Broken)
        }
    }

    /// Until a connection of this generation is broken.
    pub(crate) async fn broken(&self, generation: u64) {
        self.until(|state| state.generation != generation).await;
    }

    async fn until(&self, is: impl Fn(State) -> bool) {
        loop {
            let seen = self.changed.count();
            if is(self.state()) {
                return;
            }
            self.changed.beyond(seen).await;
        }
    }
}

const FAST: (u32, u32) = (0, 12);
const SLOW: (u32, u32) = (200, 3_000);
