//! Acts: what deleted several objects at once, and what belongs to them.
//!
//! Membership is decided by what API servers guarantee, never by time. resourceVersions of one server
//! are in one order over all kinds. The contents of a namespace or definition end between its
//! deletionTimestamp and its end; dependents name the uid of their owner, and garbage collection
//! deletes them once its delete has begun. Watches are not in step with each other, so members may be
//! told before what they belong to, or long after it: [`joined`] and [`turned`] come to the same acts in
//! any order.
//!
//! Of an object the act is, in this order: that of lockstep, which deleted it; the namespace it ended
//! with; the definition it ended with; the act of its owner; its own, if it has dependents.

use std::collections::BTreeSet;

use crate::{ObjectKey, ResourceVersion, Uid};

/// What deleted several objects at once; ordinals are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActKind {
    /// A namespace was deleted, and everything in it.
    Namespace,
    /// A CustomResourceDefinition was deleted, and every object of its kind.
    Definition,
    /// An owner was deleted, and its dependents with it.
    Owner,
    /// lockstep deleted them for one policy.
    Lockstep,
}

impl ActKind {
    /// All of them, by their names and in the order of their ordinals.
    pub const ALL: [(&str, Self); 4] = [
        ("Namespace", Self::Namespace),
        ("Definition", Self::Definition),
        ("Owner", Self::Owner),
        ("Lockstep", Self::Lockstep),
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// When something ended, in resourceVersions of one API server: at the earliest, and at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Not before.
    pub from: u64,
    /// Not after.
    pub to: u64,
}

impl Span {
    /// Seen to end at that resourceVersion. None where versions are no numbers: then nothing is
    /// concluded from them.
    #[must_use]
    pub fn at(version: &ResourceVersion) -> Option<Self> {
        version.ordinal().map(|at| Self { from: at, to: at })
    }

    /// Last known at `seen`, and gone by `by`; an empty one means that nobody knows.
    #[must_use]
    pub fn between(seen: &ResourceVersion, by: &ResourceVersion) -> Option<Self> {
        let from = seen.ordinal()?.saturating_add(1);
        let to = if by.is_empty() { u64::MAX } else { by.ordinal()? };
        Some(Self { from, to: to.max(from) })
    }
}

/// A deleted object, as far as it matters to acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Of its tombstone.
    pub id: i64,
    /// What it was.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Uid,
    /// Its controller, else the first of its owners, in its last state: orphaning takes that out.
    pub owner: Option<Uid>,
    /// When it ended. None: nobody knows, or it was not deleted (a rewind); it belongs to no act.
    pub ended: Option<Span>,
    /// A resourceVersion at which its delete had not begun.
    pub alive: u64,
    /// lockstep deleted it: its act is that one, whatever else went.
    pub by_lockstep: bool,
    /// The act it is part of.
    pub act: Option<i64>,
}

impl Deleted {
    fn is_deleted(&self) -> bool {
        self.by_lockstep || self.ended.is_some()
    }

    /// Was it deleted because its owner was? What ended before the owner's delete began was not.
    fn follows(&self, owner: &Self) -> bool {
        let after = self.ended.is_some_and(|ended| ended.to > owner.alive);
        self.id != owner.id && self.owner.as_ref() == Some(&owner.uid) && after && owner.is_deleted()
    }
}

/// One namespace or definition on its way out, with its act. Another one of the name is another life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its act.
    pub act: i64,
    /// Namespace or Definition.
    pub kind: ActKind,
    /// Its uid.
    pub uid: Uid,
    /// Its delete had not begun before this resourceVersion.
    pub began: u64,
    /// It was gone by this one; none while it is there.
    pub ended: Option<u64>,
}

impl Life {
    /// May something inside have ended because of it?
    fn takes(&self, ended: Span) -> bool {
        ended.to >= self.began && self.ended.is_none_or(|end| ended.from <= end)
    }
}

/// What is known of acts and of deleted objects of one cluster.
pub trait Book {
    /// Why it cannot be read or written.
    type Error;
    /// Lives of the namespace and of the definition that an object was in, and its own where it is one; in
    /// any order.
    fn lives(&mut self, of: &Deleted) -> Result<Vec<Life>, Self::Error>;
    /// Deleted objects with this uid: more than one where a restore brought it back.
    fn with_uid(&mut self, uid: &Uid) -> Result<Vec<Deleted>, Self::Error>;
    /// Deleted objects with this owner.
    fn dependents(&mut self, owner: &Uid) -> Result<Vec<Deleted>, Self::Error>;
    /// The act that an object is part of now.
    fn act(&mut self, id: i64) -> Result<Option<i64>, Self::Error>;
    /// Is it an act of this owner's own?
    fn is_rooted(&mut self, act: i64, root: &Deleted) -> Result<bool, Self::Error>;
    /// Opens the act of an owner.
    fn open(&mut self, root: &Deleted) -> Result<i64, Self::Error>;
    /// Makes an object part of an act, and no longer of the one before.
    fn assign(&mut self, id: i64, act: Option<i64>) -> Result<(), Self::Error>;
}

/// An object was deleted, and has its tombstone: it takes its place, and so do its dependents.
///
/// # Errors
/// Those of the book.
pub fn joined<B: Book>(book: &mut B, deleted: Deleted) -> Result<(), B::Error> {
    place(book, vec![deleted], true)
}

/// A life began or ended: these may be part of it now, or no longer.
///
/// # Errors
/// Those of the book.
pub fn turned<B: Book>(book: &mut B, inside: Vec<Deleted>) -> Result<(), B::Error> {
    place(book, inside, false)
}

/// Gives each its act, and where that changed, also those that follow it. `anew`: whether it did or not.
fn place<B: Book>(book: &mut B, mut waiting: Vec<Deleted>, anew: bool) -> Result<(), B::Error> {
    let news: BTreeSet<i64> = if anew { waiting.iter().map(|new| new.id).collect() } else { BTreeSet::new() };
    while let Some(next) = waiting.pop() {
        if !next.is_deleted() {
            continue;
        }
        let is = book.act(next.id)?;
        let act = act_of(book, &next, is)?;
        let moved = act != is;
        if moved {
            book.assign(next.id, act)?;
        }
        // Owners may name each other in a circle: they are of one act then, and nothing moves any more.
        if moved || news.contains(&next.id) {
            let followers = followers(book, &next)?;
            let of_another = |follower: &Deleted| follower.act != act || act.is_none();
            waiting.extend(followers.into_iter().filter(of_another));
        }
    }
    Ok(())
}

fn followers<B: Book>(book: &mut B, owner: &Deleted) -> Result<Vec<Deleted>, B::Error> {
    let dependents = book.dependents(&owner.uid)?;
    Ok(dependents.into_iter().filter(|dependent| dependent.follows(owner)).collect())
}

fn act_of<B: Book>(book: &mut B, of: &Deleted, is: Option<i64>) -> Result<Option<i64>, B::Error> {
    if of.by_lockstep {
        return Ok(is);
    }
    if let Some(act) = container_of(book, of)? {
        return Ok(Some(act));
    }
    if let Some(owner) = owner_of(book, of)? {
        if owner.act.is_some() {
            return Ok(owner.act);
        }
        let act = book.open(&owner)?;
        book.assign(owner.id, Some(act))?;
        return Ok(Some(act));
    }
    if let Some(act) = is
        && book.is_rooted(act, of)?
    {
        return Ok(Some(act));
    }
    if followers(book, of)?.is_empty() { Ok(None) } else { book.open(of).map(Some) }
}

/// The act of the namespace that it was in or was, else of the definition.
fn container_of<B: Book>(book: &mut B, of: &Deleted) -> Result<Option<i64>, B::Error> {
    let Some(ended) = of.ended else { return Ok(None) };
    let mut lives = book.lives(of)?;
    if let Some(own) = lives.iter().find(|life| life.uid == of.uid) {
        return Ok(Some(own.act));
    }
    // What was in a namespace is not in the next one of that name: of two lives the older one took it.
    lives.sort_by_key(|life| (life.kind, life.began));
    Ok(lives.iter().find(|life| life.takes(ended)).map(|life| life.act))
}

/// The deleted owner that it follows.
fn owner_of<B: Book>(book: &mut B, of: &Deleted) -> Result<Option<Deleted>, B::Error> {
    let Some(uid) = &of.owner else { return Ok(None) };
    let owners = book.with_uid(uid)?.into_iter().filter(|owner| of.follows(owner));
    Ok(owners.max_by_key(|owner| (owner.by_lockstep, owner.alive, owner.id)))
}

#[cfg(test)]
mod tests;
