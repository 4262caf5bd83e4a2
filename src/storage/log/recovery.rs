//! Reading a log back after any kind of stop.
//!
//! The segments are read in order, frame by frame. The first frame that does not check ends the log, if that can be
//! explained by an interrupted write; it is damage, and the log is refused, as soon as anything proves that more had been
//! stored:
//! - a later frame of the same generation whose `durable` lies beyond the bad one, or
//! - a later segment with frames: it begins only after the one before it was synced up to the end that it names.
//!
//! What lies behind a torn end and is valid by itself (a disk stores the sectors of one write in any order) is blanked
//! before anything is appended, else it could one day stand right behind a new frame and be taken for its successor.
//! In the end the tail is written again and synced: a killed process leaves bytes that are visible and not yet stored, and
//! after a failed fsync the system shows bytes that it will never store by itself.

use std::io;
use std::path::Path;

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState};

use super::error::{LogError, MalformedRecord};
use super::frame::{
    ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, Generation, LogPoint, Record, SegmentStart, SnapshotMarker,
    decode_payload,
};
use super::segment::{DATA_START, SegmentSummary};
use crate::storage::file::{File, read_up_to, write_all_at};

/// Bytes read at once. Entries are slices of such blocks, so it is also what one entry can keep in memory.
const READ_BLOCK_BYTES: usize = 1 << 20;

/// What a log held when it was opened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// The entry before the first of `entries`: all that is known of what was purged.
    pub base: LogPoint,
    /// All entries from `base.index + 1` on, consecutive.
    pub entries: Vec<Entry>,
    /// The last hard state; all zeros in a new log. Its commit may lie below what the tree has applied, and above the
    /// last entry after a snapshot was announced: reconcile before it is given to raft.
    pub hard_state: HardState,
    /// The last snapshot installation that is still in the log.
    pub snapshot: Option<SnapshotMarker>,
    /// Bytes of an interrupted write that were cut off the end.
    pub torn_bytes: u64,
}

impl Recovered {
    /// The first index that is there, or would be next.
    pub fn first_index(&self) -> u64 {
        self.base.index + 1
    }

    /// The last entry; `base` when there is none.
    pub fn last(&self) -> LogPoint {
        self.entries.last().map_or(self.base, |entry| LogPoint {
            index: entry.index,
            term: entry.term,
        })
    }

    /// Takes one record into account.
    fn replay(&mut self, record: Record) -> Result<(), MalformedRecord> {
        match record {
            Record::Entries {
                previous_term,
                first_index,
                entries,
            } => {
                let last = self.last().index;
                if first_index > last + 1 {
                    return Err(MalformedRecord::Gap {
                        last,
                        found: first_index,
                    });
                }
                if first_index <= self.base.index {
                    // What was overwritten lies in a purged segment.
                    self.base = LogPoint {
                        index: first_index - 1,
                        term: previous_term,
                    };
                    self.entries.clear();
                }
                self.entries.truncate((first_index - self.base.index - 1) as usize);
                self.entries.extend(entries);
            }
            Record::HardState(hard_state) => self.hard_state = hard_state,
            Record::Reset(marker) => {
                self.base = marker.point;
                self.entries.clear();
                self.snapshot = Some(marker);
            }
            Record::SegmentStart(_) => return Err(MalformedRecord::Start),
        }
        Ok(())
    }
}

/// A segment file that was opened, its header read.
#[derive(Debug)]
pub(super) struct OpenSegment<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a dyn File,
    pub(super) generation: Generation,
    pub(super) size_bytes: u64,
}

/// What reading one segment gave.
#[derive(Debug)]
pub(super) struct ReadSegment {
    /// Where its valid frames end.
    pub(super) end: u64,
    /// Up to here its frames prove that it had been synced.
    pub(super) proven: u64,
    /// `None`: it has no frames.
    pub(super) summary: Option<SegmentSummary>,
}

/// Reads one segment into `recovered`. `previous_end` is where the one before it ended, `None` for the oldest.
pub(super) fn read_segment(
    segment: &OpenSegment<'_>,
    previous: Option<(&Path, u64)>,
    recovered: &mut Recovered,
) -> Result<ReadSegment, LogError> {
    let mut summary: Option<SegmentSummary> = None;
    let mut reader = FrameReader {
        segment,
        block: Bytes::new(),
        block_start: DATA_START,
        position: DATA_START,
        proven: DATA_START,
    };
    while let Some((offset, payload)) = reader.next_frame()? {
        let malformed = |problem| LogError::Malformed {
            file: segment.path.to_path_buf(),
            offset,
            problem,
        };
        let mut records = decode_payload(payload).map_err(malformed)?.into_iter();
        let summary = match &mut summary {
            Some(summary) => summary,
            empty => {
                let Some(Record::SegmentStart(start)) = records.next() else {
                    return Err(malformed(MalformedRecord::Start));
                };
                begin_segment(segment, &start, previous, recovered)?;
                let id = segment.generation.segment_id;
                let size_bytes = segment.size_bytes;
                empty.insert(SegmentSummary {
                    id,
                    start: start.last,
                    max_index: start.last.index,
                    size_bytes,
                })
            }
        };
        for record in records {
            if let Record::Reset(marker) = &record {
                summary.max_index = summary.max_index.max(marker.point.index);
            }
            if let Record::Entries { entries, .. } = &record {
                summary.max_index = summary.max_index.max(entries.last().map_or(0, |entry| entry.index));
            }
            recovered.replay(record).map_err(malformed)?;
        }
    }
    Ok(ReadSegment {
        end: reader.position,
        proven: reader.proven.min(reader.position),
        summary,
    })
}

/// Checks that a segment follows the one before it, or takes over its start as the log's when it is the oldest.
fn begin_segment(
    segment: &OpenSegment<'_>,
    start: &SegmentStart,
    previous: Option<(&Path, u64)>,
    recovered: &mut Recovered,
) -> Result<(), LogError> {
    let Some((previous_path, previous_end)) = previous else {
        recovered.base = start.last;
        recovered.hard_state = start.hard_state.clone();
        return Ok(());
    };
    let follows = start.previous_end == previous_end
        && start.last == recovered.last()
        && start.hard_state == recovered.hard_state;
    if follows {
        return Ok(());
    }
    let evidence = format!(
        "{} begins after byte {} of it and entry {}, but only bytes up to {} and entries up to {} are readable",
        segment.path.display(),
        start.previous_end,
        start.last.index,
        previous_end,
        recovered.last().index
    );
    Err(LogError::DamagedInTheMiddle {
        file: previous_path.to_path_buf(),
        offset: previous_end,
        evidence,
    })
}

/// Walks over the valid frames of a segment.
struct FrameReader<'a> {
    segment: &'a OpenSegment<'a>,
    block: Bytes,
    block_start: u64,
    position: u64,
    proven: u64,
}

impl FrameReader<'_> {
    /// The next frame's offset and payload; `None` at the first that does not check, `position` then stands there.
    fn next_frame(&mut self) -> Result<Option<(u64, Bytes)>, LogError> {
        let Some(header) = self.bytes_at_position(FRAME_HEADER_BYTES)? else {
            return Ok(None);
        };
        let Some(header) = header.first_chunk().map(FrameHeader::decode) else {
            return Ok(None);
        };
        let offset = self.position;
        let fits = offset
            .checked_add(header.frame_bytes())
            .is_some_and(|end| end <= self.segment.size_bytes);
        if header.mark != self.segment.generation.mark() || !fits {
            return Ok(None);
        }
        let Some(frame) = self.bytes_at_position(header.frame_bytes() as usize)? else {
            return Ok(None);
        };
        let payload = frame.slice(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.length as usize);
        if !header.vouches_for(self.segment.generation, offset, &payload) {
            return Ok(None);
        }
        self.position += header.frame_bytes();
        self.proven = self.proven.max(header.durable.into());
        Ok(Some((offset, payload)))
    }

    /// So many bytes from `position` on; `None` when the file ends before.
    fn bytes_at_position(&mut self, count: usize) -> Result<Option<Bytes>, LogError> {
        let within = (self.position - self.block_start) as usize;
        if within + count > self.block.len() {
            let mut block = vec![0; READ_BLOCK_BYTES.max(count)];
            let filled = read(self.segment, self.position, &mut block)?;
            block.truncate(filled);
            self.block = Bytes::from(block);
            self.block_start = self.position;
        }
        let within = (self.position - self.block_start) as usize;
        Ok((within + count <= self.block.len()).then(|| self.block.slice(within..within + count)))
    }
}

fn read(segment: &OpenSegment<'_>, offset: u64, buffer: &mut [u8]) -> Result<usize, LogError> {
    read_up_to(segment.file, offset, buffer).map_err(|source| LogError::Io {
        action: "read",
        path: segment.path.to_path_buf(),
        source,
    })
}

/// Judges what lies behind the first bad frame of the log, at `end`, and blanks the frames there that are valid by
/// themselves. Returns how many bytes the torn end has (0: there was none). The caller syncs.
pub(super) fn cut_torn_end(segment: &OpenSegment<'_>, end: u64) -> Result<u64, LogError> {
    let later = valid_frames_behind(segment, end)?;
    if let Some((offset, header)) = later.iter().find(|(_, header)| u64::from(header.durable) > end) {
        let evidence = format!(
            "the intact frame at byte {offset} was written when all before byte {} had been synced",
            header.durable
        );
        return Err(LogError::DamagedInTheMiddle {
            file: segment.path.to_path_buf(),
            offset: end,
            evidence,
        });
    }
    let torn_end = match later.last() {
        Some((offset, header)) => offset + header.frame_bytes(),
        None => torn_frame_end(segment, end)?,
    };
    if torn_end > end {
        // The torn frame itself cannot become valid again; it is blanked so that it is told of once.
        for offset in later.iter().map(|(offset, _)| *offset).chain([end]) {
            write_all_at(segment.file, offset, &[0; FRAME_HEADER_BYTES]).map_err(|source| LogError::Io {
                action: "write",
                path: segment.path.to_path_buf(),
                source,
            })?;
        }
    }
    Ok(torn_end - end)
}

/// Writes again what no frame proves to be stored, and syncs.
pub(super) fn make_durable(segment: &OpenSegment<'_>, read_segment: &ReadSegment) -> Result<(), LogError> {
    let mut position = read_segment.proven;
    let mut block = vec![0; READ_BLOCK_BYTES.min((read_segment.end - position) as usize)];
    let refused = |source| LogError::Io {
        action: "write",
        path: segment.path.to_path_buf(),
        source,
    };
    while position < read_segment.end {
        let count = block.len().min((read_segment.end - position) as usize);
        let filled = read(segment, position, &mut block[..count])?;
        if filled == 0 {
            return Err(refused(io::ErrorKind::UnexpectedEof.into()));
        }
        write_all_at(segment.file, position, &block[..filled]).map_err(refused)?;
        position += filled as u64;
    }
    let synced = segment.file.sync_data();
    synced.map_err(|source| LogError::Io {
        action: "sync",
        path: segment.path.to_path_buf(),
        source,
    })
}

/// Where the torn frame at `end` would have ended; `end` itself when nothing of this generation stands there.
fn torn_frame_end(segment: &OpenSegment<'_>, end: u64) -> Result<u64, LogError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    let filled = read(segment, end, &mut header)?;
    let header = FrameHeader::decode(&header);
    let is_torn = filled == FRAME_HEADER_BYTES && header.mark == segment.generation.mark();
    Ok(if is_torn {
        segment.size_bytes.min(end + header.frame_bytes())
    } else {
        end
    })
}

/// All valid frames behind `end`, wherever they begin.
fn valid_frames_behind(segment: &OpenSegment<'_>, end: u64) -> Result<Vec<(u64, FrameHeader)>, LogError> {
    let mark = segment.generation.mark().to_le_bytes();
    let mut found = Vec::new();
    let mut block = vec![0; READ_BLOCK_BYTES];
    let mut block_start = end;
    // Everything before this belongs to a frame that was found already.
    let mut from = end;
    loop {
        let filled = read(segment, block_start, &mut block)?;
        for (number, word) in block[..filled].chunks_exact(ALIGNMENT).enumerate() {
            let offset = block_start + (number * ALIGNMENT) as u64;
            if word[..4] == mark
                && offset >= from
                && let Some(header) = frame_at(segment, offset)?
            {
                found.push((offset, header));
                from = offset + header.frame_bytes();
            }
        }
        if filled < block.len() {
            return Ok(found);
        }
        block_start += filled as u64;
    }
}

/// The header of the frame at `offset`, if it is valid.
fn frame_at(segment: &OpenSegment<'_>, offset: u64) -> Result<Option<FrameHeader>, LogError> {
    let mut reader = FrameReader {
        segment,
        block: Bytes::new(),
        block_start: offset,
        position: offset,
        proven: 0,
    };
    if reader.next_frame()?.is_none() {
        return Ok(None);
    }
    let mut header = [0; FRAME_HEADER_BYTES];
    read(segment, offset, &mut header)?;
    Ok(Some(FrameHeader::decode(&header)))
}
