//! raft's messages on their way to peers: which wait for the disk, and for which life of the receiver they are.

use super::{PeerMessage, Replica, Work};
use crate::state_machine::ServerId;
use raft::prelude::{Message, MessageType};

impl Replica {
    /// Promises whose append is on disk by now.
    pub(super) fn keep_promises(&mut self, work: &mut Work) {
        while self
            .promises
            .front()
            .is_some_and(|(number, _)| *number <= self.persisted)
        {
            if let Some((_, promises)) = self.promises.pop_front() {
                self.address(promises, work);
            }
        }
    }

    /// Puts raft's messages into envelopes.
    pub(super) fn address(&self, messages: Vec<Message>, work: &mut Work) {
        for message in messages {
            let to = ServerId(message.to);
            let kind = message.get_msg_type();
            let to_incarnation = if needs_memory(kind) {
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
