//! Numbers that must not be swapped get a type each.

use std::fmt;

/// The id of a session: server id in the top byte, the rest from the clock of the server that made it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

/// The number that a client gives its request; the reply carries it back. Negative ones are reserved ([`Xid::PING`]…).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(pub i32);

/// The number of an applied command, +1 for each, failed ones included. One 64-bit counter; neither a raft index nor a
/// term. Signed, as it is on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid(pub i64);

impl Xid {
    /// Watch events, which answer no request.
    pub const EVENT: Xid = Xid(-1);
    /// Ping requests and their replies.
    pub const PING: Xid = Xid(-2);
    /// Auth packets and their replies.
    pub const AUTH: Xid = Xid(-4);
    /// setWatches and setWatches2 and their replies.
    pub const SET_WATCHES: Xid = Xid(-8);
}

impl Zxid {
    /// Before any command.
    pub const ZERO: Zxid = Zxid(0);

    /// The zxid of the command after this one.
    #[must_use]
    pub fn next(self) -> Zxid {
        Zxid(self.0 + 1)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}
