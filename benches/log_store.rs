//! The comparison that the raft log's own segment files were chosen by: segments, a fjall keyspace and raft-engine under
//! the same appends (DESIGN §3.5, building-blocks §3).
//!
//! Each append is one group: so many entries and a hard state, stored (fdatasync) before the next one begins. The log
//! keeps the last 50,000 entries (64 of 1 MiB) and is cut every 100 appends, within the measured time. Rounds of all
//! stores take turns; the figures are the medians of the rounds. CPU is the whole process's, background threads
//! included, and the column to trust on a machine that does other things as well.
//!
//! `cargo bench --bench log_store --features bench-log-stores [-- WORD]` runs all, or the stores whose name contains the
//! word. `SECONDS` (1.5) sets a turn's length, `ROUNDS` (3) their number, `DIRECTORY` where the files are (the system's
//! temporary directory; it should be on the disk that is of interest).
#![allow(clippy::print_stdout, reason = "printing the figures is what this program is for")]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use menagerie::storage::file::DiskFiles;
use menagerie::storage::log::{Durability, LogOptions, SegmentLog};
use protobuf::Message;
use raft::eraftpb::{Entry, HardState};
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Appends between two cuts of the log.
const CUT_EVERY: u64 = 100;
/// Clock ticks of /proc per second, on every Linux that matters.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is appended at once.
struct Load {
    name: &'static str,
    entries: usize,
    entry_bytes: usize,
    retained: u64,
}

const LOADS: [Load; 4] = [
    Load {
        name: "1 x 200 B",
        entries: 1,
        entry_bytes: 200,
        retained: 50_000,
    },
    Load {
        name: "16 x 200 B",
        entries: 16,
        entry_bytes: 200,
        retained: 50_000,
    },
    Load {
        name: "256 x 200 B",
        entries: 256,
        entry_bytes: 200,
        retained: 50_000,
    },
    Load {
        name: "1 x 1 MiB",
        entries: 1,
        entry_bytes: 1 << 20,
        retained: 64,
    },
];

trait Store {
    fn append(&mut self, entries: &[Entry], hard_state: &HardState) -> Outcome<()>;
    fn cut_below(&mut self, index: u64) -> Outcome<()>;
}

type Opener = fn(&Path) -> Outcome<Box<dyn Store>>;

const STORES: [(&str, Opener); 3] = [
    ("segments", open_segments),
    ("fjall", open_fjall),
    ("raft-engine", open_raft_engine),
];

struct Segments(SegmentLog);

fn open_segments(directory: &Path) -> Outcome<Box<dyn Store>> {
    let mut random = Random(directory.as_os_str().len() as u64 + 5);
    let options = LogOptions::new(Box::new(move || random.next()));
    let (log, _) = SegmentLog::open(DiskFiles::shared(), directory, options)?;
    Ok(Box::new(Segments(log)))
}

impl Store for Segments {
    fn append(&mut self, entries: &[Entry], hard_state: &HardState) -> Outcome<()> {
        Ok(self.0.append(entries, Some(hard_state), Durability::Now)?)
    }

    fn cut_below(&mut self, index: u64) -> Outcome<()> {
        Ok(self.0.purge_below(index)?)
    }
}

struct FjallLog {
    database: Database,
    entries: Keyspace,
    state: Keyspace,
    first: u64,
}

fn open_fjall(directory: &Path) -> Outcome<Box<dyn Store>> {
    let database = Database::builder(directory)
        .worker_threads(1)
        .manual_journal_persist(true)
        .open()?;
    let entries = database.keyspace("entries", KeyspaceCreateOptions::default)?;
    let state = database.keyspace("state", KeyspaceCreateOptions::default)?;
    Ok(Box::new(FjallLog {
        database,
        entries,
        state,
        first: 1,
    }))
}

impl Store for FjallLog {
    fn append(&mut self, entries: &[Entry], hard_state: &HardState) -> Outcome<()> {
        let batch = OwnedWriteBatch::with_capacity(self.database.clone(), entries.len() + 1);
        let mut batch = batch.durability(Some(PersistMode::SyncData));
        for entry in entries {
            batch.insert(&self.entries, entry.index.to_be_bytes(), entry.write_to_bytes()?);
        }
        batch.insert(&self.state, "hard state", hard_state.write_to_bytes()?);
        Ok(batch.commit()?)
    }

    fn cut_below(&mut self, index: u64) -> Outcome<()> {
        let mut batch = OwnedWriteBatch::with_capacity(self.database.clone(), (index - self.first) as usize);
        for gone in self.first..index {
            batch.remove(&self.entries, gone.to_be_bytes());
        }
        self.first = index;
        Ok(batch.commit()?)
    }
}

#[derive(Clone)]
struct EntryIndex;

impl MessageExt for EntryIndex {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

struct RaftEngine {
    engine: Engine,
    batch: LogBatch,
}

const REGION: u64 = 1;

fn open_raft_engine(directory: &Path) -> Outcome<Box<dyn Store>> {
    let config = Config {
        dir: directory.to_string_lossy().into_owned(),
        target_file_size: ReadableSize::mb(64),
        purge_threshold: ReadableSize::mb(256),
        enable_log_recycle: true,
        // The payload is random: compressing it would only cost.
        batch_compression_threshold: ReadableSize::kb(0),
        ..Config::default()
    };
    Ok(Box::new(RaftEngine {
        engine: Engine::open(config)?,
        batch: LogBatch::default(),
    }))
}

impl Store for RaftEngine {
    fn append(&mut self, entries: &[Entry], hard_state: &HardState) -> Outcome<()> {
        self.batch.add_entries::<EntryIndex>(REGION, entries)?;
        self.batch.put_message(REGION, b"hard state".to_vec(), hard_state)?;
        self.engine.write(&mut self.batch, true)?;
        Ok(())
    }

    fn cut_below(&mut self, index: u64) -> Outcome<()> {
        self.engine.compact_to(REGION, index);
        self.engine.purge_expired_files()?;
        Ok(())
    }
}

/// xorshift: random enough that nothing compresses it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// The figures of one turn.
#[derive(Clone, Copy)]
struct Figures {
    appends_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    cpu_us: f64,
    longest_cut_us: f64,
}

/// User and system time of this process.
fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the process may hold spaces; what follows its bracket does not.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let (user, system): (f64, f64) = (fields[11].parse()?, fields[12].parse()?);
    Ok((user + system) / TICKS_PER_SECOND)
}

fn turn(open: Opener, load: &Load, place: &Path, length: Duration) -> Outcome<Figures> {
    let directory = tempfile::tempdir_in(place)?;
    let mut store = open(directory.path())?;
    let mut random = Random(42);
    let payloads: Vec<bytes::Bytes> = (0..load.entries.max(8))
        .map(|_| random.bytes(load.entry_bytes).into())
        .collect();
    let (mut next, mut appends, mut longest_cut) = (1, 0, Duration::ZERO);
    let mut latencies = Vec::new();
    let (mut started, mut cpu_before) = (Instant::now(), cpu_seconds()?);
    // The first third is for warming up: files grow to their size, fjall has something to flush.
    let warm = length / 3;
    let mut is_warm = false;
    loop {
        if !is_warm && started.elapsed() >= warm {
            is_warm = true;
            latencies.clear();
            longest_cut = Duration::ZERO;
            (started, cpu_before) = (Instant::now(), cpu_seconds()?);
        }
        if is_warm && started.elapsed() >= length {
            break;
        }
        let entry = |number: usize| Entry {
            index: next + number as u64,
            term: 1,
            data: payloads[(appends as usize + number) % payloads.len()].clone(),
            ..Entry::default()
        };
        let entries: Vec<Entry> = (0..load.entries).map(entry).collect();
        let hard_state = HardState {
            term: 1,
            vote: 1,
            commit: next - 1,
            ..HardState::default()
        };
        let before = Instant::now();
        store.append(&entries, &hard_state)?;
        latencies.push(before.elapsed());
        next += load.entries as u64;
        appends += 1;
        if appends % CUT_EVERY == 0 && next > load.retained {
            let before = Instant::now();
            store.cut_below(next - load.retained)?;
            longest_cut = longest_cut.max(before.elapsed());
        }
    }
    let elapsed = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds()? - cpu_before;
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    let count = latencies.len() as f64;
    Ok(Figures {
        appends_per_second: count / elapsed,
        p50_us: at(0.5),
        p99_us: at(0.99),
        max_us: at(1.0),
        cpu_us: cpu * 1e6 / count,
        longest_cut_us: longest_cut.as_secs_f64() * 1e6,
    })
}

fn median(rounds: &[Figures], figure: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(figure).collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How long a server would wait for its log at a start.
fn print_opening_times(place: &Path) -> Outcome<()> {
    let directory = tempfile::tempdir_in(place)?;
    let before = Instant::now();
    let mut store = open_segments(directory.path())?;
    println!(
        "\nsegments: a new log opens in {:.1} ms",
        before.elapsed().as_secs_f64() * 1e3
    );
    let data: bytes::Bytes = Random(3).bytes(200).into();
    for first in (1..=500_000u64).step_by(256) {
        let entry = |index| Entry {
            index,
            term: 1,
            data: data.clone(),
            ..Entry::default()
        };
        store.append(
            &(first..first + 256).map(entry).collect::<Vec<_>>(),
            &HardState::default(),
        )?;
    }
    drop(store);
    let before = Instant::now();
    let store = open_segments(directory.path())?;
    println!(
        "segments: 500,000 entries of 200 B are read back in {:.0} ms",
        before.elapsed().as_secs_f64() * 1e3
    );
    drop(store);
    Ok(())
}

fn main() -> Outcome<()> {
    let setting = |name: &str| std::env::var(name).ok();
    let length = setting("SECONDS")
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(1.5);
    let rounds = setting("ROUNDS")
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(3usize)
        .max(1);
    let place = setting("DIRECTORY").map_or_else(std::env::temp_dir, Into::into);
    // cargo passes --bench; whatever is not an option is the word.
    let word = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    println!(
        "{:<12} {:<12} {:>10} {:>12} {:>9} {:>9} {:>9} {:>11} {:>11}",
        "append", "store", "appends/s", "entries/s", "p50 us", "p99 us", "max us", "CPU us/app", "max cut us"
    );
    for load in &LOADS {
        let stores: Vec<_> = STORES.iter().filter(|(name, _)| name.contains(&word)).collect();
        let mut figures = vec![Vec::new(); stores.len()];
        for _ in 0..rounds {
            for ((_, open), figures) in stores.iter().zip(&mut figures) {
                figures.push(turn(*open, load, &place, Duration::from_secs_f64(length))?);
            }
        }
        for ((store, _), figures) in stores.iter().zip(&figures) {
            let appends = median(figures, |figures| figures.appends_per_second);
            println!(
                "{:<12} {:<12} {:>10.0} {:>12.0} {:>9.0} {:>9.0} {:>9.0} {:>11.1} {:>11.0}",
                load.name,
                store,
                appends,
                appends * load.entries as f64,
                median(figures, |figures| figures.p50_us),
                median(figures, |figures| figures.p99_us),
                median(figures, |figures| figures.max_us),
                median(figures, |figures| figures.cpu_us),
                median(figures, |figures| figures.longest_cut_us),
            );
        }
    }
    print_opening_times(&place)
}
