//! Watch events, as a client gets them: a frame with xid -1.

use super::jute::{Encode, Text};
use super::{ReplyHeader, Xid, Zxid};
use bytes::{Bytes, BytesMut};

/// The state that every event of a server carries: SyncConnected. The other states are made by clients.
const STATE_SYNC_CONNECTED: i32 = 3;

/// What happened to a znode. Numbers are those of Apache's `Watcher.Event.EventType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum EventKind {
    /// It was created.
    Created = 1,
    /// It was deleted.
    Deleted = 2,
    /// Its data was set.
    DataChanged = 3,
    /// A child of it was created or deleted.
    ChildrenChanged = 4,
}

/// One event on one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// What happened.
    pub kind: EventKind,
    /// To which znode.
    pub path: Text,
}

impl WatchEvent {
    /// The whole frame, length included, ready for the socket. `zxid` is that of the change that fired the watch, or -1
    /// for events that setWatches makes up for what a client missed.
    pub fn to_frame(&self, zxid: Zxid) -> Bytes {
        let mut out = BytesMut::with_capacity(4 + ReplyHeader::BYTES + 12 + self.path.len());
        self.encode_frame(zxid, &mut out);
        out.freeze()
    }

    /// Appends the whole frame to `out`.
    pub fn encode_frame(&self, zxid: Zxid, out: &mut BytesMut) {
        out.write_count(ReplyHeader::BYTES + 12 + self.path.len());
        ReplyHeader {
            xid: Xid::EVENT,
            zxid,
            error: None,
        }
        .encode(out);
        out.write_int(self.kind as i32);
        out.write_int(STATE_SYNC_CONNECTED);
        out.write_text(&self.path);
    }
}
