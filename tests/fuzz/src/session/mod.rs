//! Messages of the session, and its two state machines.

pub(crate) mod agent;
pub(crate) mod hub;

use std::fmt::Debug;

use prost::Message;

/// A message, if the bytes are one. What is encoded of it means the same, and is encoded again to the same bytes.
pub(crate) fn decode<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let encoded = message.encode_to_vec();
    assert_eq!(encoded.len(), message.encoded_len());
    let again = M::decode(encoded.as_slice()).expect("what was encoded can be decoded");
    assert_eq!(again, message);
    assert_eq!(again.encode_to_vec(), encoded);
    Some(message)
}
