//! A simulated client: a session that goes on over many connections, and a worker who uses it.

use super::checker::{Answer, Request, What};
use super::wire::{self, Frame};
use super::workload::{Deed, Worker};
use super::{Lots, Recorder};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// Requests that a client has waiting at most; then it waits for answers.
const MOST_WAITING: usize = 4;

/// How far the client's connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has none.
    Away,
    /// It has said its handshake.
    Asking,
    /// It has a session.
    Open,
}

/// A session of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) session: i64,
    password: [u8; 16],
    /// The greatest zxid that it has seen.
    last_zxid: i64,
}

/// What a client wants of the world.
#[derive(Debug)]
pub(super) enum Wish {
    /// A connection to any server, or to another one than the last.
    Connect,
    /// These bytes on it.
    Send(Bytes),
    /// An end of it.
    Hangup,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) worker: Worker,
    pub(super) timeout_ms: u64,
    pub(super) ticket: Option<Ticket>,
    pub(super) phase: Phase,
    /// Sessions that were left without a word.
    pub(super) abandoned: Vec<Ticket>,
    /// What it is to ask for, whatever its worker wants.
    pub(super) orders: VecDeque<Request>,
    /// Its worker has gone home.
    pub(super) rests: bool,
    connection: u64,
    asked_at_us: u64,
    connected_at_us: u64,
    received: BytesMut,
    waiting: VecDeque<(u64, i32, Request)>,
    next_xid: i32,
    last_heard_us: u64,
    last_said_us: u64,
    /// It left while a server was about to resume its session: that may still happen, and takes the session away from the
    /// connection that it has by then. Such an end is its own doing.
    left_asking: bool,
}

impl Client {
    pub(super) fn new(worker: Worker, timeout_ms: u64) -> Client {
        Client {
            worker,
            timeout_ms,
            ticket: None,
            phase: Phase::Away,
            abandoned: Vec::new(),
            orders: VecDeque::new(),
            rests: false,
            connection: 0,
            asked_at_us: 0,
            connected_at_us: 0,
            received: BytesMut::new(),
            waiting: VecDeque::new(),
            next_xid: 1,
            last_heard_us: 0,
            last_said_us: 0,
            left_asking: false,
        }
    }

    /// Whether everything that it has asked for is answered.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.orders.is_empty()
    }

    /// There is a connection; says what goes out on it first.
    pub(super) fn connected(&mut self, connection: u64, now_us: u64) -> Bytes {
        self.connection = connection;
        self.phase = Phase::Asking;
        self.asked_at_us = now_us;
        self.connected_at_us = now_us;
        self.last_heard_us = now_us;
        self.received.clear();
        self.waiting.clear();
        let timeout_ms = i32::try_from(self.timeout_ms).unwrap_or(i32::MAX);
        match &self.ticket {
            Some(ticket) => wire::encode_connect(ticket.last_zxid, timeout_ms, ticket.session, &ticket.password),
            None => wire::encode_connect(0, timeout_ms, 0, &[0; 16]),
        }
    }

    /// The server has ended the connection.
    pub(super) fn hung_up(&mut self, recorder: &mut Recorder) {
        self.end(false, recorder);
    }

    fn end(&mut self, by_client: bool, recorder: &mut Recorder) {
        match self.phase {
            Phase::Open => recorder.see(What::Ended {
                connection: self.connection,
                by_client: by_client || std::mem::take(&mut self.left_asking),
            }),
            Phase::Asking => self.left_asking = true,
            Phase::Away => {}
        }
        self.phase = Phase::Away;
        // Whether what was not answered has happened, nobody can tell.
        self.orders.extend(
            std::mem::take(&mut self.waiting)
                .into_iter()
                .filter_map(|(_, _, request)| {
                    // Reads and signs of life can be asked again; the workers think of something else.
                    (self.rests && !request.is_write() && request != Request::Ping).then_some(request)
                }),
        );
    }

    /// Bytes have come.
    pub(super) fn received(&mut self, bytes: &Bytes, server: u64, now_us: u64, recorder: &mut Recorder) -> Vec<Wish> {
        self.received.extend_from_slice(bytes);
        self.last_heard_us = now_us;
        let mut wishes = Vec::new();
        while self.received.len() >= 4 && self.phase != Phase::Away {
            let length = u32::from_be_bytes([self.received[0], self.received[1], self.received[2], self.received[3]]);
            let length = length as usize;
            if self.received.len() < 4 + length {
                break;
            }
            self.received.advance(4);
            let frame = self.received.split_to(length).freeze();
            if self.phase == Phase::Asking {
                self.opened(&frame, server, recorder, &mut wishes);
            } else {
                self.told(&frame, recorder, &mut wishes);
            }
        }
        wishes
    }

    fn opened(&mut self, frame: &Bytes, server: u64, recorder: &mut Recorder, wishes: &mut Vec<Wish>) {
        let (timeout_ms, session, password) = wire::connected(frame).expect("the server's handshake can be read");
        if session == 0 {
            if let Some(ticket) = self.ticket.take() {
                recorder.see(What::Expired {
                    session: ticket.session,
                });
            }
            self.phase = Phase::Away;
            return;
        }
        let is_new = self.ticket.is_none();
        let last_zxid = self.ticket.map_or(0, |ticket| ticket.last_zxid);
        self.ticket = Some(Ticket {
            session,
            password,
            last_zxid,
        });
        self.phase = Phase::Open;
        recorder.see(What::Opened {
            connection: self.connection,
            server,
            session,
            timeout_ms: u64::try_from(timeout_ms).unwrap_or(0),
            asked_at_us: self.asked_at_us,
        });
        if !self.rests {
            for request in self.worker.connected(is_new) {
                wishes.push(self.ask(request, recorder));
            }
        }
    }

    fn told(&mut self, bytes: &Bytes, recorder: &mut Recorder, wishes: &mut Vec<Wish>) {
        let frame: Frame = wire::frame(bytes).expect("a server's frame can be read");
        if let Some(ticket) = &mut self.ticket {
            ticket.last_zxid = ticket.last_zxid.max(frame.zxid);
        }
        if frame.xid == -1 {
            let (kind, path) = wire::event(&frame).expect("an event can be read");
            recorder.see(What::Fired {
                connection: self.connection,
                zxid: frame.zxid,
                kind,
                path,
            });
            let follows = self.worker.fired(kind);
            return self.follow(follows, recorder, wishes);
        }
        let position = self.waiting.iter().position(|(_, xid, _)| *xid == frame.xid);
        let position = position.unwrap_or_else(|| panic!("SessionOrder: a reply to nothing: {frame:?}"));
        let (call, _, request) = self.waiting.remove(position).expect("it was found there");
        let result = wire::answer(&request, &frame)
            .unwrap_or_else(|malformed| panic!("the answer to {request:?} cannot be read: {malformed}: {frame:?}"));
        recorder.see(What::Replied {
            connection: self.connection,
            call,
            zxid: frame.zxid,
            result: result.clone(),
        });
        if request == Request::Close && result == Ok(Answer::Done) {
            self.ticket = None;
            self.end(true, recorder);
            return wishes.push(Wish::Hangup);
        }
        let follows = self.worker.answered(&request, &result);
        self.follow(follows, recorder, wishes);
    }

    fn follow(&mut self, follows: Vec<Request>, recorder: &mut Recorder, wishes: &mut Vec<Wish>) {
        if !self.rests {
            for request in follows {
                wishes.push(self.ask(request, recorder));
            }
        }
    }

    fn ask(&mut self, request: Request, recorder: &mut Recorder) -> Wish {
        let call = recorder.next_call();
        let xid = wire::xid_of(&request, self.next_xid);
        self.next_xid += i32::from(xid > 0);
        self.last_said_us = recorder.now_us();
        recorder.see(What::Called {
            connection: self.connection,
            call,
            request: request.clone(),
        });
        let bytes = wire::encode(&request, xid);
        self.waiting.push_back((call, xid, request));
        Wish::Send(bytes)
    }

    /// The next session to be asked about is one that was left.
    pub(super) fn ask_about_abandoned(&mut self) -> bool {
        match self.abandoned.pop() {
            Some(ticket) => {
                self.ticket = Some(ticket);
                true
            }
            None => false,
        }
    }

    /// It is this client's turn.
    pub(super) fn act(&mut self, now_us: u64, lots: &mut Lots, recorder: &mut Recorder) -> Vec<Wish> {
        match self.phase {
            Phase::Away => return vec![Wish::Connect],
            Phase::Asking | Phase::Open => {
                // Half of it is left to find another server, as clients do it.
                let patience_us = self.timeout_ms * 1000 / 2;
                if now_us.saturating_sub(self.last_heard_us) > patience_us {
                    return self.leave(recorder);
                }
            }
        }
        if self.phase == Phase::Asking || self.waiting.len() >= MOST_WAITING {
            return Vec::new();
        }
        if now_us.saturating_sub(self.last_said_us) > self.timeout_ms * 1000 / 4 {
            return vec![self.ask(Request::Ping, recorder)];
        }
        if let Some(order) = self.orders.pop_front() {
            return vec![self.ask(order, recorder)];
        }
        if self.rests {
            return Vec::new();
        }
        match self.worker.next(lots) {
            Deed::Ask(requests) => requests
                .into_iter()
                .map(|request| self.ask(request, recorder))
                .collect(),
            Deed::Move => self.leave(recorder),
            Deed::Vanish => {
                self.abandoned.extend(self.ticket.take());
                self.leave(recorder)
            }
            Deed::Rest => Vec::new(),
        }
    }

    /// Leaves its connection.
    pub(super) fn leave(&mut self, recorder: &mut Recorder) -> Vec<Wish> {
        self.end(true, recorder);
        vec![Wish::Hangup]
    }
}
