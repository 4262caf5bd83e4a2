//! Why a server may not be started upon its directories, each with what to do.

use std::io;
use std::path::PathBuf;

use super::identity::{FORMAT_VERSION, Identity};
use crate::storage::trouble::advice;

/// Why a server may not be started upon these directories.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}. {}", path.display(), advice(source))]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process runs on it.
    #[error("{} is in use by another process. Two servers must not share a dataDir or dataLogDir: stop the other one, or give this one directories of its own", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Apache ZooKeeper's files are there, and none of ours.
    #[error("{} holds data of Apache ZooKeeper ({example}); import is not available yet. Starting empty would hide it, so the server does not start: set another dataDir, or move version-2 aside if that data is not needed", path.display())]
    ApacheData {
        /// The version-2 directory.
        path: PathBuf,
        /// One of the files.
        example: String,
    },
    /// An identity's file cannot be read.
    #[error("{} is damaged. It says whose data this is, so nothing is done without it: restore it from a backup, or move the whole directory aside and let this server join its ensemble again empty", path.display())]
    UnreadableIdentity {
        /// The file.
        path: PathBuf,
    },
    /// The number of starts cannot be read.
    #[error("{} is damaged. It makes sure that no two starts of this server use the same numbers. If this machine's clock is right, and was right whenever this server ran, remove the file: the clock then takes its place. Else restore it from a backup", path.display())]
    UnreadableBoot {
        /// The file.
        path: PathBuf,
    },
    /// This server is a member of another ensemble.
    #[error("{} belongs to {identity}, and cannot join ensemble {other:016x}: the configurations of two ensembles name each other's servers. Correct server.N on this server or on its peers; to give this server up to the other ensemble, move its dataDir and dataLogDir aside", path.display())]
    OtherEnsemble {
        /// Ours below dataDir.
        path: PathBuf,
        /// Whose it is.
        identity: Identity,
        /// The other ensemble.
        other: u64,
    },
    /// What is to be moved aside was moved aside too often.
    #[error(
        "this server's data cannot be set aside once more: {count} former ones are there already ({example}, …). Data that is damaged again and again points to the disk, the file system or the memory of this machine: check them. Then remove the former ones, and start the server again"
    )]
    TooManyAsides {
        /// How many there are.
        count: usize,
        /// One of them.
        example: PathBuf,
    },
    /// The note about an interrupted setting aside cannot be read.
    #[error("{} is damaged. It says how far the data of this server was set aside when the server was stopped. In an ensemble: move it, and menagerie and menagerie-log if they are there, out of dataDir and dataLogDir, and let this server join again empty", path.display())]
    UnreadableNote {
        /// The file.
        path: PathBuf,
    },
    /// The file CURRENT cannot be read.
    #[error("{} is damaged. It says which of the tree's directories beside it is in use; a wrong one would bring back an old state, so the server does not start. In an ensemble: move dataDir and dataLogDir aside and let this server join again empty. A lone server: restore both directories from a backup", path.display())]
    UnreadableCurrent {
        /// The file.
        path: PathBuf,
    },
    /// The tree that is in use is not there.
    #[error("the tree's directory {} is missing, but {} says that it is in use. If it was moved, put it back. If it is lost: in an ensemble, move dataDir and dataLogDir aside and let this server join again empty; a lone server must be restored from a backup of both directories", path.display(), current.display())]
    MissingTree {
        /// The directory.
        path: PathBuf,
        /// The file that names it.
        current: PathBuf,
    },
    /// Nothing says which tree is in use.
    #[error("{} is missing, which names the tree's directory that is in use. It is none of the first start: {} is there, so CURRENT was lost, or not restored with it. Restore both from the same backup. If they are lost: in an ensemble, move dataDir and dataLogDir aside and let this server join again empty; a lone server must be restored from a backup of both directories. Nothing was changed", path.display(), example.display())]
    MissingCurrent {
        /// The file.
        path: PathBuf,
        /// A tree's directory.
        example: PathBuf,
    },
    /// Written by a version with another layout.
    #[error("{} has format version {found}, this server knows version {FORMAT_VERSION}. Start it with the version that wrote it. Nothing was changed", path.display())]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
    },
    /// The tree's directory is there, the log's is not.
    #[error("the raft log is missing: {} holds the data of {identity}, but {} is not its log. If dataLogDir was changed, set it back or move menagerie-log to the new place. If the log is lost, so are promises that this server gave: move {} aside and let it join its ensemble again empty; a lone server must be restored from a backup of both directories", data.display(), log.display(), data.display())]
    MissingLog {
        /// Ours below dataDir.
        data: PathBuf,
        /// Where the log should be.
        log: PathBuf,
        /// Whose data it is.
        identity: Identity,
    },
    /// The log's directory is there, the tree's is not.
    #[error("the data is missing: {} holds the raft log of a server, but {} has no identity. If dataDir was changed, set it back or move the directory menagerie to the new place. If the data is lost, move {} aside and let this server join its ensemble again empty; a lone server must be restored from a backup of both directories", log.display(), data.display(), log.display())]
    MissingData {
        /// Where the data should be.
        data: PathBuf,
        /// Ours below dataLogDir.
        log: PathBuf,
    },
    /// The two halves belong to different servers.
    #[error("{} belongs to {data_identity}, but {} belongs to {log_identity}: dataDir and dataLogDir are of different servers or times. Set both to what they were, or restore both from the same backup", data.display(), log.display())]
    Mismatch {
        /// Ours below dataDir.
        data: PathBuf,
        /// Whose that is.
        data_identity: Identity,
        /// Ours below dataLogDir.
        log: PathBuf,
        /// Whose that is.
        log_identity: Identity,
    },
    /// The directory is of another member than the configuration says.
    #[error("{} holds the data of {identity}, but this server is configured as {configured} (myid). Either the dataDir or the myid is another server's", data.display())]
    OtherServer {
        /// Ours below dataDir.
        data: PathBuf,
        /// Whose it is.
        identity: Identity,
        /// The configured id.
        configured: u64,
    },
}
