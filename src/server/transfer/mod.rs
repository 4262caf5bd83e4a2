//! Sending the whole tree to a member that is too far behind for the log, and taking one.
//!
//! ```text
//!   store thread ─ view ─▶ reader thread ─ chunks ─▶ task ═ connection ═▶ task ─ chunks ─▶ writer thread ─▶ new directory
//!                             └▶ spool, if the link is slow ┘                               └▶ State, loaded from it
//! ```
//!
//! Invariants:
//! - The receiver does all that is slow (writing, making durable, loading) before it hands anything on, while it goes on
//!   serving with its former tree; installing is then a matter of milliseconds.
//! - What is handed on was compared with what was sent: every frame by its checksum, the whole by count and checksum,
//!   and the state by its digest.
//! - Every transfer ends: with an answer, or because nothing moved for [`Pace::patience`]. The sender always learns of it,
//!   and reports it to raft on every path.
//! - Memory is bounded on both sides: [`WAITING_CHUNKS`] chunks of [`CHUNK_BYTES`].
//!
//! Threads: what blocks (fjall, the spool) runs on tokio's blocking threads, one for each transfer, and is joined to its
//! task by a bounded channel. The view is not copied to a file first: peers read as fast as we do, and a copy would
//! double the disk's work beside the log's fsyncs. Only when a link is so slow that the view would be held for long
//! ([`Pace::view_patience`]) does the rest of it go to a file, at the disk's speed, and from there to the link: a view that
//! is held makes fjall keep everything that is overwritten.
//!
//! The receiver holds two states in memory until the new one is installed.
//!
//! Left out on purpose: connections and who may make them (`net`), what the message means (raft's, and opaque here),
//! resuming in the middle: a transfer that broke begins again, with a newer view.

mod receiving;
mod sending;
mod spool;
#[cfg(test)]
mod tests;
mod wire;

pub use receiving::{ArrivedTree, Intake, Offer, Received, confirm, refuse};
pub use sending::{Sent, send};

use crate::state_machine::LoadError;
use crate::storage::directory::DirectoryError;
use crate::storage::tree::{IncomingError, TreeError};
use std::io;
use std::time::Duration;

/// Bytes of a chunk, about.
const CHUNK_BYTES: usize = 1 << 20;

/// Chunks that wait between a task and its thread at most; then the faster of the two waits for the slower.
const WAITING_CHUNKS: usize = 4;

/// How patient a transfer is.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// When nothing at all moved for so long, the transfer has failed.
    pub patience: Duration,
    /// While the receiver works on what it has got, it says so every so often.
    pub beat: Duration,
    /// When a view is as old as this and the link is the slower part, the rest goes to a file and the view is given back.
    pub view_patience: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            patience: Duration::from_secs(30),
            beat: Duration::from_secs(5),
            view_patience: Duration::from_secs(5),
        }
    }
}

/// Why a tree did not get from one member to another.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The connection broke.
    #[error("the connection broke while {action}: {source}")]
    Connection {
        /// What was being done.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Nothing moved.
    #[error("nothing moved for {} s while {action}", limit.as_secs_f32())]
    Stalled {
        /// What was being done.
        action: &'static str,
        /// For so long.
        limit: Duration,
    },
    /// Bytes that no peer of this version sends.
    #[error(
        "what arrived is damaged or of another version: {0}. If this repeats, check the network between the members and that all run versions that belong together"
    )]
    Malformed(&'static str),
    /// The peer's tree has another format.
    #[error(
        "the peer's tree has format version {found}, this server reads versions up to {supported}: bring both to the same version"
    )]
    FormatVersion {
        /// The peer's.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// The receiver could not take it, or did not want to.
    #[error("the receiver refused: {0}")]
    Refused(String),
    /// This server did not want it.
    #[error("not wanted: {0}")]
    NotWanted(String),
    /// Another one began.
    #[error("a newer transfer took its place")]
    Superseded,
    /// Our tree cannot be read or written.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The tree that arrives cannot be written, or is not what was sent.
    #[error(transparent)]
    Incoming(#[from] IncomingError),
    /// The tree that arrived is not the state that was sent.
    #[error(
        "the tree that arrived is refused: {0}. The sender's tree is damaged, or one of the two servers has a defect: compare the members' digests before you rely on either"
    )]
    Load(#[from] LoadError),
    /// What was kept in a file for a slow link cannot be read back.
    #[error("what was kept in a file for a slow link cannot be read back: {0}")]
    Spool(#[source] io::Error),
    /// A data directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A thread panicked: a defect.
    #[error("the thread that {0} the tree has panicked; this is a defect of the server, please report it with the log")]
    Panicked(&'static str),
}
