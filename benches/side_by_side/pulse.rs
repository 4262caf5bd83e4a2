//! What other clients notice: a few sessions that go on asking at a fixed pace, on threads of their own, while something
//! else happens to the server.
//!
//! An open loop: a request falls due when it falls due, and its latency counts from then.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::fleet::Fleet;
use crate::load::{Kind, RowLoad, UntilToldTo};
use crate::measure::Sample;
use crate::recorder::{Beat, Plan, latencies};

/// Sessions of each kind, and what each may have in flight before the next request waits with its time running.
const SESSIONS: u32 = 10;
const DEPTH: u32 = 16;

/// Sessions that ask until they are told to stop.
#[derive(Debug)]
pub(crate) struct Pulse {
    threads: Vec<JoinHandle<Result<Vec<Beat>, String>>>,
    ended: Arc<AtomicBool>,
}

impl Pulse {
    /// Opens the sessions and begins: of each kind so many requests per second in all.
    ///
    /// # Errors
    /// A session that is not opened.
    pub(crate) fn start(addresses: &[SocketAddr], kinds: &[(Kind, u32)]) -> Result<Self, String> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (kind, per_second) in kinds {
            let mut fleet = Fleet::open(addresses, SESSIONS, DEPTH)?;
            let (ended, per_second) = (ended.clone(), *per_second);
            let mut load = UntilToldTo {
                load: RowLoad::new(*kind, 0),
                ended,
            };
            threads.push(std::thread::spawn(move || {
                let run = fleet.run(&mut load, Some(per_second), Plan::Beside, &|| Sample::take(&[]))?;
                fleet.close()?;
                Ok(run.each)
            }));
        }
        Ok(Self { threads, ended })
    }

    /// Ends it; returns what each kind noticed, in the order of the kinds.
    ///
    /// # Errors
    /// A session that was answered wrongly or not at all.
    pub(crate) fn stop(self) -> Result<Vec<Beats>, String> {
        self.ended.store(true, Ordering::Relaxed);
        let noticed = self.threads.into_iter().map(|thread| {
            let beats = thread.join().map_err(|_| "a pulse's thread has panicked".to_owned())?;
            beats.map(Beats)
        });
        noticed
            .collect::<Result<_, String>>()
            .map_err(|error| format!("beside: {error}"))
    }
}

/// What one kind of request noticed.
#[derive(Debug)]
pub(crate) struct Beats(Vec<Beat>);

impl Beats {
    /// The latencies of requests that were under way at any moment of these spans of time.
    pub(crate) fn within(&self, spans: &[(Instant, Instant)]) -> Histogram<u32> {
        let mut histogram = latencies();
        for beat in &self.0 {
            let meets = |(from, to): &(Instant, Instant)| beat.due < *to && beat.answered > *from;
            if spans.iter().any(meets) {
                let latency: Duration = beat.answered.saturating_duration_since(beat.due);
                histogram.saturating_record(latency.as_nanos() as u64);
            }
        }
        histogram
    }
}

pub(crate) fn percentile_ms(histogram: &Histogram<u32>, percentile: f64) -> f64 {
    histogram.value_at_percentile(percentile) as f64 / 1e6
}

pub(crate) fn slowest_ms(histogram: &Histogram<u32>) -> f64 {
    histogram.max() as f64 / 1e6
}
