//! Read barriers, before and after raft was asked. One question at a time serves all that wait.

use super::PassedBarriers;
use crate::state_machine::ServerId;
use std::collections::VecDeque;

/// A question that was not answered for so many ticks is asked again: raft drops those that come before the leader has
/// committed anything in its term, and messages get lost.
const RETRY_TICKS: u64 = 6;

/// What waits for a barrier.
pub(super) struct Barriers {
    /// Makes questions of this start of this server unlike all others.
    prefix: [u8; 16],
    waiting: Vec<u64>,
    asked: VecDeque<Asked>,
    next_question: u64,
}

struct Asked {
    question: u64,
    /// When it was last asked.
    tick: u64,
    tokens: Vec<u64>,
}

impl Barriers {
    pub(super) fn new(server: ServerId, stream: u64) -> Barriers {
        let mut prefix = [0; 16];
        prefix[..8].copy_from_slice(&server.0.to_be_bytes());
        prefix[8..].copy_from_slice(&stream.to_be_bytes());
        Barriers {
            prefix,
            waiting: Vec::new(),
            asked: VecDeque::new(),
            next_question: 0,
        }
    }

    pub(super) fn add(&mut self, token: u64) {
        self.waiting.push(token);
    }

    /// Whether raft is to be asked.
    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The question for all that wait.
    pub(super) fn ask(&mut self, tick: u64) -> Vec<u8> {
        let question = self.next_question;
        self.next_question += 1;
        self.asked.push_back(Asked {
            question,
            tick,
            tokens: std::mem::take(&mut self.waiting),
        });
        self.bytes(question)
    }

    /// Questions to be asked once more. The first answer counts, whichever asking it is for: each came after its tokens.
    pub(super) fn ask_again(&mut self, tick: u64) -> Vec<Vec<u8>> {
        let late = self.asked.iter_mut().filter(|asked| asked.tick + RETRY_TICKS <= tick);
        let questions: Vec<_> = late
            .map(|asked| {
                asked.tick = tick;
                asked.question
            })
            .collect();
        questions.into_iter().map(|question| self.bytes(question)).collect()
    }

    /// The tokens that an answer is for. Answers may come out of order, twice, and for others.
    pub(super) fn passed(&mut self, question: &[u8], index: u64) -> Option<PassedBarriers> {
        let number = question.strip_prefix(&self.prefix)?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        let position = self.asked.iter().position(|asked| asked.question == number)?;
        let asked = self.asked.remove(position)?;
        Some(PassedBarriers {
            index,
            tokens: asked.tokens,
        })
    }

    fn bytes(&self, question: u64) -> Vec<u8> {
        [&self.prefix[..], &question.to_be_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_again_and_answered_once() {
        let mut barriers = Barriers::new(ServerId(1), 5);
        barriers.add(42);
        let question = barriers.ask(0);
        assert!(barriers.ask_again(RETRY_TICKS - 1).is_empty());
        assert_eq!(barriers.ask_again(RETRY_TICKS), std::slice::from_ref(&question));
        let passed = PassedBarriers {
            index: 9,
            tokens: vec![42],
        };
        assert_eq!(barriers.passed(&question, 9), Some(passed));
        assert_eq!(barriers.passed(&question, 10), None);
        let other = Barriers::new(ServerId(1), 6).bytes(0);
        assert_eq!(barriers.passed(&other, 10), None);
    }
}
