//! The load driver: a fleet of sessions on one thread over one epoll, each with a fixed number of requests in flight.
//!
//! Every session checks that its replies come in the order of its requests, without error and of the right size; the
//! first that is not ends the row with a message. All that one read brought is answered by one write, as a pipelining
//! client does. The driver's cost per operation is part of every result, because it shares the server's cores.
//!
//! Without a pace it is a closed loop: a session asks again when it is answered. Latencies are those that such a client
//! sees; a stall of the server shows as one long reply per request in flight, and in the worst second, not as a queue of
//! requests that were never sent. With a pace it is an open loop: requests fall due at a fixed rate, whoever waits; one
//! that finds every session's depth used up is sent later, and its latency counts from when it was due.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::load::{Load, Place};
use crate::measure::Sample;
use crate::recorder::{Plan, Recorder, Run};
use crate::wire::{self, op};

/// Asked for by every session: beyond any row, so that nothing here needs pings.
pub(crate) const SESSION_TIMEOUT_MS: i32 = 600_000;
/// A server that answers nothing for so long has failed the row.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// What one read takes at most; the rest stays in the socket until the other sessions had their turn.
const READ_BYTES: usize = 256 << 10;
/// Readiness events taken from epoll at a time.
const EVENTS_PER_POLL: usize = 1024;

/// How long the driver waits for readiness at most: phases change in time.
const TURN: Duration = Duration::from_millis(20);
/// The longest that the driver sleeps while a reply may come and the next request is due in less than epoll can count.
const NAP: Duration = Duration::from_micros(100);

/// When the requests of an open loop fall due.
#[derive(Debug)]
struct Schedule {
    started: Instant,
    per_second: u32,
    /// Requests that have been asked.
    asked: u64,
}

impl Schedule {
    /// Reckoned from the start, so that rounding does not add up.
    fn due(&self) -> Instant {
        let nanoseconds = u128::from(self.asked) * 1_000_000_000 / u128::from(self.per_second);
        self.started + Duration::from_nanos(nanoseconds as u64)
    }
}

/// Sessions that are open on one server or spread over the members of an ensemble, ready to run a load.
#[derive(Debug)]
pub(crate) struct Fleet {
    poll: Poll,
    sessions: Vec<Session>,
    depth: u32,
    scratch: Vec<u8>,
    /// The session that an open loop asks next, if it is free.
    turn: usize,
}

#[derive(Debug)]
struct Session {
    stream: TcpStream,
    place: Place,
    /// Bytes of a frame whose end has not arrived.
    partial: Vec<u8>,
    out: Vec<u8>,
    written_bytes: usize,
    /// When the request with an xid was written, at the xid modulo the length (a power of two, at least the depth).
    sent: Box<[Instant]>,
    next_xid: i32,
    next_reply: i32,
}

impl Fleet {
    /// Opens `sessions` sessions, in turn on each of the addresses; each will keep `depth` requests in flight.
    ///
    /// # Errors
    /// A connection that fails or a handshake that is refused.
    pub(crate) fn open(addresses: &[SocketAddr], sessions: u32, depth: u32) -> Result<Self, String> {
        let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        let mut fleet = Vec::with_capacity(sessions as usize);
        for (index, stream) in open_sessions(addresses, sessions)?.into_iter().enumerate() {
            fleet.push(Session::register(stream, index as u32, depth, &poll).map_err(|error| error.to_string())?);
        }
        Ok(Self {
            poll,
            sessions: fleet,
            depth,
            scratch: vec![0; READ_BYTES],
            turn: 0,
        })
    }

    /// Runs `load` as `plan` says, then waits for the replies that are still due. With a `pace`, so many requests per
    /// second fall due in all.
    ///
    /// # Errors
    /// A connection that fails or stalls, a reply out of order, with an error, or of the wrong size.
    pub(crate) fn run(
        &mut self,
        load: &mut dyn Load,
        pace: Option<u32>,
        plan: Plan,
        sample: &dyn Fn() -> Sample,
    ) -> Result<Run, String> {
        let mut recorder = Recorder::new(plan, sample);
        let mut schedule = pace.map(|per_second| Schedule {
            started: Instant::now(),
            per_second,
            asked: 0,
        });
        let mut in_flight = if pace.is_none() { self.ask_all(load)? } else { 0 };
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        let mut asking = true;
        let mut last_reply = Instant::now();
        loop {
            let mut wake = None;
            if let Some(schedule) = schedule.as_mut().filter(|_| asking) {
                if in_flight == 0 {
                    last_reply = Instant::now();
                }
                let asked_before = schedule.asked;
                (wake, asking) = self.ask_what_is_due(schedule, load)?;
                in_flight += schedule.asked - asked_before;
            }
            if in_flight == 0 && !(asking && schedule.is_some()) {
                break;
            }
            wait(&mut self.poll, &mut events, wake)?;
            asking = asking && !recorder.advance(sample);
            for event in &events {
                let session = &mut self.sessions[event.token().0];
                let again = asking && schedule.is_none();
                let (answered, asked) = session.exchange(&mut self.scratch, load, again, &mut recorder)?;
                in_flight = in_flight + asked - answered;
                if answered > 0 {
                    last_reply = Instant::now();
                }
            }
            if last_reply.elapsed() > STALL_LIMIT {
                return Err(format!(
                    "no reply for {} s with {in_flight} requests in flight",
                    STALL_LIMIT.as_secs()
                ));
            }
        }
        Ok(recorder.finish(sample))
    }

    /// The start of a closed loop: every session's whole depth. Returns how many that are.
    fn ask_all(&mut self, load: &mut dyn Load) -> Result<u64, String> {
        let mut asked = 0;
        for session in &mut self.sessions {
            let now = Instant::now();
            asked += (0..self.depth).filter(|_| session.ask(load, now)).count() as u64;
            session.flush()?;
        }
        Ok(asked)
    }

    /// Asks what has fallen due, of the sessions in turn. Returns when the next is due, or nothing if that depends on
    /// replies, and whether there is anything left to ask.
    fn ask_what_is_due(
        &mut self,
        schedule: &mut Schedule,
        load: &mut dyn Load,
    ) -> Result<(Option<Instant>, bool), String> {
        let now = Instant::now();
        while schedule.due() <= now {
            let Some(index) = self.free_session() else {
                return Ok((None, true));
            };
            let session = &mut self.sessions[index];
            if !session.ask(load, schedule.due()) {
                return Ok((None, false));
            }
            session.flush()?;
            schedule.asked += 1;
            self.turn = (index + 1) % self.sessions.len();
        }
        Ok((Some(schedule.due()), true))
    }

    /// The next session in turn that has less than its depth in flight.
    fn free_session(&self) -> Option<usize> {
        let count = self.sessions.len();
        let in_turn = (0..count).map(|step| (self.turn + step) % count);
        in_turn
            .into_iter()
            .find(|index| self.sessions[*index].in_flight() < self.depth)
    }

    /// Closes every session, so that the next row finds a server without them.
    ///
    /// # Errors
    /// A connection that fails before the server has answered.
    pub(crate) fn close(mut self) -> Result<(), String> {
        for session in &mut self.sessions {
            wire::request(&mut session.out, session.next_xid, op::CLOSE_SESSION, |_| ());
            session.flush()?;
        }
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        let mut open = vec![true; self.sessions.len()];
        let started = Instant::now();
        while open.contains(&true) {
            poll_once(&mut self.poll, &mut events)?;
            for event in &events {
                // The reply and the end of the stream may come in one event or in two: either will do.
                let Token(index) = event.token();
                open[index] &= !self.sessions[index].is_answered_or_closed(&mut self.scratch);
            }
            if started.elapsed() > STALL_LIMIT {
                return Err("the server does not answer closeSession".to_owned());
            }
        }
        Ok(())
    }
}

/// Opens so many sessions, in turn on each of the addresses.
///
/// # Errors
/// A connection that fails or a handshake that is refused.
pub(crate) fn open_sessions(addresses: &[SocketAddr], sessions: u32) -> Result<Vec<std::net::TcpStream>, String> {
    let mut streams = Vec::with_capacity(sessions as usize);
    let mut hello = Vec::new();
    wire::connect_request(&mut hello, SESSION_TIMEOUT_MS);
    for (index, address) in (0..sessions).zip(addresses.iter().copied().cycle()) {
        streams.push(connect(index, address, &hello).map_err(|error| format!("connect to {address}: {error}"))?);
    }
    for (index, stream) in streams.iter_mut().enumerate() {
        let answer = wire::read_frame(stream).map_err(|error| format!("handshake {index}: {error}"))?;
        wire::granted_session(&answer).ok_or_else(|| format!("session {index} was refused"))?;
    }
    Ok(streams)
}

/// Sessions from one of the loopback's addresses: Linux has some 28,000 ports for each.
const SESSIONS_PER_ADDRESS: u32 = 20_000;

/// Connects, sends `hello`, and leaves the reading for later, so that the handshakes of a fleet overlap.
fn connect(index: u32, address: SocketAddr, hello: &[u8]) -> io::Result<std::net::TcpStream> {
    let mut stream = if index < SESSIONS_PER_ADDRESS {
        std::net::TcpStream::connect(address)?
    } else {
        let source = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + index / SESSIONS_PER_ADDRESS);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect(&address.into())?;
        socket.into()
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL_LIMIT))?;
    stream.write_all(hello)?;
    Ok(stream)
}

/// Waits for readiness, at most long enough that phases change in time.
pub(crate) fn poll_once(poll: &mut Poll, events: &mut Events) -> Result<(), String> {
    poll_for(poll, events, TURN)
}

fn poll_for(poll: &mut Poll, events: &mut Events, timeout: Duration) -> Result<(), String> {
    match poll.poll(events, Some(timeout)) {
        Err(error) if error.kind() != ErrorKind::Interrupted => Err(format!("epoll: {error}")),
        _ => Ok(()),
    }
}

/// Waits for readiness, until `wake` at most.
fn wait(poll: &mut Poll, events: &mut Events, wake: Option<Instant>) -> Result<(), String> {
    let Some(wake) = wake else {
        return poll_once(poll, events);
    };
    let left = wake.saturating_duration_since(Instant::now());
    if left >= Duration::from_millis(2) {
        return poll_for(poll, events, left.min(TURN));
    }
    // epoll counts in milliseconds and would sleep for too long.
    std::thread::sleep(left.min(NAP));
    poll_for(poll, events, Duration::ZERO)
}

impl Session {
    fn register(stream: std::net::TcpStream, index: u32, depth: u32, poll: &Poll) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        // mio is edge-triggered: writability is told once more only after a write that did not fit.
        poll.registry().register(
            &mut stream,
            Token(index as usize),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok(Self {
            stream,
            place: Place::new(index),
            partial: Vec::new(),
            out: Vec::new(),
            written_bytes: 0,
            sent: vec![Instant::now(); depth.next_power_of_two() as usize].into(),
            next_xid: 1,
            next_reply: 1,
        })
    }

    /// Queues the load's next request; returns whether there was one.
    fn ask(&mut self, load: &mut dyn Load, due: Instant) -> bool {
        if !load.append(&mut self.place, load.xid(self.next_xid), &mut self.out) {
            return false;
        }
        let slot = self.slot(self.next_xid);
        self.sent[slot] = due;
        self.next_xid += 1;
        true
    }

    fn in_flight(&self) -> u32 {
        (self.next_xid - self.next_reply).cast_unsigned()
    }

    fn slot(&self, xid: i32) -> usize {
        xid as usize & (self.sent.len() - 1)
    }

    /// Takes all replies that have arrived and asks as many new requests if `again`; returns both numbers.
    fn exchange(
        &mut self,
        scratch: &mut [u8],
        load: &mut dyn Load,
        again: bool,
        recorder: &mut Recorder,
    ) -> Result<(u64, u64), String> {
        let mut answered = 0;
        loop {
            let received = match self.stream.read(scratch) {
                Ok(0) => return Err(format!("the server closed session {}", self.place.session)),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(format!("session {}: {error}", self.place.session)),
            };
            answered += self.take_replies(&scratch[..received], load, recorder)?;
            // A short read has emptied the socket: no need to be told so by another system call.
            if received < scratch.len() {
                break;
            }
        }
        let now = Instant::now();
        let asked = if again {
            (0..answered).filter(|_| self.ask(load, now)).count() as u64
        } else {
            0
        };
        self.flush()?;
        Ok((answered, asked))
    }

    fn take_replies(&mut self, received: &[u8], load: &dyn Load, recorder: &mut Recorder) -> Result<u64, String> {
        let now = Instant::now();
        let mut partial = std::mem::take(&mut self.partial);
        let bytes = if partial.is_empty() {
            received
        } else {
            partial.extend_from_slice(received);
            &partial
        };
        let (mut consumed, mut answered) = (0, 0);
        while let Some(payload) = wire::first_frame(&bytes[consumed..])? {
            self.check(payload, load)?;
            recorder.record(self.sent[self.slot(self.next_reply)], now);
            self.next_reply += 1;
            answered += 1;
            consumed += 4 + payload.len();
        }
        // A long frame comes in many reads: what there is of it is not moved for each.
        if consumed == 0 && !partial.is_empty() {
            self.partial = partial;
        } else if consumed < bytes.len() {
            self.partial = bytes[consumed..].to_vec();
        }
        Ok(answered)
    }

    fn check(&self, payload: &[u8], load: &dyn Load) -> Result<(), String> {
        let (xid, error) = (wire::i32_at(payload, 0), wire::i32_at(payload, 12));
        let expected = load.xid(self.next_reply);
        if xid != Some(expected) || error != Some(0) || !load.expects(payload) {
            return Err(format!(
                "session {}: expected a good reply to xid {expected}, got xid {xid:?}, error {error:?}, {} bytes",
                self.place.session,
                payload.len()
            ));
        }
        Ok(())
    }

    /// Writes what is queued; what does not fit stays until the socket is writable.
    fn flush(&mut self) -> Result<(), String> {
        while self.written_bytes < self.out.len() {
            match self.stream.write(&self.out[self.written_bytes..]) {
                Ok(written) => self.written_bytes += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("session {}: {error}", self.place.session)),
            }
        }
        self.out.clear();
        self.written_bytes = 0;
        Ok(())
    }

    fn is_answered_or_closed(&mut self, scratch: &mut [u8]) -> bool {
        !matches!(self.stream.read(scratch), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}
