//! The driver of a founder, by itself: what it is told is given to it, and what it has for others is looked at.

use super::shared_alone;
use crate::membership::Members;
use crate::replica::{Append, Peer, PeerMessage, Recovered, Registry, Replica, ReplicaOptions};
use crate::server::backlog::Backlog;
use crate::server::driver::{ContainerSchedule, Driver, Patience, Peers};
use crate::server::inbox::Inbox;
use crate::server::shared::DriverInput;
use crate::server::snapshot::SnapshotView;
use crate::server::{LogInput, logging};
use crate::state_machine::{Rules, ServerId};
use crate::storage::directory::DirectoryError;
use parking_lot::Mutex;
use raft::prelude::{ConfState, Message, MessageType};
use std::sync::Arc;

/// Keeps what is said to the peers.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<PeerMessage>>>);

impl Said {
    /// Votes that were granted.
    fn votes(&self) -> usize {
        let is_vote = |message: &&PeerMessage| {
            matches!(
                message,
                PeerMessage::Raft { message, .. }
                    if message.get_msg_type() == MessageType::MsgRequestVoteResponse && !message.reject
            )
        };
        self.0.lock().iter().filter(is_vote).count()
    }
}

impl Peers for Said {
    fn send(&mut self, _to: ServerId, message: &PeerMessage) {
        self.0.lock().push(message.clone());
    }

    fn send_snapshot(&mut self, _to: ServerId, _view: SnapshotView, _message: &PeerMessage) {}

    fn make_snapshot(&mut self) {}

    fn founded(&mut self) -> Result<(), DirectoryError> {
        Ok(())
    }

    fn set_members(&mut self, _members: &Members) {}
}

/// The driver of server 1, which founds an ensemble of three; what it has for the log; and what it says.
pub(crate) struct Founder {
    pub(in crate::server) driver: Driver,
    log: Arc<Inbox<LogInput>>,
    said: Said,
}

impl Founder {
    pub(crate) fn new() -> Founder {
        let options = ReplicaOptions {
            server: ServerId(1),
            incarnation: 11,
            stream: 1,
            rules: Rules::default(),
            election_ticks: 10,
            election_slot: 0,
            log_budget_bytes: 1 << 20,
        };
        let replica = Replica::new(options, Recovered::default(), &logging::slog_to_tracing()).unwrap();
        let (log, said) = (Arc::<Inbox<LogInput>>::default(), Said::default());
        let containers = ContainerSchedule {
            check_interval_ms: 1000,
            max_per_minute: 1,
            max_never_used_ms: 0,
        };
        let patience = Patience {
            leaderless_ms: None,
            read_only_ms: None,
        };
        let mut driver = Driver::new(
            shared_alone(),
            replica,
            (log.clone(), Arc::default()),
            Box::new(said.clone()),
            (containers, patience),
            None,
        );
        driver.progress.backlog = Backlog::new(u64::MAX);
        let mut founder = Founder { driver, log, said };
        founder.step(DriverInput::Found {
            conf_state: ConfState {
                voters: vec![1, 2, 3],
                ..ConfState::default()
            },
            registry: Registry::new((1..=3).map(|server| (ServerId(server), server * 11))),
        });
        founder
    }

    pub(in crate::server) fn step(&mut self, input: DriverInput) {
        self.driver.step(&mut vec![input]).unwrap();
    }

    /// Server 2 asks for a vote.
    pub(crate) fn is_asked_for_a_vote(&mut self, term: u64) {
        let message = Message {
            term,
            index: 1,
            log_term: 1,
            ..Message::default()
        };
        self.is_told(MessageType::MsgRequestVote, vec![message]);
    }

    /// Server 2 says this, all at once.
    pub(crate) fn is_told(&mut self, kind: MessageType, messages: Vec<Message>) {
        let from = Peer {
            server: ServerId(2),
            incarnation: 22,
        };
        let addressed = messages.into_iter().map(|mut message| {
            message.set_msg_type(kind);
            (message.from, message.to) = (2, 1);
            PeerMessage::Raft {
                to_incarnation: 11,
                message,
            }
        });
        let messages = addressed.collect();
        self.step(DriverInput::Peer { from, messages });
    }

    /// Votes that it has granted.
    pub(crate) fn votes(&self) -> usize {
        self.said.votes()
    }

    /// What the log has got: appends; and whether it begins anew.
    pub(crate) fn for_the_log(&self) -> (bool, Vec<Append>) {
        let mut inputs = Vec::new();
        self.log.take(&mut inputs);
        let is_reset = inputs.iter().any(|input| matches!(input, LogInput::Reset { .. }));
        let appends = inputs.into_iter().filter_map(|input| match input {
            LogInput::Append(append) => Some(append),
            _ => None,
        });
        (is_reset, appends.collect())
    }
}
