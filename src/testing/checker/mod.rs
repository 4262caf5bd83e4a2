//! Judges what clients have seen of an ensemble: every promise of the design by its name.
//!
//! ```text
//!   history ──▶ streams    one pass in time: order within connections and sessions, and between writes
//!           ──▶ timeline   what each znode was at each zxid, by what was acknowledged or shown
//!           ──▶ facts      every answer against it
//!           ──▶ watches    every event against it, and every event that should have been
//! ```
//!
//! Every reply carries its zxid, so the order of all commands is given and the checks take one pass. But a server that
//! lies about zxids would fool such a check; therefore the order of acknowledged writes in real time is checked apart: a
//! write that began after something was seen must have a greater zxid than that.
//!
//! What was not answered may have happened or not. Its values tell: each value is written by one request only, so whoever
//! reads it pins the request to its zxid, and with it all parts of a multi.
//!
//! Nothing but `std` is used, and nothing of the server: the fault test with real processes includes this folder by its
//! path.
//!
//! Left out on purpose: rights (`Authorised`) and limits (`Bounded`), which have tests of their own.

mod facts;
mod streams;
#[cfg(test)]
mod tests;
mod timeline;
mod watches;

use std::fmt;

/// What the design promises, as far as a history can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// What was acknowledged or shown is never lost.
    Durable,
    /// All members apply the same commands in the same order.
    TotalOrder,
    /// Writes are linearizable, and so is a read behind a sync.
    Linear,
    /// Replies leave in request order, and a session never goes back.
    SessionOrder,
    /// An event comes before any reply that shows its change.
    EventBeforeData,
    /// A watch fires if and only if something has changed.
    WatchComplete,
    /// Ephemerals exist exactly as long as their session.
    EphemeralIffSession,
    /// No session expires that gave signs of life.
    NoFalseExpiry,
    /// A multi happens whole or not at all.
    Atomic,
    /// An error says what was so.
    TruthfulError,
    /// The death of a leader is hidden, and repeats nothing.
    NoReconnectOnFailover,
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// What was seen, in words.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {}", self.promise, self.text)
    }
}

/// A znode's Stat, as far as it is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The zxid that created it.
    pub czxid: i64,
    /// The zxid that set its data last.
    pub mzxid: i64,
    /// How often its data was set.
    pub version: i32,
    /// The session of an ephemeral; 0 for others.
    pub owner: i64,
}

/// What a client asks for. Values must be unique in the whole history, or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A znode is to be created.
    Create {
        /// Where; the server appends a number to a sequential one.
        path: String,
        /// Its data.
        value: Vec<u8>,
        /// Whether it is to go with its session.
        ephemeral: bool,
        /// Whether a number is to be appended.
        sequential: bool,
    },
    /// Its data is to be set.
    Set {
        /// Where.
        path: String,
        /// The data.
        value: Vec<u8>,
        /// The version that it must have; -1 for any.
        version: i32,
    },
    /// It is to be removed.
    Delete {
        /// Where.
        path: String,
        /// The version that it must have; -1 for any.
        version: i32,
    },
    /// Within a multi: it must have this version.
    Check {
        /// Where.
        path: String,
        /// The version; -1 for any.
        version: i32,
    },
    /// All of these, or none.
    Multi(Vec<Request>),
    /// Its data and Stat.
    Get {
        /// Where.
        path: String,
        /// Whether a watch is registered.
        watch: bool,
    },
    /// Its Stat.
    Exists {
        /// Where.
        path: String,
        /// Whether a watch is registered.
        watch: bool,
    },
    /// The names of its children.
    Children {
        /// Where.
        path: String,
        /// Whether a watch is registered.
        watch: bool,
    },
    /// A watch that stays.
    AddWatch {
        /// Where.
        path: String,
        /// Whether it is for everything below, too.
        recursive: bool,
    },
    /// What follows is to be up to date.
    Sync,
    /// A sign of life.
    Ping,
    /// The session is to end.
    Close,
    /// Something that is not judged, but has its place in the order of replies.
    Other,
}

impl Request {
    /// Whether it asks for what is there.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Request::Get { .. } | Request::Exists { .. } | Request::Children { .. }
        )
    }

    /// Whether it is a command of the log, with a zxid of its own.
    pub fn is_write(&self) -> bool {
        matches!(
            self,
            Request::Create { .. } | Request::Set { .. } | Request::Delete { .. } | Request::Multi(_) | Request::Close
        )
    }
}

/// What it is answered, if it succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing to be judged.
    Done,
    /// Create: where.
    Created(String),
    /// Set, exists.
    Stat(Stat),
    /// Get.
    Data(Vec<u8>, Stat),
    /// Children.
    Names(Vec<String>),
    /// Multi: one for each part; errors if it failed.
    Multi(Vec<Result<Answer, i32>>),
}

/// What has happened to a watched znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It was created.
    Created,
    /// It was removed.
    Deleted,
    /// Its data was set.
    DataChanged,
    /// It has got or lost a child.
    ChildrenChanged,
}

/// Something that was seen, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// By one clock for the whole history, µs.
    pub at_us: u64,
    /// What.
    pub what: What,
}

/// Something that was seen. Connections and calls are numbered by whoever records, each number once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A connection has a session.
    Opened {
        /// The connection.
        connection: u64,
        /// With which server.
        server: u64,
        /// Its session.
        session: i64,
        /// The session's timeout, ms.
        timeout_ms: u64,
        /// When the client asked for it, µs.
        asked_at_us: u64,
    },
    /// A server says that a session is gone.
    Expired {
        /// Which.
        session: i64,
    },
    /// No server has any reason to keep this session any longer: its client has been silent for much longer than its timeout,
    /// and one leader has counted all that time.
    Overdue {
        /// Which.
        session: i64,
    },
    /// A connection is over.
    Ended {
        /// Which.
        connection: u64,
        /// Whether the client has ended it.
        by_client: bool,
    },
    /// A client asks for something.
    Called {
        /// On which connection.
        connection: u64,
        /// Its number.
        call: u64,
        /// For what.
        request: Request,
    },
    /// It is answered.
    Replied {
        /// On which connection.
        connection: u64,
        /// What is answered.
        call: u64,
        /// The zxid of the reply.
        zxid: i64,
        /// The answer, or ZooKeeper's error code.
        result: Result<Answer, i32>,
    },
    /// A watch event has come.
    Fired {
        /// On which connection.
        connection: u64,
        /// The zxid of its change; -1 if it was made up for what was missed.
        zxid: i64,
        /// What has happened.
        kind: Kind,
        /// To what.
        path: String,
    },
    /// A member's state had this digest at this zxid.
    Digest {
        /// The member.
        server: u64,
        /// When.
        zxid: i64,
        /// What.
        digest: u64,
    },
    /// A server was killed, or has stopped.
    Down(u64),
    /// It was started again.
    Up(u64),
}

/// What the circumstances allow to be expected.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expectations {
    /// Servers do nothing worse than die, a minority at a time: no connection with a living one may end.
    pub only_deaths: bool,
    /// The servers' networks were whole: a sign of life that was answered has reached the ensemble.
    pub signs_arrive: bool,
    /// Every read is as one behind a sync.
    pub linearizable_reads: bool,
    /// Servers' clocks may run so many thousandths faster than the history's.
    pub drift_per_mille: u64,
}

/// How much was judged: a history in which nothing happens proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Requests that were answered.
    pub answered: usize,
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Writes that were never answered.
    pub unknown: usize,
    /// Events.
    pub events: usize,
    /// Members' digests that were compared with another one's.
    pub digests: usize,
    /// Sessions that have expired.
    pub expired: usize,
}

impl Summary {
    /// Takes another one's counts along.
    pub fn add(&mut self, other: &Summary) {
        self.answered += other.answered;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.events += other.events;
        self.digests += other.digests;
        self.expired += other.expired;
    }
}

/// A request, and what became of it.
#[derive(Clone, Debug)]
struct Call {
    connection: u64,
    session: i64,
    called_at_us: u64,
    request: Request,
    /// The zxid and the answer.
    reply: Option<(i64, Result<Answer, i32>)>,
    /// The greatest zxid that any client had seen when it was called.
    seen_before: i64,
    /// When the last sync that was answered before on this connection was called; 0 if none was.
    synced_at_us: u64,
}

/// What a session is known to have come to.
#[derive(Clone, Debug, Default)]
struct SessionFate {
    timeout_ms: u64,
    /// The greatest zxid that the session has seen.
    last_zxid: i64,
    /// The greatest one of a reply to it.
    replied: i64,
    /// The zxid of the last write that was done for it: the session was there then.
    alive_at: i64,
    /// Whether it was asked to end.
    is_closing: bool,
    /// The zxid that closed it.
    closed_at: Option<i64>,
    /// When somebody was told that it is gone.
    expired_at_us: Option<u64>,
    /// Whether it must be gone by now.
    is_overdue: bool,
    /// The last moment that is sure to lie before a sign of life of it.
    last_sign_us: u64,
}

/// Judges a history, whose events stand in the order of their times.
///
/// # Errors
/// All promises that were not kept, the plainest first.
pub fn check(history: &[Event], expectations: Expectations) -> Result<Summary, Vec<Violation>> {
    let mut violations = Vec::new();
    let streams = streams::read(history, expectations, &mut violations);
    let timeline = timeline::build(history, &streams, &mut violations);
    facts::check(&streams, &timeline, &mut violations);
    watches::check(history, &streams, &timeline, &mut violations);
    if violations.is_empty() {
        Ok(streams.summary)
    } else {
        Err(violations)
    }
}

fn violated(violations: &mut Vec<Violation>, promise: Promise, text: String) {
    violations.push(Violation { promise, text });
}
