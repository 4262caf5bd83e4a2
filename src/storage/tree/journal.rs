//! Cutting the damaged end off fjall's journal, when fjall itself refuses to open because of it.
//!
//! A power cut can leave any subset of the pages written since the last fsync. fjall cuts most of such ends itself, but it
//! takes some for damage: a page boundary inside a record's header, or a value that ends where the lost page ends, gives
//! a batch whose checksum is wrong, and then the store could never be opened again.
//!
//! What is cut is never needed: everything from the durable point on is in the raft log, and a cut below the durable point
//! (real damage) shows as a gap between the tree and the log, which the server refuses to start with.
//!
//! Only the newest journal is touched (fjall syncs the others before it begins the next), only behind the last batch
//! that is whole, and only after a copy of the file was stored beside the store's directory. The last two copies are kept.
//!
//! ```text
//!   batch  = 01 count u32 seqno u64 │ item … │ 03 checksum u64 "FJL" 03          little-endian; fjall 3
//!   item   = 02 type u8 compression u8 keyspace u64 key_len u16 value_len u32 stored_len u32 key value
//!   clear  = 04 keyspace u64                                    checksum: xxh3 over items and clears
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

/// What the name of a copy has behind the store's, before the journal's number.
const COPY: &str = "-damaged-journal-";
/// So many copies are kept, each as large as a journal; the oldest goes when there is one more.
const KEPT_COPIES: usize = 2;

const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const TAG_CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";
const ITEM_HEADER_BYTES: usize = 1 + 1 + 8 + 2 + 4 + 4;

/// What was cut.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The journal.
    pub(super) journal: PathBuf,
    /// Where it ends now.
    pub(super) end: u64,
    /// Where it can be found as it was.
    pub(super) copy: PathBuf,
}

/// Cuts the newest journal of the store in `directory` behind its last whole batch. `None`: there is nothing to cut.
pub(super) fn cut_damaged_end(directory: &Path) -> io::Result<Option<Cut>> {
    let Some((number, journal)) = newest_journal(directory)? else {
        return Ok(None);
    };
    let mut reader = Counted {
        inner: BufReader::with_capacity(1 << 20, File::open(&journal)?),
        count: 0,
    };
    let end = end_of_whole_batches(&mut reader)?;
    if end == fs::metadata(&journal)?.len() {
        return Ok(None);
    }
    let mut name = directory.file_name().unwrap_or_default().to_os_string();
    name.push(format!("{COPY}{number}"));
    let copy = directory.with_file_name(name);
    let copied = fs::copy(&journal, &copy).and_then(|_| File::open(&copy)?.sync_all());
    if let Err(error) = copied {
        // Of no use, and the disk may be full.
        let _ = fs::remove_file(&copy);
        return Err(error);
    }
    remove_older_copies(&copy);
    let file = OpenOptions::new().write(true).open(&journal)?;
    file.set_len(end)?;
    file.sync_all()?;
    Ok(Some(Cut { journal, end, copy }))
}

/// Leaves the newest [`KEPT_COPIES`], `newest` among them. One that cannot be removed takes room, no more.
fn remove_older_copies(newest: &Path) {
    let Some(Ok(entries)) = newest.parent().map(fs::read_dir) else {
        return;
    };
    let is_copy = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains(COPY) && path != newest
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_copy);
    let written = |path: &PathBuf| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let mut others: Vec<_> = paths.map(|path| (written(&path), path)).collect();
    others.sort_unstable();
    let surplus = others.len().saturating_sub(KEPT_COPIES - 1);
    for (_, path) in others.drain(..surplus) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(copy = %path.display(), %error, "an old copy of a torn journal cannot be removed");
        }
    }
}

fn newest_journal(directory: &Path) -> io::Result<Option<(u64, PathBuf)>> {
    let mut newest = None;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        if let (true, Some(number)) = (is_journal, number) {
            newest = newest.max(Some((number, path)));
        }
    }
    Ok(newest)
}

/// A reader that knows how far it is.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Counted<R> {
    /// So many bytes, at the end of `into`; false when the file ends before.
    fn take_into(&mut self, into: &mut Vec<u8>, bytes: usize) -> io::Result<bool> {
        let read = (&mut self.inner).take(bytes as u64).read_to_end(into)?;
        self.count += read as u64;
        Ok(read == bytes)
    }

    fn array<const BYTES: usize>(&mut self) -> io::Result<Option<[u8; BYTES]>> {
        let mut into = Vec::with_capacity(BYTES);
        let is_whole = self.take_into(&mut into, BYTES)?;
        Ok(if is_whole { into.try_into().ok() } else { None })
    }
}

/// The offset behind the last batch before the first one that is not whole.
fn end_of_whole_batches<R: Read>(reader: &mut Counted<R>) -> io::Result<u64> {
    let mut record = Vec::new();
    loop {
        let end = reader.count;
        if !take_batch(reader, &mut record)? {
            return Ok(end);
        }
    }
}

/// Whether the next batch is whole. `record` is room to work in.
fn take_batch<R: Read>(reader: &mut Counted<R>, record: &mut Vec<u8>) -> io::Result<bool> {
    if reader.array()? != Some([TAG_START]) {
        return Ok(false);
    }
    let Some(start) = reader.array::<12>()? else {
        return Ok(false);
    };
    let count = u32::from_le_bytes([start[0], start[1], start[2], start[3]]);
    let mut checksum = Xxh3::new();
    for _ in 0..count {
        if !take_record(reader, record)? {
            return Ok(false);
        }
        checksum.update(record);
    }
    let end = (reader.array()?, reader.array()?, reader.array()?);
    let (Some([tag]), Some(stored), Some(trailer)) = end else {
        return Ok(false);
    };
    Ok(tag == TAG_END && u64::from_le_bytes(stored) == checksum.digest() && trailer == TRAILER)
}

/// Reads an item or a clear into `record`; false when it is neither.
fn take_record<R: Read>(reader: &mut Counted<R>, record: &mut Vec<u8>) -> io::Result<bool> {
    record.clear();
    if !reader.take_into(record, 1)? {
        return Ok(false);
    }
    match record[0] {
        TAG_CLEAR => reader.take_into(record, 8),
        TAG_ITEM => {
            if !reader.take_into(record, ITEM_HEADER_BYTES)? {
                return Ok(false);
            }
            let key_bytes = u16::from_le_bytes([record[11], record[12]]);
            let stored_bytes = u32::from_le_bytes([record[17], record[18], record[19], record[20]]);
            // Read as far as the file reaches; nothing is allocated for what it only claims.
            reader.take_into(record, usize::from(key_bytes) + stored_bytes as usize)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::tree::tests::{committed_store, open};
    use crate::storage::tree::{TreeError, TreeOptions, TreeStore};
    use std::time::{Duration, SystemTime};

    fn end_of(bytes: &[u8]) -> u64 {
        end_of_whole_batches(&mut Counted { inner: bytes, count: 0 }).expect("no input error")
    }

    /// A store whose newest journal has a damaged last batch, the third.
    fn torn_store(directory: &Path) {
        drop(committed_store(directory, 3));
        let (_, journal) = newest_journal(directory).expect("list").expect("a journal");
        let mut bytes = fs::read(&journal).expect("read");
        let end = end_of(&bytes) as usize;
        bytes[end - 30] ^= 1;
        fs::write(&journal, bytes).expect("write");
    }

    #[test]
    fn a_torn_end_that_the_system_does_not_let_be_cut_is_no_damage() {
        let place = tempfile::tempdir().expect("temporary directory");
        let directory = place.path().join("tree");
        torn_store(&directory);
        // The copy cannot be written, as on a full disk.
        let in_the_way = place.path().join("tree-damaged-journal-0");
        fs::create_dir(&in_the_way).expect("create");
        let refused = TreeStore::open(&directory, TreeOptions::new(1));
        assert!(
            matches!(&refused, Err(error @ TreeError::Inaccessible { .. }) if !error.is_damage()),
            "{refused:?}"
        );
        fs::remove_dir(&in_the_way).expect("remove");
        assert_eq!(open(&directory).committed().map(|meta| meta.applied.index), Some(2));
    }

    #[test]
    fn the_last_copies_of_torn_journals_are_kept() {
        let place = tempfile::tempdir().expect("temporary directory");
        let now = SystemTime::now();
        for (name, age_s) in [
            ("tree-damaged-journal-9", 30),
            ("tree-2-damaged-journal-1", 20),
            ("tree-2-damaged-journal-0", 40),
            ("tree-old", 90),
        ] {
            let file = File::create(place.path().join(name)).expect("create");
            file.set_modified(now - Duration::from_secs(age_s)).expect("set");
        }
        let directory = place.path().join("tree-3");
        torn_store(&directory);
        let cut = cut_damaged_end(&directory).expect("cut").expect("something to cut");
        let mut names: Vec<_> = fs::read_dir(place.path())
            .expect("list")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort_unstable();
        let expected = [
            "tree-2-damaged-journal-1",
            "tree-3",
            "tree-3-damaged-journal-0",
            "tree-old",
        ];
        assert_eq!((names, cut.copy.exists()), (expected.map(str::to_owned).to_vec(), true));
    }

    #[test]
    fn a_journal_that_fjall_wrote_is_understood_to_its_end() {
        let place = tempfile::tempdir().expect("temporary directory");
        let directory = place.path().join("tree");
        drop(committed_store(&directory, 3));
        let (_, journal) = newest_journal(&directory).expect("list").expect("a journal");
        let bytes = fs::read(&journal).expect("read");
        let end = end_of(&bytes) as usize;
        assert!(end > 100 && bytes[end..].iter().all(|byte| *byte == 0), "{end}");
        // A damaged last batch is cut, and the copy is as it was.
        let mut damaged = bytes;
        damaged[end - 30] ^= 1;
        fs::write(&journal, &damaged).expect("write");
        let cut = cut_damaged_end(&directory).expect("cut").expect("something to cut");
        assert!(cut.end < end as u64 && fs::read(&cut.copy).expect("copy") == damaged);
        assert_eq!(open(&directory).committed().map(|meta| meta.applied.index), Some(2));
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_within_their_length(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(end_of(&bytes) <= bytes.len() as u64);
        }
    }
}
