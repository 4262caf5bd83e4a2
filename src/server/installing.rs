//! The driver's part in snapshots: having one made, sending it, and letting one take the place of our state.
//!
//! ```text
//!   maker      make_snapshot ─▶ checkpoint, view ─▶ SnapshotMade ─▶ replica ─ MsgSnapshot ─▶ send_snapshot
//!   receiver   SnapshotArrived ─▶ replica ─ restore ─▶ applier: state ─▶ store: tree ─▶ Installed ─▶ log: reset
//! ```
//!
//! The log may begin anew only when the tree on disk is the snapshot's: a crash in between leaves a tree that is ahead of
//! its log, which the next start understands. So what is for the log waits meanwhile, and so does the report to raft.

use super::driver::Driver;
use super::shared::{AppliedTo, SERVING};
use super::snapshot::{Arrived, NewTree, SnapshotArrived, SnapshotView};
use super::store::decode_members;
use super::{ApplierInput, Failure, LogInput};
use crate::replica::{Append, PeerMessage, Registry, SnapshotPoint};
use crate::state_machine::{ServerId, State};
use crate::storage::log::LogPoint;
use raft::prelude::ConfState;
use tokio::sync::oneshot;

/// A view that nobody was sent is given back after so many ticks: it makes the keyspace keep what is overwritten.
const VIEW_TICKS: u32 = 100;

/// A snapshot's state that takes the place of ours.
#[derive(Default)]
pub(super) struct Installing {
    /// The entry that the snapshot ends with.
    index: u64,
    /// For the log, once the tree is durable. `None`: it is, and the log gets everything at once.
    held: Option<Vec<LogInput>>,
    /// The append that begins the log anew.
    number: u64,
    /// What is to be reported to the replica once that is on disk.
    applied: Option<AppliedTo>,
    /// Whether it founds an ensemble, for which this member then stands.
    founds: bool,
    answer: Option<oneshot::Sender<bool>>,
}

impl Installing {
    /// The applier has come further. What it did before the snapshot took its place concerns nobody any more: the commands
    /// that it counts were forgotten, and the sessions are reported anew.
    pub(super) fn note(&mut self, applied: AppliedTo) {
        if applied.index >= self.index {
            self.applied = Some(applied);
        }
    }

    /// Whether the log is on disk up to its new beginning, `persisted` being the last append that is, and the applier has told
    /// that the snapshot's state is in its place. The one may come before the other.
    fn has_ended(&self, persisted: u64) -> bool {
        self.number <= persisted && self.applied.is_some()
    }
}

/// A snapshot for others.
pub(super) enum Making {
    /// None is wanted.
    Nothing,
    /// It is being made.
    Ordered,
    /// It waits to be sent, for so many ticks.
    Made(Box<SnapshotView>, u32),
}

impl Driver {
    /// This server founds an ensemble: its state is that of a server that has never run.
    pub(super) fn found(&mut self, conf_state: ConfState, registry: &Registry) {
        if self.replica.found(conf_state, registry) {
            let members: Vec<u64> = registry.iter().map(|(server, _)| server.0).collect();
            tracing::info!(?members, "this server founds the ensemble");
            self.arrived = Some(Arrived {
                state: State::new(),
                tree: NewTree::Founding,
                answer: None,
            });
        }
    }

    /// A peer has sent a snapshot. Whether it is still wanted, raft knows.
    pub(super) fn snapshot_arrived(&mut self, snapshot: SnapshotArrived) -> Result<(), Failure> {
        if self.progress.installing.is_some() || self.arrived.is_some() {
            // Dropped, and its sender told.
            return Ok(());
        }
        self.arrived = Some(snapshot.arrived);
        Ok(self.replica.step(snapshot.from, snapshot.message)?)
    }

    /// A snapshot that raft did not want is not kept.
    pub(super) fn refuse_arrived(&mut self) {
        if let Some(arrived) = self.arrived.take()
            && let Some(answer) = arrived.answer
        {
            // Its sender may have given up.
            let _ = answer.send(false);
        }
    }

    /// The log begins anew behind a snapshot, whose state takes the place of ours. What lies between the two nobody here has
    /// seen: watches may have missed it, and what became of pending writes cannot be told. So all clients are sent away;
    /// they come back and ask.
    pub(super) fn restore(&mut self, point: SnapshotPoint) -> Result<(), Failure> {
        let arrived = self.arrived.take().ok_or(Failure::NoSnapshot)?;
        tracing::info!(index = point.members.index, "a snapshot takes the place of the state");
        self.progress.installing = Some(Installing {
            index: point.members.index,
            held: Some(Vec::new()),
            founds: matches!(arrived.tree, NewTree::Founding),
            answer: arrived.answer,
            ..Installing::default()
        });
        self.own_from = self.shared.next_connection();
        self.shared.set_out_of_service();
        self.replica.sessions_replaced();
        self.applier.push(ApplierInput::Install {
            own_from: self.own_from,
            state: Box::new(arrived.state),
            tree: arrived.tree,
            point: Box::new(point),
        });
        Ok(())
    }

    /// The tree on disk is the snapshot's.
    pub(super) fn installed(&mut self) {
        if let Some(installing) = &mut self.progress.installing {
            let held = installing.held.take();
            held.into_iter().flatten().for_each(|input| self.write(input));
        }
    }

    /// Hands something to the log: at once if somebody waits for it, which who runs the driver sees to, else along with the next
    /// append.
    fn write(&mut self, input: LogInput) {
        match &input {
            LogInput::Append(append) if !append.is_awaited => self.log.leave(input),
            LogInput::Append(append) => {
                self.progress.awaited = append.number;
                self.log.put(input);
            }
            _ => self.log.push(input),
        }
    }

    pub(super) fn append(&mut self, append: Append, restore: Option<&SnapshotPoint>) {
        if self.replica.is_leader() {
            let sizes = append.entries.iter().map(|entry| entry.data.len());
            // A leader's first entry is empty, and nobody's proposal.
            sizes
                .filter(|bytes| *bytes > 0)
                .for_each(|bytes| self.shared.statistics.proposed(bytes));
        }
        self.progress.appended = append.number;
        let Some(installing) = &mut self.progress.installing else {
            return self.write(LogInput::Append(append));
        };
        let Some(held) = &mut installing.held else {
            return self.write(LogInput::Append(append));
        };
        if let Some(point) = restore {
            installing.number = append.number;
            held.push(LogInput::Reset {
                base: LogPoint {
                    index: point.members.index,
                    term: point.term,
                },
                conf_state: point.members.conf_state.clone(),
            });
        }
        held.push(LogInput::Append(append));
    }

    pub(super) fn persisted(&mut self, number: u64) -> Result<(), Failure> {
        self.progress.persisted = number;
        self.replica.persisted(number);
        self.end_installation()
    }

    /// Goes on as before if a snapshot was being installed, and is now.
    pub(super) fn end_installation(&mut self) -> Result<(), Failure> {
        let persisted = self.progress.persisted;
        let has_ended = |installing: &mut Installing| installing.has_ended(persisted);
        let Some(installing) = self.progress.installing.take_if(has_ended) else {
            return Ok(());
        };
        if let Some(applied) = installing.applied {
            self.applied(applied);
        }
        if let Some(answer) = installing.answer {
            // Its sender may have given up.
            let _ = answer.send(true);
        }
        self.replica.barrier(SERVING);
        if installing.founds {
            self.peers.founded()?;
            self.replica.stand()?;
        }
        Ok(())
    }

    pub(super) fn make_snapshot(&mut self) {
        if matches!(self.making, Making::Nothing) {
            self.making = Making::Ordered;
            self.peers.make_snapshot();
        }
    }

    pub(super) fn snapshot_made(&mut self, view: Option<SnapshotView>) -> Result<(), Failure> {
        self.making = Making::Nothing;
        let Some(view) = view else { return Ok(()) };
        let meta = view.meta();
        self.replica.snapshot_made(SnapshotPoint {
            term: meta.applied.term,
            members: decode_members(meta)?,
        });
        self.making = Making::Made(Box::new(view), VIEW_TICKS);
        Ok(())
    }

    /// One view serves one receiver; whoever else needs one asks again.
    pub(super) fn send_snapshots(&mut self, wanted: Vec<(ServerId, PeerMessage)>) {
        for (to, message) in wanted {
            match std::mem::replace(&mut self.making, Making::Nothing) {
                Making::Made(view, _) => {
                    self.replica.snapshots_gone();
                    self.peers.send_snapshot(to, *view, &message);
                }
                making => {
                    self.making = making;
                    self.replica.snapshot_sent(to, false);
                }
            }
        }
    }

    /// A tick has passed over a view that nobody was sent.
    pub(super) fn age_snapshot(&mut self) {
        if let Making::Made(_, ticks) = &mut self.making {
            *ticks -= 1;
            if *ticks == 0 {
                self.making = Making::Nothing;
                self.replica.snapshots_gone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::DriverInput;
    use super::super::simulated::Founder;
    use super::*;
    use crate::replica::Role;
    use raft::prelude::HardState;

    fn founding_applied() -> DriverInput {
        DriverInput::Applied(AppliedTo {
            index: 1,
            term: 1,
            own: 0,
            sessions: Vec::new(),
        })
    }

    #[test]
    fn a_vote_that_is_given_while_the_log_begins_anew_is_written_before_it_leaves() {
        let mut founder = Founder::new();
        let (is_reset, appends) = founder.for_the_log();
        assert!(!is_reset && appends.is_empty(), "its tree is not durable yet");
        founder.step(founding_applied());
        founder.step(DriverInput::Installed);
        let (is_reset, appends) = founder.for_the_log();
        assert!(is_reset);
        let [append] = &appends[..] else {
            panic!("one append begins the log: {appends:?}")
        };
        let first = append.number;

        founder.is_asked_for_a_vote(5);
        let (_, appends) = founder.for_the_log();
        let voted = |hard_state: &Option<HardState>| {
            let hard_state = hard_state.as_ref();
            hard_state.is_some_and(|hard_state| (hard_state.term, hard_state.vote) == (5, 2))
        };
        let vote = appends.iter().find(|append| voted(&append.hard_state));
        let vote = vote
            .unwrap_or_else(|| panic!("the log has not got the vote: {appends:?}"))
            .number;
        founder.step(DriverInput::Persisted(first));
        assert_eq!(founder.votes(), 0, "it is not on disk");
        founder.step(DriverInput::Persisted(vote));
        assert_eq!(founder.votes(), 1);
    }

    #[test]
    fn a_founder_stands_for_election_once_its_log_is_on_disk_and_its_state_in_its_place() {
        for applier_is_first in [true, false] {
            let mut founder = Founder::new();
            if applier_is_first {
                founder.step(founding_applied());
            }
            founder.step(DriverInput::Installed);
            let (_, appends) = founder.for_the_log();
            assert_ne!(founder.driver.replica.standing().role, Role::Looking);
            founder.step(DriverInput::Persisted(appends[0].number));
            if !applier_is_first {
                assert_ne!(founder.driver.replica.standing().role, Role::Looking);
                founder.step(founding_applied());
            }
            assert_eq!(founder.driver.replica.standing().role, Role::Looking);
        }
    }

    #[test]
    fn what_was_applied_before_a_snapshot_is_not_reported_behind_it() {
        let applied = |index| AppliedTo {
            index,
            term: 1,
            own: 7,
            sessions: Vec::new(),
        };
        let mut installing = Installing {
            index: 100,
            ..Installing::default()
        };
        installing.note(applied(99));
        assert!(installing.applied.is_none());
        installing.note(applied(100));
        assert_eq!(installing.applied.map(|applied| applied.index), Some(100));
    }
}
