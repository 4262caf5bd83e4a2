//! What goes into a replica and what comes out of it, as values.

use super::{PeerMessage, Registry};
use crate::state_machine::{Rules, ServerId};
use raft::prelude::{ConfState, Entry, HardState};

/// How a replica is set up.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// This member.
    pub server: ServerId,
    /// The life of its data directory.
    pub incarnation: u64,
    /// A number greater than at every earlier start of this member.
    pub stream: u64,
    /// What the leader stamps on its entries.
    pub rules: Rules,
    /// Ticks without a sign of the leader after which a follower stands for election; a leader that hears of no quorum
    /// for so long steps down. More than two heartbeats.
    pub election_ticks: usize,
    /// This member's place among those that may stand: each waits a little longer than the one before it, so that they do
    /// not stand at the same moment. Chance comes in as an argument, or not at all.
    pub election_slot: usize,
    /// Bytes of entries that are kept in memory for followers that lag; beyond, they get a snapshot. 0 for a lone server.
    pub log_budget_bytes: usize,
}

/// Entries and hard state that belong on disk together.
#[derive(Debug)]
pub struct Append {
    /// Number to report to [`Replica::persisted`](super::Replica::persisted); a later one implies the earlier.
    pub number: u64,
    /// May begin at or below the last index: then everything from there on is replaced.
    pub entries: Vec<Entry>,
    /// `None`: unchanged.
    pub hard_state: Option<HardState>,
    /// Whether it must be on disk before it is reported; otherwise it may be written with a later one.
    pub must_sync: bool,
    /// Whether something waits for its report. Otherwise it may be written along with a later one: it only tells how far the
    /// log is committed.
    pub is_awaited: bool,
}

/// What this member is in its ensemble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Orders the commands.
    Leader,
    /// Follows one, or waits for one.
    Follower,
    /// Stands for election.
    #[default]
    Looking,
}

/// What this member is, and whom it follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What it is.
    pub role: Role,
    /// In which term.
    pub term: u64,
    /// Who leads, if that is known: this member itself, too.
    pub leader: Option<ServerId>,
}

/// Read barriers that may be passed once `index` is applied.
#[derive(Debug, PartialEq, Eq)]
pub struct PassedBarriers {
    /// The index to wait for.
    pub index: u64,
    /// As given to [`Replica::barrier`](super::Replica::barrier).
    pub tokens: Vec<u64>,
}

/// The members as of an entry of the log: to be stored together with what was applied up to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MembersAt {
    /// The entry.
    pub index: u64,
    /// Voters and learners.
    pub conf_state: ConfState,
    /// Whose promises count.
    pub registry: Registry,
}

/// A snapshot as raft sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotPoint {
    /// Term of the last entry that it holds.
    pub term: u64,
    /// The members as of that entry.
    pub members: MembersAt,
}

/// What is to be done, in any order between the fields, except that `restore` comes before `append`.
#[derive(Debug, Default)]
pub struct Work {
    /// The log is to begin anew behind a snapshot that was received; nothing of what it held counts any more.
    pub restore: Option<SnapshotPoint>,
    /// For the log.
    pub append: Option<Append>,
    /// For the peers.
    pub send: Vec<(ServerId, PeerMessage)>,
    /// For the applier, in order.
    pub apply: Vec<Entry>,
    /// The members as of those entries among `apply` that change them.
    pub members: Vec<MembersAt>,
    /// For the applier, once it has come so far.
    pub barriers: Vec<PassedBarriers>,
    /// What this member is now, if that has changed.
    pub standing: Option<Standing>,
    /// Somebody needs a snapshot, and there is none that would do: see [`Replica::snapshot_made`](super::Replica::snapshot_made).
    pub make_snapshot: bool,
    /// Snapshots to be sent, with the message that installs them: see [`Replica::snapshot_sent`](super::Replica::snapshot_sent).
    pub send_snapshots: Vec<(ServerId, PeerMessage)>,
}
