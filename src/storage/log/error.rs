//! What can go wrong with the log, each with what it means and what to do.

use std::io;
use std::path::PathBuf;

use crate::storage::trouble::advice;

/// A payload whose checksum is right but whose contents make no sense here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedRecord {
    /// A record kind that this version does not have.
    #[error("record kind {0} is unknown to this version")]
    UnknownKind(u8),
    /// An entry type that this version does not have.
    #[error("entry type {0} is unknown to this version")]
    UnknownEntryType(u16),
    /// The record ends before it should.
    #[error("a record is shorter than it says")]
    Truncated,
    /// An index that no entry can have.
    #[error("entry index {0} is impossible")]
    ImpossibleIndex(u64),
    /// The membership inside a snapshot marker.
    #[error("the membership in a snapshot marker cannot be decoded")]
    Membership,
    /// An entry that does not follow the one before it.
    #[error("entry {found} follows entry {last}")]
    Gap {
        /// The log's last index before it.
        last: u64,
        /// The index that was found.
        found: u64,
    },
    /// A segment's first record stands elsewhere, or something else stands in its place.
    #[error("the segment's first record is not in its place")]
    Start,
}

impl From<bytes::TryGetError> for MalformedRecord {
    fn from(_: bytes::TryGetError) -> MalformedRecord {
        MalformedRecord::Truncated
    }
}

/// Advice shared by all kinds of damage.
const ADVICE: &str = "Nothing was changed. If other members of the ensemble are healthy: stop this server, move its \
    dataDir and dataLogDir aside and let it join again empty. A lone server: restore both directories from the same \
    backup, and check the disk.";

/// Why the log cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused.
    #[error("raft log: cannot {action} {}: {source}. {}", path.display(), advice(source))]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Writing or fsync failed: what was staged since the last success may or may not be stored.
    #[error("raft log: cannot {action} {}: {source}. The server stops at once and does not try again: an fsync that is repeated after a failure can succeed without having stored anything. Nothing that was acknowledged is lost by this. {}", path.display(), advice(source))]
    NotStored {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier write or fsync failed: what the disk holds is unknown, so nothing may be promised any more.
    #[error(
        "raft log: stopped by an earlier failure ({first}). The server must stop; on its next start it recovers what the disk really holds"
    )]
    Poisoned {
        /// The first failure.
        first: String,
    },
    /// Stored data was damaged: intact frames written after it prove that it had been synced.
    #[error("raft log: {} is damaged at byte {offset}, but it is known that more had been stored there ({evidence}). This is not the torn end of an interrupted write but damage to acknowledged data: a failing disk, a file that was edited or copied while in use. {ADVICE}", file.display())]
    DamagedInTheMiddle {
        /// The segment.
        file: PathBuf,
        /// The first byte that does not check.
        offset: u64,
        /// Why this is not a torn end.
        evidence: String,
    },
    /// Neither copy of a segment's header can be read.
    #[error("raft log: neither copy of the header of {} is readable, and a segment is given its name only after both were stored. {ADVICE}", file.display())]
    UnreadableHeader {
        /// The segment.
        file: PathBuf,
    },
    /// Segments are numbered without gaps; one is not there.
    #[error("raft log: segment {id} is missing from {}, while later ones are there. {ADVICE}", directory.display())]
    MissingSegment {
        /// The log's directory.
        directory: PathBuf,
        /// The missing number.
        id: u64,
    },
    /// The segments are gone, but their recycled files are there.
    #[error("raft log: {} holds recycled files but no segment. {ADVICE}", directory.display())]
    NoSegments {
        /// The log's directory.
        directory: PathBuf,
    },
    /// Written by a version with another format.
    #[error("raft log: {} has format version {found}, this server reads version {supported}. Start it with the version that wrote it. Nothing was changed.", file.display())]
    FormatVersion {
        /// The segment.
        file: PathBuf,
        /// What it says.
        found: u32,
        /// What this version reads and writes.
        supported: u32,
    },
    /// A frame checks, but what it says is impossible.
    #[error("raft log: the frame at byte {offset} of {} is intact but cannot be understood: {problem}. Most likely a newer version wrote it: start that version. {ADVICE}", file.display())]
    Malformed {
        /// The segment.
        file: PathBuf,
        /// Where the frame begins.
        offset: u64,
        /// What is wrong with it.
        problem: MalformedRecord,
    },
    /// An entry above [`MAX_ENTRY_BYTES`](super::MAX_ENTRY_BYTES). Nothing was staged.
    #[error("raft log: entry {index} has {size_bytes} bytes, the limit is {limit_bytes}")]
    EntryTooLarge {
        /// The entry.
        index: u64,
        /// Its data and context.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// More than [`MAX_GROUP_BYTES`](super::MAX_GROUP_BYTES) staged: flush first. Nothing was staged.
    #[error("raft log: a group of {size_bytes} bytes is above the limit of {limit_bytes}; it must be flushed in parts")]
    GroupTooLarge {
        /// The group with what was to be added.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The entries do not follow each other or the log: a defect of the caller. Nothing was staged.
    #[error("raft log: entry {found} cannot be appended to a log of entries {first} to {last}")]
    OutOfSequence {
        /// First index that can be overwritten.
        first: u64,
        /// Last index.
        last: u64,
        /// The index that does not fit.
        found: u64,
    },
    /// The options contradict each other.
    #[error("raft log: {0}")]
    Options(&'static str),
}
