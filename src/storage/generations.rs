//! Which of the tree's directories is in use: a snapshot of a peer becomes a new one, and takes the place of the former
//! in one step.
//!
//! ```text
//!   <dataDir>/menagerie/CURRENT    names the directory in use; none: tree
//!   <dataDir>/menagerie/tree/      the first one
//!   <dataDir>/menagerie/tree-2/    and so on; numbers are not used twice while a server runs
//! ```
//!
//! Steps of an installation, each of which may be the last one before a crash:
//!
//! ```text
//!   reserve ─▶ build_tree ─▶ switch ─▶ remove the former ─▶ reset the log
//!   found at the next start:
//!     a directory that CURRENT does not name      never finished, or used up: removed
//!     CURRENT names the new one, the log is old   the tree wins: `reconcile` resets the log
//! ```
//!
//! Where there is neither CURRENT nor the first one, but others are, CURRENT was lost: nothing is removed.
//!
//! Invariant: CURRENT never names a directory that is not complete and durable. `switch` is durable when it returns, and
//! the log is reset only after that.
//!
//! Left out on purpose: opening stores, and deciding when to switch.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::directory::{DirectoryError, Layout};
use super::file::{Files, replace_file};
use super::sealed::{read_small, seal, unseal};

/// The file that names the directory in use.
pub(super) const CURRENT: &str = "CURRENT";
/// The name of the first directory, and what the others' begin with.
const TREE: &str = "tree";
/// What the name of a file ends with in which a sender keeps what a slow link cannot take yet. Such a file loses its name
/// as soon as it is open.
const SPOOL: &str = ".spool";

/// The tree's directories. Shared by the store's thread, which switches, and the transfers, which reserve names.
#[derive(Debug)]
pub struct Generations {
    files: Files,
    own_data: PathBuf,
    numbers: Mutex<Numbers>,
    /// How many names for files of senders were given out.
    spools: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Numbers {
    current: u64,
    /// The highest one that was ever found or given out.
    last: u64,
}

impl Generations {
    /// Reads which one is in use, and removes all others. The data directory must be locked by this server, and no store
    /// in it open.
    pub fn open(files: &Files, layout: &Layout) -> Result<Generations, DirectoryError> {
        let own_data = layout.own_data();
        let named = read_current(files, &own_data)?;
        let current = named.unwrap_or(1);
        let entries = match files.list(&own_data) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(failed("list", &own_data, source)),
        };
        let found = entries.iter().filter(|entry| entry.is_directory);
        let found: Vec<u64> = found.filter_map(|entry| number_of(&entry.name)).collect();
        if named.is_some() && !found.contains(&current) {
            return Err(DirectoryError::MissingTree {
                path: own_data.join(name_of(current)),
                current: own_data.join(CURRENT),
            });
        }
        // The first one is there from the first start on, until another takes its place and CURRENT names that.
        if let (None, Some(other)) = (named, found.iter().max())
            && !found.contains(&current)
        {
            return Err(DirectoryError::MissingCurrent {
                example: own_data.join(name_of(*other)),
                path: own_data.join(CURRENT),
            });
        }
        let generations = Generations {
            files: files.clone(),
            own_data,
            numbers: Mutex::new(Numbers {
                current,
                last: found.iter().copied().fold(current, u64::max),
            }),
            spools: AtomicU64::new(0),
        };
        for leftover in found.into_iter().filter(|number| *number != current) {
            generations.remove(&generations.path(leftover));
        }
        for spool in entries.iter().filter(|entry| entry.name.ends_with(SPOOL)) {
            let path = generations.own_data.join(&spool.name);
            let removed = generations.files.remove(&path);
            warn_of_leftover(&path, removed);
        }
        Ok(generations)
    }

    /// The directory in use.
    pub fn current(&self) -> PathBuf {
        self.path(self.numbers.lock().current)
    }

    /// A new directory's path. Nothing is created.
    pub fn reserve(&self) -> PathBuf {
        let mut numbers = self.numbers.lock();
        numbers.last += 1;
        self.path(numbers.last)
    }

    /// Where a sender may put what waits for a slow link; another path at every call. It removes the name as soon as it
    /// has the file open.
    pub fn spool(&self) -> PathBuf {
        let number = self.spools.fetch_add(1, Ordering::Relaxed);
        self.own_data.join(format!("outgoing-{number}{SPOOL}"))
    }

    /// Makes `directory`, which was reserved here and holds a complete and durable store, the one in use. Durable when
    /// this returns. Gives the former one, which may be removed once nobody reads it any more.
    pub fn switch(&self, directory: &Path) -> Result<PathBuf, DirectoryError> {
        let unknown = || failed("switch to", directory, io::Error::from(io::ErrorKind::NotFound));
        let name = directory.file_name().and_then(|name| name.to_str());
        let number = name.and_then(number_of).ok_or_else(unknown)?;
        let mut numbers = self.numbers.lock();
        // The directory's own name must be there before anything refers to it.
        let synced = self.files.sync_directory(&self.own_data);
        synced.map_err(|source| failed("sync", &self.own_data, source))?;
        replace_file(
            self.files.as_ref(),
            &self.own_data,
            CURRENT,
            seal(&format!("{}\n", name_of(number))).as_bytes(),
        )
        .map_err(|source| failed("write the file CURRENT in", &self.own_data, source))?;
        let former = std::mem::replace(&mut numbers.current, number);
        Ok(self.path(former))
    }

    /// Removes a directory that is not in use. If that fails it takes room until the next start, no more.
    pub fn remove(&self, directory: &Path) {
        if directory != self.current() {
            let removed = self.files.remove_tree(directory);
            warn_of_leftover(directory, removed);
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.own_data.join(name_of(number))
    }
}

fn warn_of_leftover(path: &Path, removed: io::Result<()>) {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::warn!(
            path = %path.display(), %error,
            "cannot remove what a former installation of a snapshot left; it takes room until the next start, or until \
             somebody removes it"
        ),
        _ => {}
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> DirectoryError {
    DirectoryError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}

fn name_of(number: u64) -> String {
    if number == 1 {
        TREE.into()
    } else {
        format!("{TREE}-{number}")
    }
}

/// The reverse of [`name_of`].
fn number_of(name: &str) -> Option<u64> {
    let number = match name.strip_prefix(TREE)? {
        "" => 1,
        rest => rest.strip_prefix('-')?.parse().ok()?,
    };
    (name_of(number) == name).then_some(number)
}

fn read_current(files: &Files, own_data: &Path) -> Result<Option<u64>, DirectoryError> {
    let path = own_data.join(CURRENT);
    let text = read_small(files.as_ref(), &path).map_err(|source| failed("read", &path, source))?;
    let Some(text) = text else { return Ok(None) };
    let name = unseal(&text).and_then(|body| body.strip_suffix('\n'));
    match name.and_then(number_of) {
        Some(number) => Ok(Some(number)),
        None => Err(DirectoryError::UnreadableCurrent { path }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::file::FileSystem;
    use crate::storage::file::memory::{Chance, Faults, MemoryFiles};

    fn layout() -> Layout {
        Layout {
            data_directory: "/data".into(),
            log_directory: "/data".into(),
        }
    }

    fn open(disk: &MemoryFiles) -> Generations {
        Generations::open(&disk.shared(), &layout()).expect("opens")
    }

    fn make(disk: &MemoryFiles, directory: &Path) {
        disk.create_directories(directory).expect("create");
        disk.open_or_create(&directory.join("table")).expect("create");
        disk.sync_directory(directory).expect("sync");
    }

    fn directories(disk: &MemoryFiles) -> Vec<String> {
        let entries = disk.list(Path::new("/data/menagerie")).expect("list");
        let names = entries.into_iter().filter(|entry| entry.is_directory);
        names.map(|entry| entry.name).collect()
    }

    #[test]
    fn the_first_tree_needs_no_file_and_each_switch_is_found_again() {
        let disk = MemoryFiles::new();
        let generations = open(&disk);
        assert_eq!(generations.current(), Path::new("/data/menagerie/tree"));
        make(&disk, &generations.current());
        let second = generations.reserve();
        make(&disk, &second);
        let former = generations.switch(&second).expect("switch");
        assert_eq!(former, Path::new("/data/menagerie/tree"));
        generations.remove(&former);
        // Never the one in use.
        generations.remove(&second);
        assert_eq!(directories(&disk), ["tree-2"]);
        let again = open(&disk);
        assert_eq!(again.current(), second);
        assert_eq!(again.reserve(), Path::new("/data/menagerie/tree-3"));
        assert_eq!(again.reserve(), Path::new("/data/menagerie/tree-4"));
    }

    #[test]
    fn leftovers_are_removed_and_what_is_not_ours_stays() {
        let disk = MemoryFiles::new();
        let first = open(&disk);
        make(&disk, &first.current());
        make(&disk, &first.reserve());
        make(&disk, &first.reserve());
        make(&disk, Path::new("/data/menagerie/tree-old"));
        disk.open_or_create(Path::new("/data/menagerie/tree-damaged-journal-2"))
            .expect("create");
        let spool = first.spool();
        disk.open_or_create(&spool).expect("create");
        let again = open(&disk);
        assert_eq!(directories(&disk), ["tree", "tree-old"]);
        assert!(disk.contents(&spool).is_none() && first.spool() != spool);
        drop(again);
        assert!(
            disk.contents(Path::new("/data/menagerie/tree-damaged-journal-2"))
                .is_some()
        );
    }

    #[test]
    fn a_power_cut_during_a_switch_leaves_the_former_or_the_new_one() {
        let mut seen = [false; 2];
        for seed in 0..200 {
            let disk = MemoryFiles::new();
            let generations = open(&disk);
            make(&disk, &generations.current());
            let second = generations.reserve();
            make(&disk, &second);
            disk.sync_directory(Path::new("/data/menagerie")).expect("sync");
            disk.set_faults(Faults {
                // Half of the time the file's contents never get there.
                sync_fails_in: (seed % 2 == 0).then_some(0),
                ..Faults::default()
            });
            let switched = generations.switch(&second).is_ok();
            let found = open(&disk.crash(&mut Chance(seed))).current();
            seen[usize::from(switched)] = true;
            let expected = if switched { second } else { layout().tree() };
            assert_eq!(found, expected, "seed {seed}");
        }
        assert_eq!(seen, [true; 2]);
    }

    #[test]
    fn a_damaged_file_and_a_missing_tree_are_refused() {
        let disk = MemoryFiles::new();
        let generations = open(&disk);
        let second = generations.reserve();
        make(&disk, &second);
        generations.switch(&second).expect("switch");
        let path = Path::new("/data/menagerie/CURRENT");
        let good = disk.contents(path).expect("contents");
        for at in 0..good.len() {
            disk.tamper(path, |bytes| bytes[at] ^= 1);
            let refused = Generations::open(&disk.shared(), &layout());
            assert!(
                matches!(refused, Err(DirectoryError::UnreadableCurrent { .. })),
                "byte {at}"
            );
            disk.tamper(path, |bytes| bytes.clone_from(&good));
        }
        disk.remove_tree(&second).expect("remove");
        let refused = Generations::open(&disk.shared(), &layout());
        assert!(matches!(refused, Err(DirectoryError::MissingTree { .. })));
    }

    #[test]
    fn a_tree_that_nothing_names_is_refused_and_stays() {
        let disk = MemoryFiles::new();
        let generations = open(&disk);
        make(&disk, &generations.current());
        let second = generations.reserve();
        make(&disk, &second);
        generations.remove(&generations.switch(&second).expect("switch"));
        // As a restore leaves it that has brought directories only.
        let path = Path::new("/data/menagerie/CURRENT");
        let text = disk.contents(path).expect("contents");
        disk.remove(path).expect("remove");
        let refused = Generations::open(&disk.shared(), &layout());
        assert!(matches!(refused, Err(DirectoryError::MissingCurrent { .. })));
        assert_eq!(directories(&disk), ["tree-2"]);
        disk.open_or_create(path).expect("create");
        disk.tamper(path, |bytes| *bytes = text);
        assert_eq!(open(&disk).current(), second);
    }

    #[test]
    fn names_and_numbers_go_both_ways() {
        let names = [("tree", Some(1)), ("tree-2", Some(2)), ("tree-10", Some(10))];
        let others = [
            "tree-1", "tree-02", "tree-", "tre", "tree-2x", "tree2", "tree--2", "tree-+2",
        ];
        for (name, number) in names.into_iter().chain(others.map(|name| (name, None))) {
            assert_eq!(number_of(name), number, "{name}");
        }
    }
}
