//! What changed between what is known of a watch and what a listing or an event shows.
//!
//! [`KeyIndex`] holds one small entry per object of a watch, never bodies. A listing marks what it
//! sees with its epoch; once it is complete, and only if absence from it is conclusive, what it did
//! not mark is inferred to be deleted (I3). A listing that never completes leaves nothing behind
//! but upserts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::identity::{ResourceVersion, Uid};
use crate::listwatch::Absence;

/// A digest of the part of a body that matters to whoever keeps the index.
pub type Digest = [u8; 16];

/// What is known of one object: 64 bytes, since there is one per watched object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    uid: PackedUid,
    version: PackedVersion,
    digest: Digest,
    epoch: u32,
    flags: Flags,
}

/// What the index remembers beside identity and version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// Was the object's body sent to the hub (does it match the interest)?
    pub body_sent: bool,
    /// Does it carry our mark or our managedFields entry?
    pub managed: bool,
    /// Does the hub hold nothing of it? So it is with an object that could never be decoded: it
    /// exists, and that is all.
    pub untold: bool,
}

/// A UUID takes 16 bytes, anything else stays text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PackedUid {
    Uuid([u8; 16]),
    Text(Box<str>),
}

/// A number takes 8 bytes; the box's niche makes the whole 16.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PackedVersion {
    Number(u64),
    Text(Box<str>),
}

impl PackedUid {
    fn new(text: &str) -> Self {
        uuid(text).map_or_else(|| Self::Text(text.into()), Self::Uuid)
    }

    fn uid(&self) -> Uid {
        match self {
            Self::Text(text) => Uid::new(text),
            Self::Uuid(bytes) => {
                let mut text = String::with_capacity(36);
                for (n, byte) in bytes.iter().enumerate() {
                    if matches!(n, 4 | 6 | 8 | 10) {
                        text.push('-');
                    }
                    for digit in [byte >> 4, byte & 15] {
                        text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
                    }
                }
                Uid::new(&text)
            }
        }
    }
}

/// Lower-case hex in the form 8-4-4-4-12 only: anything else would not come back as it was.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut out = [0_u8; 16];
    let mut digits = 0_usize;
    for (n, byte) in bytes.iter().enumerate() {
        if matches!(n, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        let slot = out.get_mut(digits / 2)?;
        *slot = (*slot << 4) | digit;
        digits += 1;
    }
    Some(out)
}

impl PackedVersion {
    fn new(version: &ResourceVersion) -> Self {
        match version.ordinal() {
            Some(number) if number.to_string() == version.as_str() => Self::Number(number),
            _ => Self::Text(version.as_str().into()),
        }
    }

    fn version(&self) -> ResourceVersion {
        match self {
            Self::Number(number) => ResourceVersion::new(&number.to_string()),
            Self::Text(text) => ResourceVersion::new(text),
        }
    }
}

impl Entry {
    /// `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> Uid {
        self.uid.uid()
    }

    /// `metadata.resourceVersion` when last seen.
    #[must_use]
    pub fn resource_version(&self) -> ResourceVersion {
        self.version.version()
    }

    /// The digest given with [`Seen`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The flags given with [`Seen`].
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.flags
    }
}

/// One object as a listing or an event shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<'a> {
    /// `metadata.uid`.
    pub uid: &'a str,
    /// `metadata.resourceVersion`.
    pub resource_version: ResourceVersion,
    /// Of what matters to the caller; compared, not interpreted.
    pub digest: Digest,
    /// Kept with the entry.
    pub flags: Flags,
}

/// What an observed object means against the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Same uid and resourceVersion: nothing to report.
    Unchanged,
    /// Not known before.
    Created,
    /// Same object, other version.
    Updated {
        /// As it was.
        old: Entry,
    },
    /// Another object under the same name: a delete and a create (I5).
    Recreated {
        /// The one that is gone.
        gone: Gone,
    },
}

/// How a delete became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delete {
    /// A DELETED event.
    Observed,
    /// Missing from a complete listing, or replaced under its name.
    Inferred,
}

/// An object that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// What was known of it.
    pub last: Entry,
    /// How that became known.
    pub how: Delete,
}

/// An object that was known before the server was rewound, and that the list after it lacks. It is
/// neither there nor deleted: nobody can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// What was known of it.
    pub last: Entry,
}

/// Why nothing may be concluded from absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Inconclusive {
    /// Another listing has begun since, or none had.
    #[error("listing {ended} ended, but listing {current} is the current one")]
    OtherEpoch {
        /// The one that ended.
        ended: u64,
        /// The one that was begun last.
        current: u64,
    },
    /// The list itself says so.
    #[error("absence from the list means nothing: {0:?}")]
    Absence(Absence),
}

/// The objects of one watch.
///
/// Nested by namespace, so that a key costs its name: at most 150 bytes beside the name in a tree
/// filled in order (nodes a little over half full), less otherwise.
#[derive(Debug, Clone, Default)]
pub struct KeyIndex {
    namespaces: BTreeMap<Box<str>, BTreeMap<Box<str>, Entry>>,
    /// Namespaces without objects that had some once, or are said to, until [`Self::forget_empty`].
    emptied: BTreeSet<Box<str>>,
    len: usize,
    /// The listing under way.
    epoch: u64,
    listing: bool,
}

impl KeyIndex {
    /// An index of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// None?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is known of an object.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Entry> {
        self.namespaces.get(namespace)?.get(name)
    }

    /// All, in order: namespace, name, entry.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Entry)> {
        self.namespaces.iter().flat_map(|(namespace, names)| {
            names.iter().map(move |(name, entry)| (namespace.as_ref(), name.as_ref(), entry))
        })
    }

    /// The objects of one namespace, in order of their names.
    pub fn namespace(&self, namespace: &str) -> impl Iterator<Item = (&str, &Entry)> {
        self.namespaces.get(namespace).into_iter().flatten().map(|(name, entry)| (name.as_ref(), entry))
    }

    /// The namespace that follows in order, with the number of its objects: also one that has none any
    /// more, until [`Self::forget_empty`].
    #[must_use]
    pub fn namespace_after(&self, after: Option<&str>) -> Option<(&str, usize)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (from, Bound::Unbounded);
        let full = self.namespaces.range::<str, _>(range).next().map(|(name, names)| (&**name, names.len()));
        let empty = self.emptied.range::<str, _>(range).next().map(|name| (&**name, 0));
        match (full, empty) {
            (Some(full), Some(empty)) => Some(full.min(empty)),
            (full, empty) => full.or(empty),
        }
    }

    /// Remembers a namespace without objects, until [`Self::forget_empty`]: somebody says that it has some.
    pub fn remember_empty(&mut self, namespace: &str) {
        if !self.namespaces.contains_key(namespace) {
            self.emptied.insert(namespace.into());
        }
    }

    /// Forgets that a namespace ever had objects, if it has none.
    pub fn forget_empty(&mut self, namespace: &str) {
        self.emptied.remove(namespace);
    }

    /// Forgets it of all.
    pub fn forget_all_empty(&mut self) {
        self.emptied.clear();
    }

    /// Changes the flags of all entries.
    pub fn reflag(&mut self, mut change: impl FnMut(&mut Flags)) {
        for entry in self.namespaces.values_mut().flat_map(BTreeMap::values_mut) {
            change(&mut entry.flags);
        }
    }

    /// A listing begins. What an unfinished one had marked is void.
    pub fn begin(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.listing = true;
    }

    /// Takes an object as it is now, from a listing or an event.
    pub fn observe(&mut self, namespace: &str, name: &str, seen: &Seen<'_>) -> Change {
        let entry = Entry {
            uid: PackedUid::new(seen.uid),
            version: PackedVersion::new(&seen.resource_version),
            digest: seen.digest,
            epoch: low(self.epoch),
            flags: seen.flags,
        };
        if !self.namespaces.contains_key(namespace) {
            self.namespaces.insert(namespace.into(), BTreeMap::new());
            self.emptied.remove(namespace);
        }
        let Some(names) = self.namespaces.get_mut(namespace) else { return Change::Created };
        let Some(slot) = names.get_mut(name) else {
            names.insert(name.into(), entry);
            self.len += 1;
            return Change::Created;
        };
        let old = std::mem::replace(slot, entry);
        if old.uid != slot.uid {
            let gone =
                Gone { namespace: namespace.into(), name: name.into(), last: old, how: Delete::Inferred };
            Change::Recreated { gone }
        } else if old.version == slot.version && old.digest == slot.digest && old.flags == slot.flags {
            Change::Unchanged
        } else {
            Change::Updated { old }
        }
    }

    /// Takes a DELETED event. Nothing, when the object was not known, or when another one has taken
    /// its name since.
    pub fn delete(&mut self, namespace: &str, name: &str, uid: &str) -> Option<Gone> {
        let names = self.namespaces.get_mut(namespace)?;
        if names.get(name)?.uid != PackedUid::new(uid) {
            return None;
        }
        let last = names.remove(name)?;
        if names.is_empty() {
            self.namespaces.remove(namespace);
            self.emptied.insert(namespace.into());
        }
        self.len = self.len.saturating_sub(1);
        Some(Gone { namespace: namespace.into(), name: name.into(), last, how: Delete::Observed })
    }

    /// A listing is complete: what it did not show is gone.
    ///
    /// # Errors
    /// When nothing may be concluded (I3); the index is then as it was, and stays so.
    pub fn complete(&mut self, epoch: u64, absence: Absence) -> Result<Vec<Gone>, Inconclusive> {
        self.end(epoch)?;
        if absence != Absence::Conclusive {
            return Err(Inconclusive::Absence(absence));
        }
        let gone = |Unseen { namespace, name, last }| Gone { namespace, name, last, how: Delete::Inferred };
        Ok(self.sweep().into_iter().map(gone).collect())
    }

    /// A listing after a rewind is complete: what it did not show leaves the index, and nothing is
    /// concluded of it.
    ///
    /// # Errors
    /// When it is not the current one; the index is then as it was.
    pub fn take_unseen(&mut self, epoch: u64) -> Result<Vec<Unseen>, Inconclusive> {
        self.end(epoch)?;
        Ok(self.sweep())
    }

    fn end(&mut self, epoch: u64) -> Result<(), Inconclusive> {
        if !self.listing || epoch != self.epoch {
            return Err(Inconclusive::OtherEpoch { ended: epoch, current: self.epoch });
        }
        self.listing = false;
        Ok(())
    }

    /// Takes out what the current listing did not mark.
    fn sweep(&mut self) -> Vec<Unseen> {
        let mark = low(self.epoch);
        let mut unseen = Vec::new();
        for (namespace, names) in &mut self.namespaces {
            for (name, last) in names.extract_if(.., |_, entry| entry.epoch != mark) {
                unseen.push(Unseen { namespace: namespace.clone(), name, last });
            }
        }
        let emptied = self.namespaces.extract_if(.., |_, names| names.is_empty());
        self.emptied.extend(emptied.map(|(namespace, _)| namespace));
        self.len = self.len.saturating_sub(unseen.len());
        unseen
    }

    /// Which objects the completed listing did not show, without concluding anything.
    pub fn unseen(&self) -> impl Iterator<Item = (&str, &str, &Entry)> {
        let mark = low(self.epoch);
        self.iter().filter(move |(_, _, entry)| entry.epoch != mark)
    }
}

/// Epochs are compared for equality within one listing only, so the low half is enough.
fn low(epoch: u64) -> u32 {
    u32::try_from(epoch & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
