//! A disk that stands still: a leader whose log does not get on is no leader, and hands over while it still can.
//!
//! Appends go to the followers at once, so they can elect another with everything in it; here nothing is applied until the
//! disk answers, and sessions would die of it.

/// When no append has become durable for so long although some wait, the disk stands still, µs. Far above what a
/// busy disk takes, and below what makes sessions expire.
const STANDS_STILL_US: u64 = 1_000_000;

/// Leadership is given away at most so often because of this, µs: if the disks of all members stall, passing it around
/// makes nothing better.
const AGAIN_US: u64 = 30_000_000;

/// What the driver remembers of its log.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// The last append that was durable at the last look.
    persisted: u64,
    /// Since when it has been, while others wait, µs.
    since_us: Option<u64>,
    /// When it was last told, µs.
    told_us: Option<u64>,
}

impl Stall {
    /// Looks at how far the log is; true when it has begun to stand still.
    pub(super) fn begins(&mut self, now_us: u64, appended: u64, persisted: u64) -> bool {
        if appended == persisted || self.persisted != persisted {
            self.since_us = None;
        }
        self.persisted = persisted;
        if appended == persisted {
            return false;
        }
        let since_us = *self.since_us.get_or_insert(now_us);
        let is_told = self.told_us.is_some_and(|told_us| now_us < told_us + AGAIN_US);
        if is_told || now_us - since_us < STANDS_STILL_US {
            return false;
        }
        self.told_us = Some(now_us);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_stands_still_is_told_once_and_a_slow_or_idle_one_is_not() {
        let mut stall = Stall::default();
        let mut looks = |script: &[(u64, u64, u64, bool)]| {
            for (now_ms, appended, persisted, begins) in script {
                let found = stall.begins(now_ms * 1000, *appended, *persisted);
                assert_eq!(found, *begins, "at {now_ms} ms");
            }
        };
        // Idle for long, then busy and moving, however slowly.
        looks(&[(0, 5, 5, false), (60_000, 5, 5, false), (60_100, 6, 5, false)]);
        looks(&[(61_000, 9, 6, false), (61_900, 9, 7, false), (62_800, 9, 8, false)]);
        // It stands still.
        looks(&[(63_700, 9, 8, false), (63_800, 9, 8, true), (63_900, 9, 8, false)]);
        looks(&[(70_000, 9, 9, false), (70_100, 11, 9, false)]);
        // Again, but too soon; and when it still does, after a while.
        looks(&[(72_000, 11, 9, false), (93_700, 11, 9, false), (93_900, 11, 9, true)]);
    }
}
