//! Streaming keys that the hub holds to an agent, in messages of bounded size.

use crate::v1::{Compare, HubMessage, IndexEntry, Resume, hub_message};

/// Entries per Resume message: at about 120 bytes each well under a MiB, so that steps and acks
/// on the same stream do not wait behind a large index.
pub const ENTRIES_PER_CHUNK: usize = 4096;

/// The messages that tell an agent where to go on with a watch. `head` gives everything but
/// entries and `last`, and is repeated in each. There is always one.
pub fn chunks<I>(head: Resume, entries: I) -> impl Iterator<Item = HubMessage> + use<I>
where
    I: IntoIterator<Item = IndexEntry>,
{
    chunked(entries, move |entries, last| hub_message::Body::Resume(Resume { entries, last, ..head.clone() }))
}

/// The messages that tell an agent what the hub holds of one namespace of a watch, as [`chunks`].
pub fn compare_chunks<I>(head: Compare, entries: I) -> impl Iterator<Item = HubMessage> + use<I>
where
    I: IntoIterator<Item = IndexEntry>,
{
    chunked(entries, move |entries, last| {
        hub_message::Body::Compare(Compare { entries, last, ..head.clone() })
    })
}

fn chunked<I, F>(entries: I, message: F) -> impl Iterator<Item = HubMessage> + use<I, F>
where
    I: IntoIterator<Item = IndexEntry>,
    F: Fn(Vec<IndexEntry>, bool) -> hub_message::Body,
{
    let mut entries = entries.into_iter().peekable();
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let chunk: Vec<IndexEntry> = entries.by_ref().take(ENTRIES_PER_CHUNK).collect();
        done = entries.peek().is_none();
        Some(HubMessage { body: Some(message(chunk, done)) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(count: usize) -> Vec<(usize, bool)> {
        let head = Resume { watch: 1, ..Resume::default() };
        chunks(head, std::iter::repeat_n(IndexEntry::default(), count))
            .map(|message| match message.body {
                Some(hub_message::Body::Resume(resume)) => (resume.entries.len(), resume.last),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn the_last_chunk_says_so_and_an_empty_index_is_one_chunk() {
        assert_eq!(sizes(0), [(0, true)]);
        assert_eq!(sizes(ENTRIES_PER_CHUNK), [(ENTRIES_PER_CHUNK, true)]);
        assert_eq!(sizes(ENTRIES_PER_CHUNK + 1), [(ENTRIES_PER_CHUNK, false), (1, true)]);
    }
}
