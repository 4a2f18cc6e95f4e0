//! The byte stream of a watch, cut into lines and lines into events, without copies where a line
//! lies within one buffer and without trees anywhere.

use bytes::{Buf as _, Bytes, BytesMut};
use lockstep_engine::listwatch::{Event, RequestFailure};
use lockstep_engine::outcome::Status;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::position;

/// A watch whose lines cannot be told apart any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A line is longer than allowed; what follows cannot be trusted to be skipped in bounds.
    #[error("a line of the watch is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
}

/// Cuts a stream of chunks into lines.
#[derive(Debug)]
pub struct LineSplitter {
    /// The beginning of a line whose end has not come yet.
    partial: BytesMut,
    /// What of the latest chunk is not looked at yet.
    chunk: Bytes,
    limit: usize,
}

impl LineSplitter {
    /// Lines of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { partial: BytesMut::new(), chunk: Bytes::new(), limit }
    }

    /// Takes a chunk. Call only after [`Self::next_line`] gave nothing.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            // Not reached in the documented order; still correct.
            let mut joined = BytesMut::from(self.chunk.as_ref());
            joined.extend_from_slice(&chunk);
            self.chunk = joined.freeze();
        }
    }

    /// The next complete line without its end; nothing when more bytes are needed. Empty lines are
    /// skipped.
    ///
    /// # Errors
    /// When a line is too long.
    pub fn next_line(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            let Some(end) = self.chunk.iter().position(|byte| *byte == b'\n') else {
                if self.partial.len().saturating_add(self.chunk.len()) > self.limit {
                    return Err(FrameError::TooLong { limit: self.limit });
                }
                self.partial.extend_from_slice(&self.chunk);
                self.chunk.clear();
                return Ok(None);
            };
            if self.partial.len().saturating_add(end) > self.limit {
                return Err(FrameError::TooLong { limit: self.limit });
            }
            let head = self.chunk.split_to(end);
            self.chunk.advance(1);
            let line = if self.partial.is_empty() {
                head
            } else {
                self.partial.extend_from_slice(&head);
                self.partial.split().freeze()
            };
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(line));
            }
        }
    }

    /// What is left when the stream ends: a last line without its end, if it is one.
    #[must_use]
    pub fn finish(&mut self) -> Option<Bytes> {
        let rest = self.partial.split().freeze();
        (!rest.iter().all(u8::is_ascii_whitespace)).then_some(rest)
    }
}

/// A line of a watch, as an input of the state machine.
pub type Frame = Event<Bytes>;

/// Reads `{type, object}`; the object stays a slice of the line.
#[must_use]
pub fn frame(line: &Bytes) -> Frame {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow, rename = "type", default)]
        kind: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        object: Option<&'a RawValue>,
    }
    let parsed: Line<'_> = match serde_json::from_slice(line) {
        Ok(parsed) => parsed,
        Err(error) => return Event::Undecodable { why: position(&error) },
    };
    let Some(object) = parsed.object else {
        // A bare Status instead of an event.
        let status = Status::parse(line);
        return if status.code == 0 {
            Event::Undecodable { why: "neither an event nor a Status".to_owned() }
        } else {
            Event::Error(RequestFailure::from_status(status.code, &status, None))
        };
    };
    let body = || line.slice_ref(object.get().as_bytes());
    match parsed.kind.as_ref() {
        "ADDED" | "MODIFIED" => Event::Applied(body()),
        "DELETED" => Event::Deleted(body()),
        "BOOKMARK" => Event::Bookmark(body()),
        "ERROR" => {
            let status = Status::parse(object.get().as_bytes());
            Event::Error(RequestFailure::from_status(status.code, &status, None))
        }
        _ => Event::Undecodable { why: "unknown event type".to_owned() },
    }
}

#[cfg(test)]
mod tests;
