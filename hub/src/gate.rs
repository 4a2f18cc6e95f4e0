//! Who may be listened to at all: the token of a request is looked at before anything that it sends.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use crate::seal::BearerToken;

/// Knows the tokens. The core writes it, sessions read it; clones are one.
#[derive(Clone)]
pub struct Gate {
    /// Hashes of the tokens that the store knows.
    known: Arc<RwLock<HashSet<[u8; 32]>>>,
    /// Makes tokens of agents.
    key: [u8; 32],
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate(redacted)")
    }
}

impl Gate {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self { known: Arc::default(), key }
    }

    /// These are the tokens that the store knows.
    pub(crate) fn set(&self, hashes: impl Iterator<Item = [u8; 32]>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = hashes.collect();
    }

    /// Is it a token of this hub: one that the store knows, or one that the hub's key signed? The core decides what it is
    /// good for: it may have been replaced, or its cluster removed.
    #[must_use]
    pub fn admits(&self, token: &BearerToken) -> bool {
        let known = || self.known.read().unwrap_or_else(PoisonError::into_inner).contains(&token.hash());
        token.vouched(&self.key).is_some() || known()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_this_hub_pass_and_no_others() {
        let name = lockstep_engine::ClusterName::new("a").unwrap();
        let gate = Gate::new([1; 32]);
        assert!(gate.admits(&BearerToken::of_agent(&[1; 32], &name).unwrap()));
        let foreign = BearerToken::of_agent(&[2; 32], &name).unwrap();
        assert!(!gate.admits(&foreign));
        assert!(!gate.admits(&BearerToken::new("")) && !gate.admits(&BearerToken::new("anything")));
        // The key was replaced, and the store remembers.
        gate.set(std::iter::once(foreign.hash()));
        assert!(gate.admits(&foreign));
        gate.set(std::iter::empty());
        assert!(!gate.admits(&foreign));
    }
}
