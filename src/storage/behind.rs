//! Threads that work behind those that clients wait for: they get the processor when nobody else wants it.
//!
//! Checkpoints, tables and the next log file take milliseconds of a processor in one go. A thread that an fsync or a request
//! wakes would wait for the end of their turn on the same core, which the system gives to all alike. A low priority is no
//! starvation: where clients leave no processor idle these threads still have a share, and what they leave waiting is bounded
//! elsewhere.

/// How nice they are: they have a tenth of the share of the others.
const NICE: i32 = 10;

/// Has the calling thread, and those that it starts from now on, give way to all others. Best effort: a system that does not
/// let it is as before.
pub(crate) fn give_way() {
    let _ = rustix::process::setpriority_process(None, NICE);
}
