//! What the driver makes of its disks, and of what the others tell about theirs.
//!
//! A leader refuses growth while its own disk is short of space, and while so many voters have told that theirs are that
//! the others make no quorum: one member with a full disk must not stop the ensemble, a majority of them would. Who is
//! short says so again and again; who is silent is not short any more. Memory counts like a disk.

use super::driver::Driver;
use super::stall::Stall;
use crate::replica::PeerMessage;
use crate::state_machine::{Rules, ServerId};
use raft::prelude::ConfState;
use std::collections::BTreeMap;

/// Time between two times that a member says that it is short, µs.
const TELL_US: u64 = 1_000_000;
/// So long a member counts as short after it said so, µs.
const BELIEVE_US: u64 = 4_000_000;

/// What is remembered between ticks.
#[derive(Default)]
pub(super) struct Disks {
    stall: Stall,
    /// When this member says again that it is short, µs.
    next_tell_us: u64,
    /// Until when the others count as short, µs.
    short: BTreeMap<u64, u64>,
    /// Whether growth is refused because of the others.
    refuses_for_others: bool,
}

impl Driver {
    /// A tick has passed.
    pub(super) fn look_at_disks(&mut self, now_us: u64) {
        self.look_at_log(now_us);
        let is_short = self.shared.statistics.room.is_short() || self.shared.memory.is_short();
        if is_short {
            self.tell_leader(now_us);
        }
        let refuses = is_short || self.others_are_short(now_us);
        let rules = self.replica.rules().without(Rules::NO_GROWTH);
        self.replica.set_rules(rules.with(Rules::NO_GROWTH, refuses));
    }

    /// A peer says that its disk is short of space.
    pub(super) fn short_told(&mut self, by: ServerId) {
        let until_us = self.shared.clock.now_us() + BELIEVE_US;
        self.disks.short.insert(by.0, until_us);
    }

    /// A leader whose disk stands still gives leadership away.
    fn look_at_log(&mut self, now_us: u64) {
        let (appended, persisted) = (self.progress.appended, self.progress.persisted);
        // What waits for the installation of a snapshot waits for the tree.
        if self.progress.installing.is_some() || !self.disks.stall.begins(now_us, appended, persisted) {
            return;
        }
        tracing::warn!(
            waiting = appended - persisted,
            "the disk of the log stands still: nothing becomes durable here, and clients of this server wait. What else \
             uses that disk (dataLogDir)? A leader hands over to another server"
        );
        if self.replica.is_leader() {
            self.hand_over();
        }
    }

    fn tell_leader(&mut self, now_us: u64) {
        let leader = self.replica.standing().leader.filter(|_| !self.replica.is_leader());
        if let Some(leader) = leader
            && now_us >= self.disks.next_tell_us
        {
            self.disks.next_tell_us = now_us + TELL_US;
            self.peers.send(leader, &PeerMessage::Short);
        }
    }

    fn others_are_short(&mut self, now_us: u64) -> bool {
        let short = &mut self.disks.short;
        short.retain(|_, until_us| now_us < *until_us);
        let refuses =
            !short.is_empty() && self.replica.is_leader() && too_few_without(&self.replica.conf_state(), short);
        let before = std::mem::replace(&mut self.disks.refuses_for_others, refuses);
        if refuses && !before {
            let servers: Vec<u64> = self.disks.short.keys().copied().collect();
            tracing::error!(
                ?servers,
                "these servers are short of space on their disks, or of memory, and the others are no majority: what makes the \
                 state larger is refused (SystemError). Their logs say which; it heals by itself"
            );
        } else if before && !refuses {
            tracing::info!("enough members have room again");
        }
        refuses
    }
}

/// Whether the voters without those that are short make no majority.
fn too_few_without(conf_state: &ConfState, short: &BTreeMap<u64, u64>) -> bool {
    [&conf_state.voters, &conf_state.voters_outgoing].iter().any(|voters| {
        let with_room = voters.iter().filter(|voter| !short.contains_key(voter)).count();
        with_room <= voters.len() / 2 && !voters.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_long_as_a_majority_has_room_the_ensemble_grows() {
        // Voters, outgoing voters, who is short.
        let table = [
            ("1 2 3", "", "", false),
            ("1 2 3", "", "3", false),
            ("1 2 3", "", "2 3", true),
            // Observers and strangers do not count.
            ("1 2 3", "", "4 5 6", false),
            ("1 2 3 4", "", "3 4", true),
            ("1 2 3 4 5", "", "4 5", false),
            // While the members change, both majorities count.
            ("1 2 3", "1 4 5", "4 5", true),
            ("1 2 3", "1 2 4", "4", false),
        ];
        let numbers = |text: &str| -> Vec<u64> { text.split_whitespace().flat_map(str::parse).collect() };
        for (voters, outgoing, short, expected) in table {
            let conf_state = ConfState {
                voters: numbers(voters),
                voters_outgoing: numbers(outgoing),
                ..ConfState::default()
            };
            let found = too_few_without(&conf_state, &numbers(short).into_iter().map(|id| (id, 1)).collect());
            assert_eq!(found, expected, "{voters}, {outgoing} without {short}");
        }
    }
}
