//! From a directory to a log that can be appended to: which files are there, what they hold, where the end is.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use super::ActiveSegment;
use super::error::LogError;
use super::preparation::{PreparedSegment, Workbench, remove_leftover};
use super::recovery::{OpenSegment, ReadSegment, Recovered, cut_torn_end, make_durable, read_segment};
use super::segment::{FileKind, SegmentSummary, kind_of, read_header, segment_path, spare_path};
use crate::storage::file::Files;

/// The names in a log's directory.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Segments and their sizes, by id.
    segments: Vec<(u64, u64)>,
    spares: Vec<(u64, u64)>,
    unfinished: Vec<String>,
}

/// What `storage::directory` keeps in the log's directory.
const DIRECTORY_FILES: [&str; 2] = ["IDENTITY", "LOCK"];

impl Found {
    /// Lists and sorts them; refuses a gap.
    pub(super) fn list(files: &Files, directory: &Path) -> Result<Found, LogError> {
        let names = files.list(directory).map_err(|source| LogError::Io {
            action: "list",
            path: directory.to_path_buf(),
            source,
        })?;
        let mut found = Found::default();
        for entry in names {
            match kind_of(&entry.name) {
                FileKind::Segment(id) => found.segments.push((id, entry.size_bytes)),
                FileKind::Spare(id) => found.spares.push((id, entry.size_bytes)),
                FileKind::Unfinished => found.unfinished.push(entry.name),
                // The directory's own identity and lock stand beside the segments.
                FileKind::Foreign if DIRECTORY_FILES.contains(&entry.name.as_str()) => {}
                FileKind::Foreign => tracing::warn!(file = entry.name, "not a file of the raft log; it is left alone"),
            }
        }
        found.segments.sort_unstable();
        let present = found.segments.iter().map(|(id, _)| *id);
        if let Some(id) = present
            .clone()
            .zip(present.skip(1))
            .find(|(id, next)| id + 1 != *next)
            .map(|(id, _)| id + 1)
        {
            return Err(LogError::MissingSegment {
                directory: directory.to_path_buf(),
                id,
            });
        }
        if found.segments.is_empty() && !found.spares.is_empty() {
            return Err(LogError::NoSegments {
                directory: directory.to_path_buf(),
            });
        }
        Ok(found)
    }

    /// Sorts what can be used again from what must go.
    pub(super) fn tidy(&self, bench: &mut Workbench) {
        for name in &self.unfinished {
            remove_leftover(&bench.files, &bench.directory, name);
        }
        for (id, size_bytes) in &self.spares {
            if *size_bytes == bench.spare_bytes && bench.spares.len() < bench.max_spares {
                bench.spares.push(*id);
            } else if let Some(name) = spare_path(&bench.directory, *id).file_name() {
                remove_leftover(&bench.files, &bench.directory, &name.to_string_lossy());
            }
        }
    }

    /// Opens the segments in order, and reads their headers.
    pub(super) fn open_segments(&self, files: &Files, directory: &Path) -> Result<VecDeque<PreparedSegment>, LogError> {
        let open = |(id, size_bytes): &(u64, u64)| {
            let path = segment_path(directory, *id);
            let opened: io::Result<_> = files.open(&path);
            let file = opened.map_err(|source| LogError::Io {
                action: "open",
                path: path.clone(),
                source,
            })?;
            let generation = read_header(file.as_ref(), &path, *id)?;
            Ok(PreparedSegment {
                generation,
                file,
                path,
                size_bytes: *size_bytes,
            })
        };
        self.segments.iter().map(open).collect()
    }
}

/// A log that has been read.
pub(super) struct ReadLog {
    pub(super) recovered: Recovered,
    pub(super) summaries: VecDeque<SegmentSummary>,
    pub(super) active: ActiveSegment,
    pub(super) ready: VecDeque<PreparedSegment>,
}

impl ReadLog {
    /// Reads the segments in order, judges the end, blanks it and syncs. `segments` is not empty.
    pub(super) fn read(mut segments: VecDeque<PreparedSegment>) -> Result<ReadLog, LogError> {
        let mut recovered = Recovered::default();
        let mut summaries = VecDeque::new();
        let mut active: Option<(PreparedSegment, ReadSegment)> = None;
        while let Some(segment) = segments.pop_front() {
            let previous = active
                .as_ref()
                .map(|(previous, read)| (previous.path.as_path(), read.end));
            let read = read_segment(&opened(&segment), previous, &mut recovered)?;
            match read.summary {
                Some(summary) => summaries.push_back(summary),
                None if active.is_some() => {
                    segments.push_front(segment);
                    break;
                }
                None => {}
            }
            active = Some((segment, read));
        }
        let Some((last, last_read)) = active else {
            return Err(LogError::Options("a log without segments cannot be read"));
        };
        let end = last_read.end;
        recovered.torn_bytes = settle(&last, &last_read)?;
        for unused in &segments {
            let read = read_segment(&opened(unused), Some((&last.path, end)), &mut recovered)?;
            if read.summary.is_some() {
                let evidence = format!("{} has frames", unused.path.display());
                return Err(LogError::DamagedInTheMiddle {
                    file: last.path,
                    offset: end,
                    evidence,
                });
            }
            recovered.torn_bytes += settle(unused, &read)?;
        }
        let active = ActiveSegment {
            prepared: last,
            position: end,
            synced: end,
        };
        Ok(ReadLog {
            recovered,
            summaries,
            active,
            ready: segments,
        })
    }
}

fn opened(segment: &PreparedSegment) -> OpenSegment<'_> {
    OpenSegment {
        path: &segment.path,
        file: segment.file.as_ref(),
        generation: segment.generation,
        size_bytes: segment.size_bytes,
    }
}

/// Cuts what a crash left behind the frames, and makes the frames durable.
fn settle(segment: &PreparedSegment, read: &ReadSegment) -> Result<u64, LogError> {
    let torn_bytes = cut_torn_end(&opened(segment), read.end)?;
    if torn_bytes > 0 {
        tracing::info!(file = %segment.path.display(), offset = read.end, torn_bytes, "the raft log ends in an interrupted write, which nobody was told of; it is cut off");
    }
    make_durable(&opened(segment), read)?;
    Ok(torn_bytes)
}
