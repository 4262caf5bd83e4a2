//! Who belongs to the ensemble, who leads it, and how those catch up that the log no longer reaches.

use super::{
    ELECTION_SLOTS, FOUNDING, HASTENED_TICKS, MembersAt, Registry, Replica, ReplicaError, SnapshotPoint, Work,
};
use crate::proto::OpCode;
use crate::state_machine::ServerId;
use crate::state_machine::command::LeaderKnowledge;
use protobuf::Message as _;
use raft::prelude::{ConfChangeV2, ConfState, EntryType, Snapshot};
use raft::{SnapshotStatus, StateRole};
use std::collections::BTreeSet;

impl Replica {
    /// Founds an ensemble of these members: the empty log begins behind the entry 1 of term 1, which never was. So whoever
    /// joins without any data is given a snapshot, in which the members stand. Says whether there was nothing yet.
    pub fn found(&mut self, members: ConfState, registry: &Registry) -> bool {
        let raft = &mut self.raft.raft;
        if raft.raft_log.last_index() > 0 {
            return false;
        }
        let mut snapshot = Snapshot {
            data: registry.to_bytes(),
            ..Snapshot::default()
        };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (FOUNDING.0, FOUNDING.1);
        metadata.set_conf_state(members);
        raft.become_follower(raft.term.max(FOUNDING.1), raft::INVALID_ID);
        raft.restore(snapshot)
    }

    /// Stands for election now, unless a snapshot is being installed.
    pub fn stand(&mut self) -> Result<(), ReplicaError> {
        if self.is_jumping() {
            return Ok(());
        }
        Ok(self.raft.campaign()?)
    }

    /// Whether the log begins behind what was reported as applied: a snapshot is being installed, or entries were dropped
    /// whose report is on its way. This member must not stand for election then: raft-rs looks at the entries in between,
    /// and panics because they are not there.
    pub(super) fn is_jumping(&self) -> bool {
        let log = &self.raft.raft.raft_log;
        log.applied() + 1 < log.first_index()
    }

    /// One tick for raft. Who must not stand stands as soon as it may, if its leader is still silent by then.
    pub(super) fn tick_raft(&mut self) {
        if self.is_jumping() && self.raft.raft.state != StateRole::Leader {
            self.raft.raft.election_elapsed += 1;
        } else {
            self.raft.tick();
        }
    }

    /// A reconfig is decided by what its leader knows of the others, too.
    pub(super) fn add_knowledge(&mut self) {
        if !self.queue.commands.iter().any(|command| command.op == OpCode::Reconfig) {
            return;
        }
        let linked = self.contacts.keys().copied();
        // A newcomer calls, and is not called before it is a member. It does not vote before it has caught up; but a member that
        // is heard and does not hear is of no use to a majority.
        let is_newcomer = |server: &ServerId| self.registry.of(*server).is_none();
        let newcomers = self.callers.of_late().filter(is_newcomer);
        let in_contact = linked.chain(newcomers).chain([self.options.server]);
        let in_contact: BTreeSet<_> = in_contact.collect();
        let knowledge = LeaderKnowledge {
            in_contact: in_contact.into_iter().collect(),
        };
        for command in &mut self.queue.commands {
            if command.op == OpCode::Reconfig {
                *command = command.clone().with_leader_knowledge(&knowledge);
            }
        }
    }

    /// The life of this member's directory.
    pub fn incarnation(&self) -> u64 {
        self.options.incarnation
    }

    /// Whose promises count.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The members as raft knows them.
    pub fn conf_state(&self) -> ConfState {
        self.raft.raft.prs().conf().to_conf_state()
    }

    /// Of each other member: the last entry that it is known to hold. On a leader alone.
    pub fn progress(&self) -> impl Iterator<Item = (ServerId, u64)> {
        let own = self.options.server.0;
        let progress = self.raft.raft.prs().iter();
        progress
            .filter(move |(id, _)| **id != own)
            .map(|(id, progress)| (ServerId(*id), progress.matched))
    }

    /// The last entry that is known to be committed.
    pub fn committed(&self) -> u64 {
        self.raft.raft.raft_log.committed
    }

    /// Whether a change of members is under way.
    pub fn is_changing(&self) -> bool {
        self.raft.raft.has_pending_conf()
    }

    /// Proposes a change of members; says whether it was. It is dropped while another one is under way.
    pub fn change_members(&mut self, change: ConfChangeV2) -> bool {
        self.is_leader() && !self.is_changing() && self.raft.propose_conf_change(Vec::new(), change).is_ok()
    }

    /// Hands leadership to the follower that is closest behind; says to whom. Nothing is proposed meanwhile.
    pub fn hand_over(&mut self) -> Option<ServerId> {
        if !self.is_leader() {
            return None;
        }
        let own = self.options.server;
        let prs = self.raft.raft.prs();
        let voters = prs.iter().filter(|(id, _)| {
            let server = ServerId(**id);
            server != own && prs.conf().voters().contains(**id) && self.contacts.contains_key(&server)
        });
        // Whether a follower was heard of lately says little: raft forgets it at every check of its quorum.
        let closeness =
            |progress: &raft::Progress, id: u64| (progress.matched, progress.recent_active, std::cmp::Reverse(id));
        let (best, _) = voters.max_by_key(|(id, progress)| closeness(progress, **id))?;
        let best = *best;
        self.raft.transfer_leader(best);
        Some(ServerId(best))
    }

    /// A snapshot was made, and can be sent.
    pub fn snapshot_made(&mut self, point: SnapshotPoint) {
        self.raft.mut_store().offer_snapshot(point);
    }

    /// Sending a snapshot has ended, one way or the other.
    pub fn snapshot_sent(&mut self, to: ServerId, succeeded: bool) {
        self.transfers.remove(&to);
        let status = if succeeded {
            SnapshotStatus::Finish
        } else {
            SnapshotStatus::Failure
        };
        self.raft.report_snapshot(to.0, status);
    }

    /// The snapshots that were made are gone.
    pub fn snapshots_gone(&mut self) {
        self.raft.mut_store().withdraw_snapshot();
    }

    /// The log begins anew behind a snapshot. Whether it holds what was submitted here, nobody can tell.
    pub(super) fn restore(&mut self, ready: &raft::Ready) -> SnapshotPoint {
        let snapshot = ready.snapshot();
        let metadata = snapshot.get_metadata();
        // We have made it ourselves; bytes that cannot be read would leave nobody to trust, which is safe.
        self.registry = Registry::decode(&snapshot.data).unwrap_or_default();
        self.outbox.forget();
        let point = SnapshotPoint {
            term: metadata.term,
            members: MembersAt {
                index: metadata.index,
                conf_state: metadata.get_conf_state().clone(),
                registry: self.registry.clone(),
            },
        };
        self.raft.mut_store().restore(&point);
        self.witness.is_cut(metadata.index);
        point
    }

    /// Committed changes of members take effect when they are handed out.
    pub(super) fn change_conf(&mut self, work: &mut Work) -> Result<(), ReplicaError> {
        for entry in &work.apply {
            if entry.get_entry_type() == EntryType::EntryNormal {
                continue;
            }
            let unreadable = |_| ReplicaError::Change(entry.index);
            let change = ConfChangeV2::parse_from_bytes(&entry.data).map_err(unreadable)?;
            let registered = Registry::decode(&change.context).map_err(|_| ReplicaError::Change(entry.index))?;
            let conf_state = self.raft.apply_conf_change(&change)?;
            for (server, incarnation) in registered.iter() {
                self.registry.set(server, incarnation);
            }
            let is_member = |server: ServerId| {
                [&conf_state.voters, &conf_state.learners, &conf_state.voters_outgoing]
                    .iter()
                    .any(|members| members.contains(&server.0))
            };
            let left: Vec<_> = self
                .registry
                .iter()
                .map(|(server, _)| server)
                .filter(|server| !is_member(*server))
                .collect();
            left.into_iter().for_each(|server| self.registry.remove(server));
            self.raft.mut_store().set_conf_state(conf_state.clone());
            work.members.push(MembersAt {
                index: entry.index,
                conf_state,
                registry: self.registry.clone(),
            });
        }
        Ok(())
    }

    /// A peer's host says that nobody is there: if it led, an election need not wait for its timeout.
    pub fn is_gone(&mut self, server: ServerId) {
        if self.standing.leader == Some(server) && !self.is_leader() {
            let raft = &mut self.raft.raft;
            let timeout = raft.randomized_election_timeout();
            let wait = HASTENED_TICKS + self.options.election_slot % ELECTION_SLOTS;
            raft.election_elapsed = raft.election_elapsed.max(timeout.saturating_sub(wait));
            // Whoever stands first is not to be refused because of a leader that was heard of a moment ago.
            raft.election_elapsed = raft.election_elapsed.max(self.options.election_ticks);
        }
    }
}
