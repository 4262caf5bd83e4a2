//! One member of an ensemble without IO: raft-rs node, proposals, forwarding, read barriers, session deadlines in ticks.
//!
//! ```text
//!   submit(commands) ┐                         ┌ append: entries and hard state, for the log
//!   barrier(token)   │                         │ send: messages for peers
//!   step(peer, …)    ├──▶ Replica ── poll ──▶ Work ┤ apply: committed entries, in order
//!   persisted(n)     │                         │ barriers: tokens, and the index that they wait for
//!   applied(index)   │                         │ snapshots to be made, sent and installed
//!   tick()           ┘                         └ standing: role, term and leader, when they changed
//! ```
//!
//! Invariants:
//! - Nothing that is a promise (a vote, the acknowledgement of an append) is handed out before the write that it promises
//!   was reported by [`Replica::persisted`].
//! - Promises of a peer that has lost its memory are not counted: its incarnation is not the registered one.
//! - Only committed entries that are on this member's own disk are handed out to be applied, each once, in order.
//! - A submitted command is applied exactly once, whoever leads meanwhile, unless this member has to jump over part of the
//!   log by a snapshot ([`Work::restore`]): then what was submitted is forgotten.
//! - Session deadlines count only on the leader, only in ticks, and start in full when leadership begins: so neither an
//!   election nor a pause expires a session that gave a sign of life.
//!
//! A single server is an ensemble with one voter: the same path, with an election that it wins at once.
//!
//! Left out on purpose: clocks (a tick is a call, the wall time an argument), sockets, files, and what commands mean.

mod barriers;
mod callers;
mod deadlines;
mod drive;
mod letters;
mod log_view;
mod members;
mod outbox;
mod peer;
mod queue;
mod receiving;
mod registry;
mod touches;
mod witness;
mod work;

use crate::proto::{OpCode, SessionId, Xid};
use crate::state_machine::{Batch, Command, Origin, Rules, ServerId, Stamp};
use barriers::Barriers;
use bytes::Bytes;
use callers::Callers;
use letters::Acknowledged;
use log_view::LogView;
use outbox::{Forwarded, Outbox};

use queue::Queue;
use raft::prelude::Message;
use raft::{RawNode, ReadOnlyOption, StateRole};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use touches::Touches;
use witness::Witness;

pub use deadlines::Deadlines;
pub use drive::{CAUGHT_UP_ENTRIES, Move, Step, Survey, next_step};
pub use log_view::Recovered;
pub use peer::{Peer, PeerMessage};
pub use registry::Registry;
pub use work::{Append, MembersAt, PassedBarriers, ReplicaOptions, Role, SnapshotPoint, Standing, Work};

/// Commands in one entry at most: bounds how long the applier holds the state for one entry.
const BATCH_COMMANDS: usize = 512;
/// Bytes in one entry at most, unless one command alone is larger.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes that are proposed and not yet committed at most; more waits in the leader's queue, whose length the connections'
/// own bounds limit.
const UNCOMMITTED_BYTES: u64 = 64 << 20;
/// Bytes of committed entries handed out by one poll at most; the rest comes with the next one.
const APPLY_BYTES: u64 = 8 << 20;
/// Bytes of entries in one message to a follower at most.
const MESSAGE_BYTES: u64 = 1 << 20;
/// Messages on their way to one follower at most: bounds what a slow one makes us hold.
const INFLIGHT_MESSAGES: usize = 64;

/// Length of a tick, ms: the replica's only unit of time.
pub const TICK_MS: u64 = 50;
/// Index and term of the entry that a founded log begins behind.
pub const FOUNDING: (u64, u64) = (1, 1);
/// While snapshots are on their way, so many times the budget of entries is kept: a receiver must find the log where its
/// snapshot ends, or it would need another one, for ever.
const TRANSFER_FACTOR: usize = 8;
/// In an ensemble, a session is given so many ticks more: its signs of life may be on their way from another member.
const DEADLINE_GRACE_TICKS: u64 = 6;
/// A follower asks its leader for an answer so often, ticks: a leader that is heard may not hear.
const CONTACT_TICKS: u64 = 1000 / TICK_MS;
/// Ticks between two rounds of telling how far the logs reach.
const WITNESS_TICKS: u64 = 1000 / TICK_MS;
/// Ticks between heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// An election that a sign of the leader's death has called begins so many ticks after it for the first server, and one
/// more for each further one: so that they do not stand at the same moment.
const HASTENED_TICKS: usize = 1;
/// Members that are given different moments to stand for election: more of them share some.
const ELECTION_SLOTS: usize = 5;

/// The replica cannot go on; the server must stop.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// raft-rs has given up.
    #[error("raft refuses: {0}")]
    Raft(#[from] raft::Error),
    /// This member's log is not what it was.
    #[error(
        "the log of this server ends at entry {last}, but it has acknowledged entries up to {acknowledged}: its data was put \
         back from an old copy, or a disk has lost writes. It must not vote with it"
    )]
    Forgotten {
        /// Its last entry.
        last: u64,
        /// How far it should reach.
        acknowledged: u64,
    },
    /// A change of members in the log cannot be read.
    #[error(
        "log entry {0} changes the ensemble's members in a way that this version cannot read. Start the version that wrote \
         it."
    )]
    Change(u64),
}

/// One member.
pub struct Replica {
    raft: RawNode<LogView>,
    options: ReplicaOptions,
    outbox: Outbox,
    queue: Queue,
    touches: Touches,
    /// Promises, by the append that must be on disk before they may leave.
    promises: VecDeque<(u64, Vec<Message>)>,
    acknowledged: Acknowledged,
    /// Messages that are no promises and not raft's.
    letters: Vec<(ServerId, PeerMessage)>,
    persisted: u64,
    deadlines: Deadlines,
    barriers: Barriers,
    registry: Registry,
    standing: Standing,
    witness: Witness,
    /// Which life of each peer this server is linked with.
    contacts: BTreeMap<ServerId, u64>,
    callers: Callers,
    /// The leader that this member knew last, and its term; and ticks in which it was known since it has last answered
    /// something that this follower had asked.
    asked: Option<(ServerId, u64)>,
    unanswered_ticks: u64,
    /// To whom snapshots are on their way.
    transfers: BTreeSet<ServerId>,
    tick: u64,
}

impl Replica {
    /// A member that goes on from what its disk holds. One that knows of no members waits to be given a snapshot.
    pub fn new(options: ReplicaOptions, recovered: Recovered, logger: &slog::Logger) -> Result<Replica, ReplicaError> {
        let applied = recovered.applied_index;
        let alone = recovered.conf_state.voters == [options.server.0];
        let registry = recovered.registry.clone();
        let log = LogView::new(recovered);
        let slot = options.election_slot % ELECTION_SLOTS;
        let election_ticks = options.election_ticks.max(2 * HEARTBEAT_TICKS + 1);
        // The timeout of the last slot is 1.8 times that of the first.
        let waits = election_ticks + slot * (election_ticks / ELECTION_SLOTS).max(1);
        let config = raft::Config {
            id: options.server.0,
            election_tick: election_ticks,
            heartbeat_tick: HEARTBEAT_TICKS,
            min_election_tick: waits,
            max_election_tick: waits + 1,
            applied,
            max_size_per_msg: MESSAGE_BYTES,
            max_inflight_msgs: INFLIGHT_MESSAGES,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            // raft-rs would put entries into a message that waits already, and look only whether they continue its
            // entries: behind an empty message for a later index they do not continue it at all. The follower acknowledges
            // an entry that it does not have (TotalOrder, Durable). The simulation has found it.
            batch_append: false,
            max_uncommitted_size: UNCOMMITTED_BYTES,
            max_committed_size_per_ready: APPLY_BYTES,
            ..raft::Config::default()
        };
        let mut raft = RawNode::new(&config, log, logger)?;
        if alone {
            // Nobody else could win: waiting out an election timeout would only delay the start.
            raft.campaign()?;
        }
        Ok(Replica {
            witness: Witness::of(raft.raft.raft_log.persisted),
            raft,
            outbox: Outbox::new(options.stream),
            queue: Queue::default(),
            touches: Touches::default(),
            promises: VecDeque::new(),
            acknowledged: Acknowledged::default(),
            letters: Vec::new(),
            persisted: 0,
            deadlines: Deadlines::new(if options.log_budget_bytes == 0 {
                0
            } else {
                DEADLINE_GRACE_TICKS
            }),
            barriers: Barriers::new(options.server, options.stream),
            registry,
            standing: Standing::default(),
            contacts: BTreeMap::new(),
            callers: Callers::default(),
            asked: None,
            unanswered_ticks: 0,
            transfers: BTreeSet::new(),
            tick: 0,
            options,
        })
    }

    /// Commands of this server's sessions, to be put into the log in this order. They wait here as long as nobody leads. They
    /// are no signs of life by themselves: who asks for a session may not have its password, and that is not known here.
    pub fn submit(&mut self, commands: impl IntoIterator<Item = Command>) {
        self.outbox.extend(commands);
    }

    /// Asks when a read that arrives now may be answered: `token` comes back in [`Work::barriers`].
    pub fn barrier(&mut self, token: u64) {
        self.barriers.add(token);
    }

    /// The append of this number, and all before it, are on disk.
    pub fn persisted(&mut self, number: u64) {
        let last = self.persisted;
        assert!(number >= last, "append {number} is reported after {last}");
        self.persisted = number;
        self.raft.on_persist_ready(number);
        self.witness.has(self.raft.raft.raft_log.persisted);
    }

    /// All entries up to `index`, whose term this is, are applied; `own` of the commands submitted here among them.
    pub fn applied(&mut self, index: u64, term: u64, own: usize) {
        self.outbox.applied(own, term);
        self.raft.advance_apply_to(index);
        if self.options.log_budget_bytes == 0 {
            self.raft.mut_store().compact(index, index, 0); // Nobody will ask a lone server for them.
        }
    }

    /// Entries up to `index` are durable in the tree: memory need not hold them for this member any longer. Gives the
    /// first index that is still needed by somebody; the log on disk may be cut below it.
    pub fn compact(&mut self, index: u64) -> u64 {
        let needed = if self.options.log_budget_bytes == 0 {
            index
        } else if self.is_leader() {
            let matched = self.raft.raft.prs().iter().map(|(_, progress)| progress.matched);
            matched.min().unwrap_or(index).min(index)
        } else {
            // Whoever may lead tomorrow keeps what others may need then.
            0
        };
        let factor = if self.transfers.is_empty() { 1 } else { TRANSFER_FACTOR };
        let budget = self.options.log_budget_bytes.saturating_mul(factor);
        self.raft.mut_store().compact(needed, index, budget);
        self.raft.store().first().min(index + 1) // Memory may hold less than what a start needs.
    }

    /// Length of the log in memory, bytes.
    pub fn log_bytes(&self) -> usize {
        self.raft.store().size_bytes()
    }

    /// One tick has passed.
    pub fn tick(&mut self) {
        self.tick += 1;
        self.unanswered_ticks += u64::from(self.standing.leader.is_some());
        self.tick_raft();
        if self.tick.is_multiple_of(WITNESS_TICKS) {
            self.callers.forget_silent(self.tick);
            self.tell_witnesses();
        }
        let server = self.options.server;
        let expired = self.deadlines.tick();
        if self.is_leader() {
            let closing = expired
                .into_iter()
                .map(|session| internal(server, session, OpCode::CloseSession, Bytes::new()));
            self.queue.commands.extend(closing);
        } else if let Some(leader) = self.standing.leader
            && let Some((number, sessions)) = self.touches.message(self.tick.is_multiple_of(CONTACT_TICKS))
        {
            self.letters.push((leader, PeerMessage::Touches { number, sessions }));
        }
    }

    /// A session was opened, or bound to another connection with another timeout.
    pub fn session_opened(&mut self, session: SessionId, timeout_ms: i32) {
        self.deadlines.open(session, timeout_ticks(timeout_ms));
    }

    /// How long each session may stay silent from now on, ms, in no order. On a leader alone: others do not judge.
    pub fn session_deadlines(&self) -> impl Iterator<Item = (SessionId, u64)> {
        self.deadlines.remaining().map(|(id, ticks)| (id, ticks * TICK_MS))
    }

    /// A session is gone.
    pub fn session_closed(&mut self, session: SessionId) {
        self.deadlines.close(session);
    }

    /// The state was replaced by a snapshot's: its sessions are reported anew.
    pub fn sessions_replaced(&mut self) {
        self.deadlines.clear();
    }

    /// Signs of life of these sessions have arrived here since the last tick.
    pub fn touch(&mut self, sessions: &[SessionId]) {
        if self.is_leader() {
            self.touch_here(sessions);
        } else {
            self.touches.add(sessions);
        }
    }

    fn touch_here(&mut self, sessions: &[SessionId]) {
        for session in sessions {
            self.deadlines.touch(*session);
        }
    }

    /// What this member is, and whom it follows.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.standing.role == Role::Leader
    }

    /// For how many ticks this follower has had no answer of its leader, whom it may well hear: then writes do not reach it,
    /// and neither do signs of life. 0 where there is no leader to ask.
    pub fn unanswered_ticks(&self) -> u64 {
        match self.standing.leader {
            Some(leader) if leader != self.options.server => self.unanswered_ticks,
            _ => 0,
        }
    }

    /// How many commands of this server's sessions are not applied yet.
    pub fn submitted(&self) -> usize {
        self.outbox.len()
    }

    /// Puts commands of the leader itself into the log, if this member leads.
    pub fn submit_internal(&mut self, op: OpCode, bodies: impl IntoIterator<Item = Bytes>) {
        let server = self.options.server;
        if self.is_leader() {
            let commands = bodies.into_iter().map(|body| internal(server, SessionId(0), op, body));
            self.queue.commands.extend(commands);
        }
    }

    /// What this member stamps on its entries when it leads.
    pub fn rules(&self) -> Rules {
        self.options.rules
    }

    /// What the leader stamps on its entries from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.options.rules = rules;
    }

    /// This server is linked with a peer.
    pub fn linked(&mut self, peer: Peer) {
        self.contacts.insert(peer.server, peer.incarnation);
        self.acknowledged = Acknowledged::default();
        let index = self.witness.own();
        self.letters.push((peer.server, PeerMessage::Reach { index }));
    }

    /// The link to a peer has broken.
    pub fn unlinked(&mut self, server: ServerId) {
        self.contacts.remove(&server);
        self.raft.report_unreachable(server.0);
    }

    /// Which life of each peer this server is linked with.
    pub fn contacts(&self) -> &BTreeMap<ServerId, u64> {
        &self.contacts
    }

    /// What is to be done now; `None` if nothing is. Call it after every input, until it gives `None`.
    pub fn poll(&mut self, now_ms: i64) -> Result<Option<Work>, ReplicaError> {
        self.hand_on();
        self.propose(now_ms)?;
        let mut work = Work::default();
        self.ask_barriers(&mut work);
        self.keep_promises(&mut work);
        work.send.append(&mut self.letters);
        if self.raft.has_ready() {
            self.take_ready(&mut work)?;
        } else {
            work.standing = self.note_standing();
            let is_idle = work.send.is_empty() && work.send_snapshots.is_empty() && work.barriers.is_empty();
            if work.standing.is_none() && is_idle {
                return Ok(None);
            }
        }
        self.transfers.extend(work.send_snapshots.iter().map(|(to, _)| *to));
        work.make_snapshot = self.raft.store().is_snapshot_wanted();
        Ok(Some(work))
    }

    /// What our sessions have submitted goes to the leader, once that is sure to happen only once.
    fn hand_on(&mut self) {
        if self.outbox.term() != self.raft.raft.term {
            return;
        }
        if self.is_leader() {
            self.queue.commands.extend(self.outbox.hand_on().cloned());
        } else if let Some(leader) = self.standing.leader {
            let term = self.outbox.term();
            while let Some(Forwarded {
                stream,
                first,
                commands,
            }) = self.outbox.forward(self.tick)
            {
                let forward = PeerMessage::Forward {
                    term,
                    stream,
                    first,
                    commands,
                };
                self.letters.push((leader, forward));
            }
        }
    }

    fn propose(&mut self, now_ms: i64) -> Result<(), ReplicaError> {
        // What is queued was taken as the leader of one term. It must not get into another one, nor be passed on by raft.
        let leads = self.raft.raft.state == StateRole::Leader && self.raft.raft.term == self.standing.term;
        if !leads || !self.is_leader() {
            return Ok(());
        }
        let stamp = Stamp {
            time_ms: now_ms,
            rules: self.options.rules,
        };
        self.add_knowledge();
        while !self.queue.commands.is_empty() {
            let commands = next_batch(self.queue.commands.make_contiguous());
            let entry = Batch::encode(stamp, &self.queue.commands.as_slices().0[..commands]);
            match self.raft.propose(Vec::new(), entry.into()) {
                Ok(()) => drop(self.queue.commands.drain(..commands)),
                // Too much is uncommitted, or leadership is on its way elsewhere: they stay in line.
                Err(raft::Error::ProposalDropped) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn take_ready(&mut self, work: &mut Work) -> Result<(), ReplicaError> {
        let mut ready = self.raft.ready();
        work.standing = self.note_standing();
        let messages = ready.take_messages();
        self.address(messages, work);
        let has_promises = self.promise(ready.number(), ready.take_persisted_messages());
        for state in ready.take_read_states() {
            if let Some(passed) = self.barriers.passed(&state.request_ctx, state.index) {
                work.barriers.push(passed);
            }
        }
        if !ready.snapshot().is_empty() {
            work.restore = Some(self.restore(&ready));
        }
        work.apply = ready.take_committed_entries();
        self.change_conf(work)?;
        let entries = ready.take_entries();
        if let Some(first) = entries.first() {
            self.witness.is_cut(first.index - 1);
        }
        let hard_state = ready.hs().cloned();
        self.raft.mut_store().append(&entries, hard_state.as_ref());
        work.append = Some(Append {
            number: ready.number(),
            entries,
            hard_state,
            must_sync: ready.must_sync(),
            is_awaited: ready.must_sync() || has_promises || work.restore.is_some(),
        });
        self.raft.advance_append_async(ready);
        #[cfg(test)]
        self.believe_sent(&work.send)?;
        Ok(())
    }

    /// Whether a member that cannot stand for election has not heard of its leader for an election timeout. raft would
    /// believe in that leader for ever: only who may stand is let to doubt it.
    fn is_forsaken(&self) -> bool {
        let raft = &self.raft.raft;
        raft.state == StateRole::Follower
            && (!raft.promotable() || self.is_jumping())
            && raft.election_elapsed >= raft.randomized_election_timeout()
    }

    fn note_standing(&mut self) -> Option<Standing> {
        let raft = &self.raft.raft;
        let standing = Standing {
            role: match raft.state {
                StateRole::Leader => Role::Leader,
                StateRole::Follower => Role::Follower,
                StateRole::Candidate | StateRole::PreCandidate => Role::Looking,
            },
            term: raft.term,
            leader: (raft.leader_id != raft::INVALID_ID && !self.is_forsaken()).then_some(ServerId(raft.leader_id)),
        };
        if standing == self.standing {
            return None;
        }
        let began = standing.role == Role::Leader
            && (self.standing.role != Role::Leader || self.standing.term != standing.term);
        if planted!(ForwardedEarly) {
            self.outbox.applied(0, standing.term);
        }
        if began && !planted!(DeadlinesGoOn) {
            self.deadlines.restart();
        }
        if began {
            self.touches.clear();
        } else if self.standing.role == Role::Leader {
            // Another one may lead for so long already, for whom this counts.
            let doubtful_ticks = 2 * self.options.election_ticks as u64;
            self.touches.add(&self.deadlines.touched_within(doubtful_ticks));
        }
        if began || self.standing.role == Role::Leader {
            self.queue.reset();
        }
        self.barriers.forget_asked();
        self.standing = standing;
        let asked = standing.leader.map(|leader| (leader, standing.term));
        if asked.is_some() && asked != self.asked {
            // Whoever stands for election now and then in vain has the same leader as before, who may never hear it.
            (self.asked, self.unanswered_ticks) = (asked, 0);
        }
        Some(standing)
    }
}

/// A command that the leader proposes of itself.
fn internal(server: ServerId, session: SessionId, op: OpCode, body: Bytes) -> Command {
    let origin = Origin {
        server,
        ..Origin::default()
    };
    Command {
        origin,
        session,
        xid: Xid(0),
        identities: [].into(),
        op,
        body,
    }
}

/// How many of the waiting commands go into one entry: at least one.
fn next_batch(commands: &[Command]) -> usize {
    let mut bytes = 0;
    let fitting = commands.iter().take(BATCH_COMMANDS).take_while(|command| {
        bytes += command.size_bytes();
        bytes <= BATCH_BYTES
    });
    fitting.count().max(1)
}

/// A session's timeout in ticks, rounded up: rounding must never take time away from a session.
pub fn timeout_ticks(timeout_ms: i32) -> u64 {
    u64::try_from(timeout_ms).unwrap_or(0).div_ceil(TICK_MS)
}

#[cfg(test)]
mod tests;
