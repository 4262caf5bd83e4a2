//! What can go wrong with the tree's keyspace, each with what it means and what to do.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use super::records::MalformedRecord;
use crate::storage::trouble::advice_of_store;

/// Why the tree's keyspace cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// fjall refuses the directory: most often data that does not check.
    #[error("the tree's store in {} cannot be opened: {detail}. The store is only a checkpoint of what the ensemble holds: if other members are healthy, stop this server, move its dataDir and dataLogDir aside and let it join again empty. A lone server: move {} aside, restore it from a backup or an exported snapshot that the raft log reaches back to, and check the disk. Nothing was deleted.", directory.display(), directory.display())]
    Open {
        /// The keyspace's directory.
        directory: PathBuf,
        /// What fjall says.
        detail: String,
    },
    /// The operating system refuses.
    #[error("the tree's store in {} cannot be opened, because the system does not let it: {detail}. Check that the directory and all files in it belong to the user that runs this server, that the disk is mounted and has room, and what the kernel's log says about it. Nothing was changed", directory.display())]
    Inaccessible {
        /// The keyspace's directory.
        directory: PathBuf,
        /// What the system says.
        detail: String,
    },
    /// Another process has the directory open.
    #[error("the tree's store in {} is in use by another process. Two servers must not share a dataDir: stop the other one, or give this one a dataDir of its own", directory.display())]
    Locked {
        /// The keyspace's directory.
        directory: PathBuf,
    },
    /// Written by a version with another format.
    #[error("the tree's store in {} has format version {found}, this server reads versions up to {supported}. Start it with the version that wrote it. Nothing was changed", directory.display())]
    FormatVersion {
        /// The keyspace's directory.
        directory: PathBuf,
        /// What it says.
        found: u32,
        /// What this version reads and writes.
        supported: u32,
    },
    /// A record cannot be understood.
    #[error("the tree's store in {} is damaged: the record {record} cannot be read, {problem}. Nothing was changed; proceed as if it could not be opened: rejoin the ensemble empty, or restore a backup", directory.display())]
    Malformed {
        /// The keyspace's directory.
        directory: PathBuf,
        /// Its key, printable.
        record: String,
        /// What is wrong.
        problem: MalformedRecord,
    },
    /// The records do not make a state.
    #[error("the tree's store in {} does not make a valid state at {record}: {source}. Nothing was changed; proceed as if it could not be opened: rejoin the ensemble empty, or restore a backup", directory.display())]
    Refused {
        /// The keyspace's directory.
        directory: PathBuf,
        /// The record at which it showed, printable.
        record: String,
        /// What the visitor says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Reading or writing failed while running.
    #[error("the tree's store in {}: {action} failed: {source}. The server stops: what this store has is uncertain until it is opened again. Nothing is lost, the raft log has what follows its last durable point. {}", directory.display(), advice_of_store(source))]
    Store {
        /// The keyspace's directory.
        directory: PathBuf,
        /// What was being done.
        action: &'static str,
        /// fjall's answer.
        source: fjall::Error,
    },
    /// An earlier write failed: what the disk holds is unknown.
    #[error(
        "the tree's store was stopped by an earlier failure ({first}). The server must stop; on its next start it recovers what the disk really holds"
    )]
    Poisoned {
        /// The first failure.
        first: String,
    },
    /// A path with a NUL, or with more than 4 GiB of data: a defect of the caller. Nothing was written.
    #[error("the tree's store cannot hold the znode {path}: {reason}")]
    Impossible {
        /// Which znode.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// The data of a znode was to be kept that is not stored: a defect of the caller. Nothing was written.
    #[error("the tree's store has no znode {path} whose data could be kept")]
    NothingToKeep {
        /// Which znode.
        path: String,
    },
}

impl TreeError {
    /// Whether what is stored is damaged, so that only a new tree helps. An error of the system is none: the disk may answer
    /// again, and the tree may be sound.
    pub fn is_damage(&self) -> bool {
        match self {
            TreeError::Open { .. } | TreeError::Malformed { .. } | TreeError::Refused { .. } => true,
            TreeError::Store { action, source, .. } => *action == "reading" && is_unreadable(source),
            TreeError::Inaccessible { .. }
            | TreeError::Locked { .. }
            | TreeError::FormatVersion { .. }
            | TreeError::Poisoned { .. }
            | TreeError::Impossible { .. }
            | TreeError::NothingToKeep { .. } => false,
        }
    }
}

/// Whether a file is shorter than it says, or not there: no error of the disk.
pub(super) fn is_truncation(source: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(source.kind(), UnexpectedEof | InvalidData | NotFound)
}

/// Whether fjall has read something and could not understand it.
fn is_unreadable(error: &fjall::Error) -> bool {
    use fjall::{Error, LsmError};
    match error {
        Error::Io(source) | Error::Storage(LsmError::Io(source)) => is_truncation(source),
        Error::Storage(LsmError::InvalidVersion(_)) => false,
        Error::Storage(_) | Error::Decompress(_) | Error::InvalidTag(_) | Error::Unrecoverable => true,
        _ => false,
    }
}
