//! Why a request of the loop failed: only what decides the next move.

use std::fmt;

use crate::outcome::Status;

/// Assumed when a 429 names no delay.
const DEFAULT_RETRY_AFTER_MS: u64 = 1_000;

/// Why a list, probe or watch failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestFailure {
    /// 410: the resourceVersion or continue token is too old.
    Expired,
    /// The server knows no such version yet: it was restored from a backup.
    FutureVersion,
    /// 401 or 403.
    Forbidden,
    /// 404 or 405: the kind is not served (any more), or cannot be listed or watched.
    NotServed,
    /// 429.
    Throttled {
        /// How long to wait at least.
        retry_after_ms: u64,
    },
    /// 400 or 422: the server does not accept the request.
    Rejected,
    /// 5xx.
    Server {
        /// The code.
        code: u16,
    },
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// The answer was not what it should be.
    Undecodable,
    /// A line or page was longer than we take.
    TooLong,
    /// The watch ended at once, without an event.
    EndedAtOnce,
    /// A streamed list broke off before its end.
    Incomplete,
    /// The watch went silent, and the server does not answer since.
    Stale,
}

impl RequestFailure {
    /// Of an HTTP answer, or of the Status in an ERROR event (`http` is then its code).
    #[must_use]
    pub fn from_status(http: u16, status: &Status, retry_after_ms: Option<u64>) -> Self {
        if http == 410 || status.code == 410 || matches!(status.reason.as_str(), "Expired" | "Gone") {
            return Self::Expired;
        }
        if status.is_future_version() {
            return Self::FutureVersion;
        }
        let asked = match status.details.retry_after_seconds {
            0 => retry_after_ms,
            seconds => Some(retry_after_ms.unwrap_or(0).max(seconds.saturating_mul(1_000))),
        };
        match http {
            401 | 403 => Self::Forbidden,
            404..=406 => Self::NotServed,
            429 => Self::Throttled { retry_after_ms: asked.unwrap_or(DEFAULT_RETRY_AFTER_MS) },
            400..=499 => Self::Rejected,
            504 => Self::Timeout,
            503 if asked.is_some() => {
                Self::Throttled { retry_after_ms: asked.unwrap_or(DEFAULT_RETRY_AFTER_MS) }
            }
            code => Self::Server { code },
        }
    }

    pub(super) fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Throttled { retry_after_ms } => Some(*retry_after_ms),
            _ => None,
        }
    }

    /// Could watching from another version help? An unreachable or refusing server is no reason to
    /// list everything again.
    pub(super) fn counts_against_checkpoint(&self) -> bool {
        match self {
            Self::Rejected | Self::Server { .. } | Self::Undecodable | Self::TooLong | Self::EndedAtOnce => {
                true
            }
            Self::Expired
            | Self::FutureVersion
            | Self::Forbidden
            | Self::NotServed
            | Self::Throttled { .. }
            | Self::Unreachable
            | Self::Timeout
            | Self::Incomplete
            | Self::Stale => false,
        }
    }

    /// Could a list in pages fare better than the streamed one that failed so? Not where the server
    /// is away, or refuses both.
    pub(super) fn counts_against_streaming(&self) -> bool {
        match self {
            // The watch cache lags behind (504, 429), where pages come from etcd; and what a server
            // that knows streaming lists only by name may do.
            Self::Expired
            | Self::FutureVersion
            | Self::Throttled { .. }
            | Self::Rejected
            | Self::Server { .. }
            | Self::Undecodable
            | Self::TooLong
            | Self::EndedAtOnce
            | Self::Incomplete => true,
            Self::Forbidden | Self::NotServed | Self::Unreachable | Self::Timeout | Self::Stale => false,
        }
    }

    /// Short, PascalCase, stable: for status and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Expired => "Expired",
            Self::FutureVersion => "FutureVersion",
            Self::Forbidden => "Forbidden",
            Self::NotServed => "NotServed",
            Self::Throttled { .. } => "Throttled",
            Self::Rejected => "Rejected",
            Self::Server { .. } => "ServerError",
            Self::Unreachable => "Unreachable",
            Self::Timeout => "Timeout",
            Self::Undecodable => "Undecodable",
            Self::TooLong => "TooLong",
            Self::EndedAtOnce => "EndedAtOnce",
            Self::Incomplete => "Incomplete",
            Self::Stale => "Stale",
        }
    }
}

impl fmt::Display for RequestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { code } => write!(f, "ServerError (HTTP {code})"),
            other => f.write_str(other.code()),
        }
    }
}
