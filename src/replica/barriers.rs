//! Read barriers, before and after raft was asked. One question at a time serves all that wait.
//!
//! A leader answers a question once a majority has answered a heartbeat that carries it, and with it all questions that it was
//! asked before. That is right as long as no question comes twice: what members say to the first asking would else count for
//! the second, and for others' questions that have come between the two, though it may have been said long before them. A
//! leader that was frozen would take it for the word of its majority, which has another leader by then. But questions do come
//! twice: who gets no answer asks again. So a leader numbers all that it is asked, by itself too, and takes the number off the
//! answer.

use super::{PassedBarriers, Replica, Work};
use crate::state_machine::ServerId;
use raft::StateRole;
use raft::prelude::{Message, MessageType};
use std::collections::VecDeque;

/// A question that was not answered for so many ticks is asked again: messages get lost.
pub(super) const RETRY_TICKS: u64 = 6;
/// What a leader puts behind a question.
const MARK_BYTES: usize = 8;

/// What waits for a barrier.
pub(super) struct Barriers {
    /// Makes questions of this start of this server unlike all others.
    prefix: [u8; 16],
    waiting: Vec<u64>,
    asked: VecDeque<Asked>,
    next_question: u64,
    /// For the next question that this server answers as the leader.
    next_mark: u64,
}

struct Asked {
    question: u64,
    /// When it was last asked.
    tick: u64,
    tokens: Vec<u64>,
}

impl Replica {
    /// Asks the leader for what waits.
    pub(super) fn ask_barriers(&mut self, work: &mut Work) {
        if planted!(SyncAlone) && self.barriers.are_waiting() {
            let question = self.barriers.ask(self.tick);
            work.barriers.extend(self.barriers.passed(&question, self.committed()));
        }
        if self.standing.leader.is_none() {
            return;
        }
        if !self.raft.raft.commit_to_current_term() {
            // A leader that has committed nothing in its term yet drops the question, and asked again only after a while it
            // would hold up every start. Nothing is lost by waiting: what is committed here by then has to be applied first
            // in any case.
            return;
        }
        let mut questions = self.barriers.ask_again(self.tick);
        if self.barriers.are_waiting() {
            questions.push(self.barriers.ask(self.tick));
        }
        let answers_itself = self.raft.raft.state == StateRole::Leader;
        for question in questions {
            let question = match answers_itself {
                true => self.barriers.marked(&question),
                false => question,
            };
            self.raft.read_index(question);
        }
    }

    /// A peer's question for the leader; says whether it is to be answered here.
    pub(super) fn mark_question(&mut self, message: &mut Message) -> bool {
        // raft would pass it on, which whoever asks does better: by asking again.
        let leads = self.raft.raft.state == StateRole::Leader;
        let [question] = message.mut_entries().as_mut_slice() else {
            return false;
        };
        if leads {
            question.data = self.barriers.marked(&question.data).into();
        }
        leads
    }

    /// The answer to a peer's question, as it has asked it.
    pub(super) fn unmark_answer(message: &mut Message) {
        if message.get_msg_type() == MessageType::MsgReadIndexResp {
            for question in &mut message.entries {
                let length = question.data.len().saturating_sub(MARK_BYTES);
                question.data.truncate(length);
            }
        }
    }
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
            next_mark: 0,
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

    /// There may be another leader, who knows nothing of what the last one was asked: all that was not answered waits again.
    pub(super) fn forget_asked(&mut self) {
        let asked = self.asked.drain(..).flat_map(|asked| asked.tokens);
        self.waiting.extend(asked);
    }

    /// The tokens that an answer is for. Answers may come out of order, twice, and for others.
    pub(super) fn passed(&mut self, question: &[u8], index: u64) -> Option<PassedBarriers> {
        // A mark of our own may follow.
        let (number, _) = question.strip_prefix(&self.prefix)?.split_first_chunk()?;
        let number = u64::from_be_bytes(*number);
        let position = self.asked.iter().position(|asked| asked.question == number)?;
        let asked = self.asked.remove(position)?;
        Some(PassedBarriers {
            index,
            tokens: asked.tokens,
        })
    }

    /// A question that is unlike all others, however often it was asked before.
    fn marked(&mut self, question: &[u8]) -> Vec<u8> {
        let mark: [u8; MARK_BYTES] = self.next_mark.to_be_bytes();
        self.next_mark += 1;
        [question, &mark].concat()
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

        barriers.add(43);
        let former = barriers.ask(20);
        barriers.add(44);
        barriers.forget_asked();
        assert!(barriers.are_waiting() && barriers.ask_again(20 + RETRY_TICKS).is_empty());
        let question = barriers.ask(21);
        assert_eq!(barriers.passed(&former, 11), None, "it does not serve the second");
        let passed = barriers.passed(&question, 12).map(|passed| passed.tokens);
        assert_eq!(passed, Some(vec![44, 43]));
        let other = Barriers::new(ServerId(1), 6).bytes(0);
        assert_eq!(barriers.passed(&other, 10), None);
    }
}
