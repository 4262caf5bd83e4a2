//! What is kept and how: the data directory, and the rules of the tree.

use super::key::{Key, Setter, Unit};
use super::value::JAVA_INT_MAX;
use std::num::NonZeroU32;
use std::path::PathBuf;

/// Snapshots that autopurge keeps, at least; fewer are never enough to restore from, says ZooKeeper.
const MIN_SNAPSHOTS_KEPT: u32 = 3;

/// The disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// The tree, and `myid` (`dataDir`). Required in a file; the embedded default is `menagerie-data` below the working
    /// directory.
    pub data_dir: PathBuf,
    /// The log of commands (`dataLogDir`). Default: `data_dir`, as in ZooKeeper; a disk of its own makes writes faster.
    pub data_log_dir: PathBuf,
    /// Create directories that do not exist (`datadir.autocreate`). Default on, as in ZooKeeper.
    pub create_directories: bool,
    /// A write is on the disk before it is acknowledged (`forceSync`). Default on. Off, a power failure loses
    /// acknowledged writes, and a member that lost some must not vote.
    pub force_sync: bool,
    /// An fsync that takes longer than this many milliseconds is logged and counted (`fsync.warningthresholdms`).
    /// Default 1000, ZooKeeper's.
    pub fsync_warning_ms: u32,
    /// What becomes of old snapshots and logs.
    pub purge: Purge,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::new(),
            data_log_dir: PathBuf::new(),
            create_directories: true,
            force_sync: true,
            fsync_warning_ms: 1000,
            purge: Purge {
                snapshots_kept: MIN_SNAPSHOTS_KEPT,
                interval_hours: None,
            },
        }
    }
}

/// Removal of old exported snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// Snapshots that stay, at least 3 (`autopurge.snapRetainCount`). Default 3, ZooKeeper's.
    pub snapshots_kept: u32,
    /// Hours between two runs (`autopurge.purgeInterval`). `None`: never, ZooKeeper's default.
    pub interval_hours: Option<NonZeroU32>,
}

/// The rules of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Refuse writes over a quota instead of only logging them (`enforceQuota`). Default off, as in ZooKeeper.
    pub enforce_quota: bool,
    /// Container and TTL znodes may be created as such (`extendedTypesEnabled`). Default off, as in ZooKeeper: a TTL
    /// create is then unimplemented.
    pub extended_types: bool,
    /// Milliseconds between two looks for empty containers and expired TTL znodes, at least 1
    /// (`znode.container.checkIntervalMs`). Default 60,000, ZooKeeper's.
    pub container_check_interval_ms: u32,
    /// Containers and TTL znodes removed in a minute, at most; at least 1 (`znode.container.maxPerMinute`). Default
    /// 10,000, ZooKeeper's.
    pub container_max_per_minute: u32,
    /// A container that never had a child goes after this many milliseconds (`znode.container.maxNeverUsedIntervalMs`).
    /// `None`: never, ZooKeeper's default.
    pub container_max_never_used_ms: Option<NonZeroU32>,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            enforce_quota: false,
            extended_types: false,
            container_check_interval_ms: 60_000,
            container_max_per_minute: 10_000,
            container_max_never_used_ms: None,
        }
    }
}

pub(super) const KEYS: &[Key] = &[
    Key::honoured(
        "dataDir",
        "",
        Setter::Text(|draft, path| draft.pending.data_dir = Some(PathBuf::from(path))),
        "the directory of the data and of myid; required",
    ),
    Key::honoured(
        "dataLogDir",
        "",
        Setter::Text(|draft, path| draft.pending.data_log_dir = Some(PathBuf::from(path))),
        "the directory of the log; dataDir where it is not given",
    ),
    Key::honoured(
        "datadir.autocreate",
        "true",
        Setter::Lenient(|draft, on| draft.config.storage.create_directories = on),
        "create the directories where they do not exist",
    ),
    Key::honoured(
        "forceSync",
        "yes",
        Setter::YesNo {
            otherwise: true,
            set: |draft, on| draft.config.storage.force_sync = on,
        },
        "bring every write to the disk before it is acknowledged",
    ),
    Key::honoured(
        "fsync.warningthresholdms",
        "1000",
        Setter::Number {
            unit: Unit::Milliseconds,
            min: 0,
            max: JAVA_INT_MAX,
            set: |draft, threshold| draft.config.storage.fsync_warning_ms = threshold,
        },
        "log an fsync that takes longer",
    ),
    Key::honoured(
        "autopurge.snapRetainCount",
        "3",
        Setter::Parsed {
            form: "a number, 3 or more",
            set: set_snapshots_kept,
        },
        "exported snapshots that autopurge keeps; there are none to purge: the log is cut by itself",
    ),
    Key::honoured(
        "autopurge.purgeInterval",
        "0",
        Setter::Optional {
            unit: Unit::Hours,
            unset: 0,
            max: JAVA_INT_MAX,
            set: |draft, interval| draft.config.storage.purge.interval_hours = interval.and_then(NonZeroU32::new),
        },
        "hours between two purges of exported snapshots; the log is cut by itself, whatever this says",
    ),
    Key::honoured(
        "enforceQuota",
        "false",
        Setter::Lenient(|draft, on| draft.config.tree.enforce_quota = on),
        "refuse writes over a quota",
    ),
    Key::honoured(
        "extendedTypesEnabled",
        "false",
        Setter::Lenient(|draft, on| draft.config.tree.extended_types = on),
        "TTL znodes",
    ),
    Key::honoured(
        "znode.container.checkIntervalMs",
        "60000",
        Setter::Number {
            unit: Unit::Milliseconds,
            min: 1,
            max: JAVA_INT_MAX,
            set: |draft, interval| draft.config.tree.container_check_interval_ms = interval,
        },
        "time between two looks for empty containers and expired TTL znodes",
    ),
    Key::honoured(
        "znode.container.maxPerMinute",
        "10000",
        Setter::Number {
            unit: Unit::Plain,
            min: 1,
            max: JAVA_INT_MAX,
            set: |draft, limit| draft.config.tree.container_max_per_minute = limit,
        },
        "containers and TTL znodes removed in a minute, at most",
    ),
    Key::honoured(
        "znode.container.maxNeverUsedIntervalMs",
        "0",
        Setter::Optional {
            unit: Unit::Milliseconds,
            unset: 0,
            max: JAVA_INT_MAX,
            set: |draft, interval| draft.config.tree.container_max_never_used_ms = interval.and_then(NonZeroU32::new),
        },
        "remove a container that never had a child after this time",
    ),
];

/// ZooKeeper raises a smaller number to 3 and says so; a file that it starts with has to start us too.
fn set_snapshots_kept(draft: &mut super::draft::Draft, given: &super::draft::Given) -> Result<(), String> {
    let number = super::value::integer(&given.text).and_then(|number| i32::try_from(number).ok());
    let number = number.ok_or("expected a number, 3 or more")?;
    let kept = u32::try_from(number).unwrap_or(0).max(MIN_SNAPSHOTS_KEPT);
    if i64::from(kept) != i64::from(number) {
        draft.warn(
            given,
            format!("{number} is less than {MIN_SNAPSHOTS_KEPT}; {MIN_SNAPSHOTS_KEPT} are kept"),
        );
    }
    draft.config.storage.purge.snapshots_kept = kept;
    Ok(())
}
