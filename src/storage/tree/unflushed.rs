//! What fjall holds in memory until it stands in a table. One thread of its own flushes, and compacts: while a compaction runs,
//! for seconds under full load, nothing is flushed, and the memtable that is written to grows without a limit of fjall's. So
//! whoever commits looks here first.

use super::records::META_KEY;
use super::{TreeError, TreeStore};
use fjall::AbstractTree as _;

impl TreeStore {
    /// Bytes that were committed and stand in no table yet.
    pub fn unflushed_bytes(&self) -> u64 {
        self.database.write_buffer_size().saturating_sub(self.uncounted_bytes)
    }

    /// Everything stands in tables, and the thread that flushes was not asked: fjall still counts what it has not flushed.
    pub(super) fn nothing_unflushed(&mut self) {
        self.uncounted_bytes = self.database.write_buffer_size();
    }

    /// Bytes that memtables hold, with those of flushed ones that fjall has not let go of yet.
    pub fn memtable_bytes(&self) -> u64 {
        self.keyspace.tree.version_memtable_size_sum()
    }

    /// Has them written into tables as soon as the thread that does so is free: after a start nobody has asked for it, and what was
    /// asked for may have been dropped where it had too much to do.
    pub fn flush_soon(&mut self) -> Result<(), TreeError> {
        self.seal()?;
        Ok(())
    }

    /// Has memtables flushed, and let go of. fjall keeps a flushed memtable with the version of the store that it belonged to,
    /// and looks for old versions when the next one is sealed: so it takes a second call, and if there is nothing to seal then,
    /// the point that the store leads to is written once more. What snapshots may still read stays.
    pub fn let_go_soon(&mut self) -> Result<(), TreeError> {
        self.refuse_if_poisoned()?;
        if !self.seal()?
            && let Some(meta) = &self.committed
        {
            let written = self.keyspace.insert(META_KEY, meta.encode());
            self.watched("writing", written)?;
            self.seal()?;
        }
        Ok(())
    }

    /// Whether there was something to seal.
    fn seal(&mut self) -> Result<bool, TreeError> {
        let sealed = self.keyspace.rotate_memtable();
        self.watched("sealing what is in memory", sealed)
    }
}
