//! Which log lines were written a moment ago: a peer that does not fit tries again every second.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Complaints remembered at most. Beyond it all are forgotten, and may be told again too early.
const REMEMBERED: usize = 1024;

/// Whom a complaint is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum About {
    Server(u64),
    /// Somebody who has not said who he is.
    Address(IpAddr),
}

/// The complaints of the last moments, and until when they are not told again.
#[derive(Default)]
pub(super) struct Complaints {
    told: Mutex<HashMap<(About, &'static str), Instant>>,
}

impl Complaints {
    /// Whether this is to be told now; if so, not again for `interval`.
    pub(super) fn is_due(&self, about: About, what: &'static str, interval: Duration) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock();
        if told.get(&(about, what)).is_some_and(|until| now < *until) {
            return false;
        }
        if told.len() >= REMEMBERED {
            told.retain(|_, until| now < *until);
        }
        if told.len() >= REMEMBERED {
            told.clear();
        }
        told.insert((about, what), now + interval);
        true
    }

    /// The server is well: whatever is wrong next is told at once.
    pub(super) fn forget(&self, server: u64) {
        self.told.lock().retain(|(about, _), _| *about != About::Server(server));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_same_complaint_is_told_once() {
        let complaints = Complaints::default();
        assert!(complaints.is_due(About::Server(1), "a", HOUR));
        assert!(!complaints.is_due(About::Server(1), "a", HOUR));
        assert!(complaints.is_due(About::Server(1), "b", HOUR));
        assert!(complaints.is_due(About::Server(2), "a", HOUR));
        complaints.forget(1);
        assert!(complaints.is_due(About::Server(1), "a", HOUR));
        assert!(!complaints.is_due(About::Server(2), "a", HOUR));
    }

    #[test]
    fn after_the_interval_it_is_told_again() {
        let complaints = Complaints::default();
        assert!(complaints.is_due(About::Server(1), "a", Duration::ZERO));
        assert!(complaints.is_due(About::Server(1), "a", Duration::ZERO));
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let complaints = Complaints::default();
        for address in 0..3 * REMEMBERED as u32 {
            complaints.is_due(About::Address(IpAddr::from(address.to_be_bytes())), "a", HOUR);
        }
        assert!(complaints.told.lock().len() <= REMEMBERED);
    }
}
