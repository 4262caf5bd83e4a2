//! What a member of an ensemble does now and then, beyond carrying out the replica's work: the leader brings raft's members
//! to what the state says, and tells its digest; everybody compares it with its own, keeps the links to the members of now,
//! and shows operators how things stand.

use super::driver::Driver;
use super::ensemble_view::EnsembleView;
use super::{Failure, LogInput};
use crate::membership::Members;
use crate::proto::{OpCode, Zxid};
use crate::replica::{PeerMessage, TICK_MS};
use crate::replica::{Step, Survey, next_step};
use crate::state_machine::command::MembershipBody;
use crate::state_machine::{Rules, ServerId};
use std::collections::BTreeMap;

/// Ticks between two looks at the members.
const MEMBERS_TICKS: u64 = 4;
/// Ticks between two digests that a leader tells.
const DIGEST_TICKS: u64 = 2000 / TICK_MS;

/// What is remembered between ticks.
pub(super) struct Duties {
    tick: u64,
    /// What the configuration says; `None` for a lone server.
    configured: Option<Members>,
    /// The version of the members that the links were last told.
    linked_version: Option<u64>,
    /// A peer's digest that ours was not compared with yet.
    told: Option<(ServerId, Zxid, u64)>,
}

impl Duties {
    pub(super) fn new(configured: Option<Members>) -> Duties {
        Duties {
            tick: 0,
            configured,
            linked_version: None,
            told: None,
        }
    }

    /// A peer says that its state had this digest.
    pub(super) fn digest_told(&mut self, by: ServerId, zxid: Zxid, digest: u64) {
        self.told = Some((by, zxid, digest));
    }
}

impl Driver {
    /// A tick has passed.
    pub(super) fn do_duties(&mut self) -> Result<(), Failure> {
        self.duties.tick += 1;
        self.age_snapshot();
        if self.duties.configured.is_none() {
            return Ok(());
        }
        self.compare_digests()?;
        if self.duties.tick.is_multiple_of(DIGEST_TICKS) {
            self.tell_digest();
        }
        if self.duties.tick.is_multiple_of(MEMBERS_TICKS) {
            self.look_at_members();
            self.show_ensemble();
        }
        Ok(())
    }

    fn look_at_members(&mut self) {
        let wanted = self.shared.state.read().membership().cloned();
        match wanted {
            None => self.write_members(),
            Some(wanted) => {
                if self.duties.linked_version != Some(wanted.version) {
                    self.duties.linked_version = Some(wanted.version);
                    self.peers.set_members(&wanted);
                }
                self.lead_members(&wanted);
            }
        }
    }

    /// Brings raft's members one step closer to the wanted ones.
    fn lead_members(&mut self, wanted: &Members) {
        if !self.replica.is_leader() {
            return;
        }
        let matched: BTreeMap<ServerId, u64> = self.replica.progress().collect();
        let step = next_step(&Survey {
            own: self.shared.settings.server,
            own_incarnation: self.replica.incarnation(),
            wanted,
            conf_state: &self.replica.conf_state(),
            registry: self.replica.registry(),
            contacts: self.replica.contacts(),
            matched: &matched,
            committed: self.replica.committed(),
            is_changing: self.replica.is_changing(),
        });
        match step {
            Some(Step::Change { what, change }) if self.replica.change_members(change.clone()) => {
                tracing::info!("changing the members: {what}");
            }
            Some(Step::HandOver) => self.hand_over(),
            // It is proposed again at the next look.
            Some(Step::Change { .. }) | None => {}
        }
    }

    /// The first leader writes down who belongs to the ensemble.
    fn write_members(&mut self) {
        let Some(members) = self.duties.configured.clone() else {
            return;
        };
        if self.replica.is_leader() && self.shared.is_serving() {
            let body = MembershipBody {
                replaces: None,
                members,
            };
            self.replica.submit_internal(OpCode::SetMembership, [body.to_bytes()]);
        }
    }

    fn tell_digest(&mut self) {
        if !self.replica.is_leader() {
            return;
        }
        let Some((zxid, digest)) = self.shared.state.read().recorded_digests().last() else {
            return;
        };
        let others: Vec<ServerId> = self.replica.contacts().keys().copied().collect();
        for server in others {
            self.peers.send(server, &PeerMessage::Digest { zxid, digest });
        }
    }

    /// Equal logs make equal states. A state that differs from the leader's must not answer anybody.
    fn compare_digests(&mut self) -> Result<(), Failure> {
        let Some((by, zxid, digest)) = self.duties.told else {
            return Ok(());
        };
        if self.shared.applied_zxid() < zxid {
            return Ok(());
        }
        self.duties.told = None;
        let recorded = self.shared.state.read().recorded_digests().find(|(at, _)| *at == zxid);
        match recorded {
            Some((_, ours)) if ours != digest => {
                self.log.push(LogInput::Stop);
                Err(Failure::Diverged {
                    zxid,
                    ours,
                    by: by.0,
                    theirs: digest,
                })
            }
            _ => Ok(()),
        }
    }

    /// Hangs up a new picture of the ensemble for operators.
    pub(super) fn show_ensemble(&self) {
        if self.replica.rules().has(Rules::STANDALONE) {
            return;
        }
        // Not worth waiting for the applier: the next tick will do.
        if let Some(state) = self.shared.state.try_read() {
            let own = self.shared.settings.server;
            let view = EnsembleView::seen_by(&self.replica, own, state.membership());
            drop(state);
            self.shared.set_ensemble(view);
        }
    }
}
