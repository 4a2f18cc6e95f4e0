//! Keys of the core.

use crate::seal::HubKey;

/// Keys derived from the hub key.
#[derive(Clone)]
pub struct Keys {
    /// Signs marks.
    pub mac: [u8; 32],
    /// Makes tokens of agents.
    pub token: [u8; 32],
    /// Makes the keys that agents digest Secrets with, one per cluster.
    pub agent_digest: [u8; 32],
    /// Keys digests of Secrets that are shown.
    pub shown_digest: [u8; 32],
    /// Keys digests of rendered Secrets.
    pub rendered_digest: [u8; 32],
}

impl Keys {
    /// Those of this hub.
    #[must_use]
    pub fn of(key: &HubKey) -> Self {
        Self {
            mac: key.mac_key(),
            token: key.token_key(),
            agent_digest: key.agent_digest_key(),
            shown_digest: key.shown_digest_key(),
            rendered_digest: key.rendered_digest_key(),
        }
    }

    /// The key that the agent of this cluster digests Secrets with. What it tells is compared with what it told before
    /// only, so that an agent learns nothing of other clusters' Secrets (I13).
    pub(super) fn of_agent(&self, uid: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.agent_digest, uid.as_bytes()).as_bytes()
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i13_every_cluster_has_a_key_for_digests_of_its_own() {
        let keys = Keys::of(&HubKey::from_bytes([7; 32]));
        let (a, b) = (keys.of_agent("uid-of-a"), keys.of_agent("uid-of-b"));
        assert_ne!(a, b);
        assert_eq!(
            a,
            Keys::of(&HubKey::from_bytes([7; 32])).of_agent("uid-of-a"),
            "also after a loss of the data"
        );
        for kept in [keys.shown_digest, keys.rendered_digest, keys.agent_digest, keys.mac, keys.token] {
            assert!(kept != a && kept != b, "what an agent is told opens nothing else");
        }
    }
}
