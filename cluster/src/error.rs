//! Requests that got no usable answer.

use lockstep_engine::outcome::{Failure, FailureClass};

/// Why there is no answer. Status codes are answers, not errors.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request could not be built: a name that no URL takes.
    #[error("the request could not be built")]
    Build(#[source] http::Error),
    /// No connection, or it broke before the answer was complete.
    #[error("the API server could not be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time: whether the server acted is unknown.
    #[error("no answer within {after_ms} ms")]
    Timeout {
        /// The limit.
        after_ms: u64,
    },
    /// The answer is larger than we take.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The answer is not what it should be.
    #[error("the answer to {what} could not be read: {why}")]
    Undecodable {
        /// Which request.
        what: &'static str,
        /// Positions and categories, never values.
        why: String,
    },
    /// The server refused.
    #[error("{what} was refused")]
    Refused {
        /// Which request.
        what: &'static str,
        /// How.
        #[source]
        failure: Box<Failure>,
    },
}

impl RequestError {
    /// As an outcome of an operation.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Build(_) => Failure::local(FailureClass::Invalid, "the request could not be built"),
            Self::Unreachable(source) => {
                // The innermost cause says it shortest: connection refused, certificate expired.
                let mut cause: &(dyn std::error::Error + 'static) = source.as_ref();
                while let Some(inner) = cause.source() {
                    cause = inner;
                }
                Failure::local(FailureClass::Unreachable, &cause.to_string())
            }
            error @ Self::Timeout { .. } => Failure::local(FailureClass::Timeout, &error.to_string()),
            error @ Self::TooLarge { .. } => Failure::local(FailureClass::TooLarge, &error.to_string()),
            error @ Self::Undecodable { .. } => Failure::local(FailureClass::Transient, &error.to_string()),
            Self::Refused { failure, .. } => *failure,
        }
    }
}

/// What serde says, without the value it quotes (I13).
pub(crate) fn position(error: &serde_json::Error) -> String {
    format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column())
}
