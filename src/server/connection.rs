//! One client connection: its pipeline, and how it speaks with the socket's task and with the applier.
//!
//! Locks are taken in this order: the state, then a storm's, then the pipeline. The pipeline's lock is short and never held across an
//! await, a file or a socket.

use super::admission::LARGE_BYTES;
use super::crew::Helper;
use super::numbers::ConnectionNumbers;
use super::pending::{Closing, Intake};
use super::pipeline::{Phase, Pipeline, Surroundings};
use super::queued::Waiting;
use super::settings::{ANSWER_BYTES_PER_HOLD, ANSWERS_PER_HOLD, Settings};
use super::shared::{DriverInput, Shared};
use super::statistics::Statistics;
use crate::net::tls::HandshakeError;
use crate::net::{Conversation, Flow, Output, PromptWriter};
use crate::proto::{Identity, SessionId};
use crate::state_machine::{Command, ConnectionId, Missing, Origin, State};
use bytes::BytesMut;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::Duration;
use tokio::sync::Notify;

/// Turns of receiving and answering in one call; then the other connections of the thread get theirs.
const TURNS: usize = 16;

/// One client connection.
pub struct Connection {
    /// Its number.
    pub id: ConnectionId,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Whether it speaks TLS.
    secure: AtomicBool,
    /// When it was accepted: wall time, ms.
    pub established_ms: i64,
    accepted_us: u64,
    pub(super) shared: Arc<Shared>,
    pipeline: Mutex<Pipeline>,
    wake: Notify,
    /// The socket's writing side, if it is a plain one, for who has just made its reply.
    prompt_writer: Mutex<Option<PromptWriter>>,
    /// Whether it stands in the line of those to be woken because of an event.
    waits: AtomicBool,
    /// The tick in which its session was last reported to be alive.
    touched_tick: AtomicU64,
    /// Bytes that the last turn left in the socket's buffer: if there are more now, the client has sent something.
    left_bytes: AtomicUsize,
    /// Whether a handshake of it is in work, or waits for others.
    pub(super) is_opening: AtomicBool,
    /// Whether a large value of it is being written, or waits for others.
    is_writing_large: AtomicBool,
    /// Whether it must end at once.
    aborted: AtomicBool,
}

/// What came of answering.
struct Answers {
    /// Bytes that were queued.
    bytes: usize,
    /// Whether nothing is in work any more.
    are_all: bool,
}

/// What operators are shown of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Whether it speaks TLS.
    pub secure: bool,
    /// Its session; 0 if it has none.
    pub session: SessionId,
    /// The session's timeout, ms.
    pub timeout_ms: i32,
    /// Requests not answered yet.
    pub outstanding: usize,
    /// When it was accepted: wall time, ms.
    pub established_ms: i64,
    /// Counts and latencies.
    pub numbers: ConnectionNumbers,
}

impl Connection {
    pub(super) fn new(
        shared: Arc<Shared>,
        id: ConnectionId,
        peer: SocketAddr,
        identities: Arc<[Identity]>,
    ) -> Connection {
        let origin = Origin {
            server: shared.settings.server,
            connection: id,
        };
        Connection {
            id,
            peer,
            secure: AtomicBool::new(false),
            established_ms: shared.clock.wall_ms(),
            accepted_us: shared.clock.now_us(),
            pipeline: Mutex::new(Pipeline::new(origin, identities, shared.sixteen_random_bytes())),
            wake: Notify::new(),
            prompt_writer: Mutex::new(None),
            waits: AtomicBool::new(false),
            touched_tick: AtomicU64::new(0),
            left_bytes: AtomicUsize::new(0),
            is_opening: AtomicBool::new(false),
            is_writing_large: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            shared,
        }
    }

    /// What operators are shown.
    pub fn view(&self) -> ConnectionView {
        let pipeline = self.pipeline.lock();
        ConnectionView {
            peer: self.peer,
            secure: self.secure.load(Relaxed),
            session: pipeline.session,
            timeout_ms: pipeline.timeout_ms,
            outstanding: pipeline.pending(),
            established_ms: self.established_ms,
            numbers: pipeline.numbers,
        }
    }

    /// The `crst` command.
    pub fn reset_numbers(&self) {
        self.pipeline.lock().numbers.reset();
    }

    /// Lets `change` work on the pipeline. The caller holds the state's lock, or needs none.
    pub(super) fn with_pipeline<T>(&self, change: impl FnOnce(&mut Pipeline) -> T) -> T {
        change(&mut self.pipeline.lock())
    }

    /// Has the socket's task look at the pipeline again.
    pub(super) fn wake_up(&self) {
        self.wake.notify_one();
    }

    /// It is a plain one: others than its task may send what is queued.
    pub(super) fn set_prompt_writer(&self, writer: PromptWriter) {
        *self.prompt_writer.lock() = Some(writer);
    }

    /// Sends what is queued here and now if nothing else is to be done for this connection; else has its task do it.
    pub(super) fn send_promptly(&self) {
        // A draining server's connections end when they are idle, which their tasks see to.
        let writer = self.prompt_writer.lock().clone().filter(|_| !self.shared.is_draining());
        let taken = writer.and_then(|writer| {
            let queued = self.with_pipeline(|pipeline| pipeline.lend_outbound(&self.shared.statistics))?;
            Some((writer, queued))
        });
        let Some((writer, mut queued)) = taken else {
            return self.wake_up();
        };
        let sent = writer.try_send(&queued);
        let rest = queued.split_off(sent);
        let is_done = self.with_pipeline(|pipeline| pipeline.return_outbound(rest));
        if !is_done && !planted!(RestForgotten) {
            self.wake_up();
        }
    }

    /// What the request at the front waits for may be in memory.
    pub(super) fn unpark(&self) {
        self.with_pipeline(Pipeline::unpark);
        self.wake_up();
    }

    /// It will be woken soon; says whether that is new.
    pub(super) fn begin_to_wait(&self) -> bool {
        !self.waits.swap(true, AcqRel)
    }

    /// Sends what is queued, or has it sent, after it has waited for that. An event that is queued from here on has it wait again.
    pub(super) fn end_to_wait(&self) {
        self.waits.store(planted!(WaitsOn), Release);
        self.send_promptly();
    }

    /// Why its client was sent away, if that is because this ensemble has not come as far.
    #[cfg(test)]
    pub(super) fn sent_away_ahead(&self) -> Option<Closing> {
        self.with_pipeline(|pipeline| match pipeline.phase {
            Phase::Closing(closing @ Closing::Ahead { .. }) => Some(closing),
            _ => None,
        })
    }

    /// Whether something is queued and is neither in other hands nor about to be.
    #[cfg(test)]
    pub(super) fn is_forgotten(&self) -> bool {
        let is_queued = self.with_pipeline(|pipeline| !pipeline.outbound.is_empty() && !pipeline.is_outbound_lent());
        is_queued && !self.waits.load(Relaxed)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(super) fn statistics(&self) -> &Statistics {
        &self.shared.statistics
    }

    /// How long a handshake before its first request may take.
    pub(super) fn handshake_limit(&self) -> Duration {
        Duration::from_millis(self.shared.settings.handshake_timeout_ms)
    }

    /// Its TLS handshake has succeeded, and has proven these identities.
    pub(super) fn secured(&self, identities: Vec<Identity>) {
        self.secure.store(true, Relaxed);
        if let Err(refused) = self.with_pipeline(|pipeline| pipeline.add_identities(identities)) {
            // It goes on as one that has proven nothing. A certificate that is trusted: nobody floods the log with it.
            tracing::warn!(peer = %self.peer, "a certificate gives no identity: {refused}");
        }
    }

    /// Its TLS handshake has failed.
    pub(super) fn handshake_failed(&self, error: &HandshakeError) {
        self.shared.statistics.tls_handshakes_failed.fetch_add(1, Relaxed);
        self.shared
            .complain(self.peer, &format_args!("the TLS handshake has failed: {error}"));
    }

    /// Closes it from our side.
    pub(super) fn close(&self, closing: Closing) {
        self.with_pipeline(|pipeline| pipeline.close(closing, &self.shared.statistics));
        self.wake_up();
    }

    /// Closes it without waiting for the socket to take what is queued.
    pub(super) fn abort(&self) {
        self.aborted.store(true, Relaxed);
        self.wake_up();
    }

    /// Waits until it must end at once.
    pub(super) async fn aborted(&self) {
        while !self.aborted.load(Relaxed) {
            self.wake.notified().await;
        }
    }

    /// The socket's task has ended: nothing of this connection stays. Its session lives on until it expires.
    pub(super) fn ended(&self) {
        let (session, closing) = self.with_pipeline(|pipeline| {
            let closing = match &pipeline.phase {
                Phase::Closing(closing) => Some(*closing),
                _ => None,
            };
            // From here on nobody registers a watch for it.
            pipeline.close(Closing::SessionGone, &self.shared.statistics);
            pipeline.queued.forget(&self.shared.statistics);
            (pipeline.session, closing)
        });
        self.prompt_writer.lock().take();
        self.shared.connection_ended(self, session);
        if self.is_opening.swap(false, Relaxed) {
            self.shared.end_handshake(self.id);
        }
        if self.is_writing_large.swap(false, Relaxed) {
            self.shared.end_large_value(self.id);
        }
        match closing {
            Some(
                closing
                @ (Closing::BadLength(_) | Closing::NoHeader(_) | Closing::NoHandshake(_) | Closing::BadAuth(_)),
            ) => {
                self.shared.statistics.malformed.fetch_add(1, Relaxed);
                self.shared.complain(self.peer, &closing);
            }
            Some(closing @ Closing::Ahead { .. }) => self.shared.complain(self.peer, &closing),
            Some(closing) => tracing::debug!(peer = %self.peer, %session, "connection closed: {closing}"),
            None => tracing::debug!(peer = %self.peer, %session, "connection closed by the client"),
        }
    }

    /// What waits for the client, if that is much, and the connection is not about to end.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        let waiting = self.with_pipeline(|pipeline| pipeline.queued.waiting());
        waiting.filter(|_| !self.aborted.load(Relaxed))
    }

    /// Called now and then: whether it took too long to open a session, or does not take what is sent to it.
    pub(super) fn is_overdue(&self, now_us: u64) -> bool {
        if self.aborted.load(Relaxed) {
            // It is being told.
            return false;
        }
        let settings = &self.shared.settings;
        let mut pipeline = self.pipeline.lock();
        pipeline.shrink();
        match pipeline.phase {
            Phase::Handshake | Phase::Ahead(_) => {
                let overdue = now_us.saturating_sub(self.accepted_us) > settings.handshake_timeout_ms * 1000;
                if overdue {
                    self.shared.statistics.handshakes_timed_out.fetch_add(1, Relaxed);
                }
                overdue
            }
            _ => {
                if matches!(pipeline.phase, Phase::Closing(_)) {
                    pipeline.stalled_since_us.get_or_insert(now_us);
                }
                let stalled = pipeline
                    .stalled_since_us
                    .is_some_and(|since| now_us.saturating_sub(since) > settings.outbound_stall_ms * 1000);
                // Whom the bytes in its queue have closed before is counted already.
                if stalled && !matches!(pipeline.phase, Phase::Closing(Closing::SlowClient)) {
                    self.shared.statistics.slow_clients.fetch_add(1, Relaxed);
                }
                stalled
            }
        }
    }

    /// Takes in what has arrived; gives what others must do. The socket has not taken `unsent_bytes` yet.
    fn receive(&self, received: &mut BytesMut, unsent_bytes: usize, surroundings: &Surroundings<'_>) -> Intake {
        let mut intake = Intake::default();
        if self.shared.is_stopping() {
            // What was not taken in was promised nothing; what was is finished.
            return intake;
        }
        let received_bytes = received.len();
        let has_arrived = received_bytes > self.left_bytes.load(Relaxed);
        if let Some(answer) = self.first_bytes(received, surroundings, &mut intake) {
            self.with_pipeline(|pipeline| {
                pipeline.outbound.last().extend_from_slice(answer.as_bytes());
                surroundings.statistics.word_answered(received_bytes);
                pipeline.close(Closing::SessionClosed, surroundings.statistics);
            });
            return intake;
        }
        self.with_pipeline(|pipeline| {
            pipeline.note_look();
            if pipeline.queued.is_counted() {
                // Some of it may have been taken since the last turn.
                let waiting_bytes = unsent_bytes + pipeline.outbound.len();
                pipeline.queued.count(waiting_bytes, surroundings);
            }
            pipeline.hand_on_waiting(&mut intake);
            if let Err(closing) = pipeline.receive(received, surroundings, &mut intake) {
                pipeline.close(closing, surroundings.statistics);
            }
            if matches!(pipeline.phase, Phase::Closing(_)) {
                received.clear();
            } else if has_arrived && matches!(pipeline.phase, Phase::Open) {
                // What is sent to a client, events say, is no sign of life of it.
                self.touch(pipeline.session);
            }
        });
        self.left_bytes.store(received.len(), Relaxed);
        surroundings.statistics.took_in(received_bytes - received.len());
        intake
    }

    /// A sign of life: reported once per tick, however much arrives.
    fn touch(&self, session: SessionId) {
        let tick = self.shared.signs.tick();
        if self.touched_tick.swap(tick, Relaxed) != tick {
            self.shared.signs.touch(session);
        }
    }

    pub(super) fn hand_on(&self, mut intake: Intake) {
        // Nothing is taken in behind a large value, so it is the last.
        let is_large = |command: &mut Command| command.body.len() >= LARGE_BYTES;
        if let Some(large) = intake.commands.pop_if(is_large) {
            // What stands before it goes first: as soon as it stands in line, others may submit it.
            if !intake.commands.is_empty() {
                self.shared.submit(std::mem::take(&mut intake.commands));
            }
            if self.is_writing_large.swap(true, Relaxed) {
                // The one before it is written.
                self.shared.end_large_value(self.id);
            }
            intake.commands.extend(self.shared.begin_large_value(large));
        }
        if !intake.commands.is_empty() {
            self.shared.submit(intake.commands);
        }
        if intake.barrier {
            self.shared.driver.put(DriverInput::Barrier(self.id));
            self.shared.lend_a_hand(Helper::Free);
        }
    }

    /// Answers what needs no log, under the shared side of the state's lock, if there is any.
    fn answer(&self) -> Option<Answers> {
        if !self.with_pipeline(|pipeline| pipeline.may_answer(&self.shared.settings)) {
            return None;
        }
        let state = self.shared.state.read();
        // Later than when the requests were taken in: what lies between is their latency.
        let surroundings = &self.shared.surroundings();
        Some(self.answer_from(&state, surroundings))
    }

    /// What the request at the front waits for is in `state`, which nobody changes meanwhile: answers it.
    pub(super) fn answer_parked(&self, state: &State, surroundings: &Surroundings<'_>) {
        self.with_pipeline(Pipeline::unpark);
        if self.with_pipeline(|pipeline| pipeline.may_answer(&self.shared.settings)) {
            self.answer_from(state, surroundings);
        }
    }

    fn answer_from(&self, state: &State, surroundings: &Surroundings<'_>) -> Answers {
        self.shared.storm.catch_up(self, surroundings);
        let mut pipeline = self.pipeline.lock();
        let queued_bytes = pipeline.outbound.len();
        pipeline.answer(state, surroundings, ANSWERS_PER_HOLD, ANSWER_BYTES_PER_HOLD);
        let answers = Answers {
            bytes: pipeline.outbound.len().saturating_sub(queued_bytes),
            are_all: pipeline.pending() == 0,
        };
        let wish = pipeline.take_wish();
        drop(pipeline);
        if let Some(missing) = wish {
            self.wish(missing);
        }
        answers
    }

    /// The request at the front waits for what is missing.
    fn wish(&self, missing: Missing) {
        if missing.has_values() {
            self.shared.fetcher.wish(missing, self.id);
        } else if !self.shared.loading.wish(missing, self.id) {
            // All has come meanwhile.
            self.unpark();
        }
    }
}

impl Conversation for Connection {
    fn advance(&self, received: &mut BytesMut, output: &mut Output) -> Flow {
        if self.aborted.load(Relaxed) {
            return Flow::Abort;
        }
        let surroundings = self.shared.surroundings();
        // Answers make room for more requests; when neither moves, there is nothing more to do.
        let mut has_more = false;
        let mut answered_bytes = 0;
        for turn in 1..=TURNS {
            let intake = self.receive(received, output.len(), &surroundings);
            self.hand_on(intake);
            let Some(answers) = self.answer() else { break };
            if answers.are_all && received.is_empty() {
                break;
            }
            answered_bytes += answers.bytes;
            has_more = turn == TURNS || answered_bytes >= ANSWER_BYTES_PER_HOLD;
            if has_more {
                break;
            }
        }
        interleave!();
        let flow = self.settle(received, output, has_more, &surroundings);
        self.leave_lines();
        flow
    }

    fn wake(&self) -> &Notify {
        &self.wake
    }
}

impl Connection {
    /// What the task does next, once nothing more is to be taken in or answered.
    fn settle(
        &self,
        received: &BytesMut,
        output: &mut Output,
        has_more: bool,
        surroundings: &Surroundings<'_>,
    ) -> Flow {
        let mut pipeline = self.pipeline.lock();
        pipeline.flush(&self.shared.statistics);
        if self.shared.is_draining() && received.is_empty() && pipeline.is_idle() {
            pipeline.close(Closing::Stopping, &self.shared.statistics);
        }
        if output.is_empty() && !pipeline.is_outbound_lent() {
            pipeline.take_outbound(output);
            if output.is_empty() && pipeline.pending() == 0 {
                // Idle: no buffer is kept.
                *output = Output::new();
                pipeline.outbound = Output::new();
            }
        }
        let waiting_bytes = output.len() + pipeline.outbound.len();
        pipeline.queued.count(waiting_bytes, surroundings);
        pipeline.check_outbound(surroundings);
        let flow = pipeline.flow(!received.is_empty(), surroundings);
        // What was not taken in because others had too much in work waits for the next wake, whatever the flow is by now.
        let is_waiting = !received.is_empty() || !output.is_empty();
        // A handshake that succeeds or fails lets the next one in line begin, which its task sees to.
        let is_entering = matches!(pipeline.phase, Phase::Ahead(_) | Phase::Opening(_));
        let is_busy = is_waiting || has_more || is_entering || flow != Flow::Read;
        pipeline.note_task(is_busy && !planted!(TaskSaysIdle));
        if flow == Flow::Pause && matches!(pipeline.phase, Phase::Open) {
            surroundings.statistics.pauses.fetch_add(1, Relaxed);
        }
        if has_more && matches!(pipeline.phase, Phase::Open) {
            return Flow::Yield;
        }
        flow
    }

    /// Lets the next ones begin where its own handshake or large value has come to its end. Looked at after the task has noted
    /// whether it is to be woken: what comes to its end later wakes it.
    fn leave_lines(&self) {
        let (is_opening, is_writing_large) = (self.is_opening.load(Relaxed), self.is_writing_large.load(Relaxed));
        if !is_opening && !is_writing_large {
            return;
        }
        let (opens, writes) = self.with_pipeline(|pipeline| {
            let opens = matches!(pipeline.phase, Phase::Opening(_));
            (opens, pipeline.writes_large_value())
        });
        if is_opening && !opens {
            self.is_opening.store(false, Relaxed);
            self.shared.end_handshake(self.id);
        }
        if is_writing_large && !writes {
            self.is_writing_large.store(false, Relaxed);
            self.shared.end_large_value(self.id);
        }
    }
}
