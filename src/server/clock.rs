//! The one place that looks at clocks; everything behind it gets the time as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall time, and time since the server started.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// The machine's.
    Machine { start: Instant },
    /// A simulation's.
    #[cfg(test)]
    Simulated(std::sync::Arc<SimulatedTime>),
}

/// What a simulation says the time is.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct SimulatedTime {
    /// Since the server started, µs.
    pub now_us: std::sync::atomic::AtomicU64,
    /// Since 1970, ms.
    pub wall_ms: std::sync::atomic::AtomicI64,
}

impl Clock {
    /// A clock that starts now.
    pub(super) fn start() -> Clock {
        Clock {
            source: Source::Machine { start: Instant::now() },
        }
    }

    /// A clock that shows what a simulation says.
    #[cfg(test)]
    pub fn simulated(time: std::sync::Arc<SimulatedTime>) -> Clock {
        Clock {
            source: Source::Simulated(time),
        }
    }

    /// Since the server started, µs; never goes back.
    pub fn now_us(&self) -> u64 {
        match &self.source {
            Source::Machine { start } => u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
            #[cfg(test)]
            Source::Simulated(time) => time.now_us.load(std::sync::atomic::Ordering::Relaxed),
        }
    }

    /// Since 1970, ms: for stamps, never for deadlines.
    pub fn wall_ms(&self) -> i64 {
        match &self.source {
            Source::Machine { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
            #[cfg(test)]
            Source::Simulated(time) => time.wall_ms.load(std::sync::atomic::Ordering::Relaxed),
        }
    }
}
