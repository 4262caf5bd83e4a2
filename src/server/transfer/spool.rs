//! What a slow link cannot take yet: chunks in a file without a name, which goes with the process.

use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Chunks, first in, first out.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    /// Where the first chunk begins, and where the next one goes.
    read_at: u64,
    write_at: u64,
    lengths: VecDeque<u32>,
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
        Ok(Spool {
            file,
            read_at: 0,
            write_at: 0,
            lengths: VecDeque::new(),
        })
    }

    /// Adds a chunk. After an error it holds what it held before.
    pub(super) fn push(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all_at(chunk, self.write_at)?;
        self.write_at += chunk.len() as u64;
        self.lengths.push_back(chunk.len() as u32);
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
}
