//! Threads that work behind those that clients wait for: they get less of the processor than those where both want it.
//!
//! Checkpoints, tables and the next log file take milliseconds of a processor in one go. A thread that an fsync or a request
//! wakes would wait for the end of their turn on the same core, which the system gives to all alike. A low priority is no
//! starvation: where clients leave no processor idle these threads still have a share, and what they leave waiting is bounded
//! elsewhere.

/// How nice they are: they have four tenths of the share of the others. With a tenth (10) what waits for the store piled up to
/// its limits where clients take all there is: large values took half as much memory again, and small writes beside them three
/// times as long.
const NICE: i32 = 4;

/// Has the calling thread, and those that it starts from now on, give way to all others. Best effort: a system that does not
/// let it is as before.
pub(crate) fn give_way() {
    let _ = rustix::process::setpriority_process(None, NICE);
}
