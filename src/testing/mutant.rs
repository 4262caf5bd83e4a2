//! Planted bugs: each breaks one rule of the production code while it is switched on, so that one can see that somebody
//! notices. `planted!(Name)` stands at the place; production builds have neither the switch nor the bug.

use std::cell::Cell;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The log reports appends before fdatasync.
    AckBeforeFsync,
    /// What was only sent on its way to the disk is taken for stored.
    SentForStored,
    /// A member gives its word before its append is written.
    AckBeforeWrite,
    /// A leader takes what it has sent for acknowledged, and so commits alone.
    CommitAlone,
    /// Votes and acknowledgements of a wiped member count.
    VoteAfterWipe,
    /// The last entry of the log is cut off at a start, though it was whole.
    LastEntryLost,
    /// Commands are stamped with the member's own clock.
    OwnClock,
    /// A sync is answered without asking anybody.
    SyncAlone,
    /// A read is answered before the session's own earlier write.
    ReadOvertakes,
    /// The reply to a write is queued before its events.
    EventAfterReply,
    /// Nobody is told of the ephemerals that go with their session.
    EventForgotten,
    /// Ephemerals stay when their session is closed.
    EphemeralForgotten,
    /// A new leader goes on with the deadlines that it had counted as a follower.
    DeadlinesGoOn,
    /// Signs of life at followers do not reach the leader.
    TouchesDropped,
    /// Sessions are not in checkpoints, nor in snapshots.
    SessionsNotStored,
    /// A multi that fails half-way leaves what it has done.
    HalfMulti,
    /// A leader takes commands that a follower repeats once more.
    TakenTwice,
    /// Commands are forwarded again before the first entry of the new term is applied.
    ForwardedEarly,
    /// A connection's task does not say that it looks.
    TaskLooksUnseen,
    /// A connection's task says that it has nothing to do but to send, whatever it holds.
    TaskSaysIdle,
    /// A command asks whether the log is busy before it stands in line, not behind that.
    AskedBeforeTheLine,
    /// Who has run a part does not look whether something came meanwhile.
    PartLooksOnce,
    /// A client that has seen more than is applied here is sent away before anybody was asked.
    SentAwayAtOnce,
    /// What a socket has not taken of a reply is left lying.
    RestForgotten,
    /// A connection that answers while a storm is being queued does not take its own events first.
    NotCaughtUp,
    /// A connection that has been sent a storm's event is still said to wait for it.
    WaitsOn,
    /// Who has sent what waited for another server does not look whether more came meanwhile.
    OutboxLooksOnce,
    /// What a link's socket did not take is overtaken by what came later.
    RestOvertaken,
}

thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Whether this bug is planted in this thread.
pub fn is(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// Runs `work` with a bug, and takes it out again, even if `work` panics.
pub(super) fn with<T>(mutant: Mutant, work: impl FnOnce() -> T) -> T {
    struct Weeding;
    impl Drop for Weeding {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
    PLANTED.set(Some(mutant));
    let _weeding = Weeding;
    work()
}
