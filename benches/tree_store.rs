//! What the tree's store costs: checkpoints of a million znodes of 100 bytes, checkpoints of a busy second, and loading
//! it all back. What the state machine does with the records is not in it. CPU is the whole process's, and the figure to
//! trust on a machine that does other things as well.
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

/// Wall and processor time since a moment.
struct Watch {
    since: Instant,
    cpu_before: f64,
}

impl Watch {
    fn start() -> Outcome<Watch> {
        Ok(Watch {
            since: Instant::now(),
            cpu_before: cpu_seconds()?,
        })
    }

    /// Both, in units of which there are so many in a second, for each of `count`.
    fn each(&self, per_second: f64, count: u64) -> Outcome<(f64, f64)> {
        let scale = per_second / count as f64;
        Ok((
            self.since.elapsed().as_secs_f64() * scale,
            (cpu_seconds()? - self.cpu_before) * scale,
        ))
    }
}

/// User and system time of this process, in ticks of 10 ms.
fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the process may hold spaces; what follows its bracket does not.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let (user, system): (f64, f64) = (fields[11].parse()?, fields[12].parse()?);
    Ok((user + system) / 100.0)
}

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

    fn ephemeral(&mut self, _: i64, path: &[u8]) -> Result<(), Infallible> {
        self.bytes += path.len();
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
    let watch = Watch::start()?;
    let store = TreeStore::open(directory, TreeOptions::new(1))?;
    let (wall, cpu) = watch.each(1.0, 1)?;
    println!("{what}: open {wall:.2} s, CPU {cpu:.2} s");
    Ok(store)
}

fn load(store: &mut TreeStore, what: &str) -> Outcome<()> {
    let watch = Watch::start()?;
    let summary = store.load(&mut Reader::default())?;
    let (wall, cpu) = watch.each(1.0, 1)?;
    println!("{what}: load {wall:.2} s, CPU {cpu:.2} s, {} znodes", summary.nodes);
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

    let watch = Watch::start()?;
    let (mut index, mut longest) = (0, 0.0f64);
    for first in (0..znodes).step_by(CHECKPOINT_ZNODES as usize) {
        index += 1;
        let began = Instant::now();
        checkpoint(&mut store, index, first..(first + CHECKPOINT_ZNODES).min(znodes), false)?;
        longest = longest.max(began.elapsed().as_secs_f64());
    }
    let (wall, cpu) = watch.each(1e6, znodes)?;
    println!(
        "create: {wall:.2} us per znode, CPU {cpu:.2} us, longest checkpoint of {CHECKPOINT_ZNODES} {:.0} ms",
        longest * 1e3
    );
    let watch = Watch::start()?;
    store.persist()?;
    let (wall, cpu) = watch.each(1e3, 1)?;
    println!("persist: {wall:.0} ms, CPU {cpu:.0} ms");

    for (what, is_kept) in [("set data", false), ("stat only", true)] {
        let watch = Watch::start()?;
        let rounds = 10;
        for round in 0..rounds {
            index += 1;
            let numbers = (0..CHECKPOINT_ZNODES).map(|number| (number * 7919 + round * 31) % znodes);
            checkpoint(&mut store, index, numbers, is_kept)?;
        }
        let (wall, cpu) = watch.each(1e6, rounds * CHECKPOINT_ZNODES)?;
        println!("{what}, scattered: {wall:.2} us per znode, CPU {cpu:.2} us");
    }
    drop(store);
    for what in ["after a stop", "again"] {
        let mut store = open(directory.path(), what)?;
        load(&mut store, what)?;
    }
    Ok(())
}
