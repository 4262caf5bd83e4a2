//! One client of the fault test: a session that outlives its connections, moves between members, and writes down what
//! it sent and what came back.
//!
//! What can be judged from one session's own view is judged here, at once: order of replies, zxids that never go back,
//! events before data, own ephemerals, sessions that end too early. The rest is for [`super::history`].

use super::checker::{self, Answer, Kind, Request, What};
use super::client::{Connection, Handshake, Reader, Received, Writer};
use super::history::{Abandoned, Append, Disconnect, Fate, History, Moment, Read, Write};
use super::random::Random;
use super::stage::Stage;
use super::wire::{self, Stat};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Registers that all workers share. The last two are written together, by multis only.
pub(crate) const REGISTERS: usize = 6;
/// The first half of the pair.
const PAIR: usize = REGISTERS - 2;
/// Below what the members allow, and far above what any fault takes: no session expires but those left to.
pub(crate) const SESSION_TIMEOUT_MS: i32 = 15_000;

/// Requests that are sent before the first reply is read.
const BURST: u64 = 6;
/// Between two bursts: the machine is shared, and a history of hundreds of thousands of requests is enough.
const PAUSE: Duration = Duration::from_millis(8);
/// A client looks up this often while it waits for a reply.
const POLL: Duration = Duration::from_millis(200);
/// A member that has fallen silent is given up after this, if something was done to it.
const SUSPECT_PATIENCE: Duration = Duration::from_millis(1500);
/// Nothing that was done explains a silence of this length.
const PATIENCE: Duration = Duration::from_secs(60);
/// A nap without a connection; the session must survive it.
const LONGEST_NAP_MS: u64 = 6_000;
/// Ephemerals of one session at a time.
const EPHEMERALS: usize = 3;

pub(crate) fn register_path(register: usize) -> String {
    format!("/faults/register-{register}")
}

/// What a request was, for when its reply comes, or does not.
enum Asked {
    /// Index into the history's writes.
    Write(usize),
    /// A multi over the pair; index of the first of its two writes.
    Pair(usize),
    Append(usize),
    /// With or without a watch; behind a sync or not.
    Read {
        register: usize,
        invoked: Moment,
        strong: bool,
        watch: bool,
    },
    ReadPair {
        invoked: Moment,
    },
    Sync,
    CreateEphemeral(String),
    DeleteEphemeral(String),
    /// Own, and so it must be there.
    LookFor(String),
    /// Somebody's, and it must not be there.
    LookForGone(String),
    SetWatches,
}

/// The connection ended, or was given up.
struct Ended;

pub(crate) struct Worker<'stage> {
    number: usize,
    random: Random,
    stage: &'stage Stage,
    member: usize,
    session: (i64, Vec<u8>),
    last_sign_of_life: Instant,
    /// Of replies; what ZooKeeper's clients tell a server when they come back.
    last_zxid: i64,
    /// Of events, which may run ahead of the replies.
    event_zxid: i64,
    xid: i32,
    values: u64,
    /// The newest version of each register that this session has seen.
    versions: [i32; REGISTERS],
    /// Armed watches: the znode's mzxid when they were registered.
    watches: BTreeMap<usize, i64>,
    /// Own ephemerals that are there for certain, and those that may be.
    ephemerals: BTreeSet<String>,
    uncertain: BTreeSet<String>,
    /// The number of the open connection in the trace.
    connection: u64,
    history: History,
}

impl<'stage> Worker<'stage> {
    pub(crate) fn new(number: usize, seed: u64, stage: &'stage Stage) -> Self {
        Self {
            number,
            random: Random::new(seed.wrapping_mul(1000) + number as u64),
            stage,
            member: number % stage.members.len(),
            session: (0, Vec::new()),
            last_sign_of_life: Instant::now(),
            last_zxid: 0,
            event_zxid: 0,
            xid: 0,
            values: 0,
            versions: [-1; REGISTERS],
            watches: BTreeMap::new(),
            ephemerals: BTreeSet::new(),
            uncertain: BTreeSet::new(),
            connection: 0,
            history: History::default(),
        }
    }

    fn note(&mut self, at_us: u64, what: What) {
        self.history.trace.push(checker::Event { at_us, what });
    }

    fn now_us(&self) -> u64 {
        self.stage.now() / 1_000
    }

    /// Works until the stage says stop; returns what it has seen. Its session stays open.
    pub(crate) fn work(mut self) -> History {
        let mut connection = None;
        while !self.stage.is_stopping() {
            let mut open = match connection.take() {
                Some(open) => open,
                None => match self.connect() {
                    Some(open) => open,
                    None => continue,
                },
            };
            match self.act(&mut open) {
                Ok(true) => connection = Some(open),
                Ok(false) => {
                    self.note_end(true);
                    open.drop_now();
                    self.history.moves += 1;
                    self.member = self.random.below(self.stage.members.len() as u64) as usize;
                }
                // The members take turns.
                Err(Ended) => self.member = (self.member + 1) % self.stage.members.len(),
            }
            std::thread::sleep(PAUSE);
        }
        for path in std::mem::take(&mut self.ephemerals) {
            self.history.held.insert(path, self.session.0);
        }
        // The session lives on for its timeout: until then its ephemerals must be there, and afterwards not.
        if let Some(open) = connection {
            std::mem::forget(open);
        }
        self.history
    }

    fn violation(&mut self, text: String) {
        self.history.violations.push(format!(
            "{text} (worker {}, session {:#x}, member {}, {:.3} s)",
            self.number,
            self.session.0,
            self.member + 1,
            self.stage.now() as f64 / 1e9
        ));
    }

    /// Opens or resumes the session on the member whose turn it is, or moves on to the next.
    fn connect(&mut self) -> Option<Connection> {
        let welcomed = self.try_connect();
        if welcomed.is_none() {
            self.member = (self.member + 1) % self.stage.members.len();
            std::thread::sleep(Duration::from_millis(20 + self.random.below(60)));
        }
        welcomed
    }

    fn try_connect(&mut self) -> Option<Connection> {
        let asked = self.stage.now();
        let mut connection = Connection::open(self.stage.members[self.member]).ok()?;
        connection.set_patience(SUSPECT_PATIENCE).ok()?;
        let handshake = Handshake {
            last_zxid_seen: self.last_zxid,
            timeout_ms: SESSION_TIMEOUT_MS,
            session_id: self.session.0,
            password: self.session.1.clone(),
            with_read_only_byte: true,
            behind: Vec::new(),
        };
        let asked_at_us = self.now_us();
        let Ok(answer) = connection.shake_hands(&handshake) else {
            self.history.abandoned.push(Abandoned {
                worker: self.number,
                member: self.member,
                asked,
                at: self.stage.now(),
            });
            return None;
        };
        let welcome = answer?;
        if welcome.session_id == 0 || welcome.timeout_ms <= 0 {
            let (now, session) = (self.now_us(), self.session.0);
            self.note(now, What::Expired { session });
            let silent = self.last_sign_of_life.elapsed();
            if silent < Duration::from_millis(SESSION_TIMEOUT_MS as u64) {
                self.violation(format!("NoFalseExpiry: gone after {} ms", silent.as_millis()));
            }
            self.forget_session();
            return None;
        }
        if self.session.0 == 0 {
            self.history.sessions += 1;
        } else if self.session.0 != welcome.session_id {
            let other = welcome.session_id;
            self.violation(format!("EphemeralIffSession: resumed, and got session {other:#x}"));
        }
        self.session = (welcome.session_id, welcome.password);
        self.last_sign_of_life = Instant::now();
        self.connection = self.stage.next_number();
        let opened = What::Opened {
            connection: self.connection,
            server: self.member as u64 + 1,
            session: self.session.0,
            timeout_ms: welcome.timeout_ms as u64,
            asked_at_us,
        };
        let now = self.now_us();
        self.note(now, opened);
        connection.set_patience(POLL).ok()?;
        let mut asked = VecDeque::new();
        if !self.watches.is_empty() {
            let paths: Vec<String> = self.watches.keys().map(|register| register_path(*register)).collect();
            let zxid = self.last_zxid;
            let xid = wire::SET_WATCHES_XID;
            let seen = zxid.max(self.event_zxid);
            for path in &paths {
                self.note_watch_again(path, seen);
            }
            let call = self.note_call(Request::Other);
            connection.send(&wire::request(xid, wire::SET_WATCHES, |body| {
                body.long(zxid);
                body.strings(&paths);
                body.strings(&[]);
                body.strings(&[]);
            }));
            asked.push_back((xid, call, Asked::SetWatches));
        }
        self.take_replies(&mut connection, asked).ok()?;
        Some(connection)
    }

    /// Notes a request that is about to be sent; returns its number.
    fn note_call(&mut self, request: Request) -> u64 {
        let (at_us, connection, call) = (self.now_us(), self.connection, self.stage.next_number());
        self.note(
            at_us,
            What::Called {
                connection,
                call,
                request,
            },
        );
        call
    }

    fn note_reply(&mut self, call: u64, zxid: i64, result: Result<Answer, i32>) {
        let (at_us, connection) = (self.now_us(), self.connection);
        self.note(
            at_us,
            What::Replied {
                connection,
                call,
                zxid,
                result,
            },
        );
    }

    /// The checker knows no setWatches: for it, the watch is set on the new connection, at the zxid that was seen last.
    fn note_watch_again(&mut self, path: &str, zxid: i64) {
        let call = self.note_call(Request::Get {
            path: path.to_owned(),
            watch: true,
        });
        self.note_reply(call, zxid, Ok(Answer::Done));
    }

    fn note_end(&mut self, by_client: bool) {
        let (at_us, connection) = (self.now_us(), self.connection);
        self.note(at_us, What::Ended { connection, by_client });
    }

    /// The session is not ours any more: a new one follows.
    fn forget_session(&mut self) {
        self.session = (0, Vec::new());
        self.uncertain.clear();
        self.ephemerals.clear();
        self.watches.clear();
        // The zxid stays: a client that opens a new session may ask to see no less than before.
    }

    /// One step; returns whether the connection is to be kept.
    fn act(&mut self, connection: &mut Connection) -> Result<bool, Ended> {
        match self.random.below(1000) {
            0..8 => return Ok(false),
            8..10 => {
                // A nap: the connection is dropped by the caller, and the session has to wait.
                std::thread::sleep(Duration::from_millis(self.random.below(LONGEST_NAP_MS)));
                return Ok(false);
            }
            10..12 => {
                self.close(connection)?;
                return Ok(false);
            }
            12 => {
                self.forget_session();
                return Ok(false);
            }
            _ => {}
        }
        let mut asked = VecDeque::new();
        for _ in 0..=self.random.below(BURST) {
            self.ask(connection, &mut asked);
        }
        self.take_replies(connection, asked)?;
        Ok(true)
    }

    fn close(&mut self, connection: &mut Connection) -> Result<(), Ended> {
        self.xid += 1;
        let xid = self.xid;
        let call = self.note_call(Request::Close);
        connection.send(&wire::request(xid, wire::CLOSE, |_| ()));
        let closed = self.receive(connection, xid, 1);
        if let Ok((zxid, error, _)) = &closed {
            self.note_reply(call, *zxid, if *error == 0 { Ok(Answer::Done) } else { Err(*error) });
        }
        let paths: Vec<String> = std::mem::take(&mut self.ephemerals)
            .into_iter()
            .chain(std::mem::take(&mut self.uncertain))
            .collect();
        if closed.is_ok() {
            paths.into_iter().for_each(|path| self.stage.tell_gone(path));
        }
        self.forget_session();
        closed.map(|_| ())
    }

    fn next_value(&mut self) -> u64 {
        self.values += 1;
        (self.number as u64 + 1) * 1_000_000_000 + self.values
    }

    /// Sends one request, or a sync and what is behind it.
    fn ask(&mut self, connection: &mut Connection, asked: &mut VecDeque<(i32, u64, Asked)>) {
        match self.random.below(100) {
            0..26 => {
                let register = self.random.below(PAIR as u64) as usize;
                self.ask_write(connection, asked, register, None);
            }
            26..38 => {
                let register = self.random.below(PAIR as u64) as usize;
                let expected = self.versions[register].max(0);
                self.ask_write(connection, asked, register, Some(expected));
            }
            38..46 => self.ask_pair(connection, asked),
            46..54 => self.ask_append(connection, asked),
            54..74 => {
                let register = self.random.below(REGISTERS as u64) as usize;
                let watch = self.random.percent(30);
                self.ask_read(connection, asked, register, false, watch);
            }
            74..84 => {
                let register = self.random.below(REGISTERS as u64) as usize;
                let invoked = self.stage.now();
                self.send(connection, asked, Asked::Sync, (wire::SYNC, Request::Sync), |body| {
                    body.string(Some("/faults"));
                });
                self.ask_read(connection, asked, register, true, false);
                if let Some((_, _, Asked::Read { invoked: read, .. })) = asked.back_mut() {
                    *read = invoked;
                }
            }
            84..90 => {
                let invoked = self.stage.now();
                self.send(
                    connection,
                    asked,
                    Asked::ReadPair { invoked },
                    (wire::MULTI_READ, Request::Other),
                    |body| {
                        for register in [PAIR, PAIR + 1] {
                            wire::multi_header(body, wire::GET_DATA, false);
                            body.string(Some(&register_path(register)));
                            body.boolean(false);
                        }
                        wire::multi_header(body, -1, true);
                    },
                );
            }
            _ => self.ask_about_ephemerals(connection, asked),
        }
    }

    fn send(
        &mut self,
        connection: &mut Connection,
        asked: &mut VecDeque<(i32, u64, Asked)>,
        entry: Asked,
        (operation, request): (i32, Request),
        body: impl FnOnce(&mut Writer),
    ) {
        self.xid += 1;
        let call = self.note_call(request);
        connection.send(&wire::request(self.xid, operation, body));
        asked.push_back((self.xid, call, entry));
    }

    fn record_write(&mut self, register: usize, value: u64, expected: Option<i32>) -> usize {
        let invoked = self.stage.now();
        self.history.writes.push(Write {
            register,
            value,
            expected,
            invoked,
            fate: Fate::Unknown,
        });
        self.history.writes.len() - 1
    }

    fn ask_write(
        &mut self,
        connection: &mut Connection,
        asked: &mut VecDeque<(i32, u64, Asked)>,
        register: usize,
        expected: Option<i32>,
    ) {
        let value = self.next_value();
        let index = self.record_write(register, value, expected);
        let request = set_request(register, value, expected.unwrap_or(-1));
        self.send(
            connection,
            asked,
            Asked::Write(index),
            (wire::SET_DATA, request),
            |body| {
                body.set(
                    &register_path(register),
                    value.to_string().as_bytes(),
                    expected.unwrap_or(-1),
                );
            },
        );
    }

    fn ask_pair(&mut self, connection: &mut Connection, asked: &mut VecDeque<(i32, u64, Asked)>) {
        let value = self.next_value();
        let index = self.record_write(PAIR, value, None);
        self.record_write(PAIR + 1, value, None);
        let request = Request::Multi(vec![set_request(PAIR, value, -1), set_request(PAIR + 1, value, -1)]);
        self.send(connection, asked, Asked::Pair(index), (wire::MULTI, request), |body| {
            for register in [PAIR, PAIR + 1] {
                wire::multi_header(body, wire::SET_DATA, false);
                body.set(&register_path(register), value.to_string().as_bytes(), -1);
            }
            wire::multi_header(body, -1, true);
        });
    }

    fn ask_append(&mut self, connection: &mut Connection, asked: &mut VecDeque<(i32, u64, Asked)>) {
        let payload = self.next_value().to_string();
        let path = format!("/faults/queue/{payload}-");
        self.history.appends.push(Append {
            payload,
            invoked: self.stage.now(),
            done: None,
        });
        let entry = Asked::Append(self.history.appends.len() - 1);
        let request = create_request(&path, false);
        self.send(connection, asked, entry, (wire::CREATE, request), |body| {
            body.create(&path, b"", wire::SEQUENTIAL);
        });
    }

    fn ask_read(
        &mut self,
        connection: &mut Connection,
        asked: &mut VecDeque<(i32, u64, Asked)>,
        register: usize,
        strong: bool,
        watch: bool,
    ) {
        let entry = Asked::Read {
            register,
            invoked: self.stage.now(),
            strong,
            watch,
        };
        let path = register_path(register);
        self.send(
            connection,
            asked,
            entry,
            (wire::GET_DATA, Request::Get { path, watch }),
            |body| {
                body.string(Some(&register_path(register)));
                body.boolean(watch);
            },
        );
    }

    fn ask_about_ephemerals(&mut self, connection: &mut Connection, asked: &mut VecDeque<(i32, u64, Asked)>) {
        let own = self.ephemerals.iter().next().cloned();
        match (self.random.below(4), own) {
            (0, _) if self.ephemerals.len() + self.uncertain.len() < EPHEMERALS => {
                let path = format!("/faults/ephemerals/{}", self.next_value());
                self.uncertain.insert(path.clone());
                let request = create_request(&path, true);
                self.send(
                    connection,
                    asked,
                    Asked::CreateEphemeral(path.clone()),
                    (wire::CREATE, request),
                    |body| {
                        body.create(&path, b"", wire::EPHEMERAL);
                    },
                );
            }
            (1, Some(path)) => {
                self.ephemerals.remove(&path);
                self.uncertain.insert(path.clone());
                let request = Request::Delete {
                    path: path.clone(),
                    version: -1,
                };
                self.send(
                    connection,
                    asked,
                    Asked::DeleteEphemeral(path.clone()),
                    (wire::DELETE, request),
                    |body| {
                        body.string(Some(&path));
                        body.int(-1);
                    },
                );
            }
            (2, Some(path)) => self.look_for(connection, asked, path.clone(), Asked::LookFor(path)),
            _ => {
                if let Some(path) = self.stage.a_gone_path(self.random.next()) {
                    self.send(connection, asked, Asked::Sync, (wire::SYNC, Request::Sync), |body| {
                        body.string(Some("/faults"));
                    });
                    self.look_for(connection, asked, path.clone(), Asked::LookForGone(path));
                }
            }
        }
    }

    fn look_for(
        &mut self,
        connection: &mut Connection,
        asked: &mut VecDeque<(i32, u64, Asked)>,
        path: String,
        entry: Asked,
    ) {
        let request = Request::Exists {
            path: path.clone(),
            watch: false,
        };
        self.send(connection, asked, entry, (wire::EXISTS, request), |body| {
            body.string(Some(&path));
            body.boolean(false);
        });
    }

    /// Reads the replies to everything that was asked; what is not answered has an unknown outcome.
    fn take_replies(
        &mut self,
        connection: &mut Connection,
        mut asked: VecDeque<(i32, u64, Asked)>,
    ) -> Result<(), Ended> {
        while let Some((xid, call, entry)) = asked.pop_front() {
            let (zxid, error, body) = self.receive(connection, xid, asked.len() + 1)?;
            self.note_reply(call, zxid, answer(&entry, error, &body));
            self.learn(entry, error, &body);
        }
        Ok(())
    }

    /// The reply to `xid`: its error code and body. Events that come first are taken.
    fn receive(&mut self, connection: &mut Connection, xid: i32, pending: usize) -> Result<(i64, i32, Vec<u8>), Ended> {
        let waiting = Instant::now();
        loop {
            let frame = match connection.receive() {
                Received::Frame(frame) => frame,
                Received::Closed => return Err(self.disconnected("closed", pending)),
                Received::Silence => {
                    let waited = waiting.elapsed();
                    if self.stage.is_suspect(self.member) && waited > SUSPECT_PATIENCE {
                        return Err(self.disconnected("silent", pending));
                    }
                    if waited > PATIENCE {
                        self.violation(format!("no answer for {} s", PATIENCE.as_secs()));
                        return Err(self.disconnected("silent without a cause", pending));
                    }
                    continue;
                }
            };
            self.last_sign_of_life = Instant::now();
            let mut reader = Reader::new(&frame);
            let Ok((got, zxid, error)) = wire::header(&mut reader) else {
                self.violation("a reply without a header".to_owned());
                return Err(self.disconnected("malformed", pending));
            };
            if got == wire::EVENT_XID {
                self.take_event(&mut reader, zxid);
                continue;
            }
            if got != xid {
                self.violation(format!("SessionOrder: reply to {got} where {xid} is due"));
                return Err(self.disconnected("out of order", pending));
            }
            if zxid > 0 && zxid < self.last_zxid {
                let last = self.last_zxid;
                self.violation(format!("SessionOrder: zxid {zxid:#x} after {last:#x}"));
            }
            self.last_zxid = self.last_zxid.max(zxid);
            self.history.answered += 1;
            return Ok((zxid, error, frame[16..].to_vec()));
        }
    }

    fn disconnected(&mut self, reason: &'static str, pending: usize) -> Ended {
        self.note_end(false);
        self.history.disconnects.push(Disconnect {
            worker: self.number,
            member: self.member,
            at: self.stage.now(),
            pending,
            reason,
        });
        Ended
    }

    /// Only data watches are set, on registers.
    fn take_event(&mut self, reader: &mut Reader<'_>, zxid: i64) {
        self.history.events += 1;
        self.event_zxid = self.event_zxid.max(zxid);
        let event = wire::event(reader);
        let register = event
            .as_ref()
            .ok()
            .and_then(|(_, path)| path.strip_prefix("/faults/register-")?.parse().ok());
        match (event, register) {
            (Ok((wire::DATA_CHANGED, path)), Some(register)) => {
                let (at_us, connection, kind) = (self.now_us(), self.connection, Kind::DataChanged);
                self.note(
                    at_us,
                    What::Fired {
                        connection,
                        zxid,
                        kind,
                        path,
                    },
                );
                if self.watches.remove(&register).is_none() {
                    self.violation(format!(
                        "WatchComplete: an event (zxid {zxid:#x}) for register {register} without a watch"
                    ));
                }
            }
            (event, _) => self.violation(format!("WatchComplete: an unexpected event: {event:?}")),
        }
    }

    fn learn(&mut self, asked: Asked, error: i32, body: &[u8]) {
        let now = self.stage.now();
        let mut reader = Reader::new(body);
        match (asked, error) {
            (Asked::Write(index), 0) => {
                if let Some(stat) = self.parsed(wire::stat(&mut reader)) {
                    self.written(index, &stat, now);
                }
            }
            (Asked::Write(index), wire::BAD_VERSION) if self.history.writes[index].expected.is_some() => {
                self.history.writes[index].fate = Fate::Refused;
                let register = self.history.writes[index].register;
                // Somebody was faster: the next attempt reads first.
                self.versions[register] = self.versions[register].max(0);
            }
            (Asked::Pair(index), 0) => {
                if let Some(stats) = self.parsed(wire::multi_stats(&mut reader)) {
                    let versions: BTreeSet<i32> = stats.iter().map(|stat| stat.version).collect();
                    if stats.len() != 2 || versions.len() != 1 {
                        self.violation(format!("Atomic: a multi over the pair made versions {versions:?}"));
                    }
                    for (offset, stat) in stats.iter().enumerate().take(2) {
                        self.seen(PAIR + offset, stat.version);
                        // Both halves have one zxid; it is told once.
                        let mzxid = stat.mzxid * 2 + offset as i64;
                        self.history.writes[index + offset].fate = Fate::Done {
                            returned: now,
                            version: stat.version,
                            mzxid,
                        };
                    }
                }
            }
            (Asked::Append(index), 0) => {
                if let Some(path) = self.parsed(reader.string("path")) {
                    let path = path.unwrap_or_default();
                    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                    self.history.appends[index].done = Some((now, name));
                }
            }
            (
                Asked::Read {
                    register,
                    invoked,
                    strong,
                    watch,
                },
                0,
            ) => {
                if let Some((data, stat)) = self.parsed(wire::data(&mut reader)) {
                    self.shown(register, &data, &stat, invoked, now, strong);
                    if watch {
                        self.watches.entry(register).or_insert(stat.mzxid);
                    }
                }
            }
            (Asked::ReadPair { invoked }, 0) => {
                if let Some(halves) = self.parsed(wire::multi_data(&mut reader)) {
                    if halves.len() != 2 || halves[0].0 != halves[1].0 || halves[0].1.version != halves[1].1.version {
                        self.violation(format!("Atomic: the halves of the pair differ: {halves:?}"));
                    }
                    for (offset, (data, stat)) in halves.iter().enumerate().take(2) {
                        self.shown(PAIR + offset, data, stat, invoked, now, false);
                    }
                }
            }
            (Asked::Sync | Asked::SetWatches, 0) => {}
            (Asked::CreateEphemeral(path), 0) => {
                self.uncertain.remove(&path);
                self.ephemerals.insert(path);
            }
            (Asked::DeleteEphemeral(path), 0) => {
                self.uncertain.remove(&path);
                self.stage.tell_gone(path);
            }
            (Asked::LookFor(_), 0) => {}
            (Asked::LookForGone(_), wire::NO_NODE) => {}
            (Asked::LookForGone(path), 0) => {
                self.violation(format!(
                    "EphemeralIffSession: {path} is there after its end was acknowledged"
                ));
            }
            (Asked::LookFor(path), wire::NO_NODE) => {
                // Deleted by a request behind this one in the burst, it would still be there: requests keep their order.
                self.violation(format!("EphemeralIffSession: {path} is gone, its session lives"));
            }
            (asked, error) => self.violation(format!("TruthfulError: {error} to {}", name(&asked))),
        }
    }

    fn parsed<T>(&mut self, value: Result<T, super::client::Malformed>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(malformed) => {
                self.violation(format!("a malformed reply: {}", malformed.0));
                None
            }
        }
    }

    fn written(&mut self, index: usize, stat: &Stat, now: Moment) {
        let register = self.history.writes[index].register;
        self.seen(register, stat.version);
        self.history.writes[index].fate = Fate::Done {
            returned: now,
            version: stat.version,
            mzxid: stat.mzxid * 2,
        };
    }

    /// A session never sees a register go back, its own writes included.
    fn seen(&mut self, register: usize, version: i32) {
        if version < self.versions[register] {
            let last = self.versions[register];
            self.violation(format!(
                "SessionOrder: version {version} of register {register} after {last}"
            ));
        }
        self.versions[register] = version;
    }

    fn shown(&mut self, register: usize, data: &[u8], stat: &Stat, invoked: Moment, returned: Moment, strong: bool) {
        self.seen(register, stat.version);
        if let Some(armed) = self.watches.get(&register)
            && stat.mzxid > *armed
        {
            let armed = *armed;
            self.violation(format!(
                "EventBeforeData: register {register} shows mzxid {:#x}, its watch was set at {armed:#x} and no event came",
                stat.mzxid
            ));
            self.watches.remove(&register);
        }
        let value = std::str::from_utf8(data).ok().and_then(|text| text.parse().ok());
        let offset = i64::from(register == PAIR + 1);
        self.history.reads.push(Read {
            register,
            value,
            version: stat.version,
            mzxid: stat.mzxid * 2 + offset,
            invoked,
            returned,
            strong,
        });
    }
}

fn set_request(register: usize, value: u64, version: i32) -> Request {
    Request::Set {
        path: register_path(register),
        value: value.to_string().into_bytes(),
        version,
    }
}

/// All that are created are either ephemeral or sequential, and hold nothing.
fn create_request(path: &str, ephemeral: bool) -> Request {
    Request::Create {
        path: path.to_owned(),
        value: Vec::new(),
        ephemeral,
        sequential: !ephemeral,
    }
}

/// A reply for the checker. One that cannot be read says nothing there; `learn` complains of it.
fn answer(asked: &Asked, error: i32, body: &[u8]) -> Result<Answer, i32> {
    if error != 0 {
        return Err(error);
    }
    let mut reader = Reader::new(body);
    let told = match asked {
        Asked::Write(_) | Asked::LookFor(_) | Asked::LookForGone(_) => {
            wire::stat(&mut reader).ok().map(|stat| Answer::Stat(stat.into()))
        }
        Asked::Pair(_) => wire::multi_stats(&mut reader).ok().map(|stats| {
            let each = stats.into_iter().map(|stat| Ok(Answer::Stat(stat.into())));
            Answer::Multi(each.collect())
        }),
        Asked::Append(_) | Asked::CreateEphemeral(_) => {
            let path = reader.string("path").ok().flatten();
            path.map(Answer::Created)
        }
        Asked::Read { .. } => {
            let read = wire::data(&mut reader).ok();
            read.map(|(data, stat)| Answer::Data(data, stat.into()))
        }
        Asked::ReadPair { .. } | Asked::Sync | Asked::SetWatches | Asked::DeleteEphemeral(_) => None,
    };
    Ok(told.unwrap_or(Answer::Done))
}

fn name(asked: &Asked) -> &'static str {
    match asked {
        Asked::Write(_) => "setData",
        Asked::Pair(_) => "multi",
        Asked::Append(_) => "a sequential create",
        Asked::Read { .. } => "getData",
        Asked::ReadPair { .. } => "multiRead",
        Asked::Sync => "sync",
        Asked::CreateEphemeral(_) => "an ephemeral create",
        Asked::DeleteEphemeral(_) => "a delete",
        Asked::LookFor(_) | Asked::LookForGone(_) => "exists",
        Asked::SetWatches => "setWatches",
    }
}
