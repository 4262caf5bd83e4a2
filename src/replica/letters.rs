//! raft's messages on their way to peers: which wait for the disk, and for which life of the receiver they are. And what the
//! members tell each other of how far their logs reach.

use super::{Peer, PeerMessage, Replica, ReplicaError, Work};
use crate::state_machine::ServerId;
use raft::prelude::{Message, MessageType};

impl Replica {
    /// Keeps promises back until the append of this number is on disk; says whether there are any.
    pub(super) fn promise(&mut self, number: u64, mut promises: Vec<Message>) -> bool {
        promises.retain(|promise| self.acknowledged.is_news(promise, self.tick));
        let has_promises = !promises.is_empty();
        if has_promises {
            self.promises.push_back((number, promises));
        }
        has_promises
    }

    /// Promises whose append is on disk by now.
    pub(super) fn keep_promises(&mut self, work: &mut Work) {
        while self
            .promises
            .front()
            .is_some_and(|(number, _)| *number <= self.persisted || planted!(AckBeforeWrite))
        {
            if let Some((_, promises)) = self.promises.pop_front() {
                self.address(promises, work);
            }
        }
    }

    /// Puts raft's messages into envelopes.
    pub(super) fn address(&self, messages: Vec<Message>, work: &mut Work) {
        for mut message in messages {
            Self::unmark_answer(&mut message);
            let to = ServerId(message.to);
            let kind = message.get_msg_type();
            let to_incarnation = if needs_memory(kind) && !planted!(VoteAfterWipe) {
                match self.registry.of(to) {
                    Some(incarnation) => incarnation,
                    None => continue,
                }
            } else {
                0
            };
            let message = PeerMessage::Raft {
                to_incarnation,
                message,
            };
            if kind == MessageType::MsgSnapshot {
                work.send_snapshots.push((to, message));
            } else {
                work.send.push((to, message));
            }
        }
    }

    /// Tells how far this log reaches, and as the leader how far all do.
    pub(super) fn tell_witnesses(&mut self) {
        let own = self.witness.own();
        let mut messages = vec![PeerMessage::Reach { index: own }];
        if self.is_leader() {
            let committed = self.committed();
            let all = self.progress().chain([(self.options.server, own)]);
            let members: Vec<_> = all
                .filter_map(|(server, matched)| {
                    let incarnation = self.registry.of(server)?;
                    Some((Peer { server, incarnation }, matched.min(committed)))
                })
                .collect();
            for (member, index) in &members {
                self.witness.holds(*member, *index);
            }
            messages.push(PeerMessage::Holding { members });
        }
        for server in self.contacts.keys() {
            let copies = messages.iter().map(|message| (*server, message.clone()));
            self.letters.extend(copies);
        }
    }

    /// How far this log is on disk, for the simulation.
    #[cfg(test)]
    pub(crate) fn reach(&self) -> u64 {
        self.witness.own()
    }

    /// A planted bug: what is sent to a member counts as acknowledged by it.
    #[cfg(test)]
    pub(super) fn believe_sent(&mut self, sent: &[(ServerId, PeerMessage)]) -> Result<(), ReplicaError> {
        if !planted!(CommitAlone) {
            return Ok(());
        }
        for (to, message) in sent {
            if let PeerMessage::Raft { message, .. } = message
                && let Some(last) = message.entries.last()
            {
                let mut answer = Message {
                    from: to.0,
                    to: message.from,
                    term: message.term,
                    index: last.index,
                    ..Message::default()
                };
                answer.set_msg_type(MessageType::MsgAppendResponse);
                self.raft.step(answer)?;
            }
        }
        Ok(())
    }

    /// A leader that believes that this member holds more than it does would make raft-rs panic.
    pub(super) fn check_memory(&self, message: &Message) -> Result<(), ReplicaError> {
        let last = self.raft.raft.raft_log.last_index();
        if message.get_msg_type() == MessageType::MsgHeartbeat && message.commit > last {
            return Err(ReplicaError::Forgotten {
                last,
                acknowledged: message.commit,
            });
        }
        Ok(())
    }

    /// A peer knows that this log reached further. What it has heard may be older than what is here by now.
    pub(super) fn is_said_to_have_forgotten(&mut self, by: Peer, index: u64) -> Result<(), ReplicaError> {
        let last = self.witness.own();
        if last < index {
            return Err(ReplicaError::Forgotten {
                last,
                acknowledged: index,
            });
        }
        self.letters.push((by.server, PeerMessage::Reach { index: last }));
        Ok(())
    }
}

/// The last append that was acknowledged, and when. raft acknowledges the messages without entries that tell how far the log
/// is committed, too: for one write that is alone on three members two messages and four wake-ups that tell nothing new.
///
/// Within one tick alone, since acknowledgements get lost when a link is full: the leader asks again at every heartbeat, and
/// those are further apart. It is told anew whenever a link is.
#[derive(Default)]
pub(super) struct Acknowledged {
    to: u64,
    term: u64,
    index: u64,
    tick: u64,
}

impl Acknowledged {
    /// Whether `message` tells its receiver what it was not told in this tick.
    pub(super) fn is_news(&mut self, message: &Message, tick: u64) -> bool {
        if message.get_msg_type() != MessageType::MsgAppendResponse || message.reject {
            return true;
        }
        let was_told =
            (self.to, self.term, self.tick) == (message.to, message.term, tick) && message.index <= self.index;
        if !was_told {
            *self = Acknowledged {
                to: message.to,
                term: message.term,
                index: message.index,
                tick,
            };
        }
        !was_told
    }
}

/// Whether a message counts as the word of its sender: one that has lost its memory has no word to give.
pub(super) fn is_promise(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgAppendResponse
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgHeartbeatResponse
    )
}

/// Whether a message relies on what the receiver has promised earlier.
fn needs_memory(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgAppend
            | MessageType::MsgHeartbeat
            | MessageType::MsgSnapshot
            | MessageType::MsgTimeoutNow
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestPreVote
    )
}
