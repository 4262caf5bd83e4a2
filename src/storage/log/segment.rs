//! A segment file: its name, its header, and what the log remembers of it.
//!
//! ```text
//! header = magic 8 │ format version u32 │ checksum u32 │ segment id u64 │ salt u64      (little-endian)
//! file   = header … 4096 │ header again … 8192 │ frames …
//! ```
//!
//! The header stands twice, each in a page of its own, and is stored (fsync) before the file gets its segment name: an
//! unreadable header is therefore always damage and never an interrupted start.

use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};

use super::error::LogError;
use super::frame::{Generation, LogPoint};
use crate::storage::file::{File, read_up_to, write_all_at};

/// Where the frames begin.
pub(super) const DATA_START: u64 = 2 * PAGE_BYTES as u64;

/// The version of the format of segments, frames and records. It changes when an older server would misread them.
pub(super) const FORMAT_VERSION: u32 = 1;

const PAGE_BYTES: usize = 4096;
const HEADER_BYTES: usize = 32;
const MAGIC: &[u8; 8] = b"MNGRLOG\0";

/// The two copies of a header, as the file begins.
pub(super) fn encode_header(generation: Generation) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.put_slice(MAGIC);
    header.put_u32_le(FORMAT_VERSION);
    header.put_u32_le(0);
    header.put_u64_le(generation.segment_id);
    header.put_u64_le(generation.salt);
    let checksum = crc32c::crc32c(&header);
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
    let mut pages = vec![0; DATA_START as usize];
    pages[..HEADER_BYTES].copy_from_slice(&header);
    pages[PAGE_BYTES..PAGE_BYTES + HEADER_BYTES].copy_from_slice(&header);
    pages
}

/// A header's version and generation; `None` when these bytes are no intact header.
fn decode_header(mut header: [u8; HEADER_BYTES]) -> Option<(u32, Generation)> {
    let stored: [u8; 4] = header[12..16].try_into().ok()?;
    header[12..16].fill(0);
    if &header[..8] != MAGIC || crc32c::crc32c(&header) != u32::from_le_bytes(stored) {
        return None;
    }
    let mut fields = &header[8..];
    let version = fields.get_u32_le();
    fields.advance(4);
    Some((
        version,
        Generation {
            segment_id: fields.get_u64_le(),
            salt: fields.get_u64_le(),
        },
    ))
}

/// Writes both copies of the header; the caller syncs.
pub(super) fn write_header(file: &dyn File, generation: Generation) -> std::io::Result<()> {
    write_all_at(file, 0, &encode_header(generation))
}

/// Reads the header of segment `id` from whichever copy is intact.
pub(super) fn read_header(file: &dyn File, path: &Path, id: u64) -> Result<Generation, LogError> {
    for page in 0..2 {
        let mut header = [0; HEADER_BYTES];
        let count = read_up_to(file, page * PAGE_BYTES as u64, &mut header).map_err(|source| LogError::Io {
            action: "read",
            path: path.to_path_buf(),
            source,
        })?;
        let decoded = if count == HEADER_BYTES {
            decode_header(header)
        } else {
            None
        };
        match decoded {
            Some((version, _)) if version != FORMAT_VERSION => {
                let file = path.to_path_buf();
                return Err(LogError::FormatVersion {
                    file,
                    found: version,
                    supported: FORMAT_VERSION,
                });
            }
            Some((_, generation)) if generation.segment_id == id => {
                if page == 1 {
                    tracing::warn!(file = %path.display(), "the first copy of a raft log segment's header is damaged; the second is used. Check the disk");
                }
                return Ok(generation);
            }
            _ => {}
        }
    }
    Err(LogError::UnreadableHeader {
        file: path.to_path_buf(),
    })
}

/// What a name in the log's directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// Part of the log.
    Segment(u64),
    /// A segment that was purged and waits to be used again.
    Spare(u64),
    /// A file that was being filled.
    Unfinished,
    /// Not ours.
    Foreign,
}

/// The path of segment `id`. Hexadecimal of fixed width, so that names sort as numbers do.
pub(super) fn segment_path(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("segment-{id:016x}.log"))
}

/// The path that segment `id` gets when it is purged.
pub(super) fn spare_path(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("spare-{id:016x}.log"))
}

/// The path under which a new file is filled.
pub(super) fn unfinished_path(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("unfinished-{id:016x}.tmp"))
}

/// The reverse of the three paths.
pub(super) fn kind_of(name: &str) -> FileKind {
    let number = |prefix: &str, suffix: &str| {
        let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        if digits.len() == 16 {
            u64::from_str_radix(digits, 16).ok()
        } else {
            None
        }
    };
    if let Some(id) = number("segment-", ".log") {
        FileKind::Segment(id)
    } else if let Some(id) = number("spare-", ".log") {
        FileKind::Spare(id)
    } else if number("unfinished-", ".tmp").is_some() {
        FileKind::Unfinished
    } else {
        FileKind::Foreign
    }
}

/// What the log remembers of each of its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentSummary {
    pub(super) id: u64,
    /// The log's last entry before this segment.
    pub(super) start: LogPoint,
    /// The largest index ever written here, overwritten ones included; `start.index` when there is none.
    pub(super) max_index: u64,
    /// The file's size without what grew beyond it.
    pub(super) size_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::file::FileSystem;
    use crate::storage::file::memory::MemoryFiles;

    const GENERATION: Generation = Generation {
        segment_id: 3,
        salt: 99,
    };

    fn file_with(bytes: &[u8]) -> Box<dyn File> {
        let file = MemoryFiles::new()
            .open_or_create(Path::new("/segment"))
            .expect("create");
        write_all_at(file.as_ref(), 0, bytes).expect("write");
        file
    }

    #[test]
    fn either_copy_of_the_header_is_enough_and_none_is_an_error() {
        let intact = encode_header(GENERATION);
        for damaged in [0, 20, 31, 4096, 4127] {
            let mut bytes = intact.clone();
            bytes[damaged] ^= 1;
            let file = file_with(&bytes);
            assert_eq!(
                read_header(file.as_ref(), Path::new("/segment"), 3).expect("one copy"),
                GENERATION
            );
            bytes[damaged ^ 4096] ^= 1;
            let file = file_with(&bytes);
            let error = read_header(file.as_ref(), Path::new("/segment"), 3).expect_err("both damaged");
            assert!(matches!(error, LogError::UnreadableHeader { .. }));
        }
        let file = file_with(&intact);
        let error = read_header(file.as_ref(), Path::new("/segment"), 4).expect_err("another segment's header");
        assert!(matches!(error, LogError::UnreadableHeader { .. }));
    }

    #[test]
    fn names_are_read_back_as_they_are_made() {
        let directory = Path::new("/log");
        let name = |path: PathBuf| path.file_name().expect("name").to_string_lossy().into_owned();
        assert_eq!(kind_of(&name(segment_path(directory, 255))), FileKind::Segment(255));
        assert_eq!(
            kind_of(&name(spare_path(directory, u64::MAX))),
            FileKind::Spare(u64::MAX)
        );
        assert_eq!(kind_of(&name(unfinished_path(directory, 1))), FileKind::Unfinished);
        for foreign in [
            "lost+found",
            "segment-1.log",
            "segment-00000000000000zz.log",
            "spare-.log",
            "",
        ] {
            assert_eq!(kind_of(foreign), FileKind::Foreign);
        }
    }
}
