//! Commands of this server's own sessions, from their arrival until they are applied here.
//!
//! ```text
//!   submit ──▶ [ handed on in this term | not handed on yet ] ──▶ to the leader's queue, or to the leader by a message
//!                ▲ front, leaves when applied
//! ```
//!
//! A command may be handed on only in a term whose first entry is applied here: then whatever was handed on in an earlier
//! term is either applied already, or never will be, because the log holds no entry of an earlier term behind that one.
//! So all that is left is handed on again, in order: each command exactly once (NoReconnectOnFailover).
//!
//! Commands are numbered within (stream, term). A leader takes them in the order of their numbers and answers with the
//! next one it waits for, so that a lost, repeated or reordered message does no harm.

use crate::state_machine::Command;
use std::collections::VecDeque;

/// Commands in one message to the leader at most.
const FORWARD_COMMANDS: usize = 1024;
/// Bytes in one message to the leader at most, unless one command alone is larger.
const FORWARD_BYTES: usize = 1 << 20;
/// What was forwarded and is not taken by the leader after so many ticks is forwarded again.
const FORWARD_RETRY_TICKS: u64 = 6;

/// The commands of this server that are not applied yet.
pub(super) struct Outbox {
    commands: VecDeque<Command>,
    /// Where this server's numbering begins anew: greater than at every earlier start, and after every jump in the log.
    stream: u64,
    /// The term in which commands are handed on.
    term: u64,
    /// Number of the front command.
    front: u64,
    /// So many at the front were handed on in this term.
    handed: usize,
    /// The next number that the leader waits for, as far as it has told.
    taken: u64,
    /// When it last told something new, or something was forwarded to one that had taken everything.
    progress_tick: u64,
}

/// Commands on their way to the leader.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Forwarded {
    pub(super) stream: u64,
    pub(super) first: u64,
    pub(super) commands: Vec<Command>,
}

impl Outbox {
    pub(super) fn new(stream: u64) -> Outbox {
        Outbox {
            commands: VecDeque::new(),
            stream,
            term: 0,
            front: 0,
            handed: 0,
            taken: 0,
            progress_tick: 0,
        }
    }

    pub(super) fn extend(&mut self, commands: impl IntoIterator<Item = Command>) {
        self.commands.extend(commands);
    }

    /// The term whose first entry is applied here.
    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// So many of our commands were applied, and the last entry applied is of `term`.
    pub(super) fn applied(&mut self, own: usize, term: u64) {
        assert!(
            own <= self.commands.len(),
            "{own} commands of this server were applied, {} were submitted",
            self.commands.len()
        );
        self.commands.drain(..own);
        self.front += own as u64;
        self.handed = self.handed.saturating_sub(own);
        self.taken = self.taken.max(self.front);
        if term > self.term {
            // Nothing of an earlier term can be applied any more.
            self.term = term;
            self.front = 0;
            self.handed = 0;
            self.taken = 0;
        }
    }

    /// What was submitted is given up: nobody can tell what became of it. What may still be applied of it must not be
    /// reported as ours.
    pub(super) fn forget(&mut self) {
        self.commands.clear();
        self.stream += 1;
        self.front = 0;
        self.handed = 0;
        self.taken = 0;
    }

    /// All that was not handed on in this term, for the queue of this member, which leads.
    pub(super) fn hand_on(&mut self) -> impl Iterator<Item = &Command> {
        let from = self.handed;
        self.handed = self.commands.len();
        self.commands.range(from..)
    }

    /// The next message for the leader, if there is something to forward.
    pub(super) fn forward(&mut self, tick: u64) -> Option<Forwarded> {
        let sent = self.front + self.handed as u64;
        if self.taken >= sent {
            self.progress_tick = tick;
        } else if tick >= self.progress_tick + FORWARD_RETRY_TICKS {
            self.handed = usize::try_from(self.taken - self.front).unwrap_or(0);
            self.progress_tick = tick;
        }
        let mut bytes = 0;
        let fitting = self
            .commands
            .range(self.handed..)
            .take(FORWARD_COMMANDS)
            .take_while(|command| {
                let first = bytes == 0;
                bytes += command.size_bytes();
                first || bytes <= FORWARD_BYTES
            });
        let commands: Vec<_> = fitting.cloned().collect();
        if commands.is_empty() {
            return None;
        }
        let first = self.front + self.handed as u64;
        self.handed += commands.len();
        Some(Forwarded {
            stream: self.stream,
            first,
            commands,
        })
    }

    /// The leader of `term` waits for `next`.
    pub(super) fn taken(&mut self, stream: u64, term: u64, next: u64, tick: u64) {
        if (stream, term) == (self.stream, self.term) && next > self.taken {
            self.taken = next;
            self.progress_tick = tick;
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{OpCode, SessionId, Xid};
    use crate::state_machine::Origin;

    fn command(xid: i32) -> Command {
        Command {
            origin: Origin::default(),
            session: SessionId(1),
            xid: Xid(xid),
            identities: [].into(),
            op: OpCode::SetData,
            body: bytes::Bytes::new(),
        }
    }

    fn outbox(commands: i32) -> Outbox {
        let mut outbox = Outbox::new(7);
        outbox.applied(0, 3);
        outbox.extend((0..commands).map(command));
        outbox
    }

    fn xids(forwarded: &Forwarded) -> Vec<i32> {
        forwarded.commands.iter().map(|command| command.xid.0).collect()
    }

    #[test]
    fn what_is_not_taken_is_forwarded_again_from_there() {
        let mut outbox = outbox(4);
        let sent = outbox.forward(0).unwrap();
        assert_eq!((sent.stream, sent.first, xids(&sent)), (7, 0, vec![0, 1, 2, 3]));
        assert_eq!(outbox.forward(1), None);
        outbox.taken(7, 3, 2, 1);
        assert_eq!(outbox.forward(FORWARD_RETRY_TICKS), None);
        let again = outbox.forward(1 + FORWARD_RETRY_TICKS).unwrap();
        assert_eq!((again.first, xids(&again)), (2, vec![2, 3]));
    }

    #[test]
    fn a_new_term_begins_with_all_that_was_not_applied() {
        let mut outbox = outbox(4);
        outbox.forward(0).unwrap();
        outbox.applied(3, 4);
        let again = outbox.forward(0).unwrap();
        assert_eq!((again.first, xids(&again)), (0, vec![3]));
        // An answer of the former leader means nothing.
        outbox.taken(7, 3, 4, 0);
        assert_eq!(outbox.taken, 0);
    }

    #[test]
    fn what_was_applied_counts_as_taken() {
        let mut outbox = outbox(2);
        outbox.forward(0).unwrap();
        outbox.applied(2, 3);
        assert_eq!(outbox.len(), 0);
        outbox.extend([command(9)]);
        let next = outbox.forward(100).unwrap();
        assert_eq!((next.first, xids(&next)), (2, vec![9]));
    }

    #[test]
    fn after_a_jump_numbering_begins_in_another_stream() {
        let mut outbox = outbox(2);
        outbox.forward(0).unwrap();
        outbox.forget();
        outbox.extend([command(9)]);
        let next = outbox.forward(0).unwrap();
        assert_eq!((next.stream, next.first, xids(&next)), (8, 0, vec![9]));
    }
}
