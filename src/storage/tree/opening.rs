//! How fjall is opened, and what is done about a journal whose end a crash has torn.

use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::{PartitioningPolicy, PinningPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use super::super::behind::give_way;
use super::{TreeError, error, journal, unfinished};

/// The only keyspace. Its name is on disk.
const KEYSPACE: &str = "tree";
/// Tables that fjall keeps open, and so descriptors that it keeps from clients; another one is opened when it is read. By
/// itself it would keep 900.
const OPEN_TABLES: usize = 128;
/// Bytes of a table that a compaction writes. Each is made durable at once, and the log's fsync waits behind it: with fjall's
/// own 64 MiB twice as long, and four times at worst.
const TABLE_BYTES: u64 = 16 << 20;
/// Tables that are only flushed memtables, beyond which they are merged into the next level, all of which they overlap: 16 of
/// 4 MiB into 256 MiB. With fjall's own 4, merging writes three times as much.
const FRESH_TABLES: u8 = 16;
/// Of the tables of the first level, which are few, index and filter stay in memory whole; of the others', the parts that
/// are needed are read. By itself fjall reads, and hashes, the whole index of a table of the third level where its cache does
/// not have it: a megabyte for each value that is brought back, as soon as there are a few gigabytes of them. A store that was
/// made with other levels keeps them.
const WHOLE_LEVELS: [bool; 2] = [true, false];

/// How the store is kept.
#[derive(Debug, Clone, Copy)]
pub struct TreeOptions {
    /// Bytes of blocks that are cached. Small: the writer looks up few records, and a value that is brought back stands in
    /// memory then.
    pub cache_bytes: u64,
    /// Bytes that are collected in memory before they become a table. fjall may hold up to four times as many, and while it
    /// flushes them everybody waits: small ones cost a little more compaction, and neither memory nor long waits.
    pub memtable_bytes: u64,
    /// Bytes of journals before a flush is forced; at least 64 MiB. Replaying 64 MiB takes about a second.
    pub journal_bytes: u64,
    /// fjall's threads for flushes and compactions.
    pub workers: usize,
    /// A random number for a new store; an existing one keeps its own. Keeps fingerprints of long paths unguessable.
    pub salt: u64,
}

impl TreeOptions {
    /// What a server uses.
    pub fn new(salt: u64) -> TreeOptions {
        TreeOptions {
            cache_bytes: 8 << 20,
            memtable_bytes: 4 << 20,
            journal_bytes: 128 << 20,
            workers: 1,
            salt,
        }
    }
}

/// Opens fjall; what a start has left that was interrupted while it made the store is cleared away first, and if fjall takes the
/// torn end of its journal for damage, the end is cut off.
pub(super) fn open_or_cut(directory: &Path, options: &TreeOptions) -> Result<(Database, Keyspace), TreeError> {
    let inaccessible = |detail| TreeError::Inaccessible {
        directory: directory.to_path_buf(),
        detail,
    };
    let unopenable = |detail| TreeError::Open {
        directory: directory.to_path_buf(),
        detail,
    };
    if !unfinished::clear_away(directory).map_err(|error| inaccessible(error.to_string()))? {
        let detail = "its file version is missing or empty, though there is something of a store";
        return Err(unopenable(detail.to_owned()));
    }
    let refusal = match open_fjall(directory, options) {
        Ok(opened) => return Ok(opened),
        Err(OpenRefusal::Other(error)) => return Err(error),
        Err(OpenRefusal::Journal(detail)) => detail,
    };
    // fjall has read it, and what lies before the end may be sound.
    let cut = journal::cut_damaged_end(directory).map_err(|error| {
        inaccessible(format!(
            "the torn end of its journal ({refusal}) cannot be cut off: {error}"
        ))
    })?;
    let Some(cut) = cut else {
        return Err(unopenable(refusal));
    };
    tracing::warn!(
        journal = %cut.journal.display(), end = cut.end, copy = %cut.copy.display(), refusal,
        "the end of the tree's journal was torn by a crash and is cut off; the raft log has what it held"
    );
    open_fjall(directory, options).map_err(|refusal| match refusal {
        OpenRefusal::Other(error) => error,
        OpenRefusal::Journal(detail) => unopenable(detail),
    })
}

/// Opens fjall, and repairs nothing.
pub(super) fn open_fjall_only(directory: &Path, options: &TreeOptions) -> Result<(Database, Keyspace), TreeError> {
    open_fjall(directory, options).map_err(|refusal| match refusal {
        OpenRefusal::Other(error) => error,
        OpenRefusal::Journal(detail) => TreeError::Open {
            directory: directory.to_path_buf(),
            detail,
        },
    })
}

/// Why fjall does not open.
enum OpenRefusal {
    /// Its journal does not check.
    Journal(String),
    /// Anything else.
    Other(TreeError),
}

fn open_fjall(directory: &Path, options: &TreeOptions) -> Result<(Database, Keyspace), OpenRefusal> {
    let open = || {
        let database = Database::builder(directory)
            .cache_size(options.cache_bytes)
            .max_cached_files(Some(OPEN_TABLES))
            .worker_threads(options.workers)
            .max_journaling_size(options.journal_bytes)
            .manual_journal_persist(true)
            .open()?;
        let compaction = Leveled::default()
            .with_table_target_size(TABLE_BYTES)
            .with_l0_threshold(FRESH_TABLES);
        let settings = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(options.memtable_bytes)
                .manual_journal_persist(true)
                .expect_point_read_hits(true)
                .compaction_strategy(Arc::new(compaction))
                .filter_block_pinning_policy(PinningPolicy::new(WHOLE_LEVELS))
                .index_block_pinning_policy(PinningPolicy::new(WHOLE_LEVELS))
                .filter_block_partitioning_policy(PartitioningPolicy::new(WHOLE_LEVELS.map(|whole| !whole)))
                .index_block_partitioning_policy(PartitioningPolicy::new(WHOLE_LEVELS.map(|whole| !whole)))
        };
        let keyspace = database.keyspace(KEYSPACE, settings)?;
        Ok((database, keyspace))
    };
    // Its own threads inherit the priority. It asserts, in debug builds, some of what it reads.
    let opened = std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            give_way();
            open()
        });
        opening.join()
    });
    match opened {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => Err(refusal(directory, &error)),
        Err(_) => Err(OpenRefusal::Journal("fjall panicked while it read the store".into())),
    }
}

fn refusal(directory: &Path, error: &fjall::Error) -> OpenRefusal {
    let directory = directory.to_path_buf();
    match error {
        fjall::Error::Locked => OpenRefusal::Other(TreeError::Locked { directory }),
        // A disk or a system that does not let us: what is stored may be sound.
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source))
            if !error::is_truncation(source) =>
        {
            OpenRefusal::Other(TreeError::Inaccessible {
                directory,
                detail: source.to_string(),
            })
        }
        fjall::Error::JournalRecovery(_) | fjall::Error::Decompress(_) | fjall::Error::InvalidTrailer => {
            OpenRefusal::Journal(error.to_string())
        }
        other => OpenRefusal::Other(TreeError::Open {
            directory,
            detail: other.to_string(),
        }),
    }
}
