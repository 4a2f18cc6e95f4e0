//! What the hub asks to be watched.

use lockstep_engine::interest::Interest;

use super::{Effect, Owner, Watch};
use crate::error::NOT_ACCEPTED;

impl Owner {
    fn interest(watch: u32, json: &[u8]) -> Option<Interest> {
        match serde_json::from_slice(json) {
            Ok(interest) => Some(interest),
            Err(error) => {
                tracing::error!(watch, %error, "the hub sent an interest that cannot be read; upgrade the agent");
                None
            }
        }
    }

    /// Does it ask for bodies that the hub may not read? A hub that knows what it may read asks for no more, so it is not
    /// cut here: that would look to the hub as if objects had left its policies.
    fn refuses(&self, interest: &Interest) -> bool {
        let refused = self.facts.reading.cut(interest) != *interest;
        if refused {
            tracing::error!(
                code = NOT_ACCEPTED, kind = %interest.gk, namespace = %interest.scope,
                "the hub asks for objects that `accept` does not let it read; nothing of this kind is watched"
            );
        }
        refused
    }

    pub(super) fn started(&mut self, id: u32, json: &[u8]) {
        let Some(interest) = Self::interest(id, json) else { return };
        tracing::debug!(watch = id, kind = %interest.gk, namespace = %interest.scope, "interest added");
        let refused = self.refuses(&interest);
        self.watches.insert(id, Watch::new(id, interest, self.bounds.queue).refused(refused));
    }

    pub(super) fn changed(&mut self, id: u32, json: &[u8], effects: &mut Vec<Effect>) {
        let Some(interest) = Self::interest(id, json) else { return };
        let refused = self.refuses(&interest);
        let Some(watch) = self.watches.get_mut(&id) else { return self.started(id, json) };
        tracing::debug!(watch = id, kind = %interest.gk, "interest changed");
        if watch.change(interest, refused) {
            effects.push(Effect::Stop { watch: id });
        }
    }
}
