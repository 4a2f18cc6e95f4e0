//! The order of writing: waves of the field catalogue, and owners before what they own.

use std::collections::BTreeMap;

use super::Item;
use crate::catalogue::wave;
use crate::identity::ObjectKey;

/// Chains of owners are short; a circle of them, which nobody forbids, ends here.
const MAX_DEPTH: usize = 16;

/// Gives every item its rank, and sorts.
pub(super) fn rank(items: &mut [Item]) {
    let mut ranks: BTreeMap<ObjectKey, u32> =
        items.iter().map(|item| (item.key.clone(), u32::from(wave(&item.key.gk)))).collect();
    for _ in 0..MAX_DEPTH {
        let mut moved = false;
        for item in items.iter() {
            let owner = item.owners.iter().filter_map(|owner| ranks.get(&owner.key)).max().copied();
            let own = ranks.get(&item.key).copied().unwrap_or_default();
            if let Some(after) = owner.map(|owner| owner + 1).filter(|after| *after > own) {
                ranks.insert(item.key.clone(), after);
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    for item in items.iter_mut() {
        item.rank = ranks.get(&item.key).copied().unwrap_or_default();
    }
    items.sort_by(|a, b| (a.rank, &a.key, a.tombstone).cmp(&(b.rank, &b.key, b.tombstone)));
}
