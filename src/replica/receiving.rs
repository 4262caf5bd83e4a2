//! What a member makes of its peers' messages.

use super::letters::is_promise;
use super::outbox::Forwarded;
use super::{Peer, PeerMessage, Replica, ReplicaError};
use raft::prelude::{Message, MessageType};

impl Replica {
    /// A message from a peer.
    pub fn step(&mut self, from: Peer, message: PeerMessage) -> Result<(), ReplicaError> {
        match message {
            PeerMessage::Raft {
                to_incarnation,
                message,
            } => self.step_raft(from, to_incarnation, message)?,
            PeerMessage::Forward {
                term,
                stream,
                first,
                commands,
            } => {
                if self.is_leader() && term == self.standing.term {
                    let forwarded = Forwarded {
                        stream,
                        first,
                        commands,
                    };
                    if let Some(next) = self.queue.take(from, forwarded) {
                        self.letters
                            .push((from.server, PeerMessage::Taken { term, stream, next }));
                    }
                }
            }
            PeerMessage::Taken { term, stream, next } => self.outbox.taken(stream, term, next, self.tick),
            PeerMessage::Touches { number, sessions } => {
                if self.is_leader() {
                    self.touch_here(&sessions);
                    self.letters.push((from.server, PeerMessage::Touched { number }));
                }
            }
            PeerMessage::Touched { number } => {
                // One that leads no more has no next one to tell.
                if self.standing.leader == Some(from.server) {
                    self.touches.confirmed(number);
                    self.unanswered_ticks = 0;
                }
            }
            PeerMessage::Holding { members } => {
                for (member, index) in members {
                    self.witness.holds(member, index);
                }
            }
            PeerMessage::Reach { index } => {
                if !self.contacts.contains_key(&from.server) {
                    self.callers.heard(from.server, self.tick);
                }
                if let Some(index) = self.witness.reaches(from, index) {
                    self.letters.push((from.server, PeerMessage::Forgotten { index }));
                }
            }
            PeerMessage::Forgotten { index } => self.is_said_to_have_forgotten(from, index)?,
            // For the server, which has the state, the directory and the disks.
            PeerMessage::Digest { .. } | PeerMessage::Founded { .. } | PeerMessage::Members(_) | PeerMessage::Short => {
            }
        }
        Ok(())
    }

    fn step_raft(&mut self, from: Peer, to_incarnation: u64, mut message: Message) -> Result<(), ReplicaError> {
        // Proposals come as commands: those that raft forwards itself could be repeated.
        if message.get_msg_type() == MessageType::MsgPropose {
            return Ok(());
        }
        let meant_for_us = to_incarnation == 0 || to_incarnation == self.options.incarnation;
        let believed = self.registry.counts(from) && !self.witness.suspects(from);
        let counts = !is_promise(message.get_msg_type()) || believed;
        if !meant_for_us || !counts || message.from != from.server.0 {
            return Ok(());
        }
        if message.get_msg_type() == MessageType::MsgReadIndex && !self.mark_question(&mut message) {
            return Ok(());
        }
        if message.get_msg_type() == MessageType::MsgTimeoutNow && self.is_jumping() {
            // Whoever hands leadership over takes it back after a while.
            return Ok(());
        }
        self.check_memory(&message)?;
        match self.raft.step(message) {
            // A message of a peer that was removed, or for a follower's proposal: nothing that this member could do.
            Err(raft::Error::StepPeerNotFound | raft::Error::ProposalDropped) => Ok(()),
            result => Ok(result?),
        }
    }
}
