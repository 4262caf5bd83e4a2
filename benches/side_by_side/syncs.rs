//! Clients that read what others have written: each has a sync in flight again as soon as the last was answered, and
//! tells how long it once had to wait for the next.
//!
//! One begins on each of the given members. As a real client, one whose connection ends goes to the next member; it does
//! not resume its session, since that is not what is measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::control::Control;

/// Between an answer and the next sync: the finest gap that is told apart, and what keeps the clients from being a load.
const PAUSE: Duration = Duration::from_millis(2);
/// Between two attempts to connect, as the writers wait.
const BEFORE_NEXT: Duration = Duration::from_millis(50);
/// A handshake or sync that takes longer is given up for another member.
const LIMIT: Duration = Duration::from_secs(2);

/// Clients that sync until they are told to stop.
#[derive(Debug)]
pub(crate) struct Syncs {
    /// Each returns when its syncs were answered.
    threads: Vec<JoinHandle<Vec<Instant>>>,
    ended: Arc<AtomicBool>,
}

impl Syncs {
    /// One client on each of these members; the others are where they go to when they lose it.
    pub(crate) fn start(addresses: &[SocketAddr], members: impl Iterator<Item = usize>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let threads = members.map(|member| {
            let (addresses, ended) = (addresses.to_vec(), ended.clone());
            std::thread::spawn(move || sync_until_told(&addresses, member, &ended))
        });
        let threads = threads.collect();
        Self { threads, ended }
    }

    /// Ends it; returns the longest that any of them went without an answer from `since` to now.
    ///
    /// # Errors
    /// A client that has panicked.
    pub(crate) fn longest_gap(self, since: Instant) -> Result<Duration, String> {
        self.ended.store(true, Ordering::Relaxed);
        let now = Instant::now();
        let mut longest = Duration::ZERO;
        for thread in self.threads {
            let answered = thread.join().map_err(|_| "a syncing client has panicked".to_owned())?;
            let within = answered.into_iter().filter(|answered| (since..now).contains(answered));
            let ends: Vec<Instant> = std::iter::once(since).chain(within).chain([now]).collect();
            let gap = ends.windows(2).map(|pair| pair[1] - pair[0]).max();
            longest = longest.max(gap.unwrap_or_default());
        }
        Ok(longest)
    }
}

fn sync_until_told(addresses: &[SocketAddr], first: usize, ended: &AtomicBool) -> Vec<Instant> {
    let mut answered = Vec::new();
    for attempt in 0.. {
        let address = addresses[(first + attempt) % addresses.len()];
        if let Ok(mut control) = Control::open(address, LIMIT) {
            while !ended.load(Ordering::Relaxed) && control.sync().is_ok() {
                answered.push(Instant::now());
                std::thread::sleep(PAUSE);
            }
            // Its connection may be what has ended.
            let _ = control.close();
        }
        if ended.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(BEFORE_NEXT);
    }
    answered
}
