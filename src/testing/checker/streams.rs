//! One pass through the history in time: the order of replies and events within connections, sessions, and between all
//! writes; and the fate of sessions.

use super::{Call, Event, Expectations, Promise, Request, SessionFate, Summary, Violation, What, violated};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Malformed requests are refused before they become commands, and have no zxid of their own.
const MARSHALLING_ERROR: i32 = -5;

/// What the pass has gathered.
pub(super) struct Streams {
    /// All calls, in the order of their times.
    pub(super) calls: Vec<Call>,
    /// Where each call stands among them.
    pub(super) positions: HashMap<u64, usize>,
    pub(super) sessions: BTreeMap<i64, SessionFate>,
    pub(super) summary: Summary,
}

struct Connection {
    server: u64,
    session: i64,
    waiting: VecDeque<u64>,
    /// The greatest zxid of a reply.
    replied: i64,
    synced_at_us: u64,
}

struct Reader<'a> {
    streams: Streams,
    expectations: Expectations,
    connections: HashMap<u64, Connection>,
    /// The greatest zxid that anybody has seen.
    seen: i64,
    /// Commands by their zxids.
    commands: HashMap<i64, u64>,
    down: HashSet<u64>,
    digests: HashMap<i64, (u64, u64)>,
    violations: &'a mut Vec<Violation>,
}

/// Reads the history.
pub(super) fn read(history: &[Event], expectations: Expectations, violations: &mut Vec<Violation>) -> Streams {
    let mut reader = Reader {
        streams: Streams {
            calls: Vec::new(),
            positions: HashMap::new(),
            sessions: BTreeMap::new(),
            summary: Summary::default(),
        },
        expectations,
        connections: HashMap::new(),
        seen: 0,
        commands: HashMap::new(),
        down: HashSet::new(),
        digests: HashMap::new(),
        violations,
    };
    for event in history {
        reader.event(event);
    }
    let mut streams = reader.streams;
    streams.summary.unknown = streams
        .calls
        .iter()
        .filter(|call| call.request.is_write() && call.reply.is_none())
        .count();
    streams
}

impl Reader<'_> {
    fn violated(&mut self, promise: Promise, text: String) {
        violated(self.violations, promise, text);
    }

    fn event(&mut self, event: &Event) {
        match &event.what {
            What::Opened {
                connection,
                server,
                session,
                timeout_ms,
                asked_at_us,
            } => {
                let fate = self.streams.sessions.entry(*session).or_default();
                fate.timeout_ms = *timeout_ms;
                fate.last_sign_us = fate.last_sign_us.max(*asked_at_us);
                if fate.expired_at_us.is_some_and(|at_us| at_us < *asked_at_us) {
                    let text = format!("session {session:#x} is resumed after it was gone, on connection {connection}");
                    self.violated(Promise::EphemeralIffSession, text);
                }
                if self.streams.sessions.get(session).is_some_and(|fate| fate.is_overdue) {
                    let text = format!(
                        "session {session:#x} is resumed on connection {connection}, after a silence much longer than its timeout"
                    );
                    self.violated(Promise::EphemeralIffSession, text);
                }
                self.connections.insert(
                    *connection,
                    Connection {
                        server: *server,
                        session: *session,
                        waiting: VecDeque::new(),
                        replied: 0,
                        synced_at_us: 0,
                    },
                );
            }
            What::Overdue { session } => self.streams.sessions.entry(*session).or_default().is_overdue = true,
            What::Expired { session } => self.expired(*session, event.at_us),
            What::Ended { connection, by_client } => self.ended(*connection, *by_client, event.at_us),
            What::Called {
                connection,
                call,
                request,
            } => self.called(*connection, *call, request, event.at_us),
            What::Replied {
                connection, call, zxid, ..
            } => self.replied(*connection, *call, *zxid, event),
            What::Fired {
                connection,
                zxid,
                kind,
                path,
            } => {
                self.streams.summary.events += 1;
                let replied = self.connections.get(connection).map_or(0, |known| known.replied);
                if *zxid > 0 && *zxid <= replied {
                    let text = format!(
                        "{kind:?} {path} of zxid {zxid:#x} came on connection {connection} at {} after a reply of zxid \
                         {replied:#x}",
                        event.at_us
                    );
                    self.violated(Promise::EventBeforeData, text);
                }
                self.seen = self.seen.max(*zxid);
                let session = self.connections.get(connection).map(|known| known.session);
                if let Some(fate) = session.and_then(|session| self.streams.sessions.get_mut(&session)) {
                    fate.last_zxid = fate.last_zxid.max(*zxid);
                }
            }
            What::Digest { server, zxid, digest } => self.digest(*server, *zxid, *digest),
            What::Down(server) => drop(self.down.insert(*server)),
            What::Up(server) => drop(self.down.remove(server)),
        }
    }

    fn digest(&mut self, server: u64, zxid: i64, digest: u64) {
        let (first, known) = *self.digests.entry(zxid).or_insert((server, digest));
        if first == server && known == digest {
            return;
        }
        self.streams.summary.digests += 1;
        if known != digest {
            let text = format!(
                "at zxid {zxid:#x} server {first} had the digest {known:#x} and server {server} {digest:#x}: they have \
                 applied different commands"
            );
            self.violated(Promise::TotalOrder, text);
        }
    }

    fn expired(&mut self, session: i64, at_us: u64) {
        self.streams.summary.expired += 1;
        let drift = self.expectations.drift_per_mille;
        let fate = self.streams.sessions.entry(session).or_default();
        fate.expired_at_us.get_or_insert(at_us);
        let silent_ms = at_us.saturating_sub(fate.last_sign_us) / 1000;
        let due_ms = fate.timeout_ms - fate.timeout_ms * drift / 1000;
        if !fate.is_closing && silent_ms < due_ms {
            let text = format!(
                "session {session:#x} is gone at {at_us} after {silent_ms} ms without a sign of life, its timeout is {} ms",
                fate.timeout_ms
            );
            self.violated(Promise::NoFalseExpiry, text);
        }
    }

    fn ended(&mut self, connection: u64, by_client: bool, at_us: u64) {
        let Some(known) = self.connections.get(&connection) else {
            return;
        };
        let (server, session) = (known.server, known.session);
        let fate = self.streams.sessions.get(&session);
        let is_over = fate.is_some_and(|fate| fate.is_closing || fate.expired_at_us.is_some());
        if self.expectations.only_deaths && !by_client && !self.down.contains(&server) && !is_over {
            let text = format!("server {server} lives, and has ended connection {connection} at {at_us}");
            self.violated(Promise::NoReconnectOnFailover, text);
        }
    }

    fn called(&mut self, connection: u64, call: u64, request: &Request, at_us: u64) {
        let Some(known) = self.connections.get_mut(&connection) else {
            return;
        };
        known.waiting.push_back(call);
        if *request == Request::Close {
            self.streams.sessions.entry(known.session).or_default().is_closing = true;
        }
        self.streams.positions.insert(call, self.streams.calls.len());
        self.streams.calls.push(Call {
            connection,
            session: known.session,
            called_at_us: at_us,
            request: request.clone(),
            reply: None,
            seen_before: self.seen,
            synced_at_us: known.synced_at_us,
        });
    }

    fn replied(&mut self, connection: u64, call: u64, zxid: i64, event: &Event) {
        let What::Replied { result, .. } = &event.what else {
            return;
        };
        let (Some(known), Some(&position)) = (self.connections.get_mut(&connection), self.streams.positions.get(&call))
        else {
            return;
        };
        let expected = known.waiting.pop_front();
        if expected != Some(call) {
            known.waiting.retain(|waiting| *waiting != call);
        }
        let is_command = {
            let called = &self.streams.calls[position];
            called.request.is_write() && result.as_ref().err() != Some(&MARSHALLING_ERROR)
        };
        let called = &mut self.streams.calls[position];
        called.reply = Some((zxid, result.clone()));
        let called = called.clone();
        if called.request == Request::Sync && result.is_ok() {
            known.synced_at_us = called.called_at_us;
        }
        known.replied = known.replied.max(zxid);
        let least = self.fate_after_reply(&called, zxid, is_command, result.is_ok());
        self.streams.summary.answered += 1;
        self.streams.summary.acknowledged += usize::from(is_command && result.is_ok());
        if expected != Some(call) {
            let text = format!("connection {connection} got the reply to call {call} where {expected:?} was due");
            self.violated(Promise::SessionOrder, text);
        }
        if zxid > 0 {
            self.check_zxid(&called, zxid, least, is_command);
        }
        if is_command && zxid > 0 {
            let first = *self.commands.entry(zxid).or_insert(call);
            if first != call {
                let text = format!(
                    "the writes {first} ({:?}) and {call} ({:?}) were answered with the same zxid {zxid:#x}: one was lost",
                    self.streams.calls[self.streams.positions[&first]].request, called.request
                );
                self.violated(Promise::Durable, text);
            }
        }
        self.seen = self.seen.max(zxid);
    }

    /// Notes what the reply says of the session; gives the least zxid that the reply may have. The event of a session's own
    /// write has come before the reply, and has its zxid.
    fn fate_after_reply(&mut self, call: &Call, zxid: i64, is_command: bool, succeeded: bool) -> i64 {
        let fate = self.streams.sessions.entry(call.session).or_default();
        let least = fate.last_zxid.max(fate.replied + i64::from(is_command));
        fate.last_zxid = fate.last_zxid.max(zxid);
        fate.replied = fate.replied.max(zxid);
        if is_command && call.request == Request::Close && succeeded {
            fate.closed_at = Some(zxid);
        } else if is_command {
            fate.alive_at = fate.alive_at.max(zxid);
        }
        // A reply to a ping may come from a server that nobody hears.
        if self.expectations.signs_arrive || is_command {
            fate.last_sign_us = fate.last_sign_us.max(call.called_at_us);
        }
        least
    }

    fn check_zxid(&mut self, call: &Call, zxid: i64, least: i64, is_command: bool) {
        let Call {
            session,
            connection,
            request,
            ..
        } = call;
        if zxid < least {
            let text = format!(
                "after what session {session:#x} had seen, {request:?} on connection {connection} must be answered with the \
                 zxid {least:#x} at least, and was with {zxid:#x}"
            );
            self.violated(Promise::SessionOrder, text);
        } else if is_command && zxid <= call.seen_before {
            let text = format!(
                "{request:?} on connection {connection} has the zxid {zxid:#x}, though {:#x} had been seen before it was \
                 called",
                call.seen_before
            );
            self.violated(Promise::Linear, text);
        } else if zxid < call.seen_before
            && (*request == Request::Sync || self.expectations.linearizable_reads && request.is_read())
        {
            let text = format!(
                "{request:?} on connection {connection} was answered at zxid {zxid:#x}, though {:#x} had been seen before it \
                 was called",
                call.seen_before
            );
            self.violated(Promise::Linear, text);
        }
    }
}
