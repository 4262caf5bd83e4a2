//! What stands in a segment: frames, and the records inside a frame. Every encoder has its decoder beside it.
//!
//! ```text
//! frame   = mark u32 │ checksum u32 │ length u32 │ durable u32 │ payload (length bytes) │ zeros to a multiple of 8
//! payload = record, record, …          all integers little-endian
//! ```
//!
//! One frame is one group of appends: it is valid as a whole or not there, so that nothing of an interrupted write is
//! half visible, and one checksum pass covers the group.
//!
//! - `mark` comes from the segment's salt: a recycled file is full of old frames, none of which carries it.
//! - `checksum` is crc32c over the segment's id and salt, the frame's offset, `length`, `durable` and the payload: a
//!   frame is valid in one place of one generation of one file only.
//! - `durable` says up to which offset of this file an fsync had returned when the frame was written. It tells the torn
//!   end of an interrupted write (whose sectors a disk may store in any order) from damage to what had been stored.

use bytes::{Buf, BufMut, Bytes};
use protobuf::Message;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState};

use super::error::MalformedRecord;

/// Bytes in front of a frame's payload.
pub(super) const FRAME_HEADER_BYTES: usize = 16;
/// Frames begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;

/// Record kinds. The numbers are on disk: they never change, and none is used twice.
mod kind {
    /// A run of entries with consecutive indices; whatever the log held from its first index on is cut.
    pub(super) const ENTRIES: u8 = 1;
    /// Term, vote, commit.
    pub(super) const HARD_STATE: u8 = 2;
    /// A snapshot was installed: the log is empty and goes on after its index.
    pub(super) const RESET: u8 = 3;
    /// The first record of each segment: the log's state before it, so that older segments can go.
    pub(super) const SEGMENT_START: u8 = 4;
}

/// A position in the log: an index and the term of the entry there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPoint {
    /// The entry's index; 0 is the point before the first entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// A snapshot that was installed into this log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SnapshotMarker {
    /// The last entry that the snapshot contains.
    pub point: LogPoint,
    /// The membership as of that entry.
    pub conf_state: ConfState,
}

/// What a segment begins with.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SegmentStart {
    /// Where the frames of the segment before this one end; everything up to there had been synced.
    pub(super) previous_end: u64,
    /// The log's last entry before this segment.
    pub(super) last: LogPoint,
    /// The hard state before this segment.
    pub(super) hard_state: HardState,
}

/// A decoded record.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    Entries {
        previous_term: u64,
        first_index: u64,
        entries: Vec<Entry>,
    },
    HardState(HardState),
    Reset(SnapshotMarker),
    SegmentStart(SegmentStart),
}

/// Which file, and which of its lives, a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) segment_id: u64,
    pub(super) salt: u64,
}

impl Generation {
    /// The first four bytes of each frame. Never 0, which is what an unwritten file holds.
    pub(super) fn mark(self) -> u32 {
        ((self.salt >> 32) as u32 ^ self.salt as u32) | 1
    }

    fn checksum(self, offset: u64, length_and_durable: &[u8], payload: &[u8]) -> u32 {
        let mut place = [0; 24];
        place[..8].copy_from_slice(&self.segment_id.to_le_bytes());
        place[8..16].copy_from_slice(&self.salt.to_le_bytes());
        place[16..].copy_from_slice(&offset.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&place), length_and_durable);
        crc32c::crc32c_append(checksum, payload)
    }
}

/// A frame's header as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) mark: u32,
    pub(super) checksum: u32,
    pub(super) length: u32,
    pub(super) durable: u32,
}

impl FrameHeader {
    pub(super) fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> FrameHeader {
        let mut bytes = &bytes[..];
        let mut next = || bytes.get_u32_le();
        FrameHeader {
            mark: next(),
            checksum: next(),
            length: next(),
            durable: next(),
        }
    }

    /// Whether `payload` is what was written at `offset` under this header.
    pub(super) fn vouches_for(&self, generation: Generation, offset: u64, payload: &[u8]) -> bool {
        let mut covered = [0; 8];
        covered[..4].copy_from_slice(&self.length.to_le_bytes());
        covered[4..].copy_from_slice(&self.durable.to_le_bytes());
        self.mark == generation.mark() && self.checksum == generation.checksum(offset, &covered, payload)
    }

    /// Bytes that the whole frame takes in the file.
    pub(super) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.length as usize) as u64
    }
}

/// Bytes that a frame with such a payload takes in the file.
pub(super) const fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(ALIGNMENT)
}

/// Turns `frame` (room for a header, then the payload) into a frame for `offset`: pads it and fills in the header.
pub(super) fn seal_frame(frame: &mut Vec<u8>, start: usize, generation: Generation, offset: u64, durable: u32) {
    let length = (frame.len() - start - FRAME_HEADER_BYTES) as u32;
    frame.resize(start + frame_bytes(length as usize), 0);
    seal_in_place(&mut frame[start..], length, generation, offset, durable);
}

/// As [`seal_frame`], for a frame whose room is already padded.
pub(super) fn seal_in_place(frame: &mut [u8], length: u32, generation: Generation, offset: u64, durable: u32) {
    let (header, payload) = frame.split_at_mut(FRAME_HEADER_BYTES);
    header[8..12].copy_from_slice(&length.to_le_bytes());
    header[12..16].copy_from_slice(&durable.to_le_bytes());
    let checksum = generation.checksum(offset, &header[8..16], &payload[..length as usize]);
    header[..4].copy_from_slice(&generation.mark().to_le_bytes());
    header[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Payload bytes of [`put_segment_start`].
pub(super) const SEGMENT_START_BYTES: usize = 1 + 3 * 8 + 3 * 8;
/// Payload bytes of one entry beside its data and context.
pub(super) const ENTRY_HEADER_BYTES: usize = 16;
/// Payload bytes of a run of entries beside the entries.
pub(super) const RUN_HEADER_BYTES: usize = 1 + 4 + 8 + 8;

/// Appends a run of entries; `entries` is not empty, its indices are consecutive, contexts are below 64 KiB.
/// `Entry::sync_log` is not stored: raft-rs has deprecated it.
pub(super) fn put_entries(out: &mut Vec<u8>, previous_term: u64, entries: &[Entry]) {
    out.put_u8(kind::ENTRIES);
    out.put_u32_le(entries.len() as u32);
    out.put_u64_le(entries[0].index);
    out.put_u64_le(previous_term);
    for entry in entries {
        out.put_u64_le(entry.term);
        out.put_u32_le(entry.data.len() as u32);
        out.put_u16_le(entry.context.len() as u16);
        out.put_u16_le(entry_type_number(entry.get_entry_type()));
        out.extend_from_slice(&entry.data);
        out.extend_from_slice(&entry.context);
    }
}

fn entry_type_number(entry_type: EntryType) -> u16 {
    match entry_type {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    }
}

fn entry_type(number: u16) -> Result<EntryType, MalformedRecord> {
    match number {
        0 => Ok(EntryType::EntryNormal),
        1 => Ok(EntryType::EntryConfChange),
        2 => Ok(EntryType::EntryConfChangeV2),
        other => Err(MalformedRecord::UnknownEntryType(other)),
    }
}

/// Appends a hard state.
pub(super) fn put_hard_state(out: &mut Vec<u8>, hard_state: &HardState) {
    out.put_u8(kind::HARD_STATE);
    put_hard_state_fields(out, hard_state);
}

fn put_hard_state_fields(mut out: impl BufMut, hard_state: &HardState) {
    out.put_u64_le(hard_state.term);
    out.put_u64_le(hard_state.vote);
    out.put_u64_le(hard_state.commit);
}

/// Appends a reset. False when the membership cannot be encoded (then nothing was appended).
pub(super) fn put_reset(out: &mut Vec<u8>, marker: &SnapshotMarker) -> bool {
    let Ok(conf_state) = marker.conf_state.write_to_bytes() else {
        return false;
    };
    out.put_u8(kind::RESET);
    out.put_u64_le(marker.point.index);
    out.put_u64_le(marker.point.term);
    out.put_u32_le(conf_state.len() as u32);
    out.extend_from_slice(&conf_state);
    true
}

/// Writes a segment's first record over `out`, which has [`SEGMENT_START_BYTES`].
pub(super) fn write_segment_start(mut out: &mut [u8], start: &SegmentStart) {
    out.put_u8(kind::SEGMENT_START);
    out.put_u64_le(start.previous_end);
    out.put_u64_le(start.last.index);
    out.put_u64_le(start.last.term);
    put_hard_state_fields(out, &start.hard_state);
}

/// The records of a payload. Data and contexts of entries are slices of it, not copies.
pub(super) fn decode_payload(mut payload: Bytes) -> Result<Vec<Record>, MalformedRecord> {
    let mut records = Vec::new();
    while payload.has_remaining() {
        records.push(match payload.try_get_u8()? {
            kind::ENTRIES => take_entries(&mut payload)?,
            kind::HARD_STATE => Record::HardState(take_hard_state(&mut payload)?),
            kind::RESET => Record::Reset(take_reset(&mut payload)?),
            kind::SEGMENT_START => Record::SegmentStart(SegmentStart {
                previous_end: payload.try_get_u64_le()?,
                last: take_point(&mut payload)?,
                hard_state: take_hard_state(&mut payload)?,
            }),
            other => return Err(MalformedRecord::UnknownKind(other)),
        });
    }
    Ok(records)
}

fn take_entries(payload: &mut Bytes) -> Result<Record, MalformedRecord> {
    let count = payload.try_get_u32_le()? as usize;
    let first_index = payload.try_get_u64_le()?;
    let previous_term = payload.try_get_u64_le()?;
    // What is allocated is bounded by what is there, not by what is claimed.
    if count == 0 || count > payload.remaining() / ENTRY_HEADER_BYTES {
        return Err(MalformedRecord::Truncated);
    }
    if first_index == 0 || first_index.checked_add(count as u64).is_none() {
        return Err(MalformedRecord::ImpossibleIndex(first_index));
    }
    let mut entries = Vec::with_capacity(count);
    for index in first_index..first_index + count as u64 {
        let mut entry = Entry {
            index,
            term: payload.try_get_u64_le()?,
            ..Entry::default()
        };
        let data_bytes = payload.try_get_u32_le()? as usize;
        let context_bytes = payload.try_get_u16_le()? as usize;
        entry.set_entry_type(entry_type(payload.try_get_u16_le()?)?);
        entry.data = take_bytes(payload, data_bytes)?;
        entry.context = take_bytes(payload, context_bytes)?;
        entries.push(entry);
    }
    Ok(Record::Entries {
        previous_term,
        first_index,
        entries,
    })
}

fn take_bytes(payload: &mut Bytes, count: usize) -> Result<Bytes, MalformedRecord> {
    if count == 0 {
        // Not an empty slice: that would keep the whole block of the file in memory.
        return Ok(Bytes::new());
    }
    if payload.remaining() < count {
        return Err(MalformedRecord::Truncated);
    }
    Ok(payload.split_to(count))
}

fn take_point(payload: &mut Bytes) -> Result<LogPoint, MalformedRecord> {
    Ok(LogPoint {
        index: payload.try_get_u64_le()?,
        term: payload.try_get_u64_le()?,
    })
}

fn take_hard_state(payload: &mut Bytes) -> Result<HardState, MalformedRecord> {
    Ok(HardState {
        term: payload.try_get_u64_le()?,
        vote: payload.try_get_u64_le()?,
        commit: payload.try_get_u64_le()?,
        ..HardState::default()
    })
}

fn take_reset(payload: &mut Bytes) -> Result<SnapshotMarker, MalformedRecord> {
    let point = take_point(payload)?;
    let conf_state_bytes = payload.try_get_u32_le()? as usize;
    let conf_state = take_bytes(payload, conf_state_bytes)?;
    let conf_state = ConfState::parse_from_bytes(&conf_state).map_err(|_| MalformedRecord::Membership)?;
    Ok(SnapshotMarker { point, conf_state })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GENERATION: Generation = Generation {
        segment_id: 7,
        salt: 0x0123_4567_89ab_cdef,
    };

    fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (
            any::<u64>(),
            0u16..3,
            prop::collection::vec(any::<u8>(), 0..300),
            0usize..20,
        );
        (1u64..u64::MAX / 2, prop::collection::vec(entry, 1..8)).prop_map(|(first, parts)| {
            let numbered = parts.into_iter().zip(first..);
            let entries = numbered.map(|((term, number, data, context), index)| Entry {
                term,
                index,
                entry_type: entry_type(number).expect("known"),
                data: data.into(),
                context: vec![7; context].into(),
                ..Entry::default()
            });
            entries.collect()
        })
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let hard_state = any::<(u64, u64, u64)>().prop_map(|(term, vote, commit)| HardState {
            term,
            vote,
            commit,
            ..HardState::default()
        });
        prop_oneof![
            (any_entries(), any::<u64>()).prop_map(|(entries, previous_term)| Record::Entries {
                previous_term,
                first_index: entries[0].index,
                entries
            }),
            hard_state.clone().prop_map(Record::HardState),
            (any::<(u64, u64)>(), prop::collection::vec(1u64..9, 0..5)).prop_map(|((index, term), voters)| {
                let conf_state = ConfState {
                    voters,
                    auto_leave: true,
                    ..ConfState::default()
                };
                Record::Reset(SnapshotMarker {
                    point: LogPoint { index, term },
                    conf_state,
                })
            }),
            (any::<(u64, u64, u64)>(), hard_state).prop_map(|((previous_end, index, term), hard_state)| {
                Record::SegmentStart(SegmentStart {
                    previous_end,
                    last: LogPoint { index, term },
                    hard_state,
                })
            }),
        ]
    }

    fn encode(records: &[Record]) -> Vec<u8> {
        let mut out = Vec::new();
        for record in records {
            match record {
                Record::Entries {
                    previous_term, entries, ..
                } => put_entries(&mut out, *previous_term, entries),
                Record::HardState(hard_state) => put_hard_state(&mut out, hard_state),
                Record::Reset(marker) => assert!(put_reset(&mut out, marker)),
                Record::SegmentStart(start) => {
                    let at = out.len();
                    out.resize(at + SEGMENT_START_BYTES, 0);
                    write_segment_start(&mut out[at..], start);
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_went(records in prop::collection::vec(any_record(), 0..6)) {
            let decoded = decode_payload(Bytes::from(encode(&records)));
            prop_assert_eq!(decoded.expect("valid"), records);
        }

        #[test]
        fn random_bytes_decode_or_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode_payload(Bytes::from(bytes));
        }

        #[test]
        fn a_record_whose_bytes_were_changed_never_panics(
            records in prop::collection::vec(any_record(), 1..4), at in any::<prop::sample::Index>(), value in any::<u8>(),
        ) {
            let mut bytes = encode(&records);
            let at = at.index(bytes.len());
            bytes[at] = value;
            let _ = decode_payload(Bytes::from(bytes));
        }

        #[test]
        fn a_frame_is_valid_in_its_own_place_and_generation_only(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut frame = vec![0; FRAME_HEADER_BYTES];
            frame.extend_from_slice(&payload);
            seal_frame(&mut frame, 0, GENERATION, 8192, 4096);
            prop_assert_eq!(frame.len() % ALIGNMENT, 0);
            let header = FrameHeader::decode(frame[..FRAME_HEADER_BYTES].try_into().expect("16 bytes"));
            prop_assert_eq!(header.frame_bytes() as usize, frame.len());
            let elsewhere = Generation { segment_id: 8, ..GENERATION };
            let recycled = Generation { salt: GENERATION.salt ^ (1 << 40), ..GENERATION };
            prop_assert!(header.vouches_for(GENERATION, 8192, &payload));
            prop_assert!(!header.vouches_for(GENERATION, 8200, &payload));
            prop_assert!(!header.vouches_for(elsewhere, 8192, &payload));
            prop_assert!(!header.vouches_for(recycled, 8192, &payload));
        }
    }
}
