//! What agents sent and the hub acknowledged (I1).

use std::collections::{BTreeMap, BTreeSet};

use lockstep_hub::store::{ClusterRow, Reader};

use super::Oracle;
use crate::objects::CLUSTERS;

/// Batches that reached the hub, and that it has or may still commit: by cluster and instance of its agent.
pub(super) type Arrived = BTreeMap<(usize, String), BTreeSet<u64>>;

impl Oracle {
    /// The hub starts: what had reached it and was not committed is gone.
    pub(crate) fn hub_started(&self, reader: &mut dyn Reader) {
        let clusters = reader.clusters().unwrap_or_default();
        let committed = |index: usize, instance: &str| {
            let row = clusters.iter().find(|row| row.name.as_str() == CLUSTERS[index]);
            row.filter(|row| row.instance == instance).map_or(0, |row| row.committed)
        };
        for ((index, instance), sequences) in &mut self.known().arrived {
            let last = committed(*index, instance);
            sequences.retain(|sequence| *sequence <= last);
        }
    }

    /// A batch reaches the hub.
    pub(crate) fn batch_arrives(&self, index: usize, instance: &str, sequence: u64) {
        self.known().arrived.entry((index, instance.to_owned())).or_default().insert(sequence);
    }

    /// The hub says that it has everything up to here.
    pub(crate) fn acknowledged(&self, reader: &mut dyn Reader, index: usize, instance: &str, sequence: u64) {
        let Ok(clusters) = reader.clusters() else { return };
        let is_of = |row: &&ClusterRow| row.name.as_str() == CLUSTERS[index] && row.instance == instance;
        // Another instance may have come meanwhile.
        let Some(row) = clusters.iter().find(is_of) else { return };
        if row.committed < sequence {
            self.fail(
                "I1",
                format_args!(
                    "batch {sequence} of {} was acknowledged, and the store has them up to {}",
                    CLUSTERS[index], row.committed
                ),
            );
        }
        let missing = {
            let known = self.known();
            let arrived = known.arrived.get(&(index, instance.to_owned()));
            (1..=sequence).find(|sequence| arrived.is_none_or(|arrived| !arrived.contains(sequence)))
        };
        if let Some(missing) = missing {
            self.fail(
                "I1",
                format_args!(
                    "batches of {} were acknowledged up to {sequence}, and {missing} never came",
                    CLUSTERS[index]
                ),
            );
        }
    }
}
