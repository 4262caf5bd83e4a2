//! What waits to be sent to one server, and whose turn it is to send it.
//!
//! ```text
//!   push, push, flush ─▶ queue ─ little: here and now ──────▶ socket
//!                          └──── much, encrypted, or what the socket did not take: the link's task ─▶ socket
//! ```
//!
//! A task that has to be woken costs its thread a switch or two, and a message that is alone its time.
//!
//! Invariants:
//! - One at a time sends: who has the turn ([`State::is_taken`]). What one did not get rid of goes before all else.
//! - Nothing is forgotten: who finds the turn taken leaves its messages to who has it, who looks again when it gives it back.

use super::Dropped;
use super::frame::BODY_BYTES;
use super::packing::Packed;
use crate::net::PromptWriter;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Bytes that the task takes out at once, but at least one message: what is being written is beyond the queue's limits.
const TAKE_BYTES: usize = 1 << 20;
/// Bytes that others than the task send at most: they have something else to do. Some 20 µs.
const PROMPT_BYTES: usize = 64 << 10;
/// How often they begin anew because more has come; then the task goes on.
const ROUNDS: usize = 4;

/// The queue of one link. Any thread puts in; any thread, or the link's task, sends.
pub(super) struct Outbox {
    max_messages: usize,
    max_bytes: usize,
    state: Mutex<State>,
    /// Wakes the task.
    filled: Notify,
}

/// How full an outbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) is_open: bool,
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// What was given to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

#[derive(Default)]
struct State {
    /// Whether the link is up. Nothing waits while it is not: what raft said then is stale when it comes up.
    is_open: bool,
    /// Counts the links, so that who sends on one notices that it is another one's turn now.
    link: u64,
    /// Of a plain link.
    writer: Option<PromptWriter>,
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// Whether somebody sends.
    is_taken: bool,
    /// What the socket did not take.
    rest: Packed,
}

/// Messages that have been taken out, and where they go.
struct Prompt {
    link: u64,
    writer: PromptWriter,
    bodies: VecDeque<Bytes>,
}

impl Outbox {
    /// A closed one, with its limits: whatever is put in beyond one of them is dropped.
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Outbox {
        Outbox {
            max_messages,
            max_bytes,
            state: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Puts a message in. It is sent by the next [`Outbox::flush`].
    pub(super) fn push(&self, body: Bytes) -> Result<(), Dropped> {
        if body.len() > BODY_BYTES {
            return Err(Dropped::TooLong(body.len()));
        }
        let mut state = self.state.lock();
        if !state.is_open {
            return Err(Dropped::Down);
        }
        if state.queue.len() >= self.max_messages || state.bytes + body.len() > self.max_bytes {
            return Err(Dropped::Full);
        }
        state.bytes += body.len();
        state.queue.push_back(body);
        Ok(())
    }

    /// Sends what waits, as far as the socket takes it, or leaves it to the task. Never waits.
    pub(super) fn flush(&self) -> Sent {
        let mut sent = Sent::default();
        for _ in 0..ROUNDS {
            interleave!();
            let Some(prompt) = self.begin_prompt() else { return sent };
            sent.messages += prompt.bodies.len() as u64;
            let mut packed = Packed::default();
            prompt.bodies.into_iter().for_each(|body| packed.add(body));
            sent.bytes += packed.write_now(&prompt.writer);
            if !self.end_prompt(prompt.link, packed) {
                return sent;
            }
        }
        self.filled.notify_one();
        sent
    }

    /// Takes everything out, and the turn with it, if that is not the task's to do and there is anything.
    fn begin_prompt(&self) -> Option<Prompt> {
        let mut state = self.state.lock();
        if state.is_taken || state.queue.is_empty() {
            return None;
        }
        let writer = state.writer.clone();
        let has_rest = !state.rest.is_empty() && !planted!(RestOvertaken);
        let Some(writer) = writer.filter(|_| state.bytes <= PROMPT_BYTES && !has_rest) else {
            drop(state);
            self.filled.notify_one();
            return None;
        };
        state.is_taken = true;
        state.bytes = 0;
        Some(Prompt {
            link: state.link,
            writer,
            bodies: std::mem::take(&mut state.queue),
        })
    }

    /// Gives the turn back; says whether there is more to send.
    fn end_prompt(&self, link: u64, rest: Packed) -> bool {
        let mut state = self.state.lock();
        if state.link != link || !state.is_open {
            // What was not sent is lost with its link.
            return false;
        }
        state.is_taken = false;
        if rest.is_empty() {
            return !state.queue.is_empty() && !planted!(OutboxLooksOnce);
        }
        state.rest = rest;
        drop(state);
        self.filled.notify_one();
        false
    }

    /// From now on messages are kept. `writer`: by which others than the task may send.
    pub(super) fn open(&self, writer: Option<PromptWriter>) {
        let mut state = self.state.lock();
        let link = state.link + 1;
        *state = State {
            is_open: true,
            link,
            writer,
            ..State::default()
        };
    }

    /// Drops everything, and whatever comes from now on; says how many messages these were.
    pub(super) fn close(&self) -> usize {
        let mut state = self.state.lock();
        let link = state.link;
        let closed = std::mem::replace(
            &mut *state,
            State {
                link,
                ..State::default()
            },
        );
        closed.queue.len()
    }

    /// For the task: waits until there is something for it to send.
    pub(super) async fn filled(&self) {
        while !self.state.lock().is_for_task() {
            interleave!();
            self.filled.notified().await;
        }
    }

    /// For the task: takes its turn, and moves what is to be sent, oldest first, into `packed`, which must be empty. Gives how
    /// many messages that is; `None` if somebody else has the turn, for no longer than a system call takes.
    pub(super) fn take(&self, packed: &mut Packed) -> Option<u64> {
        let mut state = self.state.lock();
        if state.is_taken {
            return None;
        }
        state.is_taken = true;
        *packed = std::mem::take(&mut state.rest);
        let mut bodies = Vec::new();
        let mut bytes = 0;
        while bytes < TAKE_BYTES
            && let Some(body) = state.queue.pop_front()
        {
            bytes += body.len();
            bodies.push(body);
        }
        state.bytes -= bytes;
        drop(state);
        let messages = bodies.len() as u64;
        bodies.into_iter().for_each(|body| packed.add(body));
        Some(messages)
    }

    /// For the task: gives its turn back.
    pub(super) fn taken(&self) {
        self.state.lock().is_taken = false;
    }

    /// Of a simulation, whose task has nothing else that wakes it.
    #[cfg(test)]
    pub(super) fn wake_task(&self) {
        self.filled.notify_one();
    }

    pub(super) fn level(&self) -> Level {
        let state = self.state.lock();
        Level {
            is_open: state.is_open,
            messages: state.queue.len(),
            bytes: state.bytes,
        }
    }
}

impl State {
    fn is_for_task(&self) -> bool {
        let has_work = !self.queue.is_empty() || !self.rest.is_empty();
        has_work && !self.is_taken
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;
    use crate::net::PlainStream;
    use bytes::BytesMut;
    use std::io::Read as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    fn body(length: usize) -> Bytes {
        vec![7; length].into()
    }

    /// Bytes of the messages that the task takes in one turn.
    fn take(outbox: &Outbox) -> Option<Vec<u8>> {
        let mut packed = Packed::default();
        outbox.take(&mut packed)?;
        outbox.taken();
        Some(packed.to_vec())
    }

    /// Lengths of the bodies of whole frames.
    fn lengths(bytes: &[u8]) -> Vec<usize> {
        let mut buffer = BytesMut::from(bytes);
        let lengths = std::iter::from_fn(|| Some(frame::split(&mut buffer).unwrap()?.len())).collect();
        assert!(buffer.is_empty(), "a part of a frame");
        lengths
    }

    /// A plain stream, and the other end of it.
    async fn connected() -> (PlainStream, std::net::TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let theirs = listener.accept().await.unwrap().0.into_std().unwrap();
        theirs.set_nonblocking(false).unwrap();
        stream.writable().await.unwrap();
        (PlainStream::new(stream), theirs)
    }

    #[test]
    fn what_exceeds_a_limit_is_dropped_and_said() {
        let outbox = Outbox::new(3, 100);
        assert_eq!(outbox.push(body(1)), Err(Dropped::Down));
        outbox.open(None);
        assert_eq!(outbox.push(body(60)), Ok(()));
        assert_eq!(outbox.push(body(41)), Err(Dropped::Full), "bytes");
        assert_eq!(outbox.push(body(20)), Ok(()));
        assert_eq!(outbox.push(body(20)), Ok(()));
        assert_eq!(outbox.push(body(0)), Err(Dropped::Full), "messages");
        assert_eq!(outbox.level().bytes, 100);
        assert_eq!(lengths(&take(&outbox).unwrap()), [60, 20, 20]);
        assert_eq!(outbox.push(body(100)), Ok(()));
        assert_eq!(outbox.push(body(BODY_BYTES + 1)), Err(Dropped::TooLong(BODY_BYTES + 1)));
    }

    #[test]
    fn closing_drops_what_waits_and_what_comes() {
        let outbox = Outbox::new(10, 100);
        outbox.open(None);
        outbox.push(body(1)).unwrap();
        outbox.push(body(2)).unwrap();
        assert_eq!(outbox.close(), 2);
        assert_eq!(outbox.level(), Level::default());
        assert_eq!(outbox.push(body(1)), Err(Dropped::Down));
    }

    #[test]
    fn large_messages_are_taken_in_turns() {
        let outbox = Outbox::new(10, 10 * TAKE_BYTES);
        outbox.open(None);
        for length in [TAKE_BYTES / 2, TAKE_BYTES, 3 * TAKE_BYTES, 1] {
            outbox.push(body(length)).unwrap();
        }
        let mut turns = Vec::new();
        while outbox.level().messages > 0 {
            turns.push(lengths(&take(&outbox).unwrap()).len());
        }
        assert_eq!(turns, [2, 1, 1]);
        assert_eq!(outbox.level().bytes, 0);
    }

    #[tokio::test]
    async fn a_little_is_sent_here_and_now_and_the_task_has_nothing_to_do() {
        let (stream, mut theirs) = connected().await;
        let outbox = Outbox::new(10, TAKE_BYTES);
        outbox.open(Some(stream.writer()));
        outbox.push(body(3)).unwrap();
        outbox.push(body(4)).unwrap();
        let sent = outbox.flush();
        let bytes = 2 * frame::HEADER_BYTES + 7;
        assert_eq!((sent.messages, sent.bytes), (2, bytes as u64));
        let mut received = vec![0; bytes];
        theirs.read_exact(&mut received).unwrap();
        assert_eq!(lengths(&received), [3, 4]);
        assert!(!outbox.state.lock().is_for_task());
        assert_eq!(outbox.flush(), Sent::default());
    }

    #[tokio::test]
    async fn much_is_left_to_the_task_and_so_is_all_without_a_writer() {
        let (stream, _theirs) = connected().await;
        let outbox = Outbox::new(10, TAKE_BYTES);
        for (writer, length) in [(Some(stream.writer()), PROMPT_BYTES + 1), (None, 1)] {
            outbox.open(writer);
            outbox.push(body(length)).unwrap();
            assert_eq!(outbox.flush(), Sent::default());
            // It was told: this would wait for ever.
            outbox.filled.notified().await;
            assert_eq!(lengths(&take(&outbox).unwrap()), [length]);
        }
    }

    #[tokio::test]
    async fn what_the_socket_did_not_take_goes_before_what_came_meanwhile() {
        let (mut stream, mut theirs) = connected().await;
        let outbox = Outbox::new(10_000, TAKE_BYTES);
        outbox.open(Some(stream.writer()));
        // Nobody reads: the socket is full at some time.
        let mut pushed = 0;
        while outbox.state.lock().rest.is_empty() {
            assert!(pushed < 10_000, "the socket takes everything");
            outbox.push(body(PROMPT_BYTES - pushed)).unwrap();
            outbox.flush();
            pushed += 1;
        }
        outbox.push(body(1)).unwrap();
        assert_eq!(outbox.flush(), Sent::default(), "it is the task's turn");
        outbox.filled().await;
        let rest = take(&outbox).unwrap();
        let reading = std::thread::spawn(move || {
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).map(|_| received)
        });
        stream.write_all(&rest).await.unwrap();
        stream.shutdown().await.unwrap();
        let received = reading.join().unwrap().unwrap();
        let expected: Vec<usize> = (0..pushed).map(|number| PROMPT_BYTES - number).chain([1]).collect();
        assert_eq!(lengths(&received), expected);
    }

    #[tokio::test]
    async fn one_at_a_time_sends_and_the_next_link_owes_nothing_to_the_last() {
        let (stream, _theirs) = connected().await;
        let outbox = Outbox::new(10, TAKE_BYTES);
        outbox.open(Some(stream.writer()));
        outbox.push(body(1)).unwrap();
        let first = outbox.begin_prompt().expect("little");
        outbox.push(body(2)).unwrap();
        assert!(outbox.begin_prompt().is_none() && take(&outbox).is_none());
        assert!(outbox.end_prompt(first.link, Packed::default()), "more has come");
        let second = outbox.begin_prompt().expect("little");
        let mut rest = Packed::default();
        second.bodies.into_iter().for_each(|body| rest.add(body));
        outbox.close();
        outbox.open(Some(stream.writer()));
        outbox.push(body(3)).unwrap();
        let third = outbox.begin_prompt().expect("it is the first of its link");
        assert!(!outbox.end_prompt(second.link, rest), "its link is gone");
        assert!(outbox.begin_prompt().is_none(), "somebody else has the turn");
        assert!(!outbox.end_prompt(third.link, Packed::default()));
        assert_eq!(take(&outbox).unwrap(), b"", "what was not sent is lost with its link");
    }
}
