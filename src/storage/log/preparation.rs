//! The log's next file: filled with zeros (or taken from the purged ones) and given its header ahead of time, so that
//! the thread that appends neither fills, renames nor deletes anything.
//!
//! Measured: overwriting a zero-filled file takes half the time and CPU of growing one, deleting 64 MiB takes 9 to 60 ms.
//!
//! Invariants: a file is called a segment only after its header and its size were synced; a purged file is called a spare,
//! durably, before its header is overwritten, and before the next one is. So a crash at any point leaves files that `recovery`
//! understands.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use super::super::behind::give_way;
use super::frame::Generation;
use super::segment::{segment_path, spare_path, unfinished_path, write_header};
use crate::storage::file::{File, Files, write_all_at};

/// Zeros written by one call, and synced. Small enough not to hold up the log's own fsync on the same disk for long.
const FILL_CHUNK_BYTES: usize = 1 << 20;
/// What is given back of a file at a time before it is removed, likewise: to remove 64 MiB at one go holds up the log's fsync
/// for 10 ms and more where the file system tells the disk what is free.
const REMOVE_STEP_BYTES: u64 = 4 << 20;

/// Where files are prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preparation {
    /// In a thread of the log's own: for servers.
    Thread,
    /// In the call that asks for it: for tests and tools, where the order of things must not vary.
    Inline,
}

/// A segment that is ready to be written.
#[derive(Debug)]
pub(super) struct PreparedSegment {
    pub(super) generation: Generation,
    pub(super) file: Box<dyn File>,
    pub(super) path: PathBuf,
    pub(super) size_bytes: u64,
}

#[derive(Debug)]
enum Job {
    Prepare { generation: Generation, size_bytes: u64 },
    Recycle { id: u64, size_bytes: u64 },
}

/// The bench at which files are made; owned by the thread, or by the log itself.
#[derive(Debug)]
pub(super) struct Workbench {
    pub(super) files: Files,
    pub(super) directory: PathBuf,
    /// Ids of purged files, each of `spare_bytes`.
    pub(super) spares: Vec<u64>,
    /// The size that makes a purged file worth keeping.
    pub(super) spare_bytes: u64,
    /// How many are kept.
    pub(super) max_spares: usize,
    /// Purged segments that are still called segments, oldest first, with their sizes. As many as could not be renamed.
    pub(super) purged: VecDeque<(u64, u64)>,
}

impl Workbench {
    /// Makes the file of a new segment, durable under its name.
    pub(super) fn prepare(&mut self, generation: Generation, size_bytes: u64) -> io::Result<PreparedSegment> {
        let id = generation.segment_id;
        let spare = if size_bytes == self.spare_bytes {
            self.spares.pop()
        } else {
            None
        };
        let (made_at, file) = match spare {
            Some(spare) => {
                let made_at = spare_path(&self.directory, spare);
                let file = self.files.open(&made_at)?;
                (made_at, file)
            }
            None => {
                let made_at = unfinished_path(&self.directory, id);
                let file = self.files.open_or_create(&made_at)?;
                fill_with_zeros(file.as_ref(), size_bytes)?;
                (made_at, file)
            }
        };
        write_header(file.as_ref(), generation)?;
        file.sync_data()?;
        let path = segment_path(&self.directory, id);
        self.files.rename(&made_at, &path)?;
        self.files.sync_directory(&self.directory)?;
        Ok(PreparedSegment {
            generation,
            file,
            path,
            size_bytes,
        })
    }

    /// Takes a purged segment out of the log, and those before it that could not be taken out when it was their turn.
    fn recycle(&mut self, id: u64, size_bytes: u64) {
        self.purged.push_back((id, size_bytes));
        while let Some((id, size_bytes)) = self.purged.front().copied() {
            if let Err(error) = self.take_out(id) {
                // Harmless: the files stay part of the log. One behind it that went would be a gap at the next start.
                tracing::warn!(
                    segment = id, %error,
                    "a purged raft log segment could not be set aside; it is tried again with the next one, or after the next start"
                );
                return;
            }
            self.purged.pop_front();
            if let Err(error) = self.keep_or_remove(id, size_bytes) {
                tracing::warn!(segment = id, %error, "a purged raft log segment takes room until the next start");
            }
        }
    }

    /// From now on it is none of the log's segments; durable when this returns. One by one and oldest first, so that no crash
    /// leaves a gap between the segments.
    fn take_out(&self, id: u64) -> io::Result<()> {
        let (from, to) = (segment_path(&self.directory, id), spare_path(&self.directory, id));
        match self.files.rename(&from, &to) {
            // It was renamed, and the directory could not be synced.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.files.sync_directory(&self.directory)
    }

    /// What was taken out of the log is kept for later, or removed.
    fn keep_or_remove(&mut self, id: u64, size_bytes: u64) -> io::Result<()> {
        let path = spare_path(&self.directory, id);
        let file = self.files.open(&path)?;
        if size_bytes == self.spare_bytes && self.spares.len() < self.max_spares {
            if file.size_bytes()? > size_bytes {
                file.set_size(size_bytes)?;
            }
            self.spares.push(id);
            return Ok(());
        }
        let mut left = file.size_bytes()?;
        while left > REMOVE_STEP_BYTES {
            left -= REMOVE_STEP_BYTES;
            file.set_size(left)?;
        }
        drop(file);
        self.files.remove(&path)
    }
}

fn fill_with_zeros(file: &dyn File, size_bytes: u64) -> io::Result<()> {
    let zeros = vec![0; FILL_CHUNK_BYTES.min(size_bytes as usize)];
    let mut offset = 0;
    while offset < size_bytes {
        let count = (size_bytes - offset).min(zeros.len() as u64);
        write_all_at(file, offset, &zeros[..count as usize])?;
        file.sync_data()?;
        offset += count;
    }
    Ok(())
}

/// The log's side of the bench.
#[derive(Debug)]
pub(super) struct Preparer {
    place: Place,
    pending: bool,
}

#[derive(Debug)]
enum Place {
    Inline {
        bench: Workbench,
        made: Option<io::Result<PreparedSegment>>,
    },
    Thread {
        jobs: Option<Sender<Job>>,
        made: Receiver<io::Result<PreparedSegment>>,
        thread: Option<JoinHandle<()>>,
    },
}

impl Preparer {
    pub(super) fn new(bench: Workbench, preparation: Preparation) -> io::Result<Preparer> {
        let place = match preparation {
            Preparation::Inline => Place::Inline { bench, made: None },
            Preparation::Thread => {
                let (jobs, next_job) = mpsc::channel();
                let (finished, made) = mpsc::channel();
                let thread = std::thread::Builder::new().name("log-prepare".into()).spawn(move || {
                    give_way();
                    work_off(bench, &next_job, &finished);
                })?;
                Place::Thread {
                    jobs: Some(jobs),
                    made,
                    thread: Some(thread),
                }
            }
        };
        Ok(Preparer { place, pending: false })
    }

    /// Whether a segment was asked for and not yet taken.
    pub(super) fn is_pending(&self) -> bool {
        self.pending
    }

    /// Asks for a segment; one at a time.
    pub(super) fn request(&mut self, generation: Generation, size_bytes: u64) {
        debug_assert!(!self.pending, "one segment at a time");
        self.pending = true;
        match &mut self.place {
            Place::Inline { bench, made } => *made = Some(bench.prepare(generation, size_bytes)),
            Place::Thread { jobs, .. } => send(jobs, Job::Prepare { generation, size_bytes }),
        }
    }

    /// Hands a purged segment over.
    pub(super) fn recycle(&mut self, id: u64, size_bytes: u64) {
        match &mut self.place {
            Place::Inline { bench, .. } => bench.recycle(id, size_bytes),
            Place::Thread { jobs, .. } => send(jobs, Job::Recycle { id, size_bytes }),
        }
    }

    /// The segment that was asked for, if it is finished.
    pub(super) fn poll(&mut self) -> Option<io::Result<PreparedSegment>> {
        let finished = match &mut self.place {
            Place::Inline { made, .. } => made.take(),
            Place::Thread { made, .. } => made.try_recv().ok(),
        };
        self.pending &= finished.is_none();
        finished
    }

    /// Waits for the segment that was asked for.
    pub(super) fn wait(&mut self) -> io::Result<PreparedSegment> {
        self.pending = false;
        let finished = match &mut self.place {
            Place::Inline { made, .. } => made.take(),
            Place::Thread { made, .. } => made.recv().ok(),
        };
        finished.unwrap_or_else(|| Err(io::Error::other("the thread that prepares segments is gone")))
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        if let Place::Thread { jobs, thread, .. } = &mut self.place {
            drop(jobs.take());
            if let Some(thread) = thread.take() {
                // Its last job is finished first: nothing may still write into the directory after the log is closed.
                let _ = thread.join();
            }
        }
    }
}

fn send(jobs: &Option<Sender<Job>>, job: Job) {
    // A thread that is gone shows as an error of `wait`, or as segments that are never recycled; both are told of.
    if jobs.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
        tracing::error!("the thread that prepares raft log segments is gone");
    }
}

fn work_off(mut bench: Workbench, jobs: &Receiver<Job>, finished: &Sender<io::Result<PreparedSegment>>) {
    for job in jobs {
        match job {
            Job::Prepare { generation, size_bytes } => {
                if finished.send(bench.prepare(generation, size_bytes)).is_err() {
                    return;
                }
            }
            Job::Recycle { id, size_bytes } => bench.recycle(id, size_bytes),
        }
    }
}

/// Removes what an interrupted preparation or too many spares left. Failures are told of and otherwise ignored.
pub(super) fn remove_leftover(files: &Files, directory: &Path, name: &str) {
    if let Err(error) = files.remove(&directory.join(name)) {
        tracing::warn!(file = name, %error, "a left-over file of the raft log could not be removed");
    }
}
