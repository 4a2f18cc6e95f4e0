//! Guards that can be switched off. Nothing that is shipped is built with this.

use std::cell::Cell;

use super::Guard;

/// Names of guards that are off from the start, with commas in between: `make test-guards` runs the tests with it.
const ENVIRONMENT: &str = "LOCKSTEP_GUARDS_OFF";

thread_local! {
    /// A bit for each guard that is off. A history runs in one thread.
    static OFF: Cell<u128> = Cell::new(from_environment());
}

/// Is this guard on, in this thread?
#[must_use]
pub fn on(guard: Guard) -> bool {
    OFF.get() & bit(guard) == 0
}

/// From now on exactly these are off, in this thread.
pub fn switch_off(guards: &[Guard]) {
    OFF.set(guards.iter().fold(0, |off, guard| off | bit(*guard)));
}

fn bit(guard: Guard) -> u128 {
    1 << guard as u128
}

/// Names that no guard has are no guard's business: whoever sets it reads the list from the source.
fn from_environment() -> u128 {
    let names = std::env::var(ENVIRONMENT).unwrap_or_default();
    let named = |guard: &&Guard| names.split(',').any(|name| name == guard.name());
    Guard::ALL.iter().filter(named).fold(0, |off, guard| off | bit(*guard))
}
