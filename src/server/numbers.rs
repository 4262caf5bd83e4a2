//! Numbers of one connection, for operators.

use crate::proto::{Xid, Zxid};

/// Numbers of one connection, for `cons`.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionNumbers {
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
    /// Op code of the last request answered; `None` before any.
    pub last_op: Option<i32>,
    /// xid of the last request answered; -1 before any.
    pub last_xid: i32,
    /// zxid of the last reply; -1 before any.
    pub last_zxid: i64,
    /// When the last reply was queued: monotonic, µs.
    pub last_reply_us: u64,
    /// Latency of the last reply, µs.
    pub last_latency_us: u64,
    /// Least latency, µs.
    pub min_latency_us: u64,
    /// Sum of all latencies, µs.
    pub sum_latency_us: u64,
    /// Greatest latency, µs.
    pub max_latency_us: u64,
    /// Requests answered.
    pub answered: u64,
}

impl Default for ConnectionNumbers {
    fn default() -> Self {
        ConnectionNumbers {
            received: 0,
            sent: 0,
            last_op: None,
            last_xid: -1,
            last_zxid: -1,
            last_reply_us: 0,
            last_latency_us: 0,
            min_latency_us: 0,
            sum_latency_us: 0,
            max_latency_us: 0,
            answered: 0,
        }
    }
}

impl ConnectionNumbers {
    /// Begins to count anew.
    pub(super) fn reset(&mut self) {
        *self = ConnectionNumbers::default();
    }

    pub(super) fn count(&mut self, op: i32, xid: Xid, zxid: Zxid, now_us: u64, latency_us: u64) {
        self.sent += 1;
        self.last_op = Some(op);
        if xid.0 >= 0 {
            self.last_xid = xid.0;
        }
        self.last_zxid = zxid.0;
        self.last_reply_us = now_us;
        self.last_latency_us = latency_us;
        self.min_latency_us = if self.answered == 0 {
            latency_us
        } else {
            self.min_latency_us.min(latency_us)
        };
        self.max_latency_us = self.max_latency_us.max(latency_us);
        self.sum_latency_us += latency_us;
        self.answered += 1;
    }
}
