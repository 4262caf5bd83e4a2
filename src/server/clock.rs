//! The one place that looks at clocks; everything behind it gets the time as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall time, and time since the server started.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(super) fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Since the server started, µs; never goes back.
    pub fn now_us(self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Since 1970, ms: for stamps, never for deadlines.
    pub fn wall_ms(self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}
