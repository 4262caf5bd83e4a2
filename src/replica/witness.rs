//! What the members remember of each other's logs, so that one that was put back from an old copy is recognised.
//!
//! A wiped directory shows by its new incarnation. A restored one does not: it has the old one, and has forgotten what it
//! acknowledged since the copy was made; its vote could elect a leader that lacks acknowledged writes. So the leader tells
//! everybody how far each member's log reaches for certain (acknowledged and committed, never cut again), and every member
//! tells how far its log reaches now. Whoever reaches less far than the others know is suspect: its word does not count,
//! until it has shown otherwise, or begun a new life.
//!
//! How far the own log reaches is what was reported to be on disk. raft-rs' own account of that falls back as soon as a
//! snapshot arrives, while the entries still stand there: who went by it was told that it had forgotten them, and stopped.
//! What another leader has others put in the place of is gone from it at once: it was not committed, and whoever leads again
//! with other entries there, which are not on its disk yet, must not vouch for them.
//!
//! The memory is not stored: it helps as long as one server that remembers is up. A copy that is younger than a second may
//! go unnoticed.

use super::peer::Peer;
use crate::state_machine::ServerId;
use std::collections::BTreeMap;

/// How far each life of each member is known to reach.
#[derive(Default)]
pub(super) struct Witness {
    /// Per member: its life, how far its log reaches at least, and whether it has said less.
    known: BTreeMap<ServerId, Known>,
    /// How far the own log reaches.
    own: u64,
}

struct Known {
    incarnation: u64,
    holds: u64,
    is_suspect: bool,
}

impl Witness {
    /// Of a member whose own log reaches to `own`.
    pub(super) fn of(own: u64) -> Witness {
        Witness {
            own,
            ..Witness::default()
        }
    }

    /// The own log is on disk up to `index`.
    pub(super) fn has(&mut self, index: u64) {
        self.own = self.own.max(index);
    }

    /// What the own log held behind `index` is replaced: none of it was committed.
    pub(super) fn is_cut(&mut self, index: u64) {
        self.own = self.own.min(index);
    }

    /// How far the own log reaches: this has been on disk, and what of it counts is still.
    pub(super) fn own(&self) -> u64 {
        self.own
    }

    /// A member holds the log up to `index` at least.
    pub(super) fn holds(&mut self, peer: Peer, index: u64) {
        let known = self.known.entry(peer.server).or_insert(Known {
            incarnation: peer.incarnation,
            holds: 0,
            is_suspect: false,
        });
        if known.incarnation != peer.incarnation {
            *known = Known {
                incarnation: peer.incarnation,
                holds: 0,
                is_suspect: false,
            };
        }
        known.holds = known.holds.max(index);
    }

    /// A member says how far its log reaches; gives how far it should, if that is further.
    pub(super) fn reaches(&mut self, peer: Peer, index: u64) -> Option<u64> {
        let known = self.known.get_mut(&peer.server)?;
        if known.incarnation != peer.incarnation {
            return None;
        }
        known.is_suspect = index < known.holds;
        known.is_suspect.then_some(known.holds)
    }

    /// Whether a member's word must not be taken.
    pub(super) fn suspects(&self, peer: Peer) -> bool {
        self.known
            .get(&peer.server)
            .is_some_and(|known| known.incarnation == peer.incarnation && known.is_suspect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reaches_less_far_than_is_known_is_suspect_until_it_shows_otherwise() {
        let peer = Peer {
            server: ServerId(2),
            incarnation: 7,
        };
        let mut witness = Witness::default();
        assert_eq!(witness.reaches(peer, 5), None, "nothing is known");
        witness.holds(peer, 100);
        witness.holds(peer, 90);
        assert_eq!(witness.reaches(peer, 99), Some(100));
        assert!(witness.suspects(peer));
        assert_eq!(witness.reaches(peer, 100), None);
        assert!(!witness.suspects(peer));
        let new_life = Peer { incarnation: 8, ..peer };
        assert_eq!(witness.reaches(peer, 1), Some(100));
        assert!(!witness.suspects(new_life));
        witness.holds(new_life, 3);
        assert!(
            !witness.suspects(peer) && !witness.suspects(new_life),
            "the former life is over"
        );
    }
}
