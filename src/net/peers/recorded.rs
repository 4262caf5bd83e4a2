//! The metrics of the links: handles made once, when the links are started.

use metrics::{Counter, counter};

/// Handles.
pub(super) struct Recorded {
    /// Links that have come up, counted by the dialler.
    pub(super) links: Counter,
    pub(super) messages_sent: Counter,
    pub(super) bytes_sent: Counter,
    pub(super) messages_received: Counter,
    pub(super) bytes_received: Counter,
    /// Messages that did not find a place, or waited when their link broke.
    pub(super) messages_dropped: Counter,
    /// Hellos that did not fit, on either side.
    pub(super) hellos_refused: Counter,
    pub(super) frames_damaged: Counter,
}

impl Recorded {
    pub(super) fn new() -> Recorded {
        Recorded {
            links: counter!("peer_links_established"),
            messages_sent: counter!("peer_messages_sent"),
            bytes_sent: counter!("peer_bytes_sent"),
            messages_received: counter!("peer_messages_received"),
            bytes_received: counter!("peer_bytes_received"),
            messages_dropped: counter!("peer_messages_dropped"),
            hellos_refused: counter!("peer_hellos_refused"),
            frames_damaged: counter!("peer_frames_damaged"),
        }
    }
}
