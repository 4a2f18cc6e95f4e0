//! A digest of a set of keys that both ends of a session can work out on their own: agent and hub
//! compare what each holds of one namespace of a watch, and walk it only where they differ.
//!
//! The digest does not depend on order (it is a sum), so it can be taken over an index in any order
//! and is compared as bytes. It finds mistakes and decay, not malice: it is not keyed.

/// What is compared of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// metadata.name.
    pub name: &'a str,
    /// metadata.uid.
    pub uid: &'a str,
    /// metadata.resourceVersion. Not compared where neither body nor marks are held: of such a key
    /// only its life is told.
    pub resource_version: &'a str,
    /// Does the hub hold its body?
    pub body_held: bool,
    /// Does it carry our label?
    pub managed: bool,
}

/// Count and digest of the objects of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    count: u64,
    sum: u128,
}

impl Census {
    /// Takes an object in.
    pub fn add(&mut self, member: &Member<'_>) {
        let Member { name, uid, resource_version, body_held, managed } = *member;
        let mut hasher = blake3::Hasher::new();
        let version = if body_held || managed { resource_version } else { "" };
        for part in [name, uid, version] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&[u8::from(body_held), u8::from(managed)]);
        let mut low = [0; 16];
        low.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        self.count += 1;
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(low));
    }

    /// How many objects were taken in.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The digest, as it is sent.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        self.sum.to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> Member<'_> {
        Member { name, uid: "u", resource_version: "7", body_held: true, managed: false }
    }

    fn census(members: &[Member<'_>]) -> Census {
        let mut census = Census::default();
        members.iter().for_each(|member| census.add(member));
        census
    }

    #[test]
    fn order_does_not_matter_and_every_field_does() {
        let (a, b) = (member("a"), member("b"));
        assert_eq!(census(&[a, b]), census(&[b, a]));
        let others = [
            Member { name: "c", ..b },
            Member { uid: "v", ..b },
            Member { resource_version: "8", ..b },
            Member { body_held: false, managed: true, ..b },
            Member { managed: true, ..b },
        ];
        for other in others {
            assert_ne!(census(&[a, b]).digest(), census(&[a, other]).digest(), "{other:?}");
        }
        assert_eq!(census(&[a, b]).count(), 2);
    }

    #[test]
    fn of_a_bare_key_only_its_life_counts() {
        let bare = Member { body_held: false, ..member("a") };
        assert_eq!(census(&[bare]), census(&[Member { resource_version: "8", ..bare }]));
        assert_ne!(census(&[bare]), census(&[Member { uid: "v", ..bare }]));
    }
}
