//! What the disk's rooms cost: appends to the raft log, and a checkpoint's records.

use std::path::Path;

use menagerie::state_machine::Batch;
use menagerie::storage::file::DiskFiles;
use menagerie::storage::log::{Durability, LogOptions, LogPoint, SegmentLog};
use menagerie::storage::tree::{DataChange, Meta, NodeStat, TreeOptions, TreeStore};
use raft::eraftpb::Entry;

use crate::bench::{Bench, Random};
use crate::{GROUP, STAMP, VALUE, set_data_command};

pub(crate) const APPEND: &str = "log: append an entry of 64 setData, not synced, each";
pub(crate) const STORE: &str = "store: put a znode, in checkpoints of 10,000, each";
const SYNC: &str = "log: append an entry of 64 setData, with fdatasync";
/// Appends between two cuts of the log, and entries that stay.
const CUT_EVERY: u64 = 100;
const KEPT: u64 = 1_000;
const CHECKPOINT: u64 = 10_000;

/// In `DIRECTORY`, or the system's temporary directory.
pub(crate) fn run(bench: &Bench) {
    if !["log", "store"].iter().any(|beginning| bench.wants_some_of(beginning)) {
        return;
    }
    let parent = std::env::var_os("DIRECTORY").map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(parent).expect("a directory can be made");
    log(bench, &directory.path().join("log"));
    store(bench, &directory.path().join("store"));
}

fn log(bench: &Bench, directory: &Path) {
    std::fs::create_dir(directory).expect("a directory can be made");
    let mut random = Random(5);
    let options = LogOptions::new(Box::new(move || random.next()));
    let (mut log, _) = SegmentLog::open(DiskFiles::shared(), directory, options).expect("a new log opens");
    let commands: Vec<_> = (0..GROUP).map(set_data_command).collect();
    let data = Batch::encode(STAMP, &commands);
    let mut index = 0;
    let mut append = |durability| {
        index += 1;
        let entry = Entry {
            index,
            term: 1,
            data: data.clone(),
            ..Entry::default()
        };
        log.append(&[entry], None, durability).expect("the disk takes it");
        if index % CUT_EVERY == 0 {
            log.purge_below(index.saturating_sub(KEPT)).expect("the disk takes it");
        }
    };
    bench.batches(APPEND, GROUP * 100, || (0..100).for_each(|_| append(Durability::Later)));
    bench.batches(SYNC, 10, || (0..10).for_each(|_| append(Durability::Now)));
}

fn store(bench: &Bench, directory: &Path) {
    let mut store = TreeStore::open(directory, TreeOptions::new(1)).expect("a new store opens");
    let mut random = Random(4);
    let mut index = 0;
    bench.batches(STORE, CHECKPOINT as usize, || {
        index += 1;
        // Evenly spread, and no znode twice in a checkpoint.
        let first = random.below(100) as u64;
        let mut batch = store.batch().expect("the disk takes it");
        for number in (0..CHECKPOINT).map(|step| first + step * 100) {
            let (parent, name) = (format!("/bench/p{:06}", number / 1_000), format!("node-{number:08}"));
            let data = DataChange::Set(Some(VALUE));
            batch
                .put_node(parent.as_bytes(), name.as_bytes(), &NodeStat::default(), data)
                .expect("the disk takes it");
        }
        let applied = LogPoint { index, term: 1 };
        batch
            .commit(Meta {
                applied,
                ..Meta::default()
            })
            .expect("the disk takes it");
    });
}
