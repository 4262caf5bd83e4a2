//! From the membership that is wanted to the one that raft has: the next step, one at a time.
//!
//! ```text
//!   wanted: /zookeeper/config ┐
//!   is:     raft's ConfState  ├──▶ next_step ──▶ nothing to do │ Change: propose it │ HandOver: lead no longer
//!   seen:   links, progress   ┘
//! ```
//!
//! Asked again after every change of any of the three, it arrives; so nobody keeps a plan, and a leader that takes over in
//! the middle goes on from what it finds.
//!
//! Invariants:
//! - A step changes one member. After it, more than half of the voters are in contact, in the lives that count: else it is
//!   not taken, for the ensemble could not commit anything any more, the way back included.
//! - A member that has lost its memory (the life that is in contact is not the registered one) is removed and added anew,
//!   never taken over: raft would go on to believe what it had acknowledged.
//! - Nobody votes who has not caught up.
//! - The leader removes everybody else first, and itself never: it hands over, and the next one does.
//! - A member that is removed while it is there stays without a vote, and serves its clients, until it goes: as a removed
//!   follower of ZooKeeper's does. Then it is let go.
//!
//! Order, for the sake of what may fail meanwhile: first those go that are of no use (forgetful, or unwanted and away), then
//! those come that are wanted, and voters that are there and shall not vote lose their vote last.

use super::Registry;
use crate::membership::Members;
use crate::state_machine::ServerId;
use raft::prelude::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use std::collections::BTreeMap;

/// A learner has caught up if it lacks no more entries than these: under load, some are always on their way.
pub const CAUGHT_UP_ENTRIES: u64 = 1000;

/// What a leader sees.
#[derive(Clone, Copy, Debug)]
pub struct Survey<'a> {
    /// The leader.
    pub own: ServerId,
    /// Its own life.
    pub own_incarnation: u64,
    /// The membership that is wanted.
    pub wanted: &'a Members,
    /// The members that raft has.
    pub conf_state: &'a ConfState,
    /// Whose promises count.
    pub registry: &'a Registry,
    /// Which life of each other server the leader is in contact with.
    pub contacts: &'a BTreeMap<ServerId, u64>,
    /// The last entry that each other member is known to hold; 0 if that is not known.
    pub matched: &'a BTreeMap<ServerId, u64>,
    /// The last entry that is committed.
    pub committed: u64,
    /// Whether a change of raft's members is under way.
    pub is_changing: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Propose this change of members; [`Registry`] in its context: the lives that it registers.
    Change {
        /// What it does, for the log.
        what: Move,
        /// For raft.
        change: ConfChangeV2,
    },
    /// All others are as they shall be, and this leader is no participant any more: it has to hand leadership to one.
    HandOver,
}

/// What a change does with one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// It is a member no more; it may come back, if it is wanted.
    Remove(ServerId),
    /// It becomes a member without a vote, in this life.
    Add(ServerId, u64),
    /// It votes from now on.
    Promote(ServerId),
    /// It votes no more.
    Demote(ServerId),
}

impl std::fmt::Display for Move {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Move::Remove(server) => write!(formatter, "server {} is removed", server.0),
            Move::Add(server, _) => write!(
                formatter,
                "server {} is added, without a vote until it has caught up",
                server.0
            ),
            Move::Promote(server) => write!(formatter, "server {} has caught up and votes from now on", server.0),
            Move::Demote(server) => write!(formatter, "server {} votes no more", server.0),
        }
    }
}

/// The next step; `None`: all is as it is wanted, or what is missing is not there.
pub fn next_step(survey: &Survey<'_>) -> Option<Step> {
    if survey.is_changing || !survey.conf_state.voters_outgoing.is_empty() {
        return None;
    }
    let what = survey
        .useless()
        .or_else(|| survey.newcomer())
        .or_else(|| survey.promotion())
        .or_else(|| survey.surplus());
    if let Some(what) = what {
        let change = survey.change(what);
        return Some(Step::Change { what, change });
    }
    let must_go = survey.is_voter(survey.own) && !survey.shall_vote(survey.own);
    let others_suffice = || survey.keeps_quorum(|voter| voter != survey.own);
    (must_go && others_suffice()).then_some(Step::HandOver)
}

impl Survey<'_> {
    /// Somebody who does not help: a member that has lost its memory, or an unwanted one that is away. Never the leader, who
    /// is there.
    fn useless(&self) -> Option<Move> {
        let useless = self.members().filter(|server| {
            let is_absent = !self.is_present(*server);
            let has_forgotten = is_absent && self.contacts.contains_key(server);
            has_forgotten || (is_absent && !self.is_wanted(*server))
        });
        self.first_possible(useless)
    }

    /// Somebody who is wanted, is there and is no member yet.
    fn newcomer(&self) -> Option<Move> {
        let wanted = self.wanted.servers.keys().map(|id| ServerId::from(*id));
        let mut newcomers = wanted.filter(|server| !self.is_member(*server));
        newcomers.find_map(|server| Some(Move::Add(server, *self.contacts.get(&server)?)))
    }

    /// Somebody who shall vote, and can by now.
    fn promotion(&self) -> Option<Move> {
        let mut ready = self.learners().filter(|server| {
            let matched = self.matched.get(server).copied().unwrap_or(0);
            let has_caught_up = matched > 0 && matched.saturating_add(CAUGHT_UP_ENTRIES) >= self.committed;
            self.shall_vote(*server) && self.is_present(*server) && has_caught_up
        });
        // Who is there to be counted can only help.
        ready.next().map(Move::Promote)
    }

    /// A voter other than this one that shall vote no more.
    fn surplus(&self) -> Option<Move> {
        let surplus = self
            .voters()
            .filter(|voter| *voter != self.own && !self.shall_vote(*voter));
        self.first_possible(surplus)
    }

    /// Removes the first of these, or takes its vote, if that leaves a quorum.
    fn first_possible(&self, mut servers: impl Iterator<Item = ServerId>) -> Option<Move> {
        let server = servers.find(|server| !self.is_voter(*server) || self.keeps_quorum(|voter| voter != *server))?;
        Some(if self.is_present(server) {
            Move::Demote(server)
        } else {
            Move::Remove(server)
        })
    }

    /// Whether more than half of those voters that `stay` are present.
    fn keeps_quorum(&self, stays: impl Fn(ServerId) -> bool) -> bool {
        let staying: Vec<ServerId> = self.voters().filter(|voter| stays(*voter)).collect();
        let present = staying.iter().filter(|voter| self.is_present(**voter)).count();
        present * 2 > staying.len()
    }

    fn voters(&self) -> impl Iterator<Item = ServerId> {
        self.conf_state.voters.iter().map(|id| ServerId(*id))
    }

    fn learners(&self) -> impl Iterator<Item = ServerId> {
        self.conf_state.learners.iter().map(|id| ServerId(*id))
    }

    fn members(&self) -> impl Iterator<Item = ServerId> {
        self.voters().chain(self.learners())
    }

    fn is_voter(&self, server: ServerId) -> bool {
        self.conf_state.voters.contains(&server.0)
    }

    fn is_member(&self, server: ServerId) -> bool {
        self.is_voter(server) || self.conf_state.learners.contains(&server.0)
    }

    fn is_wanted(&self, server: ServerId) -> bool {
        server
            .member()
            .is_some_and(|member| self.wanted.servers.contains_key(&member))
    }

    fn shall_vote(&self, server: ServerId) -> bool {
        server.member().is_some_and(|member| self.wanted.is_participant(member))
    }

    /// Whether a member is in contact, in the life that counts.
    fn is_present(&self, server: ServerId) -> bool {
        let life = self.contacts.get(&server);
        server == self.own || life.is_some_and(|life| self.registry.of(server) == Some(*life))
    }

    fn change(&self, what: Move) -> ConfChangeV2 {
        let (server, kind) = match what {
            Move::Remove(server) => (server, ConfChangeType::RemoveNode),
            Move::Add(server, _) | Move::Demote(server) => (server, ConfChangeType::AddLearnerNode),
            Move::Promote(server) => (server, ConfChangeType::AddNode),
        };
        let mut registered = Registry::default();
        if let Move::Add(server, incarnation) = what {
            registered.set(server, incarnation);
        }
        if self.registry.of(self.own).is_none() {
            // It has been alone until now, and nobody had to know which of its lives counts.
            registered.set(self.own, self.own_incarnation);
        }
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = server.0;
        let mut change = ConfChangeV2 {
            context: registered.to_bytes(),
            ..ConfChangeV2::default()
        };
        change.mut_changes().push(single);
        change
    }
}

#[cfg(test)]
#[path = "drive_tests.rs"]
mod tests;
