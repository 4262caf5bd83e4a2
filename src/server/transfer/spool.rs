//! What a slow link cannot take yet: chunks in a file without a name, which goes with the process.
//!
//! The file never takes the room on the disk that the server itself needs: for a peer that is slow it would refuse its clients,
//! or stop.

use crate::storage::space::{DiskSpace, Thresholds};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes that are written between two looks at the room on the disk.
const LOOK_BYTES: u64 = 16 << 20;

/// Chunks, first in, first out.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    /// Where the first chunk begins, and where the next one goes.
    read_at: u64,
    write_at: u64,
    lengths: VecDeque<u32>,
    directory: PathBuf,
    /// So much of the disk must stay free.
    spared_bytes: u64,
    /// As far as this there was room when it was last looked.
    room_until: u64,
}

impl Spool {
    /// An empty one. The file's name is removed at once.
    pub(super) fn create(path: &Path) -> io::Result<Spool> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        fs::remove_file(path)?;
        let directory = path.parent().unwrap_or_else(|| Path::new(".")).to_owned();
        let spared_bytes = Thresholds::of(DiskSpace::of(&directory)?.total_bytes).low_bytes;
        Ok(Spool {
            file,
            read_at: 0,
            write_at: 0,
            lengths: VecDeque::new(),
            directory,
            spared_bytes,
            room_until: 0,
        })
    }

    /// Adds a chunk. After an error it holds what it held before.
    pub(super) fn push(&mut self, chunk: &[u8]) -> io::Result<()> {
        let end = self.write_at + chunk.len() as u64;
        if end > self.room_until {
            self.look_for_room(end)?;
        }
        self.file.write_all_at(chunk, self.write_at)?;
        self.write_at = end;
        self.lengths.push_back(chunk.len() as u32);
        Ok(())
    }

    fn look_for_room(&mut self, end: u64) -> io::Result<()> {
        let ahead_bytes = end - self.write_at + LOOK_BYTES;
        if DiskSpace::of(&self.directory)?.free_bytes < self.spared_bytes.saturating_add(ahead_bytes) {
            let reason = "the room that is left on the disk is for what the server writes itself";
            return Err(io::Error::new(io::ErrorKind::StorageFull, reason));
        }
        self.room_until = self.write_at + ahead_bytes;
        Ok(())
    }

    /// Takes the first chunk out.
    pub(super) fn pop(&mut self) -> io::Result<Option<Bytes>> {
        let Some(length) = self.lengths.pop_front() else {
            return Ok(None);
        };
        let mut chunk = vec![0; length as usize];
        self.file.read_exact_at(&mut chunk, self.read_at)?;
        self.read_at += u64::from(length);
        Ok(Some(chunk.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_out_in_their_order_and_the_file_has_no_name() {
        let place = tempfile::tempdir().expect("temporary directory");
        let path = place.path().join("spool");
        let mut spool = Spool::create(&path).expect("create");
        assert!(!path.exists());
        spool.push(b"one").expect("push");
        spool.push(b"").expect("push");
        assert_eq!(spool.pop().expect("pop").as_deref(), Some(&b"one"[..]));
        spool.push(b"three").expect("push");
        assert_eq!(spool.pop().expect("pop").as_deref(), Some(&b""[..]));
        assert_eq!(spool.pop().expect("pop").as_deref(), Some(&b"three"[..]));
        assert_eq!(spool.pop().expect("pop"), None);
    }

    #[test]
    fn it_leaves_the_server_its_room_on_the_disk() {
        let place = tempfile::tempdir().expect("temporary directory");
        let mut spool = Spool::create(&place.path().join("spool")).expect("create");
        spool.push(b"one").expect("there is room");
        spool.push(&vec![0; 1 << 20]).expect("looked at before");
        spool.spared_bytes = u64::MAX;
        spool.room_until = spool.write_at;
        let refused = spool.push(b"two").expect_err("nothing is to spare");
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(spool.pop().expect("pop").as_deref(), Some(&b"one"[..]));
    }
}
