//! Files in memory that know which of their bytes would survive a power cut.
//!
//! Every write is kept apart until the file is synced. [`MemoryFiles::crash`] then builds the disk as it could be found
//! afterwards: of each unsynced write any subset of its 512-byte sectors, in any state of the file's size; of the
//! unsynced names a prefix of what was done (a journalling file system keeps their order).
//! A sync that fails drops what it should have written, as Linux does: the bytes are still read, and are never stored.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DirectoryEntry, File, FileSystem, Files};

/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// A small seeded source of chance (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Errors to come. Counters count down calls; the call that finds 0 fails, and takes the order away.
#[derive(Debug, Default, Clone)]
pub(crate) struct Faults {
    /// The n-th sync_data from now fails with EIO.
    pub(crate) sync_fails_in: Option<u64>,
    /// The n-th write from now fails, writing half of its bytes first.
    pub(crate) write_fails_in: Option<u64>,
    /// Bytes that all files together may hold before writes that grow them fail with ENOSPC.
    pub(crate) capacity_bytes: Option<u64>,
    /// Every write takes at most so many bytes.
    pub(crate) short_write_bytes: Option<usize>,
    /// The next so many renames of files fail.
    pub(crate) renames_fail: u64,
    /// After so many changes of any kind all others fail: the process has died there.
    pub(crate) dies_in: Option<u64>,
}

impl State {
    /// Counts a change; an error once the process is dead.
    fn change(&mut self) -> io::Result<()> {
        match &mut self.faults.dies_in {
            Some(0) => Err(io::Error::other("the process has died")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Inode {
    current: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    locked: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Size(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    /// Of a directory, with everything below it.
    RenameTree(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// Where `path` is after the directory `from` became `to`; `None` if it is not in there.
fn moved(path: &Path, from: &Path, to: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(from).ok()?;
    Some(if below.as_os_str().is_empty() {
        to.to_path_buf()
    } else {
        to.join(below)
    })
}

impl NameChange {
    fn touches(&self, directory: &Path) -> bool {
        match self {
            NameChange::Create(path, _) | NameChange::Remove(path) => path.parent() == Some(directory),
            NameChange::Rename(from, to) | NameChange::RenameTree(from, to) => {
                from.parent() == Some(directory) || to.parent() == Some(directory)
            }
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Create(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            NameChange::RenameTree(from, to) => {
                let below: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in below {
                    if let (Some(new), Some(inode)) = (moved(&path, from, to), names.remove(&path)) {
                        names.insert(new, inode);
                    }
                }
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    faults: Faults,
    syncs: u64,
    writes: u64,
}

/// The file system; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryFiles(Arc<Mutex<State>>);

impl MemoryFiles {
    /// An empty disk.
    pub(crate) fn new() -> MemoryFiles {
        MemoryFiles::default()
    }

    /// As a handle for the code under test.
    pub(crate) fn shared(&self) -> Files {
        Arc::new(self.clone())
    }

    /// Orders errors.
    pub(crate) fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Calls of sync_data and write_at until now.
    pub(crate) fn syncs_and_writes(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.syncs, state.writes)
    }

    /// Whether none of the writes that were not synced has these bytes.
    pub(crate) fn has_stored(&self, bytes: &[u8]) -> bool {
        let state = self.0.lock();
        let unsynced = state.inodes.iter().flat_map(|inode| &inode.unsynced);
        !unsynced.into_iter().any(|change| match change {
            Change::Write { bytes: written, .. } => written.windows(bytes.len()).any(|window| window == bytes),
            Change::Size(_) => false,
        })
    }

    /// The process dies, the machine does not: everything written is there, locks and faults are gone.
    pub(crate) fn kill(&self) -> MemoryFiles {
        let state = self.0.lock();
        let mut inodes = state.inodes.clone();
        inodes.iter_mut().for_each(|inode| inode.locked = false);
        MemoryFiles(Arc::new(Mutex::new(State {
            inodes,
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            unsynced_names: state.unsynced_names.clone(),
            directories: state.directories.clone(),
            ..State::default()
        })))
    }

    /// The machine loses power: a disk as it may be found afterwards. `chance` decides what of the unsynced is there.
    pub(crate) fn crash(&self, chance: &mut Chance) -> MemoryFiles {
        let state = self.0.lock();
        let mut names = state.durable_names.clone();
        let kept = chance.below(state.unsynced_names.len() as u64 + 1) as usize;
        state.unsynced_names[..kept]
            .iter()
            .for_each(|change| change.apply(&mut names));
        let inodes = state.inodes.iter().map(|inode| survivors(inode, chance)).collect();
        MemoryFiles(Arc::new(Mutex::new(State {
            inodes,
            directories: with_directories_of(&names, &state.directories),
            durable_names: names.clone(),
            names,
            ..State::default()
        })))
    }

    /// The contents of a file.
    pub(crate) fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let inode = *state.names.get(path)?;
        Some(state.inodes[inode].current.clone())
    }

    /// Changes a file behind everyone's back, durably.
    pub(crate) fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock();
        let inode = state.names[path];
        let inode = &mut state.inodes[inode];
        change(&mut inode.current);
        inode.durable = inode.current.clone();
        inode.unsynced.clear();
    }
}

/// The directories, and those of names that a lost renaming took back.
fn with_directories_of(names: &BTreeMap<PathBuf, usize>, directories: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let above = names.keys().flat_map(|path| path.ancestors().skip(1));
    above
        .map(Path::to_path_buf)
        .chain(directories.iter().cloned())
        .collect()
}

/// What a power cut leaves of one file.
fn survivors(inode: &Inode, chance: &mut Chance) -> Inode {
    let mut found = inode.durable.clone();
    for change in &inode.unsynced {
        match change {
            Change::Size(size) => {
                if chance.below(2) == 0 {
                    found.resize(*size, 0);
                }
            }
            // A write is most often lost or kept as a whole; sometimes each of its sectors decides for itself.
            Change::Write { offset, bytes } => match chance.below(4) {
                0 => {}
                1 => overwrite(&mut found, *offset, bytes),
                _ => {
                    let mut start = 0;
                    while start < bytes.len() {
                        let boundary = (offset + start) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
                        let end = bytes.len().min(boundary - offset);
                        if chance.below(2) == 0 {
                            overwrite(&mut found, offset + start, &bytes[start..end]);
                        }
                        start = end;
                    }
                }
            },
        }
    }
    Inode {
        durable: found.clone(),
        current: found,
        ..Inode::default()
    }
}

fn overwrite(contents: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if contents.len() < offset + bytes.len() {
        contents.resize(offset + bytes.len(), 0);
    }
    contents[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Counts an order down; true when its moment has come.
fn falls_due(order: &mut Option<u64>) -> bool {
    match order {
        Some(0) => {
            *order = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

#[derive(Debug)]
struct MemoryFile {
    state: Arc<Mutex<State>>,
    inode: usize,
    holds_lock: Mutex<bool>,
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if *self.holds_lock.lock() {
            self.state.lock().inodes[self.inode].locked = false;
        }
    }
}

impl File for MemoryFile {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.state.lock().inodes[self.inode].current.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.state.lock();
        let contents = &state.inodes[self.inode].current;
        let start = (offset as usize).min(contents.len());
        let count = buffer.len().min(contents.len() - start);
        buffer[..count].copy_from_slice(&contents[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        state.change()?;
        state.writes += 1;
        let fails = falls_due(&mut state.faults.write_fails_in);
        let mut count = bytes.len();
        if let Some(most) = state.faults.short_write_bytes {
            count = count.min(most);
        }
        if fails {
            count /= 2;
        }
        let offset = offset as usize;
        if let Some(capacity) = state.faults.capacity_bytes {
            let used: usize = state.inodes.iter().map(|inode| inode.current.len()).sum();
            let growth = (offset + count).saturating_sub(state.inodes[self.inode].current.len());
            if (used + growth) as u64 > capacity {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
        }
        let inode = &mut state.inodes[self.inode];
        overwrite(&mut inode.current, offset, &bytes[..count]);
        inode.unsynced.push(Change::Write {
            offset,
            bytes: bytes[..count].to_vec(),
        });
        if fails {
            Err(io::Error::other("injected write error"))
        } else {
            Ok(count)
        }
    }

    /// A crash keeps any part of what was not synced, anyway.
    fn start_writing(&self, _offset: u64, _length_bytes: usize) {}

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        state.syncs += 1;
        let fails = falls_due(&mut state.faults.sync_fails_in);
        let inode = &mut state.inodes[self.inode];
        let unsynced = std::mem::take(&mut inode.unsynced);
        if fails {
            return Err(io::Error::other("injected sync error"));
        }
        for change in unsynced {
            match change {
                Change::Size(size) => inode.durable.resize(size, 0),
                Change::Write { offset, bytes } => overwrite(&mut inode.durable, offset, &bytes),
            }
        }
        Ok(())
    }

    fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.change()?;
        let inode = &mut state.inodes[self.inode];
        inode.current.resize(size_bytes as usize, 0);
        inode.unsynced.push(Change::Size(size_bytes as usize));
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut held = self.holds_lock.lock();
        let mut state = self.state.lock();
        let inode = &mut state.inodes[self.inode];
        if inode.locked {
            return Ok(false);
        }
        inode.locked = true;
        *held = true;
        Ok(true)
    }
}

impl FileSystem for MemoryFiles {
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let inode = *self.0.lock().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile {
            state: self.0.clone(),
            inode,
            holds_lock: Mutex::new(false),
        }))
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        {
            let mut state = self.0.lock();
            if !state.names.contains_key(path) {
                state.change()?;
                let inode = state.inodes.len();
                state.inodes.push(Inode::default());
                state.names.insert(path.to_path_buf(), inode);
                state.unsynced_names.push(NameChange::Create(path.to_path_buf(), inode));
            }
        }
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change()?;
        if state.directories.contains(from) {
            if state.names.keys().any(|path| path.starts_with(to)) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            let change = NameChange::RenameTree(from.to_path_buf(), to.to_path_buf());
            change.apply(&mut state.names);
            state.unsynced_names.push(change);
            let moved = |path: &PathBuf| moved(path, from, to).unwrap_or_else(|| path.clone());
            state.directories = state.directories.iter().map(moved).collect();
            return Ok(());
        }
        if state.faults.renames_fail > 0 {
            state.faults.renames_fail -= 1;
            return Err(io::Error::other("injected rename error"));
        }
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), inode);
        state
            .unsynced_names
            .push(NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change()?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.unsynced_names.push(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn remove_tree(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change()?;
        if !state.directories.contains(directory) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        state.directories.retain(|path| !path.starts_with(directory));
        let below: Vec<PathBuf> = state
            .names
            .keys()
            .filter(|path| path.starts_with(directory))
            .cloned()
            .collect();
        for path in below {
            state.names.remove(&path);
            state.unsynced_names.push(NameChange::Remove(path));
        }
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let state = self.0.lock();
        if !state.directories.contains(directory) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let name = |path: &Path| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let files = state.names.iter().filter(|(path, _)| path.parent() == Some(directory));
        let mut entries: Vec<DirectoryEntry> = files
            .map(|(path, inode)| DirectoryEntry {
                name: name(path),
                size_bytes: state.inodes[*inode].current.len() as u64,
                is_directory: false,
            })
            .collect();
        let below = state.directories.iter().filter(|path| path.parent() == Some(directory));
        entries.extend(below.map(|path| DirectoryEntry {
            name: name(path),
            size_bytes: 0,
            is_directory: true,
        }));
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    fn create_directories(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let all = directory.ancestors().map(Path::to_path_buf);
        state.directories.extend(all);
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.change()?;
        let names = &mut state.durable_names;
        state.unsynced_names.retain(|change| {
            let now = change.touches(directory);
            if now {
                change.apply(names);
            }
            !now
        });
        Ok(())
    }
}
