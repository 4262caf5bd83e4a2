//! What this server knows of its ensemble at the moment, for operators and for the doors: written by the driver, read by
//! everyone else.
//!
//! It is a picture, not the truth: by the time that it is read, the role may have changed. Nothing that has to be right is
//! decided by it; who belongs to the ensemble, with which addresses, stands in the state ([`State::membership`]).
//!
//! [`State::membership`]: crate::state_machine::State::membership

use crate::state_machine::ServerId;
use parking_lot::Mutex;
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
    /// How many servers vote, this one included.
    pub fn voters(&self) -> usize {
        self.count(|peer| peer.voter) + usize::from(self.votes)
    }

    /// How many of the other members are as `wanted`.
    pub fn count(&self, wanted: impl Fn(&PeerView) -> bool) -> usize {
        self.peers.iter().filter(|peer| wanted(peer)).count()
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
        assert_eq!(EnsembleView { votes: false, ..view }.voters(), 2);
    }
}
