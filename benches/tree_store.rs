//! What the tree's store costs: checkpoints of a million znodes of 100 bytes, checkpoints of a busy second, and loading
//! it all back. What the state machine does with the records is not in it.
//!
//! `cargo bench --bench tree_store`. `ZNODES` (1,000,000) sets how many, `DIRECTORY` where the files are (the system's
//! temporary directory).
#![allow(clippy::print_stdout, reason = "printing the figures is what this program is for")]

use std::convert::Infallible;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use menagerie::storage::log::LogPoint;
use menagerie::storage::tree::{DataChange, LoadVisitor, Meta, NodeStat, SessionRecord, TreeOptions, TreeStore};

type Outcome<T> = Result<T, Box<dyn Error>>;

const CHILDREN_PER_PARENT: u64 = 1000;
/// Znodes of one checkpoint: about what a quarter of a second under load changes.
const CHECKPOINT_ZNODES: u64 = 10_000;
const VALUE: [u8; 100] = [b'v'; 100];

/// Looks at everything and keeps nothing.
#[derive(Default)]
struct Reader {
    bytes: usize,
}

impl LoadVisitor for Reader {
    type Error = Infallible;

    fn acl(&mut self, _: u32, entries: &[u8]) -> Result<(), Infallible> {
        self.bytes += entries.len();
        Ok(())
    }

    fn session(&mut self, session: SessionRecord) -> Result<(), Infallible> {
        self.bytes += session.owner.len();
        Ok(())
    }

    fn node(&mut self, parent: &[u8], name: &[u8], _: NodeStat, data: Option<Bytes>) -> Result<(), Infallible> {
        self.bytes += parent.len() + name.len() + data.map_or(0, |data| data.len());
        Ok(())
    }
}

fn meta(index: u64) -> Meta {
    Meta {
        applied: LogPoint { index, term: 1 },
        zxid: index as i64,
        ..Meta::default()
    }
}

fn place_of(number: u64) -> (String, String) {
    if number == 0 {
        return (String::new(), String::new());
    }
    (
        format!("/bench/parent-{:06}", number / CHILDREN_PER_PARENT),
        format!("child-{number:010}"),
    )
}

fn checkpoint(store: &mut TreeStore, index: u64, numbers: impl Iterator<Item = u64>, is_kept: bool) -> Outcome<()> {
    let mut batch = store.batch()?;
    for number in numbers {
        let (parent, name) = place_of(number);
        let stat = NodeStat {
            czxid: number as i64,
            mzxid: index as i64,
            ..NodeStat::default()
        };
        let data = if is_kept {
            DataChange::Keep
        } else {
            DataChange::Set(Some(&VALUE))
        };
        batch.put_node(parent.as_bytes(), name.as_bytes(), &stat, data)?;
    }
    Ok(batch.commit(meta(index))?)
}

fn open(directory: &Path, what: &str) -> Outcome<TreeStore> {
    let before = Instant::now();
    let store = TreeStore::open(directory, TreeOptions::new(1))?;
    println!("{what}: open {:.2} s", before.elapsed().as_secs_f64());
    Ok(store)
}

fn load(store: &mut TreeStore, what: &str) -> Outcome<()> {
    let before = Instant::now();
    let summary = store.load(&mut Reader::default())?;
    println!(
        "{what}: load {:.2} s, {} znodes",
        before.elapsed().as_secs_f64(),
        summary.nodes
    );
    Ok(())
}

fn main() -> Outcome<()> {
    let setting = |name: &str| std::env::var(name).ok();
    let znodes = setting("ZNODES")
        .and_then(|znodes| znodes.parse().ok())
        .unwrap_or(1_000_000u64);
    let place = setting("DIRECTORY").map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(place)?;
    let mut store = open(directory.path(), "new")?;
    load(&mut store, "new")?;

    let before = Instant::now();
    let (mut index, mut longest) = (0, 0.0f64);
    for first in (0..znodes).step_by(CHECKPOINT_ZNODES as usize) {
        index += 1;
        let began = Instant::now();
        checkpoint(&mut store, index, first..(first + CHECKPOINT_ZNODES).min(znodes), false)?;
        longest = longest.max(began.elapsed().as_secs_f64());
    }
    let seconds = before.elapsed().as_secs_f64();
    println!(
        "create: {:.2} us per znode, longest checkpoint of {CHECKPOINT_ZNODES} {:.0} ms",
        seconds * 1e6 / znodes as f64,
        longest * 1e3
    );
    let before = Instant::now();
    store.persist()?;
    println!("persist: {:.0} ms", before.elapsed().as_secs_f64() * 1e3);

    for (what, is_kept) in [("set data", false), ("stat only", true)] {
        let before = Instant::now();
        let rounds = 10;
        for round in 0..rounds {
            index += 1;
            let numbers = (0..CHECKPOINT_ZNODES).map(|number| (number * 7919 + round * 31) % znodes);
            checkpoint(&mut store, index, numbers, is_kept)?;
        }
        let changes = rounds * CHECKPOINT_ZNODES;
        println!(
            "{what}, scattered: {:.2} us per znode",
            before.elapsed().as_secs_f64() * 1e6 / changes as f64
        );
    }
    drop(store);
    for what in ["after a stop", "again"] {
        let mut store = open(directory.path(), what)?;
        load(&mut store, what)?;
    }
    Ok(())
}
