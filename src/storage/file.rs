//! The few file operations that the room is made of, behind two small traits.
//!
//! The traits exist for one reason: a test must be able to take the power away. [`DiskFiles`] is the real thing;
//! `memory` (test builds only) keeps every byte that was not synced apart, and drops, tears or reorders it at a simulated
//! crash.
//!
//! Invariants: a name counts as stored once [`FileSystem::sync_directory`] of its directory has returned, contents once
//! [`File::sync_data`] has. A caller never relies on an order between two operations that no sync separates.
//!
//! Left out on purpose: buffering, appending, memory maps (an IO error would arrive as a signal), and anything async.

#[cfg(test)]
pub(crate) mod memory;

use std::fmt;
use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// The smallest page of memory of the systems that we run on.
pub const PAGE_BYTES: u64 = 4096;

/// A shared handle on a file system.
pub type Files = Arc<dyn FileSystem>;

/// An open file. All offsets and sizes are in bytes.
pub trait File: Send + Sync + fmt::Debug {
    /// The file's size.
    fn size_bytes(&self) -> io::Result<u64>;
    /// Reads at most `buffer.len()` bytes; 0 means the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes at most `bytes.len()` bytes and tells how many; the file grows as needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Sends these bytes on their way to the disk and does not wait, if they are a page or less ([`PAGE_BYTES`]): a sync that
    /// comes a little later finds less to do. They are not durable by that, and it is the sync that tells what went wrong.
    fn start_writing(&self, offset: u64, length_bytes: usize);
    /// Makes contents and size durable. After an error the file's contents are unknown: never call it again.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts or extends (with zeros) the file.
    fn set_size(&self, size_bytes: u64) -> io::Result<()>;
    /// Takes the exclusive lock, held until the file is dropped. False: another process has it.
    fn try_lock(&self) -> io::Result<bool>;
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name within its directory; bytes that are not UTF-8 are replaced, such files are not ours.
    pub name: String,
    /// Size of a file, 0 for a directory.
    pub size_bytes: u64,
    /// Whether it is a directory.
    pub is_directory: bool,
}

/// A place for files.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens a file for reading and writing, creating it when absent; what it held stays.
    fn open_or_create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Renames a file, replacing the target, or a directory, which replaces an empty one at most.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and everything below it.
    fn remove_tree(&self, directory: &Path) -> io::Result<()>;
    /// The names in a directory, sorted. A directory that does not exist is `NotFound`.
    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>>;
    /// Creates a directory and its parents; existing ones are fine.
    fn create_directories(&self, directory: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskFiles;

impl DiskFiles {
    /// A shared handle.
    pub fn shared() -> Files {
        Arc::new(DiskFiles)
    }
}

impl File for fs::File {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn start_writing(&self, offset: u64, length_bytes: usize) {
        // Told that a range is not needed in memory, Linux begins to write what is dirty there. It then lets whole pages go, and
        // would wait for them; parts of pages stay.
        let (first, end) = (offset + 1, offset + length_bytes as u64);
        let has_whole_pages = first.next_multiple_of(PAGE_BYTES) + PAGE_BYTES <= end;
        if let Some(length_bytes) = end.checked_sub(first).and_then(NonZeroU64::new)
            && !has_whole_pages
        {
            // An error says that this system has no such thing.
            let _ = rustix::fs::fadvise(self, first, Some(length_bytes), rustix::fs::Advice::DontNeed);
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        fs::File::sync_data(self)
    }

    fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        self.set_len(size_bytes)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match fs::File::try_lock(self) {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl FileSystem for DiskFiles {
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(fs::OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_tree(&self, directory: &Path) -> io::Result<()> {
        fs::remove_dir_all(directory)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // A file may go between the listing and the question; it is then not there.
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            entries.push(DirectoryEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                size_bytes: if metadata.is_dir() { 0 } else { metadata.len() },
                is_directory: metadata.is_dir(),
            });
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    fn create_directories(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        fs::File::open(directory)?.sync_all()
    }
}

/// Writes all of `bytes`, however many calls that takes.
pub fn write_all_at(file: &dyn File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(offset, bytes) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::WriteZero, "the file takes no more bytes")),
            Ok(written) => {
                offset += written as u64;
                bytes = &bytes[written..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `buffer` as far as the file reaches; returns how many bytes that were.
pub fn read_up_to(file: &dyn File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(offset + filled as u64, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Replaces a small file in one step: written beside it, synced, renamed over it, directory synced. A crash leaves
/// either the old contents or the new.
pub fn replace_file(files: &dyn FileSystem, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.tmp"));
    let file = files.open_or_create(&temporary)?;
    file.set_size(0)?;
    write_all_at(file.as_ref(), 0, bytes)?;
    file.sync_data()?;
    drop(file);
    files.rename(&temporary, &directory.join(name))?;
    files.sync_directory(directory)
}

/// Bytes of all files below a directory; 0 when it does not exist.
pub fn directory_size_bytes(files: &dyn FileSystem, directory: &Path) -> io::Result<u64> {
    let mut total_bytes = 0;
    let mut pending = vec![directory.to_path_buf()];
    while let Some(current) = pending.pop() {
        let entries = match files.list(&current) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            total_bytes += entry.size_bytes;
            if entry.is_directory {
                pending.push(current.join(entry.name));
            }
        }
    }
    Ok(total_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_holds_the_new_bytes_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().expect("temporary directory");
        replace_file(&DiskFiles, directory.path(), "IDENTITY", b"a long first text").expect("first");
        replace_file(&DiskFiles, directory.path(), "IDENTITY", b"short").expect("second");
        let names = DiskFiles.list(directory.path()).expect("list");
        assert_eq!(
            names,
            [DirectoryEntry {
                name: "IDENTITY".into(),
                size_bytes: 5,
                is_directory: false
            }]
        );
        assert_eq!(directory_size_bytes(&DiskFiles, directory.path()).expect("size"), 5);
    }

    #[test]
    fn a_lock_is_refused_to_the_second_and_free_again_after_the_first_is_dropped() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("LOCK");
        let first = DiskFiles.open_or_create(&path).expect("open");
        assert!(first.try_lock().expect("lock"));
        let second = DiskFiles.open_or_create(&path).expect("open");
        assert!(!second.try_lock().expect("lock"));
        drop(first);
        assert!(second.try_lock().expect("lock"));
    }
}
