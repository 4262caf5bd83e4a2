//! What a member of an ensemble does now and then, beyond carrying out the replica's work: the leader brings raft's members
//! to what the state says, and tells its digest; everybody compares it with its own, keeps the links to the members of now,
//! and shows operators how things stand.

use super::driver::Driver;
use super::ensemble_view::{EnsembleRole, EnsembleView};
use super::shared::Service;
use super::{Failure, LogInput};
use crate::membership::{Members, Server};
use crate::proto::{OpCode, Zxid};
use crate::replica::{PeerMessage, TICK_MS};
use crate::replica::{Step, Survey, next_step};
use crate::state_machine::command::MembershipBody;
use crate::state_machine::{Rules, ServerId};
use raft::prelude::ConfState;
use std::collections::{BTreeMap, BTreeSet};

/// Whom to be linked with: the wanted members, and those of before that raft still has. A leader that is removed has to
/// hand over first, and needs its links for that.
fn to_be_linked(wanted: &Members, linked: &Members, conf_state: &ConfState) -> Members {
    let by_raft = [&conf_state.voters, &conf_state.voters_outgoing, &conf_state.learners];
    let is_member = |id: u64| by_raft.iter().any(|members| members.contains(&id));
    let mut all = wanted.clone();
    for (id, server) in linked.servers.iter().filter(|(id, _)| is_member(u64::from(id.get()))) {
        all.servers.entry(*id).or_insert_with(|| server.clone());
    }
    all
}

/// The lines in which two lists differ. Where clients connect does not count: it may stand elsewhere in a file.
fn differing(one: &Members, other: &Members) -> Vec<String> {
    let line = |members: &Members, id| {
        let server: Option<&Server> = members.servers.get(id);
        server.map(|server| (server.addresses.clone(), server.peer_type))
    };
    let ids: BTreeSet<_> = one.servers.keys().chain(other.servers.keys()).collect();
    let differing = ids.into_iter().filter(|id| line(one, id) != line(other, id));
    differing.map(|id| format!("server.{id}")).collect()
}

/// Ticks between two looks at the members.
const MEMBERS_TICKS: u64 = 4;
/// Ticks between two digests that a leader tells.
const DIGEST_TICKS: u64 = 2000 / TICK_MS;

/// What is remembered between ticks.
pub(super) struct Duties {
    tick: u64,
    /// What the configuration says; `None` for a lone server.
    configured: Option<Members>,
    /// The members that the links were last told.
    linked: Members,
    /// Whether the configuration was compared with the membership.
    compared_files: bool,
    /// The newest membership that a peer has told of.
    heard: Members,
    /// Which version of the membership each life of a peer was told.
    told_to: BTreeMap<ServerId, (u64, u64)>,
    /// Whether the log says that this server belongs to the ensemble no more.
    told_of_leaving: bool,
    /// In which term this server has proposed the first membership.
    wrote_members_in: Option<u64>,
    /// A peer's digest that ours was not compared with yet.
    told: Option<(ServerId, Zxid, u64)>,
}

impl Duties {
    pub(super) fn new(configured: Option<Members>) -> Duties {
        Duties {
            tick: 0,
            // The links begin with what the configuration says.
            linked: configured.clone().unwrap_or_default(),
            compared_files: false,
            heard: Members::default(),
            told_to: BTreeMap::new(),
            told_of_leaving: false,
            wrote_members_in: None,
            configured,
            told: None,
        }
    }

    /// A peer says who belongs to the ensemble.
    pub(super) fn members_told(&mut self, members: &Members) {
        if members.version > self.heard.version {
            self.heard = members.clone();
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
        self.keep_links(wanted.as_ref());
        match wanted {
            None => self.write_first_members(),
            Some(wanted) => {
                self.compare_files(&wanted);
                self.tell_members(&wanted);
                self.tell_if_left(&wanted);
                self.lead_members(&wanted);
            }
        }
    }

    /// Whoever edits the `server.N` lines of a file and restarts expects that they count, as ZooKeeper's do without reconfig.
    fn compare_files(&mut self, wanted: &Members) {
        if std::mem::replace(&mut self.duties.compared_files, true) {
            return;
        }
        let configured = self.duties.configured.as_ref();
        let differing = configured
            .map(|configured| differing(configured, wanted))
            .unwrap_or_default();
        if !differing.is_empty() {
            tracing::warn!(
                "this server's configuration and the ensemble differ in {}. The ensemble goes by /zookeeper/config (version \
                 {:x}), and the lines of the file count no more. Change the members with reconfig (zkCli.sh; it needs \
                 reconfigEnabled=true), or put the file right.",
                differing.join(", "),
                wanted.version
            );
        }
    }

    /// Links to the members of the newest membership that is known here: a newcomer has no state yet, and a file that may
    /// name a few of them only.
    fn keep_links(&mut self, wanted: Option<&Members>) {
        let heard = &self.duties.heard;
        let newest = match wanted {
            Some(wanted) if wanted.version >= heard.version => wanted,
            None if heard.version == 0 => return,
            _ => heard,
        };
        let linked = to_be_linked(newest, &self.duties.linked, &self.replica.conf_state());
        if linked.servers != self.duties.linked.servers {
            self.peers.set_members(&linked);
            self.duties.linked = linked;
        }
    }

    /// Tells those that this server is in contact with who belongs to the ensemble: each life once; who does not vote, and
    /// so may know nothing else of it, again and again.
    fn tell_members(&mut self, members: &Members) {
        let contacts = self.replica.contacts();
        self.duties.told_to.retain(|server, _| contacts.contains_key(server));
        let conf_state = self.replica.conf_state();
        let again = self.duties.tick.is_multiple_of(DIGEST_TICKS);
        for (server, life) in contacts {
            let told = (*life, members.version);
            let is_new = self.duties.told_to.insert(*server, told) != Some(told);
            if is_new || (again && !conf_state.voters.contains(&server.0)) {
                self.peers.send(*server, &PeerMessage::Members(members.clone()));
            }
        }
    }

    /// Who was removed is told so in the log, once, and what to do.
    fn tell_if_left(&mut self, wanted: &Members) {
        let own = self.shared.settings.server;
        let belongs = own.member().is_some_and(|own| wanted.servers.contains_key(&own));
        if !belongs && !self.duties.told_of_leaving {
            tracing::warn!(
                "server {} belongs to the ensemble no more: reconfig has removed it (version {:x}). It goes on serving its \
                 clients, without a vote, until it is stopped or loses touch; it cannot come back then. Stop it when its \
                 clients have moved on, or add it again.",
                own.0,
                wanted.version
            );
        }
        self.duties.told_of_leaving = !belongs;
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
            Some(Step::HandOver) => {
                self.hand_over();
            }
            // It is proposed again at the next look.
            Some(Step::Change { .. }) | None => {}
        }
    }

    /// The first leader writes down who belongs to the ensemble: nobody is served before that.
    pub(super) fn write_first_members(&mut self) {
        let Some(members) = self.duties.configured.clone() else {
            return;
        };
        if self.shared.state.read().membership().is_some() {
            return;
        }
        let term = self.replica.standing().term;
        // Once in a term: what is proposed in it is not lost as long as it lasts. A second one would change nothing.
        if self.replica.is_leader() && self.duties.wrote_members_in.replace(term) != Some(term) {
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
            let mut view = EnsembleView::seen_by(&self.replica, own, state.membership());
            drop(state);
            if self.shared.service() == Service::ReadOnly {
                view.role = EnsembleRole::ReadOnly;
            }
            self.shared.set_ensemble(view);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_an_operator_has_edited_are_found() {
        let members = |text: &str| Members::parse(text).unwrap();
        let file = members("server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2:observer\nserver.4=d:1:2");
        let state = members("server.1=a:1:2;3\nserver.2=z:1:2\nserver.3=c:1:2\nserver.5=e:1:2\nversion=7");
        assert_eq!(
            differing(&file, &state),
            ["server.2", "server.3", "server.4", "server.5"]
        );
        assert!(differing(&file, &file).is_empty());
    }

    #[test]
    fn the_links_of_a_removed_member_stay_until_raft_has_let_it_go() {
        let members = |text: &str| Members::parse(text).unwrap();
        let before = members("server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nversion=1");
        let wanted = members("server.2=elsewhere:1:2\nserver.4=d:1:2\nversion=2");
        let mut conf_state = ConfState {
            voters: vec![1, 2],
            ..ConfState::default()
        };
        let linked = to_be_linked(&wanted, &before, &conf_state);
        let expected = "server.1=a:1:2\nserver.2=elsewhere:1:2\nserver.4=d:1:2\nversion=2";
        assert_eq!(linked, members(expected));
        conf_state.voters = vec![2, 4];
        assert_eq!(to_be_linked(&wanted, &linked, &conf_state), wanted);
    }
}
