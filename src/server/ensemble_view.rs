//! What this server knows of its ensemble at the moment, for operators and for the doors: written by the driver, read by
//! everyone else.
//!
//! It is a picture, not the truth: by the time that it is read, the role may have changed. Nothing that has to be right is
//! decided by it; who belongs to the ensemble, with which addresses, stands in the state ([`State::membership`]).
//!
//! [`State::membership`]: crate::state_machine::State::membership

use crate::membership::Members;
use crate::replica::{CAUGHT_UP_ENTRIES, Replica, Role, Standing};
use crate::state_machine::ServerId;
use parking_lot::Mutex;
use raft::prelude::ConfState;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// What this server is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EnsembleRole {
    /// It is configured to be alone.
    #[default]
    Standalone,
    /// It orders the commands.
    Leader,
    /// It follows a leader, and votes.
    Follower,
    /// It follows a leader, and does not vote.
    Observer,
    /// It knows no leader, and serves nobody.
    Looking,
    /// It knows no leader, and serves reads to clients that asked for that.
    ReadOnly,
}

impl EnsembleRole {
    /// Whether it is part of an ensemble with a leader.
    pub fn has_leader(self) -> bool {
        matches!(
            self,
            EnsembleRole::Leader | EnsembleRole::Follower | EnsembleRole::Observer
        )
    }
}

/// The word of `Mode` and `zk_server_state`. A server that looks for a leader serves nobody, so that ZooKeeper has no word
/// for it there; ours is shown only where an answer is given all the same.
impl fmt::Display for EnsembleRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            EnsembleRole::Standalone => "standalone",
            EnsembleRole::Leader => "leader",
            EnsembleRole::Follower => "follower",
            EnsembleRole::Observer => "observer",
            EnsembleRole::Looking => "looking",
            EnsembleRole::ReadOnly => "read-only",
        })
    }
}

/// Another member, as this server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Which.
    pub server: ServerId,
    /// Whether it votes by now (raft's configuration; a participant that has not caught up yet does not).
    pub voter: bool,
    /// Whether this server has heard of it lately.
    pub in_contact: bool,
    /// Whether its log is as long as the leader's, or nearly so. Only a leader knows that; `false` elsewhere.
    pub synced: bool,
}

/// What this server knows of its ensemble.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnsembleView {
    /// What it is.
    pub role: EnsembleRole,
    /// Whom it takes for the leader.
    pub leader: Option<ServerId>,
    /// The term it is in; 0 before the first election.
    pub term: u64,
    /// Whether this server votes by raft's configuration.
    pub votes: bool,
    /// The other members, in the order of their ids.
    pub peers: Vec<PeerView>,
}

impl EnsembleView {
    /// What this server, `own`, sees through its replica; `membership` is the wanted one, if there is one yet.
    pub(super) fn seen_by(replica: &Replica, own: ServerId, membership: Option<&Members>) -> EnsembleView {
        let progress: BTreeMap<ServerId, u64> = replica.progress().collect();
        let sight = Sight {
            own,
            standing: replica.standing(),
            conf_state: &replica.conf_state(),
            contacts: replica.contacts(),
            progress: &progress,
            committed: replica.committed(),
        };
        sight.view(membership)
    }

    /// How many servers vote, this one included.
    pub fn voters(&self) -> usize {
        self.count(|peer| peer.voter) + usize::from(self.votes)
    }

    /// Whether this server votes and nobody else does; `None` before the first look.
    pub fn votes_alone(&self) -> Option<bool> {
        let voters = self.voters();
        (voters > 0).then_some(self.votes && voters == 1)
    }

    /// How many of the other members are as `wanted`.
    pub fn count(&self, wanted: impl Fn(&PeerView) -> bool) -> usize {
        self.peers.iter().filter(|peer| wanted(peer)).count()
    }
}

/// What a picture is made of.
struct Sight<'a> {
    own: ServerId,
    standing: Standing,
    conf_state: &'a ConfState,
    contacts: &'a BTreeMap<ServerId, u64>,
    /// The last entry that each other member is known to hold. On a leader alone.
    progress: &'a BTreeMap<ServerId, u64>,
    committed: u64,
}

impl Sight<'_> {
    fn view(&self, membership: Option<&Members>) -> EnsembleView {
        let votes = self.conf_state.voters.contains(&self.own.0);
        let shall_vote = |members: &Members| self.own.member().is_some_and(|own| members.is_participant(own));
        // Who joins is a follower from the start, as in ZooKeeper, though it does not vote yet.
        let observes = !votes && !membership.is_some_and(shall_vote);
        let role = match (self.standing.role, self.standing.leader) {
            (Role::Leader, _) => EnsembleRole::Leader,
            (_, None) | (Role::Looking, _) => EnsembleRole::Looking,
            _ if observes => EnsembleRole::Observer,
            _ => EnsembleRole::Follower,
        };
        let by_raft = self.conf_state.voters.iter().chain(&self.conf_state.learners);
        let by_raft = by_raft.map(|id| ServerId(*id));
        let wanted = membership.iter().flat_map(|members| members.servers.keys());
        let everybody: BTreeSet<ServerId> = by_raft.chain(wanted.map(|id| ServerId::from(*id))).collect();
        let peers = everybody.into_iter().filter(|server| *server != self.own);
        EnsembleView {
            role,
            leader: self.standing.leader,
            term: self.standing.term,
            votes,
            peers: peers.map(|server| self.peer(server)).collect(),
        }
    }

    fn peer(&self, server: ServerId) -> PeerView {
        let matched = self.progress.get(&server).copied().unwrap_or(0);
        let in_contact = self.contacts.contains_key(&server);
        let has_caught_up = matched > 0 && matched.saturating_add(CAUGHT_UP_ENTRIES) >= self.committed;
        PeerView {
            server,
            voter: self.conf_state.voters.contains(&server.0),
            in_contact,
            synced: in_contact && has_caught_up && self.standing.role == Role::Leader,
        }
    }
}

/// Where the picture hangs.
#[derive(Debug, Default)]
pub(super) struct EnsembleBoard {
    current: Mutex<(Arc<EnsembleView>, u64)>,
}

impl EnsembleBoard {
    /// The picture, and since when (µs of the server's clock) the server has had its role.
    pub(super) fn get(&self) -> (Arc<EnsembleView>, u64) {
        self.current.lock().clone()
    }

    /// Hangs up a new one at `now_us`.
    pub(super) fn set(&self, view: EnsembleView, now_us: u64) {
        let mut current = self.current.lock();
        let since_us = if current.0.role == view.role { current.1 } else { now_us };
        *current = (Arc::new(view), since_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_counts_from_when_it_began_and_not_from_the_last_picture() {
        let board = EnsembleBoard::default();
        assert_eq!(board.get().0.role, EnsembleRole::Standalone);
        let led_by = |term| EnsembleView {
            role: EnsembleRole::Leader,
            term,
            votes: true,
            ..EnsembleView::default()
        };
        board.set(led_by(1), 5);
        board.set(led_by(2), 9);
        assert_eq!((board.get().0.term, board.get().1), (2, 5));
        board.set(EnsembleView::default(), 12);
        assert_eq!(board.get().1, 12);
    }

    #[test]
    fn the_picture_is_made_of_what_raft_and_the_links_know() {
        let members = "server.1=a:1:2:participant\nserver.2=b:1:2:participant\nserver.3=c:1:2:participant\n\
                       server.4=d:1:2:observer\nversion=1";
        let members = Members::parse(members).unwrap();
        let conf_state = ConfState {
            voters: vec![1, 2],
            learners: vec![4, 9],
            ..ConfState::default()
        };
        let standing = |role, leader| Standing {
            role,
            term: 7,
            leader: Some(ServerId(leader)),
        };
        let mut sight = Sight {
            own: ServerId(1),
            standing: standing(Role::Leader, 1),
            conf_state: &conf_state,
            contacts: &[2, 3, 4].map(|id| (ServerId(id), 0)).into(),
            progress: &[(2, 5000), (4, 10), (9, 5000)]
                .map(|(id, at)| (ServerId(id), at))
                .into(),
            committed: 5000,
        };
        let view = sight.view(Some(&members));
        assert_eq!(
            (view.role, view.term, view.votes, view.voters()),
            (EnsembleRole::Leader, 7, true, 2)
        );
        // server, votes, is in contact, has caught up
        let peers: Vec<_> = view
            .peers
            .iter()
            .map(|peer| (peer.server.0, peer.voter, peer.in_contact, peer.synced))
            .collect();
        assert_eq!(
            peers,
            [
                (2, true, true, true),
                (3, false, true, false),
                (4, false, true, false),
                (9, false, false, false)
            ]
        );

        sight.standing = standing(Role::Follower, 1);
        for (own, role) in [
            (2, EnsembleRole::Follower),
            (3, EnsembleRole::Follower),
            (4, EnsembleRole::Observer),
            (9, EnsembleRole::Observer),
        ] {
            sight.own = ServerId(own);
            let view = sight.view(Some(&members));
            assert_eq!(view.role, role, "{own}");
            assert_eq!(view.count(|peer| peer.synced), 0, "only a leader knows");
        }
        assert_eq!(sight.view(None).role, EnsembleRole::Observer);
        sight.standing.leader = None;
        assert_eq!(sight.view(None).role, EnsembleRole::Looking);
        assert!(!sight.view(None).role.has_leader());
    }

    #[test]
    fn voters_are_counted_with_this_server() {
        let peer = |server, voter| PeerView {
            server: ServerId(server),
            voter,
            in_contact: true,
            synced: true,
        };
        let view = EnsembleView {
            votes: true,
            peers: vec![peer(2, true), peer(3, true), peer(4, false)],
            ..EnsembleView::default()
        };
        assert_eq!(view.voters(), 3);
        assert_eq!(view.votes_alone(), Some(false));
        assert_eq!(EnsembleView { votes: false, ..view }.voters(), 2);
        let alone = EnsembleView {
            votes: true,
            ..EnsembleView::default()
        };
        assert_eq!(alone.votes_alone(), Some(true));
        assert_eq!(EnsembleView::default().votes_alone(), None, "nobody has looked");
    }
}
