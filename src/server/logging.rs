//! raft-rs logs through slog; the rest of the server through tracing.

use slog::{Drain, Level, Never, OwnedKVList, Record};

/// Hands slog's records on to tracing. Their key-value pairs are dropped: raft repeats what matters in the message.
struct Tracing;

impl Drain for Tracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{}", record.msg()),
            Level::Warning => tracing::warn!(target: "raft", "{}", record.msg()),
            // Elections are told by the driver in the server's own words.
            Level::Info | Level::Debug => tracing::debug!(target: "raft", "{}", record.msg()),
            Level::Trace => tracing::trace!(target: "raft", "{}", record.msg()),
        }
        Ok(())
    }
}

/// A logger for raft-rs.
pub(super) fn slog_to_tracing() -> slog::Logger {
    slog::Logger::root(Tracing, slog::o!())
}
