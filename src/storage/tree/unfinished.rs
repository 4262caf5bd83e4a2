//! A store that was never finished being made: the first start was killed, or lost power, or had no room.
//!
//! fjall makes a store in this order, and syncs each file before the next:
//!
//! ```text
//!   lock   keyspaces/   0.jnl (zeros)   version   keyspaces/0 …   records in 0.jnl …
//!                                               ▲ a store from here on
//! ```
//!
//! It begins anew where `version` is not there, finds `0.jnl`, and gives up; where `version` is empty, it takes the store for
//! one of another version. So a server that was stopped in between would never start again.
//!
//! Invariant: a file is removed only if no store can have been there, which takes all of this: no whole `version`, nothing
//! below `keyspaces`, and no journal but a first one of nothing but zeros. All else may be a store that has lost its `version`
//! (in a restore, say), over which fjall would make a new one: that is refused, and nothing of it is touched.
//!
//! The directory must be locked by this server, as `storage::directory` does: another one may be making the store.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

const VERSION: &str = "version";
/// Its length: a name and a number.
const VERSION_BYTES: usize = 4;
const KEYSPACES: &str = "keyspaces";
const FIRST_JOURNAL: &str = "0.jnl";
/// Bytes of a journal that are looked at at once.
const BLOCK_BYTES: usize = 1 << 20;

/// Removes what an interrupted making of a store has left in `directory`. Says whether fjall may be let at it: false if there
/// may be a store in it that has lost its `version`.
pub(super) fn clear_away(directory: &Path) -> io::Result<bool> {
    if is_absent(directory)? || has_version(directory)? {
        return Ok(true);
    }
    if holds_anything(directory)? {
        return Ok(false);
    }
    for name in [FIRST_JOURNAL, VERSION] {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => {
                removed?;
                tracing::info!(
                    directory = %directory.display(), name,
                    "the making of the tree's store was interrupted; it is begun anew"
                );
            }
        }
    }
    File::open(directory)?.sync_all()?;
    Ok(true)
}

fn is_absent(directory: &Path) -> io::Result<bool> {
    Ok(!directory.try_exists()?)
}

/// Whether there is a whole `version`, whatever it says. A file that was written and not synced may be zeros.
fn has_version(directory: &Path) -> io::Result<bool> {
    match fs::read(directory.join(VERSION)) {
        Ok(bytes) => Ok(bytes.len() >= VERSION_BYTES && bytes.iter().any(|byte| *byte != 0)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there is anything that a store is made of once it has its `version`.
fn holds_anything(directory: &Path) -> io::Result<bool> {
    let keyspaces = directory.join(KEYSPACES);
    if !is_absent(&keyspaces)? && fs::read_dir(keyspaces)?.next().is_some() {
        return Ok(true);
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        if is_journal && (!path.ends_with(FIRST_JOURNAL) || !is_all_zeros(&path)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_all_zeros(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(true),
            Ok(filled) if block[..filled].iter().all(|byte| *byte == 0) => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::tree::tests::{committed_store, open};
    use crate::storage::tree::{TreeError, TreeOptions, TreeStore};
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    /// What fjall has made when it is stopped before each of its steps.
    fn interrupted(directory: &Path, steps: usize) {
        let version = directory.join(VERSION);
        let make: [&dyn Fn() -> io::Result<()>; 8] = [
            &|| fs::create_dir(directory),
            &|| fs::write(directory.join("lock"), ""),
            &|| fs::create_dir(directory.join(KEYSPACES)),
            &|| fs::write(directory.join(FIRST_JOURNAL), ""),
            &|| {
                let journal = File::options().write(true).open(directory.join(FIRST_JOURNAL))?;
                journal.set_len(64 << 20)
            },
            &|| fs::write(&version, ""),
            &|| fs::write(&version, "FJL"),
            // Its length was stored, and its bytes were not.
            &|| fs::write(&version, [0; VERSION_BYTES]),
        ];
        for step in &make[..steps] {
            step().expect("made");
        }
    }

    #[test]
    fn a_store_whose_making_was_interrupted_is_made_anew() {
        for steps in 0..=8 {
            let place = tempfile::tempdir().expect("temporary directory");
            let directory = place.path().join("tree");
            interrupted(&directory, steps);
            drop(committed_store(&directory, 3));
            let found = open(&directory).committed().map(|meta| meta.applied.index);
            assert_eq!(found, Some(3), "after {steps} steps");
        }
    }

    /// All files, and what they hold.
    fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(directory).expect("list") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                found.extend(contents(&path));
                found.insert(path, Vec::new());
            } else {
                found.insert(path.clone(), fs::read(&path).expect("read"));
            }
        }
        found
    }

    #[test]
    fn a_store_that_has_lost_its_version_is_refused_and_nothing_of_it_is_touched() {
        let lose: [fn(&Path); 5] = [
            |_| {},
            // Its tables alone, or what its journals hold.
            |directory| fs::remove_file(directory.join(FIRST_JOURNAL)).expect("remove"),
            |directory| fs::remove_dir_all(directory.join(KEYSPACES)).expect("remove"),
            |directory| {
                fs::remove_dir_all(directory.join(KEYSPACES)).expect("remove");
                let later = directory.join("7.jnl");
                fs::write(later, [0; 100]).expect("write");
                fs::remove_file(directory.join(FIRST_JOURNAL)).expect("remove");
            },
            |directory| fs::write(directory.join(VERSION), "").expect("write"),
        ];
        for (number, lose) in lose.iter().enumerate() {
            let place = tempfile::tempdir().expect("temporary directory");
            let directory = place.path().join("tree");
            drop(committed_store(&directory, 3));
            let version = fs::read(directory.join(VERSION)).expect("read");
            fs::remove_file(directory.join(VERSION)).expect("remove");
            lose(&directory);
            let before = contents(&directory);
            let refused = TreeStore::open(&directory, TreeOptions::new(1));
            assert!(
                matches!(&refused, Err(error @ TreeError::Open { .. }) if error.is_damage()),
                "{number}: {refused:?}"
            );
            assert!(contents(&directory) == before, "{number}");
            if number == 0 {
                fs::write(directory.join(VERSION), version).expect("write");
                assert_eq!(open(&directory).committed().map(|meta| meta.applied.index), Some(3));
            }
        }
    }
}
