//! Timing in many short batches, and what the lines share: a generator of numbers, the memory of this process.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// How long each line is measured.
const MEASURED: Duration = Duration::from_millis(700);
/// Operations per batch: short enough that some batches are not interrupted.
pub(crate) const BATCH: usize = 1_000;

/// What is run, and what it took.
pub(crate) struct Bench {
    word: String,
    /// The fastest of each line, in nanoseconds.
    fastest: RefCell<Vec<(String, f64)>>,
}

impl Bench {
    pub(crate) fn new(word: String) -> Self {
        Self {
            word,
            fastest: RefCell::default(),
        }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        name.contains(&self.word)
    }

    /// Whether any line that begins so is wanted: what it needs may take long to make.
    pub(crate) fn wants_some_of(&self, beginning: &str) -> bool {
        beginning.contains(&self.word) || self.word.starts_with(beginning)
    }

    /// What a line took, if it was run.
    pub(crate) fn fastest_ns(&self, name: &str) -> Option<f64> {
        let fastest = self.fastest.borrow();
        fastest.iter().find(|(known, _)| known == name).map(|(_, ns)| *ns)
    }

    /// Times batches of `count` operations each, for a fixed time.
    pub(crate) fn batches(&self, name: &str, count: usize, mut batch: impl FnMut()) {
        self.prepared(name, count, || (), |()| batch());
    }

    /// Likewise; what `prepare` makes for each batch is not timed.
    pub(crate) fn prepared<T>(
        &self,
        name: &str,
        count: usize,
        mut prepare: impl FnMut() -> T,
        mut batch: impl FnMut(T),
    ) {
        if !self.wants(name) {
            return;
        }
        batch(prepare());
        let mut times = Vec::new();
        let started = Instant::now();
        while started.elapsed() < MEASURED || times.len() < 3 {
            let input = prepare();
            let before = Instant::now();
            batch(input);
            times.push(before.elapsed().as_nanos() as f64 / count as f64);
        }
        times.sort_by(f64::total_cmp);
        println!("{name:<58} {:>10.0} {:>10.0}", times[0], times[times.len() / 2]);
        self.fastest.borrow_mut().push((name.to_owned(), times[0]));
    }

    /// Times one operation, in batches.
    pub(crate) fn each(&self, name: &str, mut operation: impl FnMut()) {
        self.batches(name, BATCH, || (0..BATCH).for_each(|_| operation()));
    }
}

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The next of a xorshift sequence, below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

pub(crate) fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}
