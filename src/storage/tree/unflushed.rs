//! What fjall holds in memory until it stands in a table. One thread of its own flushes, and compacts: while a compaction runs,
//! for seconds under full load, nothing is flushed, and the memtable that is written to grows without a limit of fjall's. So
//! whoever commits looks here first.

use super::{TreeError, TreeStore};

impl TreeStore {
    /// Bytes that were committed and stand in no table yet.
    pub fn unflushed_bytes(&self) -> u64 {
        self.database.write_buffer_size().saturating_sub(self.uncounted_bytes)
    }

    /// Everything stands in tables, and the thread that flushes was not asked: fjall still counts what it has not flushed.
    pub(super) fn nothing_unflushed(&mut self) {
        self.uncounted_bytes = self.database.write_buffer_size();
    }

    /// Has them written into tables as soon as the thread that does so is free: after a start nobody has asked for it, and what was
    /// asked for may have been dropped where it had too much to do.
    pub fn flush_soon(&mut self) -> Result<(), TreeError> {
        let sealed = self.keyspace.rotate_memtable();
        self.watched("sealing what is in memory", sealed)?;
        Ok(())
    }
}
