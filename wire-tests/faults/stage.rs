//! What workers and nemesis share: where the members are, which of them is being tormented, and when to stop.

use super::history::Moment;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// The scene of one run.
pub(crate) struct Stage {
    /// The members' client ports.
    pub(crate) members: Vec<SocketAddr>,
    /// Members that may fall silent: a client does not wait for them for long.
    suspect: Vec<AtomicBool>,
    stopping: AtomicBool,
    /// Numbers that are given once: to connections and calls.
    numbers: AtomicU64,
    epoch: Instant,
    /// Ephemerals whose deletion, or whose session's end, was acknowledged: nobody may see them again.
    gone: Mutex<Vec<String>>,
}

/// So many of the paths that are gone are remembered, for other workers to look for.
const GONE_LIMIT: usize = 64;

impl Stage {
    pub(crate) fn new(members: Vec<SocketAddr>) -> Self {
        let suspect = members.iter().map(|_| AtomicBool::new(false)).collect();
        Self {
            members,
            suspect,
            stopping: AtomicBool::new(false),
            numbers: AtomicU64::new(1),
            epoch: Instant::now(),
            gone: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        u64::try_from(self.epoch.elapsed().as_nanos()).expect("a run is shorter than centuries")
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn suspect(&self, member: usize, suspect: bool) {
        self.suspect[member].store(suspect, Ordering::SeqCst);
    }

    pub(crate) fn is_suspect(&self, member: usize) -> bool {
        self.suspect[member].load(Ordering::SeqCst)
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The path is gone for good, and everybody may know.
    pub(crate) fn tell_gone(&self, path: String) {
        let mut gone = self.gone.lock().expect("no worker panics while it holds this");
        if gone.len() == GONE_LIMIT {
            gone.remove(0);
        }
        gone.push(path);
    }

    /// One of the paths that are gone, by any number.
    pub(crate) fn a_gone_path(&self, number: u64) -> Option<String> {
        let gone = self.gone.lock().expect("no worker panics while it holds this");
        if gone.is_empty() {
            return None;
        }
        gone.get(number as usize % gone.len()).cloned()
    }
}
