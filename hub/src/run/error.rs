//! Why a hub does not run.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::archive::{ArchiveError, KeysError};
use crate::config::BadConfig;
use crate::listen::ListenError;
use crate::seal::KeyError;
use crate::store::StoreError;
use crate::store::sqlite::OpenError;
use crate::tls::TlsError;

/// The hub cannot start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Settings contradict each other.
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// The hub key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The file of the API's token cannot be used.
    #[error(transparent)]
    Token(#[from] ListenError),
    /// The tombstone archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive's keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The state store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The state store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state store was found damaged while it was in use.
    #[error(
        "LS0227: the state store was found damaged while it was in use ({why}): start the hub again: it checks the file, keeps it aside where it is damaged, and builds the state anew from the clusters"
    )]
    Damaged {
        /// What was met.
        why: String,
    },
    /// There is no room to open the state store.
    #[error(
        "LS0228: {dir} has {free_kib} KiB free, which is too little to open the state store: make room, and start the hub again"
    )]
    NoRoom {
        /// The data directory.
        dir: PathBuf,
        /// Free there.
        free_kib: u64,
        /// What the store said.
        source: OpenError,
    },
    /// A member cluster cannot be registered.
    #[error("{0}")]
    Refused(crate::core::command::CommandError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}")]
    Listen {
        /// For what.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A directory or file of the hub's own.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A part ended abnormally.
    #[error("{part} ended abnormally")]
    Part {
        /// Which part.
        part: &'static str,
    },
}
