//! Who deleted it: out of everybody who asked an API server for deletes, the one who is meant.
//!
//! Webhooks tell who asked, watches tell what went; they meet on the uid, and where a webhook tells
//! none (audit events below level Request), on the key and the time.

use crate::Millis;

/// How far the clocks of an API server, an agent and the hub may differ, and how much later a webhook may be.
pub const CLOCKS_MS: Millis = 2_000;
/// An observed delete follows what asked for it within this time, unless finalizers hold the object; those show
/// when they begin.
pub const FOLLOWS_MS: Millis = 60_000;

/// One who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// uid of the object; none: not told.
    pub uid: Option<String>,
    /// For a whole collection, not for this object by name.
    pub collection: bool,
    /// The user, as the API server authenticated it.
    pub user: String,
    /// When (hub's clock).
    pub at: Millis,
}

/// What went, and when it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion<'a> {
    /// uid of the object.
    pub uid: &'a str,
    /// Nobody asked before this (hub's clock).
    pub from: Millis,
    /// Its deletionTimestamp, or its end (hub's clock).
    pub until: Millis,
}

/// Do controllers act under this name? They delete what others asked for.
#[must_use]
pub fn is_controller(user: &str) -> bool {
    user.starts_with("system:serviceaccount:kube-system:") || user == "system:kube-controller-manager"
}

/// Who of those who asked for an object of this key deleted it: the last one before it went, people before
/// controllers, and who named it before who meant a collection.
#[must_use]
pub fn deleter<'a>(deletion: Deletion<'_>, asks: &'a [Ask]) -> Option<&'a str> {
    let Deletion { uid, from, until } = deletion;
    let by_uid = |ask: &&Ask| ask.uid.as_deref() == Some(uid);
    let by_time = |ask: &&Ask| {
        ask.uid.is_none()
            && ask.at >= from.saturating_sub(CLOCKS_MS)
            && ask.at <= until.saturating_add(CLOCKS_MS)
    };
    let told: Vec<&Ask> = asks.iter().filter(by_uid).collect();
    let named = || asks.iter().filter(by_time).filter(|ask| !ask.collection).collect::<Vec<_>>();
    let meant = || asks.iter().filter(by_time).filter(|ask| ask.collection).collect::<Vec<_>>();
    [told, named(), meant()].into_iter().find_map(|asks| best(&asks, until)).map(|ask| ask.user.as_str())
}

fn best<'a>(asks: &[&'a Ask], until: Millis) -> Option<&'a Ask> {
    // One that seems to come after the end is better than none: clocks differ.
    let rank = |ask: &&&Ask| {
        let in_time = ask.at <= until.saturating_add(CLOCKS_MS);
        let near = if in_time { ask.at } else { ask.at.saturating_neg() };
        (!is_controller(&ask.user), in_time, near)
    };
    asks.iter().max_by_key(rank).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GC: &str = "system:serviceaccount:kube-system:generic-garbage-collector";

    fn ask(uid: Option<&str>, user: &str, at: Millis) -> Ask {
        Ask { uid: uid.map(str::to_owned), collection: false, user: user.to_owned(), at }
    }

    fn collection(user: &str, at: Millis) -> Ask {
        Ask { collection: true, ..ask(None, user, at) }
    }

    #[test]
    fn the_last_who_asked_before_it_went_is_the_deleter() {
        let deletion = Deletion { uid: "u", from: 90_000, until: 100_000 };
        for (asks, expected) in [
            (vec![], None),
            (vec![ask(Some("u"), "jane", 99_000)], Some("jane")),
            (vec![ask(Some("other"), "jane", 99_000)], None),
            // A uid needs no time: finalizers may hold an object for days.
            (vec![ask(Some("u"), "jane", 1_000)], Some("jane")),
            (vec![ask(Some("u"), "jane", 98_000), ask(Some("u"), "john", 99_000)], Some("john")),
            // Asked again while finalizers held it: it was gone for good already.
            (vec![ask(Some("u"), "jane", 99_000), ask(Some("u"), "john", 150_000)], Some("jane")),
            (vec![ask(Some("u"), "jane", 110_000), ask(Some("u"), "john", 150_000)], Some("jane")),
            (vec![ask(Some("u"), "jane", 98_000), ask(Some("u"), GC, 99_000)], Some("jane")),
            (vec![ask(Some("u"), GC, 99_000)], Some(GC)),
            (vec![ask(None, "jane", 99_000)], Some("jane")),
            (vec![ask(None, "jane", 50_000)], None),
            (vec![ask(None, "jane", 103_000)], None),
            (vec![ask(None, "jane", 99_000), ask(Some("u"), "john", 98_000)], Some("john")),
            (vec![collection("jane", 99_500), ask(None, "john", 99_000)], Some("john")),
            (vec![collection("jane", 99_500)], Some("jane")),
        ] {
            assert_eq!(deleter(deletion, &asks), expected, "{asks:?}");
        }
    }
}
