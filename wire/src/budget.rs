//! What a message may cost, looked at before it is decoded: its encoded bytes are walked once, nothing is built.
//!
//! An empty sub-message takes two bytes on the wire and some hundred in memory, and compression shrinks two million of
//! them to 300 bytes. So size on the wire says nothing of memory; what decides is what decoding would allocate.

use crate::MAX_MESSAGE_BYTES;

/// A message costs more than its kind may.
pub const TOO_LARGE: &str = "LS0326";

/// The first message: a Hello, from an agent that is not welcome yet.
pub const FIRST_MESSAGE_BYTES: usize = 64 << 10;

/// Length, capacity and pointer of a text or list, twice: lists grow by doubling.
const TEXT: usize = 48;
/// Two texts and their place in a map.
const MAP_ENTRY: usize = 2 * TEXT + 32;
/// Messages within messages: ours go five deep, prost gives up at 100.
const DEEPEST: usize = 16;

/// What kinds of fields take memory of their own.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// A message: index into `SHAPES`.
    Message(usize),
    /// A string or bytes.
    Text,
}

/// A message, as far as its cost goes.
pub(crate) struct Shape {
    /// Of the decoded structure.
    bytes: usize,
    /// By number.
    fields: &'static [(u32, Kind)],
}

mod generated {
    use super::{Kind, MAP_ENTRY, Shape};
    include!(concat!(env!("OUT_DIR"), "/shapes.rs"));
}
use generated::{AGENT_MESSAGE, HUB_MESSAGE, SHAPES};

/// Bounds of one kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    name: &'static str,
    /// Encoded, after decompression.
    encoded: usize,
    /// Decoded, at most.
    decoded: usize,
}

const fn bound(name: &'static str, encoded: usize, decoded: usize) -> Bound {
    Bound { name, encoded, decoded }
}

/// What is inside is at most an object of 1.5 MiB, whose JSON may be several times that, and little else.
const OBJECT: usize = MAX_MESSAGE_BYTES;
/// A body is not copied when it is decoded.
const OBJECT_DECODED: usize = 2 * OBJECT;

/// By the number in `AgentMessage.body`.
fn of_agent(number: u32) -> Bound {
    match number {
        1 => bound("Hello", FIRST_MESSAGE_BYTES, 512 << 10),
        // 5,000 kinds at some 300 bytes each.
        2 => bound("Served", 4 << 20, 16 << 20),
        // An agent fills 256 KiB and adds at most one object.
        3 => bound("Batch", OBJECT, OBJECT_DECODED),
        4 => bound("Outcome", OBJECT, OBJECT_DECODED),
        // 20 bytes for each of some thousand watches.
        5 => bound("Heartbeat", 1 << 20, 4 << 20),
        // An agent sends 512 at a time.
        6 => bound("Deleters", 1 << 20, 4 << 20),
        // Of a version that we do not know: it is ignored.
        _ => bound("an unknown message", 1 << 20, 4 << 20),
    }
}

/// All that a hub says: its indexes come in chunks, its steps hold one body.
fn of_hub(_: u32) -> Bound {
    bound("HubMessage", OBJECT, OBJECT_DECODED)
}

/// Why a message is not decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    /// Too many bytes.
    #[error("LS0326: a {message} of {is} bytes is larger than the {most} that it may have")]
    Encoded {
        /// Which.
        message: &'static str,
        /// Its bytes.
        is: usize,
        /// Its bound.
        most: usize,
    },
    /// It would take too much memory.
    #[error("LS0326: a {message} that takes more than {most} bytes of memory is not decoded")]
    Decoded {
        /// Which.
        message: &'static str,
        /// Its bound.
        most: usize,
    },
    /// It is no message of this protocol.
    #[error("LS0326: a message that is not well-formed")]
    Malformed,
}

impl OverBudget {
    /// `LS0326`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        TOO_LARGE
    }
}

/// May this encoded `AgentMessage` be decoded? `first`: nothing came before it on its stream.
///
/// # Errors
/// Which bound it exceeds.
pub fn agent_message(bytes: &[u8], first: bool) -> Result<(), OverBudget> {
    if first && bytes.len() > FIRST_MESSAGE_BYTES {
        return Err(OverBudget::Encoded {
            message: "first message",
            is: bytes.len(),
            most: FIRST_MESSAGE_BYTES,
        });
    }
    within(bytes, AGENT_MESSAGE, of_agent)
}

/// May this encoded `HubMessage` be decoded?
///
/// # Errors
/// Which bound it exceeds.
pub fn hub_message(bytes: &[u8]) -> Result<(), OverBudget> {
    within(bytes, HUB_MESSAGE, of_hub)
}

fn within(bytes: &[u8], shape: usize, bound_of: impl Fn(u32) -> Bound) -> Result<(), OverBudget> {
    let mut reader = Reader(bytes);
    // A sender writes one body. What decodes more than one keeps the last, but builds them all.
    let mut bound = None;
    while let Some(field) = reader.next()? {
        if bound.replace(bound_of(field.number)).is_some() {
            return Err(OverBudget::Malformed);
        }
    }
    let Some(Bound { name, encoded, decoded }) = bound else { return Ok(()) };
    if bytes.len() > encoded {
        return Err(OverBudget::Encoded { message: name, is: bytes.len(), most: encoded });
    }
    let mut budget = decoded;
    spend(bytes, shape, &mut budget, DEEPEST)?
        .then_some(())
        .ok_or(OverBudget::Decoded { message: name, most: decoded })
}

/// Takes what decoding would allocate off the budget; false once it is used up.
fn spend(bytes: &[u8], shape: usize, budget: &mut usize, depth: usize) -> Result<bool, OverBudget> {
    let Shape { fields, .. } = SHAPES.get(shape).ok_or(OverBudget::Malformed)?;
    let mut reader = Reader(bytes);
    while let Some(Field { number, content }) = reader.next()? {
        // What is not listed is skipped when it is decoded, or has its place in the structure.
        let Some((_, kind)) = fields.iter().find(|(known, _)| *known == number) else { continue };
        let cost = match (kind, content) {
            // Twice: lists grow by doubling.
            (Kind::Message(inner), Some(_)) => SHAPES.get(*inner).map_or(0, |shape| 2 * shape.bytes),
            (Kind::Text, Some(text)) => TEXT + text.len(),
            (_, None) => return Err(OverBudget::Malformed),
        };
        match budget.checked_sub(cost) {
            Some(left) => *budget = left,
            None => return Ok(false),
        }
        if let (Kind::Message(inner), Some(content)) = (kind, content) {
            let Some(depth) = depth.checked_sub(1) else { return Err(OverBudget::Malformed) };
            if !spend(content, *inner, budget, depth)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

struct Field<'a> {
    number: u32,
    /// Of a field with a length.
    content: Option<&'a [u8]>,
}

/// Reads the fields of one message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<Field<'a>>, OverBudget> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.number()?;
        let number = u32::try_from(key >> 3).map_err(|_| OverBudget::Malformed)?;
        let content = match key & 7 {
            0 => self.number().map(|_| None)?,
            1 => self.take(8).map(|_| None)?,
            2 => {
                let length = usize::try_from(self.number()?).map_err(|_| OverBudget::Malformed)?;
                Some(self.take(length)?)
            }
            5 => self.take(4).map(|_| None)?,
            // Groups are no part of proto3.
            _ => return Err(OverBudget::Malformed),
        };
        Ok(Some(Field { number, content }))
    }

    fn number(&mut self) -> Result<u64, OverBudget> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte, rest @ ..] = self.0 else { return Err(OverBudget::Malformed) };
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(OverBudget::Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], OverBudget> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(OverBudget::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{self, agent_message::Body};
    use prost::Message as _;

    fn encoded(body: Body) -> Vec<u8> {
        v1::AgentMessage { body: Some(body) }.encode_to_vec()
    }

    #[test]
    fn millions_of_empty_messages_are_refused_before_one_is_built() {
        let items = vec![v1::Item::default(); 100_000];
        let section = v1::Section { items, ..v1::Section::default() };
        let few = v1::Section { items: vec![v1::Item::default(); 10_000], ..v1::Section::default() };
        let batch = |sections| encoded(Body::Batch(v1::Batch { sequence: 1, sections }));
        assert_eq!(agent_message(&batch(vec![few]), false), Ok(()));
        let bytes = batch(vec![section; 10]);
        assert!(bytes.len() < 4 << 20);
        let refused = agent_message(&bytes, false).unwrap_err();
        assert!(matches!(refused, OverBudget::Decoded { message: "Batch", .. }), "{refused}");
        assert!(refused.to_string().starts_with(refused.code()));
        let sections = batch(vec![v1::Section::default(); 1_000_000]);
        assert!(agent_message(&sections, false).is_err());
        let deleters =
            encoded(Body::Deleters(v1::Deleters { deleters: vec![v1::Deleter::default(); 100_000] }));
        assert!(matches!(agent_message(&deleters, false), Err(OverBudget::Decoded { .. })));
        let hello = v1::Hello { accepts: vec![String::new(); 20_000], ..v1::Hello::default() };
        assert!(matches!(agent_message(&encoded(Body::Hello(hello)), true), Err(OverBudget::Decoded { .. })));
    }

    #[test]
    fn what_agents_send_passes() {
        let kind = v1::ServedKind {
            group: "resources.example.com".into(),
            kind: "SomethingRatherLong".into(),
            versions: vec!["resources.example.com/v1alpha1".into(); 3],
            plural: "somethingratherlongs".into(),
            verbs: ["create", "delete", "get", "list", "patch", "update", "watch"].map(Into::into).into(),
            ..v1::ServedKind::default()
        };
        let served = v1::Served { kinds: vec![kind; 5_000], unknown_groups: Vec::new() };
        assert_eq!(agent_message(&encoded(Body::Served(served)), false), Ok(()));
        let body = vec![b'x'; 16 << 20].into();
        let change = Some(v1::item::Change::Upsert(v1::Upsert { body, ..v1::Upsert::default() }));
        let items = vec![v1::Item { name: "large".into(), change, ..v1::Item::default() }];
        let sections = vec![v1::Section { items, ..v1::Section::default() }];
        let large = encoded(Body::Batch(v1::Batch { sequence: 1, sections }));
        assert_eq!(agent_message(&large, false), Ok(()));
        assert!(matches!(agent_message(&large, true), Err(OverBudget::Encoded { .. })), "not as a greeting");
        let deleter = v1::Deleter { name: "n".repeat(253), user: "u".repeat(200), ..v1::Deleter::default() };
        let deleters = v1::Deleters { deleters: vec![deleter; 512] };
        assert_eq!(agent_message(&encoded(Body::Deleters(deleters)), false), Ok(()));
    }

    #[test]
    fn two_bodies_deep_nests_and_broken_bytes_are_malformed() {
        let heartbeat = encoded(Body::Heartbeat(v1::Heartbeat::default()));
        assert_eq!(agent_message(&heartbeat, true), Ok(()));
        assert_eq!(
            agent_message(&[&heartbeat[..], &heartbeat[..]].concat(), false),
            Err(OverBudget::Malformed)
        );
        for broken in [&[0x0a, 0x05][..], &[0x0b], &[0x0f], &[0xff; 11], &[0x0a]] {
            assert_eq!(agent_message(broken, false), Err(OverBudget::Malformed), "{broken:?}");
        }
        assert_eq!(agent_message(&[], true), Ok(()), "an empty message decodes to none");
    }

    #[test]
    fn what_costs_memory_is_known_of_every_message() {
        // A map within a message within an item: the deepest there is.
        let managed = v1::Managed {
            marks: (0..1000).map(|n| (format!("lockstep.dev/{n}"), String::new())).collect(),
            ..v1::Managed::default()
        };
        let change =
            Some(v1::item::Change::Upsert(v1::Upsert { managed: Some(managed), ..v1::Upsert::default() }));
        let items = vec![v1::Item { change, ..v1::Item::default() }];
        let sections = vec![v1::Section { items, ..v1::Section::default() }];
        let bytes = encoded(Body::Batch(v1::Batch { sequence: 1, sections }));
        let mut budget = usize::MAX;
        assert_eq!(spend(&bytes, AGENT_MESSAGE, &mut budget, DEEPEST), Ok(true));
        assert!(usize::MAX - budget > 1000 * MAP_ENTRY);
    }
}
