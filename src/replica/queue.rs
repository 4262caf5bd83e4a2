//! A leader's queue: commands that are to be proposed, of its own sessions, of followers', and its own.

use super::Peer;
use super::outbox::Forwarded;
use crate::state_machine::Command;
use std::collections::{BTreeMap, VecDeque};

/// What waits to be proposed. Its length is bounded by what the connections of all servers may have in work.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) commands: VecDeque<Command>,
    /// For each life of each follower: its stream, and the number that is to come next. One that has lost its data may begin
    /// with any number.
    streams: BTreeMap<Peer, (u64, u64)>,
}

impl Queue {
    /// Leadership has begun or ended: what waits is kept by those who have sent it.
    pub(super) fn reset(&mut self) {
        self.commands.clear();
        self.streams.clear();
    }

    /// Takes commands of a follower, each once and in order; gives the stream and the number that is to come next, or
    /// nothing for a stream that is over.
    pub(super) fn take(&mut self, from: Peer, forwarded: Forwarded) -> Option<u64> {
        let (stream, next) = self.streams.entry(from).or_insert((forwarded.stream, 0));
        if forwarded.stream < *stream {
            return None;
        }
        if forwarded.stream > *stream {
            (*stream, *next) = (forwarded.stream, 0);
        }
        if let Some(known) = next.checked_sub(forwarded.first) {
            let mut known = usize::try_from(known).unwrap_or(usize::MAX);
            if planted!(TakenTwice) {
                known = 0;
            }
            let new = forwarded.commands.into_iter().skip(known);
            let before = self.commands.len();
            self.commands.extend(new);
            *next += (self.commands.len() - before) as u64;
        }
        Some(*next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{OpCode, SessionId, Xid};
    use crate::state_machine::{Origin, ServerId};

    fn forwarded(stream: u64, first: u64, count: u64) -> Forwarded {
        let command = |number: u64| Command {
            origin: Origin::default(),
            session: SessionId(1),
            xid: Xid(i32::try_from(stream * 100 + number).unwrap()),
            identities: [].into(),
            op: OpCode::SetData,
            body: bytes::Bytes::new(),
        };
        Forwarded {
            stream,
            first,
            commands: (first..first + count).map(command).collect(),
        }
    }

    #[test]
    fn commands_are_taken_once_and_in_order() {
        let mut queue = Queue::default();
        let from = Peer {
            server: ServerId(2),
            incarnation: 22,
        };
        assert_eq!(queue.take(from, forwarded(1, 0, 2)), Some(2));
        assert_eq!(queue.take(from, forwarded(1, 0, 2)), Some(2), "repeated");
        assert_eq!(
            queue.take(from, forwarded(1, 4, 2)),
            Some(2),
            "something before it was lost"
        );
        assert_eq!(queue.take(from, forwarded(1, 1, 3)), Some(4), "the first is known");
        assert_eq!(queue.take(from, forwarded(2, 0, 1)), Some(1), "a new stream");
        assert_eq!(queue.take(from, forwarded(1, 4, 1)), None, "the old stream is over");
        let wiped = Peer {
            incarnation: 23,
            ..from
        };
        assert_eq!(queue.take(wiped, forwarded(1, 0, 1)), Some(1), "another life");
        let xids: Vec<_> = queue.commands.iter().map(|command| command.xid.0).collect();
        assert_eq!(xids, [100, 101, 102, 103, 200, 100]);
    }
}
