//! The session pipeline: what one connection has asked for and not been answered yet, in order.
//!
//! ```text
//!   frames ──▶ [ write | local | local | sync | write … ] ──▶ outbound ──▶ socket
//!                  │                      │
//!                  └─▶ commands, at once  └─▶ a read barrier; writes behind it wait in line
//! ```
//!
//! Replies leave in request order, and a session's reads see its own earlier writes and none of its later ones. So:
//! - Writes are handed on as soon as they arrive; the log keeps their order.
//! - Local requests are answered when they stand at the front. Usually that is at once, on the connection's own task. Behind
//!   a write, they are answered on that task too once the write is applied; only if the connection's *next* write is about
//!   to be applied first, the applier answers them before it ([`Pipeline::before_apply`]).
//! - A write behind an unanswered sync is not handed on yet: else the reads between the two could see it. Nor is one behind
//!   a read of data that may have left memory, or one that may take long for another reason, nor one behind so many reads
//!   that all their answers would have to be queued before it can be applied.
//!
//! Whoever answers holds the state's lock while the answer is queued (shared for reads, exclusive for the applier): from
//! that follow EventBeforeData and SessionOrder.
//!
//! Pure: no sockets, clocks or randomness; the surroundings come in as arguments, commands and barriers come out as values.

use super::handshake::{Ahead, Opening};
use super::local::{Asker, Local};
use super::numbers::ConnectionNumbers;
use super::outbound::Sending;
use super::parking::Parked;
use super::pending::{Barrier, Closing, Intake, Kind, Pending};
use super::queued::Queued;
use super::read_only::{ReadOnlySessions, needs_leader};
use super::sasl::{Exchange, NONCE_BYTES};
use super::settings::{PENDING_BYTES, PENDING_REQUESTS, Settings};
use super::statistics::Statistics;
use super::tally::Tally;
use crate::net::{Flow, Output};
use crate::proto::frame;
use crate::proto::jute::Encode;
use crate::proto::request::PathOnly;
use crate::proto::{
    Decoder, ErrorCode, Identity, OpCode, Permissions, ReplyHeader, RequestHeader, SessionId, SharedPart, Xid, Zxid,
};
use crate::state_machine::{AclRef, Applied, Command, Origin, State};
use crate::watch::{WatcherId, Watches};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// Room made for a reply before it is written, bytes: most need no more, and the queue grows once instead of six times.
const REPLY_BYTES: usize = 256;

/// Reads without an answer that a write may have in front of it, if what they read may be large: before the write is applied, all
/// of them are answered, whether the client takes the answers or not. With values of a megabyte that is within what may be
/// queued; a write behind more of them waits until they are answered in their turn.
pub(super) const READS_BEFORE_WRITE: usize = 16;

/// What a pipeline works in.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) settings: &'a Settings,
    pub(super) watches: &'a Watches,
    /// The sessions of read-only mode.
    pub(super) read_only: &'a Mutex<ReadOnlySessions>,
    pub(super) statistics: &'a Statistics,
    /// Whether a value that is in memory now may be away when a read's turn comes.
    pub(super) values_may_leave: bool,
    /// Monotonic time, µs.
    pub(super) now_us: u64,
}

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing is known of it.
    Handshake,
    /// The client has seen more than is applied here.
    Ahead(Box<Ahead>),
    /// Its session is being opened or resumed.
    Opening(Opening),
    /// It has a session.
    Open,
    /// What is queued is still sent.
    Closing(Closing),
}

/// One connection's pipeline.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) origin: Origin,
    pub(super) phase: Phase,
    pub(super) session: SessionId,
    /// The session's timeout, ms; 0 before there is one.
    pub(super) timeout_ms: i32,
    pub(super) identities: Arc<[Identity]>,
    pub(super) sasl: Exchange,
    /// Whether its session is one of read-only mode.
    pub(super) is_read_only: bool,
    pub(super) pending: VecDeque<Pending>,
    pub(super) parked: Parked,
    pending_bytes: usize,
    /// Whether the last of them ends the connection: nothing behind it is taken.
    ends: bool,
    /// Syncs among them whose barrier is not passed, and reads behind which writes wait: writes behind one are not handed on.
    holding_back: usize,
    /// Reads that were taken in since the last one behind which writes wait.
    reads_since_hold: usize,
    /// Replies and events that wait for the socket.
    pub(super) outbound: Output,
    /// Who sends besides the socket's task.
    pub(super) sending: Sending,
    /// Events among what waits.
    pub(super) events_queued: usize,
    /// Its part of what waits for all clients.
    pub(super) queued: Queued,
    /// Since when `outbound` is over its limit: monotonic, µs.
    pub(super) stalled_since_us: Option<u64>,
    /// Whether its requests wait for its own client, who does not take what is queued: then they are not counted as those
    /// that others have to wait for.
    pub(super) is_set_aside: bool,
    /// How many of its requests are in the count of those in work.
    pub(super) counted: usize,
    pub(super) numbers: ConnectionNumbers,
    pub(super) tally: Tally,
}

impl Pipeline {
    /// A connection that has said nothing yet; `identities` is where it comes from. `nonce` is chance for a SASL exchange.
    pub(super) fn new(origin: Origin, identities: Arc<[Identity]>, nonce: [u8; NONCE_BYTES]) -> Pipeline {
        Pipeline {
            origin,
            phase: Phase::Handshake,
            session: SessionId(0),
            timeout_ms: 0,
            identities,
            sasl: Exchange::NotBegun(nonce),
            is_read_only: false,
            pending: VecDeque::new(),
            parked: Parked::No,
            pending_bytes: 0,
            ends: false,
            holding_back: 0,
            reads_since_hold: 0,
            outbound: Output::new(),
            sending: Sending::default(),
            events_queued: 0,
            queued: Queued::default(),
            stalled_since_us: None,
            is_set_aside: false,
            counted: 0,
            numbers: ConnectionNumbers::default(),
            tally: Tally::default(),
        }
    }

    /// Requests that were not answered yet.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether it has a session, and nothing in work.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Open) && self.pending.is_empty()
    }

    /// Whether the request at the front can be answered from the state.
    pub(super) fn has_answerable(&self) -> bool {
        match self.pending.front().map(|pending| &pending.kind) {
            _ if self.parked != Parked::No => false,
            Some(Kind::Local { .. } | Kind::Last { .. }) => true,
            Some(Kind::Sync { barrier, .. }) => *barrier == Barrier::Passed,
            Some(Kind::Write(_)) | None => false,
        }
    }

    /// Whether the socket is to be read; `has_more`: something that was read waits to be taken.
    pub(super) fn flow(&self, has_more: bool, surroundings: &Surroundings<'_>) -> Flow {
        match self.phase {
            Phase::Closing(_) if self.outbound.is_empty() && !self.is_outbound_lent() => Flow::Close,
            Phase::Closing(_) => Flow::Pause,
            // To learn whether it hangs up, as one does that tries the next server: its session may be there by then, and must
            // not be taken from it.
            Phase::Ahead(_) if !has_more => Flow::Read,
            Phase::Opening(ref opening) if opening.waits_in_line && !has_more => Flow::Read,
            Phase::Ahead(_) | Phase::Opening(_) => Flow::Pause,
            Phase::Handshake => Flow::Read,
            Phase::Open if self.is_full(surroundings) => Flow::Pause,
            Phase::Open => Flow::Read,
        }
    }

    /// Whether more requests would only pile up. A connection with nothing in work is never full: it could not be woken.
    fn is_full(&self, surroundings: &Surroundings<'_>) -> bool {
        if self.is_over_limit(surroundings.settings) {
            return true;
        }
        if self.pending.is_empty() {
            return false;
        }
        self.ends
            || self.writes_large_value()
            || self.pending.len() >= PENDING_REQUESTS
            || self.pending_bytes >= PENDING_BYTES
            || self.outstanding(surroundings.statistics) >= surroundings.settings.global_outstanding_limit
    }

    /// Ends the connection once what is queued has been sent.
    pub(super) fn close(&mut self, closing: Closing, statistics: &Statistics) {
        if !matches!(self.phase, Phase::Closing(_)) {
            self.phase = Phase::Closing(closing);
        }
        self.drop_pending(statistics);
    }

    /// Forgets what was not answered: the connection has ended.
    pub(super) fn drop_pending(&mut self, statistics: &Statistics) {
        self.is_set_aside = false;
        self.pending.clear();
        self.pending_bytes = 0;
        self.holding_back = 0;
        self.flush(statistics);
    }

    /// Takes whole requests off the front of `received`.
    pub(super) fn receive(
        &mut self,
        received: &mut BytesMut,
        surroundings: &Surroundings<'_>,
        intake: &mut Intake,
    ) -> Result<(), Closing> {
        while matches!(self.phase, Phase::Open) && !self.is_full(surroundings) {
            let Some(frame) = frame::split_frame(received, surroundings.settings.max_request_bytes)? else {
                break;
            };
            self.numbers.received += 1;
            self.tally.received();
            self.request(&frame, surroundings, intake)?;
        }
        Ok(())
    }

    fn request(&mut self, frame: &Bytes, surroundings: &Surroundings<'_>, intake: &mut Intake) -> Result<(), Closing> {
        let mut decoder = Decoder::new(frame);
        let header = RequestHeader::decode(&mut decoder).map_err(Closing::NoHeader)?;
        let op = OpCode::from_wire(header.op);
        let kind = match op {
            Some(OpCode::Auth) => self.auth(&mut decoder, surroundings)?,
            Some(OpCode::Sasl) => self.sasl(&mut decoder, surroundings)?,
            op if !self.may_speak(surroundings.settings) => {
                tracing::debug!(session = %self.session, ?op, "a request before authentication");
                last(
                    ErrorCode::SessionClosedRequireSaslAuth,
                    Zxid(0),
                    Closing::AuthenticationRequired,
                )
            }
            Some(op) if self.is_read_only && needs_leader(op) => self.without_leader(op, surroundings),
            Some(OpCode::Sync) => match PathOnly::decode(&mut decoder) {
                Ok(body) => Kind::Sync {
                    path: Some(body.path),
                    barrier: Barrier::Unasked,
                },
                Err(_) => self.answered(Err(ErrorCode::MarshallingError)),
            },
            Some(op) if is_write(op) => Kind::Write(Some(Box::new(self.command(header.xid, op, decoder.take_rest())))),
            Some(op) => match Local::decode(op, &mut decoder) {
                Some(Ok(request)) => Kind::Local {
                    request,
                    identities: self.identities.clone(),
                },
                Some(Err(_)) => self.answered(Err(ErrorCode::MarshallingError)),
                None => unknown_operation(header.op),
            },
            None => unknown_operation(header.op),
        };
        // Who asked for a server without a leader has asked for what it knows.
        if surroundings.settings.linearizable_reads
            && !self.is_read_only
            && matches!(
                kind,
                Kind::Local {
                    request: Local::Query(_),
                    ..
                }
            )
        {
            self.push(
                header,
                0,
                Kind::Sync {
                    path: None,
                    barrier: Barrier::Unasked,
                },
                surroundings,
                intake,
            );
        }
        self.push(header, frame.len(), kind, surroundings, intake);
        Ok(())
    }

    fn push(
        &mut self,
        header: RequestHeader,
        size_bytes: usize,
        kind: Kind,
        surroundings: &Surroundings<'_>,
        intake: &mut Intake,
    ) {
        self.pending_bytes += size_bytes;
        self.ends |= matches!(kind, Kind::Last { .. }) || header.op == OpCode::CloseSession.to_wire();
        self.set_aside(false, surroundings.statistics);
        let holds_writes = self.holds_writes(&kind, surroundings);
        let is_ping = matches!(
            kind,
            Kind::Local {
                request: Local::Ping,
                ..
            }
        );
        let mut pending = Pending {
            // As Apache answers a ping, whatever number it had.
            xid: if is_ping { Xid::PING } else { header.xid },
            op: header.op,
            arrived_us: surroundings.now_us,
            size_bytes,
            holds_writes,
            kind,
        };
        if self.holding_back == 0 {
            pending.hand_on(intake);
        }
        self.holding_back += usize::from(pending.holds_back());
        if planted!(ReadOvertakes) && matches!(pending.kind, Kind::Local { .. }) {
            return self.pending.push_front(pending);
        }
        self.pending.push_back(pending);
    }

    /// Whether writes behind this request are to wait until it is answered.
    fn holds_writes(&mut self, kind: &Kind, surroundings: &Surroundings<'_>) -> bool {
        self.reads_since_hold += usize::from(kind.may_be_large());
        let are_many = kind.may_be_large()
            && self.reads_since_hold > READS_BEFORE_WRITE
            && self.pending.len() >= READS_BEFORE_WRITE;
        let holds = are_many || kind.may_take_long() || (surroundings.values_may_leave && kind.reads_data());
        if holds {
            self.reads_since_hold = 0;
        }
        holds
    }

    fn command(&self, xid: Xid, op: OpCode, body: Bytes) -> Command {
        Command {
            origin: self.origin,
            session: self.session,
            xid,
            identities: self.identities.clone(),
            op,
            body,
        }
    }

    pub(super) fn answered(&self, answer: Result<(), ErrorCode>) -> Kind {
        Kind::Local {
            request: Local::Answered(answer),
            identities: self.identities.clone(),
        }
    }

    /// Hands on what waited behind a sync that has been passed.
    pub(super) fn hand_on_waiting(&mut self, intake: &mut Intake) {
        for pending in &mut self.pending {
            pending.hand_on(intake);
            if pending.holds_back() {
                return;
            }
        }
    }

    /// Answers local requests at the front: at most so many of them, and no more once so many bytes were queued, or one was
    /// answered that may have taken long.
    pub(super) fn answer(&mut self, state: &State, surroundings: &Surroundings<'_>, requests: usize, bytes: usize) {
        let enough_bytes = self.outbound.len().saturating_add(bytes);
        for _ in 0..requests {
            let is_enough = self.outbound.len() > enough_bytes;
            if is_enough
                || !self.has_answerable()
                || matches!(self.phase, Phase::Closing(_))
                || self.park(state, surroundings)
            {
                return;
            }
            let Some(pending) = self.take_front() else {
                return;
            };
            match &pending.kind {
                Kind::Local { request, identities } => {
                    self.answer_local(&pending, request, identities, state, surroundings);
                    if pending.kind.may_take_long() {
                        return;
                    }
                }
                Kind::Last {
                    error,
                    zxid,
                    null_token,
                    closing,
                } => {
                    self.reply(&pending, zxid.unwrap_or(state.zxid()), *error, surroundings, |out| {
                        if *null_token {
                            out.write_buffer(None);
                        }
                        Ok(None)
                    });
                    self.close(*closing, surroundings.statistics);
                }
                Kind::Sync { path: Some(path), .. } => {
                    self.reply(&pending, state.zxid(), None, surroundings, |out| {
                        out.write_text(path);
                        Ok(None)
                    });
                }
                Kind::Write(_) | Kind::Sync { path: None, .. } => {}
            }
        }
    }

    fn answer_local(
        &mut self,
        pending: &Pending,
        request: &Local,
        identities: &[Identity],
        state: &State,
        surroundings: &Surroundings<'_>,
    ) {
        let asker = Asker {
            watcher: WatcherId(self.origin.connection.0),
            session: self.session,
            identities,
        };
        let mut missed = 0;
        request.missed_events(state, &asker, surroundings, |event| {
            event.encode_frame(Zxid(-1), self.outbound.last());
            missed += 1;
        });
        self.numbers.sent += missed;
        self.tally.sent(missed);
        // Auth and SASL replies carry no zxid.
        let carries_none = [OpCode::Auth, OpCode::Sasl].map(OpCode::to_wire).contains(&pending.op);
        let zxid = if carries_none { Zxid(0) } else { state.zxid() };
        self.reply(pending, zxid, None, surroundings, |out| {
            request.execute(state, &asker, surroundings, out)
        });
    }

    /// A write of this connection was applied: its reply is queued.
    pub(super) fn applied(&mut self, command: &Command, applied: &Applied, surroundings: &Surroundings<'_>) {
        match self.phase {
            Phase::Closing(_) | Phase::Handshake | Phase::Ahead(_) => return,
            Phase::Opening(_) => return self.opened(command, applied, surroundings),
            Phase::Open => {}
        }
        let Some(pending) = self.take_front() else {
            return self.close(Closing::Confused, surroundings.statistics);
        };
        if pending.xid != command.xid || !matches!(pending.kind, Kind::Write(None)) {
            tracing::error!(session = %self.session, "applied {} where {} was due", command.xid, pending.xid);
            return self.close(Closing::Confused, surroundings.statistics);
        }
        match &applied.result {
            Err(ErrorCode::SessionExpired | ErrorCode::SessionMoved) => {
                self.close(Closing::SessionGone, surroundings.statistics);
            }
            Err(code) => self.reply(&pending, applied.zxid, Some(*code), surroundings, |_| Ok(None)),
            Ok(reply) => {
                self.reply(&pending, applied.zxid, None, surroundings, |out| {
                    reply.encode(out);
                    Ok(None)
                });
                if command.op == OpCode::CloseSession {
                    self.close(Closing::SessionClosed, surroundings.statistics);
                }
            }
        }
    }

    /// The barrier that was asked for is passed: what was committed before it is applied here.
    pub(super) fn barrier_passed(&mut self) {
        if let Phase::Ahead(ahead) = &mut self.phase {
            return ahead.has_caught_up = true;
        }
        let mut kinds = self.pending.iter_mut().map(|pending| &mut pending.kind);
        let asked = kinds.find_map(|kind| match kind {
            Kind::Sync { barrier, .. } if *barrier == Barrier::Asked => Some(barrier),
            _ => None,
        });
        if let Some(barrier) = asked {
            *barrier = Barrier::Passed;
            self.holding_back -= 1;
        }
    }

    /// Queues an event, if this connection may know of it.
    pub(super) fn event(&mut self, frame: &Bytes, acl: &AclRef, surroundings: &Surroundings<'_>) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        if !surroundings.settings.skip_acl && !acl.permits(Permissions::READ, &self.identities) {
            return;
        }
        self.outbound.last().extend_from_slice(frame);
        self.tally.event(frame.len());
        self.events_queued += 1;
        self.numbers.sent += 1;
        self.tally.sent(1);
        self.check_outbound(surroundings);
    }

    fn take_front(&mut self) -> Option<Pending> {
        let pending = self.pending.pop_front()?;
        self.pending_bytes -= pending.size_bytes;
        self.holding_back -= usize::from(pending.holds_writes);
        Some(pending)
    }

    fn reply(
        &mut self,
        pending: &Pending,
        zxid: Zxid,
        error: Option<ErrorCode>,
        surroundings: &Surroundings<'_>,
        body: impl FnOnce(&mut BytesMut) -> Result<Option<SharedPart>, ErrorCode>,
    ) {
        let queued_bytes = self.outbound.len();
        let out = self.outbound.last();
        out.reserve(REPLY_BYTES);
        let shared = ReplyHeader {
            xid: pending.xid,
            zxid,
            error,
        }
        .encode_frame(out, body);
        if let Some(SharedPart { at, bytes }) = shared {
            self.outbound.insert(at, bytes);
        }
        let latency_us = surroundings.now_us.saturating_sub(pending.arrived_us);
        let (reply_bytes, is_write) = (
            self.outbound.len() - queued_bytes,
            matches!(pending.kind, Kind::Write(_)),
        );
        self.tally
            .replied(is_write, reply_bytes, latency_us, surroundings.statistics);
        self.numbers
            .count(pending.op, pending.xid, zxid, surroundings.now_us, latency_us);
    }
}

/// Writes of clients: what goes into the log. deleteContainer is the leader's own, and check belongs into a multi.
pub(super) fn is_write(op: OpCode) -> bool {
    matches!(
        op,
        OpCode::Create
            | OpCode::Create2
            | OpCode::CreateContainer
            | OpCode::CreateTtl
            | OpCode::Delete
            | OpCode::SetData
            | OpCode::SetAcl
            | OpCode::Multi
            | OpCode::Reconfig
            | OpCode::CloseSession
    )
}

pub(super) fn last(error: ErrorCode, zxid: Zxid, closing: Closing) -> Kind {
    Kind::Last {
        error: Some(error),
        zxid: Some(zxid),
        null_token: false,
        closing,
    }
}

/// As Apache answers what it does not know: with zxid -1, then the end.
fn unknown_operation(op: i32) -> Kind {
    last(ErrorCode::Unimplemented, Zxid(-1), Closing::UnknownOperation(op))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::multi::MultiHeader;
    use crate::server::settings::{ANSWER_BYTES_PER_HOLD, ANSWERS_PER_HOLD};
    use crate::server::simulated::shared_alone;

    /// A request about the root.
    fn about_root(op: OpCode) -> Vec<u8> {
        let mut payload = BytesMut::new();
        payload.write_int(7);
        payload.write_int(op.to_wire());
        match op {
            OpCode::MultiRead => MultiHeader::END.encode(&mut payload),
            OpCode::SetData => {
                payload.write_buffer(Some(b"/"));
                payload.write_buffer(Some(b""));
                payload.write_int(-1);
            }
            _ => {
                payload.write_buffer(Some(b"/"));
                payload.extend_from_slice(&[0]);
            }
        }
        let mut framed = BytesMut::new();
        framed.write_buffer(Some(&payload));
        framed.to_vec()
    }

    /// An open connection to which these requests have come, and how many commands it has handed on.
    fn asked(requests: &[OpCode]) -> (Pipeline, usize) {
        let shared = shared_alone();
        let mut pipeline = Pipeline::new(Origin::default(), [].into(), [0; NONCE_BYTES]);
        pipeline.phase = Phase::Open;
        let mut received: BytesMut = requests.iter().flat_map(|op| about_root(*op)).collect();
        let mut intake = Intake::default();
        let taken = pipeline.receive(&mut received, &shared.surroundings(), &mut intake);
        assert!(taken.is_ok() && received.is_empty(), "{taken:?}");
        (pipeline, intake.commands.len())
    }

    fn answer_once(pipeline: &mut Pipeline) -> usize {
        let shared = shared_alone();
        pipeline.answer(
            &shared.state.read(),
            &shared.surroundings(),
            ANSWERS_PER_HOLD,
            ANSWER_BYTES_PER_HOLD,
        );
        let mut intake = Intake::default();
        pipeline.hand_on_waiting(&mut intake);
        intake.commands.len()
    }

    #[test]
    fn a_write_waits_behind_a_read_that_may_take_long() {
        for slow in [OpCode::GetAllChildrenNumber, OpCode::MultiRead] {
            let (mut pipeline, handed_on) = asked(&[slow, OpCode::SetData]);
            assert_eq!(handed_on, 0, "{slow:?}");
            assert_eq!(answer_once(&mut pipeline), 1);
        }
        assert_eq!(asked(&[OpCode::Exists, OpCode::SetData]).1, 1);
    }

    #[test]
    fn one_read_that_may_take_long_is_answered_at_a_time() {
        let (mut pipeline, _) = asked(&[OpCode::GetAllChildrenNumber; 3]);
        for left in [2, 1, 0] {
            answer_once(&mut pipeline);
            assert_eq!(pipeline.pending(), left);
        }
    }

    #[test]
    fn a_write_waits_behind_as_many_reads_as_would_fill_the_queue() {
        let reads = |count| {
            let mut requests = vec![OpCode::GetData; count];
            requests.push(OpCode::SetData);
            requests
        };
        assert_eq!(asked(&reads(READS_BEFORE_WRITE)).1, 1);
        let (mut pipeline, handed_on) = asked(&reads(READS_BEFORE_WRITE + 1));
        assert_eq!(handed_on, 0);
        assert_eq!(answer_once(&mut pipeline), 1);
        // Small answers do not count.
        assert_eq!(asked(&[&[OpCode::Exists; 100][..], &[OpCode::SetData]].concat()).1, 1);
    }
}
