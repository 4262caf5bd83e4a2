//! A leader that is killed, or told to stop, under paced writes: how long nobody's writes are acknowledged and
//! survivors' syncs not answered, which sessions lose their connection, which writes their outcome, and how soon the
//! member serves again.
//!
//! Sessions are spread over all members and behave as ZooKeeper's clients do: one whose connection ends resumes its
//! session on another member. The pace is an open loop, a write every millisecond whoever waits: a stall does not thin
//! the load out. Each session overwrites a znode of its own with a running number, so that at the end the znode's value
//! and version tell whether an acknowledged write was lost, or one was applied twice.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::process::Signal;

use crate::control::Control;
use crate::footprint;
use crate::process::{Contestant, Server};
use crate::sets::Programme;
use crate::syncs::Syncs;
use crate::wire::{self, op};

/// As in the issue that asks for these figures.
const SESSIONS: usize = 60;
const WRITES_PER_S: u32 = 1_000;
/// The Java client's usual timeout.
const TIMEOUT_MS: i32 = 30_000;
/// Under load before the leader is struck, and after it.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(6);
/// Replies that are still due at the end are waited for so long.
const DRAIN: Duration = Duration::from_secs(30);
/// A handshake without an answer is given up: another member may be alive.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(2);
/// Between two attempts of one session to connect.
const PAUSE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);
/// Between a restart and the next stroke.
const REST: Duration = Duration::from_secs(2);
const READ_BYTES: usize = 16 << 10;

/// How the leader is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stroke {
    /// SIGKILL.
    Kill,
    /// SIGTERM, a planned end.
    HandOver,
}

/// What one stroke did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) stroke: Stroke,
    /// The longest time without an acknowledged write from the stroke on.
    pub(crate) gap: Duration,
    /// The longest time that a client on a survivor, which always has a sync in flight, went without an answer.
    pub(crate) sync_gap: Duration,
    /// From the member's start after the stroke to the answer of a sync that was sent to it.
    pub(crate) back: Duration,
    /// The longest time from the sending of a write to its acknowledgement, of those that were acknowledged at once:
    /// on the connection that they were sent on.
    pub(crate) slowest: Duration,
    /// Sessions whose connection ended: those on the leader, and those on the others.
    pub(crate) cut_on_leader: u32,
    pub(crate) cut_on_survivors: u32,
    /// Writes that were sent on a connection which ended before their reply.
    pub(crate) unknown_on_leader: u32,
    pub(crate) unknown_on_survivors: u32,
    /// Sessions that could not be resumed.
    pub(crate) expired: u32,
    /// Error replies.
    pub(crate) errors: u32,
    /// Acknowledged writes that are not there at the end.
    pub(crate) lost: u32,
    /// Writes that were applied more often than they were sent.
    pub(crate) doubled: u32,
    pub(crate) acknowledged: u64,
}

impl Outcome {
    /// What must never happen, whoever serves.
    pub(crate) fn is_broken(&self) -> bool {
        self.lost > 0 || self.doubled > 0
    }
}

/// Strikes a side's leader as often as the programme says, each way.
///
/// # Errors
/// The servers', and a driver that cannot connect at all.
pub(crate) fn run(contestant: &mut Contestant, programme: &Programme) -> Result<Vec<Outcome>, String> {
    let addresses = contestant.addresses();
    if let Some(znodes) = programme.sizes.znodes.first() {
        eprintln!("loading {znodes} znodes into {}", contestant.side.name());
        footprint::fill(addresses[0], *znodes)?;
    }
    let mut outcomes = Vec::new();
    for number in 0..programme.failovers * 2 {
        let stroke = if number % 2 == 0 {
            Stroke::Kill
        } else {
            Stroke::HandOver
        };
        let leader = contestant.leader()?;
        let znodes = prepare(&addresses, number)?;
        let mut crowd = Crowd::open(&addresses, &znodes)?;
        let survivors = (0..addresses.len()).filter(|member| *member != leader);
        let syncs = Syncs::start(&addresses, survivors);
        crowd.drive(BEFORE)?;
        crowd.clear();
        let struck = Instant::now();
        match stroke {
            Stroke::Kill => contestant.members[leader].stop(Signal::KILL)?,
            Stroke::HandOver => {
                contestant.members[leader].signal(Signal::TERM)?;
                Duration::ZERO
            }
        };
        crowd.drive(AFTER)?;
        let sync_gap = syncs.longest_gap(struck)?;
        crowd.drain()?;
        // After SIGTERM it has ended by now, or is waited for.
        contestant.members[leader].reap()?;
        let mut outcome = crowd.judge(stroke, struck, leader, &addresses)?;
        outcome.sync_gap = sync_gap;
        outcome.back = bring_back(&mut contestant.members[leader])?;
        eprintln!("{} {}: {}", contestant.side.name(), number + 1, line(&outcome));
        outcomes.push(outcome);
        std::thread::sleep(REST);
    }
    Ok(outcomes)
}

/// Starts the member again; returns the time from there to the answer of a sync.
fn bring_back(member: &mut Server) -> Result<Duration, String> {
    let started = Instant::now();
    member.start(b"/zookeeper")?;
    let sync = || {
        let mut control = Control::open(member.address, PATIENCE)?;
        control.sync()?;
        let back = started.elapsed();
        control.close()?;
        Ok(back)
    };
    sync().map_err(|error: std::io::Error| format!("a sync after a start: {error}"))
}

fn line(outcome: &Outcome) -> String {
    format!(
        "{:?}: gap {} ms, of syncs {} ms, back after {} ms, slowest {} ms, connections lost {} + {} of survivors, unknown {} + {} of survivors, \
         expired {}, errors {}, lost {}, doubled {}, acknowledged {}",
        outcome.stroke,
        outcome.gap.as_millis(),
        outcome.sync_gap.as_millis(),
        outcome.back.as_millis(),
        outcome.slowest.as_millis(),
        outcome.cut_on_leader,
        outcome.cut_on_survivors,
        outcome.unknown_on_leader,
        outcome.unknown_on_survivors,
        outcome.expired,
        outcome.errors,
        outcome.lost,
        outcome.doubled,
        outcome.acknowledged
    )
}

/// A znode for each session, seen by all members.
fn prepare(addresses: &[SocketAddr], number: u32) -> Result<Vec<Vec<u8>>, String> {
    let root = format!("/failover-{number}").into_bytes();
    let znodes: Vec<Vec<u8>> = (0..SESSIONS)
        .map(|session| format!("/failover-{number}/{session:03}").into_bytes())
        .collect();
    let make = || {
        let mut control = Control::open(addresses[0], PATIENCE)?;
        control.create_all(std::iter::once(root).chain(znodes.iter().cloned()))?;
        control.close()?;
        for address in addresses {
            let mut control = Control::open(*address, PATIENCE)?;
            control.sync()?;
            control.close()?;
        }
        Ok(())
    };
    make().map_err(|error: std::io::Error| format!("preparing znodes: {error}"))?;
    Ok(znodes)
}

/// The sessions, and what they have seen.
struct Crowd {
    poll: Poll,
    addresses: Vec<SocketAddr>,
    clients: Vec<Client>,
    /// When each write was acknowledged, in order.
    acknowledged: Vec<Instant>,
    slowest: Duration,
    next: usize,
    due: Instant,
}

struct Client {
    znode: Vec<u8>,
    /// The member that it is, or will be, connected to; and the one where it began.
    member: usize,
    home: usize,
    line: Option<Line>,
    retry_at: Instant,
    session: (i64, Vec<u8>),
    last_zxid: i64,
    xid: i32,
    /// The last number that was sent, and the last that was acknowledged.
    sent: u32,
    acknowledged: u32,
    acknowledgements: u32,
    cuts: u32,
    unknown: u32,
    expired: u32,
    errors: u32,
}

/// An open connection.
struct Line {
    stream: TcpStream,
    opened: Instant,
    welcomed: bool,
    received: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    /// Writes without a reply: xid, number, time of sending.
    pending: VecDeque<(i32, u32, Instant)>,
}

impl Crowd {
    fn open(addresses: &[SocketAddr], znodes: &[Vec<u8>]) -> Result<Self, String> {
        let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        let now = Instant::now();
        let clients = znodes
            .iter()
            .enumerate()
            .map(|(index, znode)| Client::new(znode.clone(), index % addresses.len(), now))
            .collect();
        let mut crowd = Self {
            poll,
            addresses: addresses.to_vec(),
            clients,
            acknowledged: Vec::new(),
            slowest: Duration::ZERO,
            next: 0,
            due: now,
        };
        // Everybody has a session before the first write.
        let mut events = Events::with_capacity(256);
        while crowd.clients.iter().any(|client| !client.is_welcomed()) {
            if now.elapsed() > PATIENCE {
                return Err("not every session was opened".to_owned());
            }
            crowd.connect_all()?;
            crowd.turn(&mut events)?;
        }
        crowd.due = Instant::now();
        Ok(crowd)
    }

    /// Forgets what was before the stroke, but not what must still be true.
    fn clear(&mut self) {
        self.acknowledged.clear();
        self.slowest = Duration::ZERO;
        for client in &mut self.clients {
            (client.cuts, client.unknown, client.expired, client.errors) = (0, 0, 0, 0);
        }
    }

    /// Writes at the pace for so long.
    fn drive(&mut self, duration: Duration) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.connect_all()?;
            let now = Instant::now();
            while self.due <= now {
                self.due += Duration::from_secs(1) / WRITES_PER_S;
                self.write_one(now);
            }
            self.turn(&mut events)?;
        }
        Ok(())
    }

    /// The next session in turn that is connected writes.
    fn write_one(&mut self, now: Instant) {
        for _ in 0..self.clients.len() {
            self.next = (self.next + 1) % self.clients.len();
            if self.clients[self.next].write(now) {
                return;
            }
        }
    }

    /// Waits for the replies that are due, wherever a connection is left.
    fn drain(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        let end = Instant::now() + DRAIN;
        let settled =
            |client: &Client| client.is_welcomed() && client.line.as_ref().is_some_and(|line| line.pending.is_empty());
        while !self.clients.iter().all(settled) && Instant::now() < end {
            self.connect_all()?;
            self.turn(&mut events)?;
        }
        Ok(())
    }

    fn connect_all(&mut self) -> Result<(), String> {
        let now = Instant::now();
        for (index, client) in self.clients.iter_mut().enumerate() {
            if client.line.is_none() && client.retry_at <= now {
                client.connect(index, self.addresses[client.member], &self.poll)?;
            }
            if let Some(line) = &client.line
                && !line.welcomed
                && line.opened.elapsed() > HANDSHAKE_LIMIT
            {
                client.move_on(self.addresses.len());
            }
        }
        Ok(())
    }

    fn turn(&mut self, events: &mut Events) -> Result<(), String> {
        match self.poll.poll(events, Some(Duration::from_millis(1))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(format!("epoll: {error}")),
            _ => {}
        }
        for event in &*events {
            let Token(index) = event.token();
            let client = &mut self.clients[index];
            if client.exchange(&mut self.acknowledged, &mut self.slowest).is_err() {
                client.move_on(self.addresses.len());
            }
        }
        Ok(())
    }

    fn judge(
        mut self,
        stroke: Stroke,
        struck: Instant,
        leader: usize,
        addresses: &[SocketAddr],
    ) -> Result<Outcome, String> {
        self.acknowledged.insert(0, struck);
        let gap = self
            .acknowledged
            .windows(2)
            .map(|pair| pair[1].saturating_duration_since(pair[0]))
            .max();
        let mut outcome = Outcome {
            stroke,
            gap: gap.unwrap_or(AFTER),
            sync_gap: Duration::ZERO,
            back: Duration::ZERO,
            slowest: self.slowest,
            cut_on_leader: 0,
            cut_on_survivors: 0,
            unknown_on_leader: 0,
            unknown_on_survivors: 0,
            expired: 0,
            errors: 0,
            lost: 0,
            doubled: 0,
            acknowledged: self.acknowledged.len() as u64 - 1,
        };
        let survivor = addresses[(leader + 1) % addresses.len()];
        let mut control = Control::open(survivor, PATIENCE).map_err(|error| error.to_string())?;
        control.sync().map_err(|error| error.to_string())?;
        for client in &self.clients {
            let (cuts, unknown) = if client.home == leader {
                (&mut outcome.cut_on_leader, &mut outcome.unknown_on_leader)
            } else {
                (&mut outcome.cut_on_survivors, &mut outcome.unknown_on_survivors)
            };
            *cuts += u32::from(client.cuts > 0);
            *unknown += client.unknown;
            outcome.expired += client.expired;
            outcome.errors += client.errors;
            let (data, version) = control
                .get_versioned(&client.znode)
                .map_err(|error| error.to_string())?;
            let number = std::str::from_utf8(&data)
                .ok()
                .and_then(|text| text.trim().parse::<u32>().ok());
            let number = number.unwrap_or(0);
            outcome.lost += client.acknowledged.saturating_sub(number);
            outcome.lost += client.acknowledgements.saturating_sub(version);
            outcome.doubled += version.saturating_sub(client.sent);
        }
        // The sessions are left behind: closing them is not what is measured.
        control.close().map_err(|error| error.to_string())?;
        Ok(outcome)
    }
}

impl Client {
    fn new(znode: Vec<u8>, member: usize, now: Instant) -> Self {
        Self {
            znode,
            member,
            home: member,
            line: None,
            retry_at: now,
            session: (0, vec![0; 16]),
            last_zxid: 0,
            xid: 0,
            sent: 0,
            acknowledged: 0,
            acknowledgements: 0,
            cuts: 0,
            unknown: 0,
            expired: 0,
            errors: 0,
        }
    }

    fn is_welcomed(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.welcomed)
    }

    fn connect(&mut self, index: usize, address: SocketAddr, poll: &Poll) -> Result<(), String> {
        let Ok(mut stream) = TcpStream::connect(address) else {
            self.retry_at = Instant::now() + PAUSE;
            return Ok(());
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = poll.registry().register(&mut stream, Token(index), interest);
        registered.map_err(|error| format!("epoll: {error}"))?;
        let mut out = Vec::new();
        wire::resume_request(&mut out, TIMEOUT_MS, self.last_zxid, (self.session.0, &self.session.1));
        self.line = Some(Line {
            stream,
            opened: Instant::now(),
            welcomed: false,
            received: Vec::new(),
            out,
            written: 0,
            pending: VecDeque::new(),
        });
        Ok(())
    }

    /// The connection has ended, or is given up: the next member's turn.
    fn move_on(&mut self, members: usize) {
        if let Some(line) = self.line.take() {
            self.cuts += u32::from(line.welcomed);
            self.unknown += line.pending.len() as u32;
        }
        self.member = (self.member + 1) % members;
        self.retry_at = Instant::now() + PAUSE;
    }

    /// Sends the next number; false without a session.
    fn write(&mut self, now: Instant) -> bool {
        let Some(line) = self.line.as_mut().filter(|line| line.welcomed) else {
            return false;
        };
        self.xid += 1;
        self.sent += 1;
        let number = format!("{:<100}", self.sent);
        wire::request(&mut line.out, self.xid, op::SET_DATA, |out| {
            wire::set_data_body(out, &self.znode, number.as_bytes())
        });
        line.pending.push_back((self.xid, self.sent, now));
        // A connection that has ended shows when it is read.
        let _ = line.flush();
        true
    }

    /// Reads and writes as far as the socket allows.
    fn exchange(&mut self, acknowledged: &mut Vec<Instant>, slowest: &mut Duration) -> Result<(), String> {
        let Some(line) = &mut self.line else { return Ok(()) };
        // The handshake waits for the connection; an error of the connection shows when it is read.
        let _ = line.flush();
        let mut ended = None;
        let mut bytes = [0; READ_BYTES];
        loop {
            match line.stream.read(&mut bytes) {
                Ok(0) => {
                    ended = Some("closed".to_owned());
                    break;
                }
                Ok(count) => line.received.extend_from_slice(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) => {
                    ended = Some(error.to_string());
                    break;
                }
            }
        }
        let mut consumed = 0;
        while let Some(frame) = wire::first_frame(&line.received[consumed..])? {
            consumed += 4 + frame.len();
            if !line.welcomed {
                if wire::granted_session(frame).is_none() {
                    self.session = (0, vec![0; 16]);
                    self.expired += 1;
                    return Err("expired".to_owned());
                }
                let session = wire::i64_at(frame, 8).unwrap_or_default();
                self.session = (session, wire::granted_password(frame).unwrap_or_default().to_vec());
                line.welcomed = true;
                continue;
            }
            let (xid, zxid, error) = (wire::i32_at(frame, 0), wire::i64_at(frame, 4), wire::i32_at(frame, 12));
            let Some((expected, number, sent)) = line.pending.pop_front() else {
                return Err("a reply that nobody asked for".to_owned());
            };
            if xid != Some(expected) {
                return Err("a reply out of order".to_owned());
            }
            self.last_zxid = self.last_zxid.max(zxid.unwrap_or_default());
            if error == Some(0) {
                let now = Instant::now();
                *slowest = (*slowest).max(now - sent);
                acknowledged.push(now);
                self.acknowledged = number;
                self.acknowledgements += 1;
            } else {
                self.errors += 1;
            }
        }
        line.received.drain(..consumed);
        ended.map_or(Ok(()), Err)
    }
}

impl Line {
    fn flush(&mut self) -> Result<(), String> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }
}
