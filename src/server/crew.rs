//! Who runs the driver and the applier: any thread that has just given them something to do and finds them free, else their
//! own threads. A write thus crosses from thread to thread twice instead of five times: to the log, whose fsync nobody else
//! should wait for, and back to its connection.
//!
//! ```text
//!   connection's task ─ commands ─▶ driver, here and now ─▶ log thread: fsync ─▶ driver, applier, there ─▶ connection's task
//!                                        │ while the log is busy: commands stay in the inbox, and are one batch when it is done
//! ```
//!
//! While one client is alone there is nobody else: its task writes the log as well, and the write crosses no thread.
//!
//! Invariants:
//! - One thread at a time is at a part ([`Post::lend_a_hand`] takes its seat, or leaves it to who has it).
//! - Nothing urgent is forgotten: who finds a part taken has put its input in before, and who leaves a part looks again. What
//!   is not urgent waits for the log, whose thread runs the driver when it is done, or for the next tick.
//! - Threads that lend a hand are bounded: so many rounds ([`ROUNDS`]), entries of so many bytes ([`LIGHT_BYTES`]); beyond, the
//!   part's own thread goes on. A few commands ([`FEW_BYTES`]) the log's thread leaves until it has handed the disk what waits to
//!   be written: it comes back to them before that fsync, or behind it if they are no longer few. Should the disk stand still
//!   there, the driver's own thread has them applied at its next tick.
//! - What the driver has for the other servers is sent after each of its turns, by whoever ran it, when the driver is free
//!   again: a system call that nobody waits for. Only then does that thread apply, and answer, what was committed: a client that
//!   has its reply, and whose leader dies then, has seen a zxid; servers that do not know of the commit do not let it in before
//!   the next election. (The applier's own thread, if it is awake, may be faster.)
//! - A task that writes the log holds one of the runtime's threads, which may be the one that learns of other sockets. It does
//!   so only while nobody else speaks and no change reaches others ([`Signs::is_quiet`]), and before it has applied anything.
//!   Should the disk stand still, another of those threads takes over within a tick ([`Shared::relieve`]); there are two at least.
//! - A part that fails or panics ends, whoever ran it, and its own thread tells.
//!
//! Left out on purpose: checkpoints, whose threads may block for long; and what comes by the links writes no log, since a link
//! must live on while the disk stands still.
//!
//! [`Shared::relieve`]: super::shared::Shared::relieve
//! [`Signs::is_quiet`]: super::signs::Signs::is_quiet

use super::checkpointer::Checkpointer;
use super::driver::Driver;
use super::inbox::Inbox;
use super::log_writer::LogWriter;
use super::{ApplierInput, Failure, LogInput};
use crate::net::peers::Links;
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often a thread that lends a hand begins anew because more has come; then the parts' own threads take over.
const ROUNDS: usize = 8;
/// Bytes of entries that a thread applies which is not the applier's own: about a hundred small commands, a fraction of a
/// millisecond.
const LIGHT_BYTES: usize = 16 << 10;
/// What the log's thread applies while the disk takes in what comes next: half a dozen commands, whose replies take about as long
/// as that. More are answered before, so that what their clients ask then is in the next group, not in the one after.
const FEW_BYTES: usize = 1 << 10;
/// Bytes of entries that a client's task writes to the log itself: a command or a few. What a client that is alone pipelines,
/// the log's thread groups.
const LONE_BYTES: usize = 512;

/// Who lends a hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Helper {
    /// The task of a client that is alone: it may write the log.
    Alone,
    /// A thread that has nothing more urgent to do.
    Free,
    /// The log's thread: what waits to be written is more urgent to it than a few commands, which it applies while the disk
    /// takes that in.
    Log,
}

/// A part that any thread may run.
pub(super) trait Part: Send {
    /// What it is told.
    type Input: Send;
    /// Its own thread.
    const NAME: &'static str;

    /// Takes `inputs` in, and does what is to be done. `is_lent`: by a thread that has other duties.
    fn turn(&mut self, inputs: &mut Vec<Self::Input>, is_lent: bool) -> Result<Turned, Failure>;

    /// How long its own thread may sleep if nothing comes.
    fn rest(&self) -> Duration;

    /// Whether other threads may run it: not while a turn may wait for the disk.
    fn is_lendable(&self) -> bool {
        true
    }
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// Everything was done.
    Done,
    /// What is not urgent may wait: somebody will come.
    Patient,
    /// There is something left that only the part's own thread should do.
    WantsOwnThread,
    /// It has come to its end.
    Ended,
}

/// A part, what it is told, and who is at it.
pub(super) struct Post<P: Part> {
    inbox: Arc<Inbox<P::Input>>,
    seat: Mutex<Seat<P>>,
}

struct Seat<P: Part> {
    /// `None`: it has ended.
    part: Option<P>,
    /// Kept for its capacity.
    inputs: Vec<P::Input>,
    /// How it ended.
    outcome: Option<Result<(), Failure>>,
}

impl<P: Part> Post<P> {
    pub(super) fn new(part: P, inbox: Arc<Inbox<P::Input>>) -> Post<P> {
        Post {
            inbox,
            seat: Mutex::new(Seat {
                part: Some(part),
                inputs: Vec::new(),
                outcome: None,
            }),
        }
    }

    /// The part's own thread: runs what nobody else does, until the part ends.
    /// `afterwards` sees to what came of a turn for others.
    fn serve(&self, afterwards: impl Fn()) -> Result<(), Failure> {
        loop {
            interleave_until!(self.seat.try_lock().is_some());
            let mut seat = self.seat.lock();
            let turned = seat.turn(&self.inbox, false);
            if let Some(outcome) = seat.outcome.take() {
                return outcome;
            }
            let rest = seat.part.as_ref().map(Part::rest).unwrap_or_default();
            drop(seat);
            afterwards();
            interleave!();
            if !self.has_more(turned) {
                interleave!();
                self.inbox.sleep(rest);
            }
        }
    }

    /// Runs the part on this thread, unless somebody is at it already, who then looks again.
    /// `afterwards` sees to what came of a turn for others.
    fn lend_a_hand(&self, afterwards: impl Fn()) {
        for _ in 0..ROUNDS {
            let Some(turned) = self.lend_a_turn() else { return };
            afterwards();
            interleave!();
            let is_over = matches!(turned, Turned::Ended | Turned::WantsOwnThread);
            if is_over || !self.has_more(turned) {
                return;
            }
        }
        self.inbox.wake();
    }

    /// Runs one turn on this thread; `None`: somebody is at the part, or its own thread has been called instead. Whoever calls
    /// this looks again whether something has come.
    fn lend_a_turn(&self) -> Option<Turned> {
        let mut seat = self.seat.try_lock()?;
        if !seat.part.as_ref()?.is_lendable() {
            self.inbox.call();
            return None;
        }
        let turned = seat.turn(&self.inbox, true);
        drop(seat);
        if matches!(turned, Turned::Ended | Turned::WantsOwnThread) {
            self.inbox.call();
        }
        Some(turned)
    }

    /// Looked at after the part was left: what came before that is seen here.
    fn has_more(&self, turned: Turned) -> bool {
        match turned {
            _ if planted!(PartLooksOnce) => false,
            Turned::Patient => self.inbox.is_urgent(),
            _ => !self.inbox.is_empty(),
        }
    }
}

impl<P: Part> Seat<P> {
    fn turn(&mut self, inbox: &Inbox<P::Input>, is_lent: bool) -> Turned {
        let Some(part) = &mut self.part else {
            return Turned::Ended;
        };
        inbox.take(&mut self.inputs);
        let inputs = &mut self.inputs;
        // On a thread that is not the part's own, a panic would end something else, and the server would go on without it.
        let outcome = catch_unwind(AssertUnwindSafe(|| part.turn(inputs, is_lent)));
        let outcome = match outcome {
            Ok(Ok(Turned::Ended)) => Ok(()),
            Ok(Ok(turned)) => return turned,
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Panicked(P::NAME)),
        };
        self.part = None;
        self.outcome = Some(outcome);
        Turned::Ended
    }
}

/// The parts that any thread may run. They hold what all parts share, and that holds them, until they end.
pub(super) struct Crew {
    pub(super) log: Post<LogWriter>,
    pub(super) driver: Post<Driver>,
    pub(super) applier: Post<Checkpointer>,
    /// Clients' tasks that wait for the log's disk: one, or one more that has found it taken.
    pub(super) tasks_at_the_disk: AtomicUsize,
    /// Takes what the driver has for the other servers. A lone server has none.
    pub(super) links: Option<Weak<Links>>,
}

impl Crew {
    /// Runs what waits for the driver, and what comes of it, as far as nobody else is at it.
    pub(super) fn lend_a_hand(&self, helper: Helper) {
        // Once, and before anything is applied: that may wake tasks which stand behind this one.
        let mut may_write = helper == Helper::Alone;
        for _ in 0..ROUNDS {
            self.driver.lend_a_hand(|| self.hand_on(may_write));
            if may_write && self.is_soon_written() {
                may_write = false;
                self.write_log();
                continue;
            }
            if !self.applier.inbox.is_urgent() {
                return;
            }
            if helper == Helper::Log && self.log.inbox.is_urgent() && self.has_few_to_apply() {
                return;
            }
            if !self.is_soon_applied(LIGHT_BYTES) {
                break;
            }
            self.apply();
            may_write = false;
            if !self.driver.inbox.is_urgent() {
                return;
            }
        }
        self.applier.inbox.wake();
        if self.driver.inbox.is_urgent() {
            self.driver.inbox.wake();
        }
    }

    /// The log's own thread.
    pub(super) fn serve_log(&self) -> Result<(), Failure> {
        self.log.serve(|| self.lend_a_hand(Helper::Log))
    }

    /// The driver's own thread. What comes of a turn is applied here too, if that is soon done.
    pub(super) fn serve_driver(&self) -> Result<(), Failure> {
        self.driver.serve(|| {
            self.hand_on(false);
            if self.applier.inbox.is_urgent() {
                if self.is_soon_applied(LIGHT_BYTES) {
                    self.apply();
                } else {
                    self.applier.inbox.wake();
                }
            }
        })
    }

    /// The applier's own thread. The driver is told here how far it has come.
    pub(super) fn serve_applier(&self) -> Result<(), Failure> {
        self.applier.serve(|| self.driver.lend_a_hand(|| self.hand_on(false)))
    }

    /// Wakes the applier's own thread, for what others may not do.
    pub(super) fn call_applier(&self) {
        self.applier.inbox.call();
    }

    /// What a turn of the driver has brought for the log and for the links. `may_write`: this thread writes what is little.
    fn hand_on(&self, may_write: bool) {
        if self.log.inbox.is_urgent() && !(may_write && self.is_soon_written()) {
            self.log.inbox.wake();
        }
        self.tell_others();
    }

    /// Sends what waits for the other servers.
    fn tell_others(&self) {
        if let Some(links) = self.links.as_ref().and_then(Weak::upgrade) {
            links.flush();
        }
    }

    /// Writes what waits for the log on this thread, if nobody is at it. The driver is told, so that it is run next: who does that
    /// sees what has been left for the log meanwhile ([`Crew::hand_on`]).
    fn write_log(&self) {
        self.tasks_at_the_disk.fetch_add(1, Ordering::Relaxed);
        self.log.lend_a_turn();
        self.tasks_at_the_disk.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a few commands wait for the applier.
    pub(super) fn has_few_to_apply(&self) -> bool {
        self.applier.inbox.is_urgent() && self.is_soon_applied(FEW_BYTES)
    }

    /// Applies what waits on this thread, unless somebody is at it. The others are told first, even if it was another thread that
    /// ran the driver and has not come to that yet.
    pub(super) fn apply(&self) {
        self.tell_others();
        self.applier.lend_a_hand(|| ());
    }

    /// Whether what waits for the log is little, and urgent.
    fn is_soon_written(&self) -> bool {
        let mut bytes = 0;
        let is_little = self.log.inbox.all(|input| {
            bytes += match input {
                LogInput::Append(append) => append.entries.iter().map(|entry| entry.data.len()).sum(),
                LogInput::Reset { .. } | LogInput::Purge { .. } | LogInput::Stop => LONE_BYTES + 1,
            };
            bytes <= LONE_BYTES
        });
        is_little && self.log.inbox.is_urgent()
    }

    /// Whether what waits for the applier are entries of so many bytes at most.
    fn is_soon_applied(&self, light_bytes: usize) -> bool {
        let mut bytes = 0;
        self.applier.inbox.all(|input| {
            bytes += match input {
                ApplierInput::Entries { entries, .. } => entries.iter().map(|entry| entry.data.len()).sum(),
                ApplierInput::Barriers(_) => 0,
                ApplierInput::Install { .. } | ApplierInput::View(_) | ApplierInput::Stop => light_bytes + 1,
            };
            bytes <= light_bytes
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Counts what it is told; panics when it is told 0.
    struct Counter {
        counted: Arc<AtomicUsize>,
        is_lent_only: bool,
    }

    impl Part for Counter {
        type Input = usize;
        const NAME: &'static str = "counter";

        fn turn(&mut self, inputs: &mut Vec<usize>, is_lent: bool) -> Result<Turned, Failure> {
            assert!(is_lent || !self.is_lent_only, "nobody else is there to run it");
            for input in inputs.drain(..) {
                assert_ne!(input, 0, "planted");
                self.counted.fetch_add(input, Ordering::Relaxed);
            }
            Ok(Turned::Done)
        }

        fn rest(&self) -> Duration {
            Duration::from_secs(3600)
        }
    }

    fn post(is_lent_only: bool) -> (Post<Counter>, Arc<Inbox<usize>>, Arc<AtomicUsize>) {
        let (inbox, counted) = (Arc::<Inbox<usize>>::default(), Arc::<AtomicUsize>::default());
        let counter = Counter {
            counted: counted.clone(),
            is_lent_only,
        };
        (Post::new(counter, inbox.clone()), inbox, counted)
    }

    #[test]
    fn nothing_is_forgotten_however_many_threads_lend_a_hand() {
        let (post, inbox, counted) = post(true);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for input in 1..=2000 {
                        inbox.put(input);
                        post.lend_a_hand(|| ());
                    }
                });
            }
        });
        // Whoever gave up after its rounds has called the own thread, which is not there; all else is done.
        while !inbox.is_empty() {
            post.lend_a_hand(|| ());
        }
        assert_eq!(counted.load(Ordering::Relaxed), 4 * 2000 * 2001 / 2);
    }

    #[test]
    fn a_part_that_panics_ends_whoever_runs_it_and_its_own_thread_tells() {
        let (post, inbox, counted) = post(false);
        thread::scope(|scope| {
            let own = scope.spawn(|| post.serve(|| ()));
            inbox.push(7);
            while counted.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            inbox.put(0);
            post.lend_a_hand(|| ());
            let outcome = own.join().expect("its own thread does not panic");
            assert!(matches!(outcome, Err(Failure::Panicked("counter"))), "{outcome:?}");
        });
        inbox.put(7);
        post.lend_a_hand(|| ());
        assert_eq!(counted.load(Ordering::Relaxed), 7, "what has ended is not run again");
    }
}
