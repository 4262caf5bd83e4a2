//! From what is on disk to parts that can run: directories, tree (of which much may be read later: `loading`), log, and one
//! truth from both.

use super::applier::Applier;
use super::chance::Chance;
use super::clock::Clock;
use super::inbox::Inbox;
use super::loading::{Groups, KeyspaceGroups, Loading, SLICE_NODES};
use super::memory::Memory;
use super::shared::{AppliedTo, BOOT_SHIFT, DriverInput, SessionNews, Shared};
use super::space::{self, Watcher};
use super::store::StoreInput;
use super::{Failure, MakeWords, Settings, logging, recorded, store};
use crate::replica::{self, MembersAt, Registry, Replica, ReplicaOptions};
use crate::state_machine::{Rules, ServerId, State};
use crate::storage::directory::{DataDirectory, Identity, Layout};
use crate::storage::file::{DiskFiles, Files};
use crate::storage::generations::Generations;
use crate::storage::log::{LogError, LogOptions, LogPoint, SegmentLog};
use crate::storage::reconcile::{Reconciled, reconcile};
use crate::storage::tree::{StoredGroups, TreeOptions, TreeReader, TreeStore};
use crate::watch::Watches;
use raft::prelude::ConfState;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Bytes of log that a member of an ensemble keeps in memory, and on disk, for others that lag: those that lag more are
/// sent a snapshot.
const LOG_BUDGET_BYTES: usize = 64 << 20;

/// Where the data is, and how it is kept.
pub struct RecoveryOptions {
    /// Where.
    pub layout: Layout,
    /// Whose data it is if there is none yet: the numbers are random, the server's id is configured.
    pub fresh: Identity,
    /// How the log is kept.
    pub log: LogOptions,
    /// How the tree's keyspace is kept.
    pub tree: TreeOptions,
}

/// What the replica is told beyond what is on disk.
pub(super) struct Habits {
    pub(super) rules: Rules,
    /// As in [`ReplicaOptions`].
    pub(super) election_ticks: usize,
    pub(super) election_slot: usize,
    /// Whether this server is configured to be alone.
    pub(super) is_alone: bool,
}

/// What the threads are given.
pub(super) struct Parts {
    pub(super) boot: u64,
    /// Whether there was no data at all.
    pub(super) is_fresh: bool,
    pub(super) directory: DataDirectory,
    pub(super) generations: Arc<Generations>,
    pub(super) log: SegmentLog,
    pub(super) replica: Replica,
    pub(super) applier: Applier,
    pub(super) tree: TreeStore,
    /// Reads values that have left memory, if they may.
    pub(super) reader: Option<TreeReader>,
    /// What the tree's thread is told.
    pub(super) store: Arc<Inbox<StoreInput>>,
    /// Watches over the room on the disks, if they let themselves be looked at.
    pub(super) space: Option<Watcher>,
}

/// The state as it was loaded, and the entry that it ends with.
pub(super) struct Loaded {
    pub(super) state: State,
    pub(super) applied: LogPoint,
    pub(super) members: MembersAt,
    /// Whether nothing was ever stored.
    pub(super) is_new: bool,
    /// What of it is still on the disk alone.
    pub(super) rest: Option<StoredGroups>,
}

/// How the stores are kept.
struct Keeping {
    tree: TreeOptions,
    /// With the log while that is open.
    log: Option<LogOptions>,
    /// Values beyond so many bytes of memory stay on the disk.
    kept_bytes: u64,
}

/// Tree and log, open, and what they hold.
struct Stores {
    generations: Arc<Generations>,
    tree: TreeStore,
    loaded: Loaded,
    log: SegmentLog,
    reconciled: Reconciled,
    /// When the tree was last written: wall time, ms.
    written_ms: i64,
    /// How long reading the tree took, and the log.
    took: (Duration, Duration),
}

/// When something in this directory was last written, wall time in ms; 0 if nothing is there.
fn last_written_ms(directory: &Path) -> i64 {
    let mut latest = UNIX_EPOCH;
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => waiting.push(entry.path()),
                // A file without a time, or one that has just gone, tells nothing.
                metadata => {
                    latest = metadata
                        .and_then(|metadata| metadata.modified())
                        .unwrap_or(latest)
                        .max(latest)
                }
            }
        }
    }
    let since = latest.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(0)
}

fn open_stores(files: &Files, directory: &DataDirectory, keeping: &mut Keeping) -> Result<Stores, Failure> {
    let started = Instant::now();
    let generations = Arc::new(Generations::open(files, directory.layout())?);
    // Opening it may write.
    let written_ms = last_written_ms(&generations.current());
    let mut tree = TreeStore::open(&generations.current(), keeping.tree)?;
    let loaded = store::load(&mut tree, keeping.kept_bytes)?;
    let tree_took = started.elapsed();
    let options = keeping.log.take().ok_or(LogError::Options("the log is open already"))?;
    let (log, recovered) = SegmentLog::open(files.clone(), &directory.layout().log(), options)?;
    if recovered.torn_bytes > 0 {
        tracing::info!(
            bytes = recovered.torn_bytes,
            "an interrupted write was cut off the log: nobody was promised it"
        );
    }
    let log_took = started.elapsed().saturating_sub(tree_took);
    match reconcile(loaded.applied, recovered) {
        Ok(reconciled) => Ok(Stores {
            generations,
            tree,
            loaded,
            log,
            reconciled,
            written_ms,
            took: (tree_took, log_took),
        }),
        Err(gap) => {
            keeping.log = Some(log.into_options());
            Err(gap.into())
        }
    }
}

/// A member of an ensemble does without a damaged tree: the others have all of it. It comes back with a new incarnation,
/// and may vote once they have let it in again.
fn open_or_set_aside(
    files: &Files,
    directory: &mut DataDirectory,
    keeping: &mut Keeping,
    incarnation: u64,
) -> Result<Stores, Failure> {
    match open_stores(files, directory, keeping) {
        // A member of none yet has nobody to get it from.
        Err(failure) if failure.is_damage() && directory.identity().cluster_id != 0 => {
            directory.set_aside(incarnation, &failure.to_string())?;
            open_stores(files, directory, keeping)
        }
        opened => opened,
    }
}

/// Reads everything back.
pub(super) fn recover(
    options: RecoveryOptions,
    budget_bytes: u64,
    habits: Habits,
    settings: Settings,
    watches: Watches,
    words: MakeWords,
) -> Result<(Arc<Shared>, Parts), Failure> {
    let files = DiskFiles::shared();
    let incarnation = options.fresh.incarnation;
    let mut directory = DataDirectory::open(&files, options.layout, options.fresh)?;
    // A start upon a full disk needs what was kept in reserve.
    let space = space::look_before_start(directory.layout());
    let mut keeping = Keeping {
        tree: options.tree,
        log: Some(options.log),
        kept_bytes: Memory::kept_bytes(budget_bytes),
    };
    let Stores {
        generations,
        mut tree,
        loaded,
        mut log,
        reconciled,
        written_ms,
        took: (tree_took, log_took),
    } = if habits.is_alone {
        open_stores(&files, &directory, &mut keeping)?
    } else {
        open_or_set_aside(&files, &mut directory, &mut keeping, incarnation)?
    };
    let identity = directory.identity();
    let is_fresh = loaded.is_new && reconciled.recovered.entries.is_empty();
    let mut members = loaded.members;
    let alone = vec![identity.server_id];
    if loaded.is_new && !is_fresh {
        // Stopped before its first checkpoint, by a version whose logs began without a founding.
        members.conf_state.voters.clone_from(&alone);
    }
    if members.conf_state.voters == alone {
        members.registry.set(ServerId(identity.server_id), identity.incarnation);
    }
    if habits.is_alone && !is_fresh && members.conf_state.voters != alone {
        return Err(Failure::NotAlone(members.conf_state.voters));
    }
    reconciled.settle(&mut log, &members.conf_state)?;
    let replaying = log.last_index().saturating_sub(loaded.applied.index);
    recorded::loaded(tree_took, log_took, replaying);
    if loaded.rest.is_none() {
        recorded::whole(tree_took);
    }
    tracing::info!(
        zxid = %loaded.state.zxid(),
        znodes = loaded.state.counts().znodes,
        in_memory = loaded.state.nodes_in_memory(),
        replaying,
        "the stored tree is open; what of it is not in memory is read while this server serves"
    );

    let sessions = loaded.state.sessions();
    let sessions: Vec<_> = sessions
        .map(|session| SessionNews::Opened {
            session: session.id,
            timeout_ms: session.timeout_ms,
        })
        .collect();
    let clock = Clock::start();
    let boot = directory.boot((clock.wall_ms() / 1000).cast_unsigned())?;
    let store = Arc::new(Inbox::default());
    let groups = loaded.rest.map(|groups| {
        let store = store.clone();
        Box::new(KeyspaceGroups { groups, store }) as Box<dyn Groups>
    });
    let state = &loaded.state;
    let memory = Memory::new(budget_bytes, state.zxid(), state.expected_memory_bytes());
    let stored_zxid = state.zxid();
    let reader = memory.budget_bytes().map(|_| tree.reader());
    let shared = Arc::new_cyclic(|weak| {
        let chance = Chance::of_machine();
        Shared::new(
            settings,
            (loaded.state, Loading::new(groups, SLICE_NODES), memory),
            watches,
            words(weak.clone()),
            (clock, chance, boot),
        )
    });
    if !loaded.is_new {
        shared.statistics.checkpointed(stored_zxid.0, written_ms);
    }
    shared.driver.push(DriverInput::Applied(AppliedTo {
        index: loaded.applied.index,
        term: loaded.applied.term,
        own: 0,
        sessions,
    }));
    if is_fresh && habits.is_alone {
        let conf_state = ConfState {
            voters: alone,
            ..ConfState::default()
        };
        let registry = Registry::new([(shared.settings.server, identity.incarnation)]);
        shared.driver.push(DriverInput::Found { conf_state, registry });
    }
    let recovered = reconciled.recovered;
    let mut replica = Replica::new(
        ReplicaOptions {
            server: shared.settings.server,
            incarnation: identity.incarnation,
            stream: boot << BOOT_SHIFT,
            rules: habits.rules,
            election_ticks: habits.election_ticks,
            election_slot: habits.election_slot,
            log_budget_bytes: if habits.is_alone { 0 } else { LOG_BUDGET_BYTES },
        },
        replica::Recovered {
            truncated: (recovered.base.index, recovered.base.term),
            entries: recovered.entries,
            hard_state: recovered.hard_state,
            conf_state: members.conf_state.clone(),
            registry: members.registry.clone(),
            applied_index: loaded.applied.index,
        },
        &logging::slog_to_tracing(),
    )?;
    if habits.is_alone {
        // A lone server sends its log to nobody: what the tree holds need not stand in memory again.
        replica.compact(loaded.applied.index);
    }
    let applier = Applier::new(shared.clone(), loaded.applied.index, loaded.applied.term, members);
    Ok((
        shared,
        Parts {
            boot,
            is_fresh,
            directory,
            generations,
            log,
            replica,
            applier,
            tree,
            reader,
            store,
            space,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{OpCode, SessionId, Xid};
    use crate::server::simulated::{NoWords, shared_alone};
    use crate::state_machine::{Command, Origin, Stamp};
    use crate::storage::tree::Meta;
    use crate::watch::WatchLimits;
    use std::fs;

    const MEMBER: Identity = Identity {
        cluster_id: 5,
        server_id: 1,
        incarnation: 9,
    };

    /// A directory whose tree was written by `damage`.
    fn damaged(place: &Path, identity: Identity, damage: impl Fn(&Path)) -> DataDirectory {
        let layout = Layout {
            data_directory: place.to_path_buf(),
            log_directory: place.to_path_buf(),
        };
        let directory = DataDirectory::open(&DiskFiles::shared(), layout, identity).expect("new");
        damage(&directory.layout().tree());
        directory
    }

    /// Records that are no state: there is no root.
    fn without_root(tree: &Path) {
        let mut tree = TreeStore::open(tree, TreeOptions::new(1)).expect("new");
        tree.batch().expect("batch").commit(Meta::default()).expect("commit");
    }

    /// Every file is half as long as it was.
    fn cut_short(tree: &Path) {
        without_root(tree);
        let mut pending = vec![tree.to_path_buf()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).expect("list") {
                let path = entry.expect("entry").path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    let bytes = fs::read(&path).expect("read");
                    fs::write(&path, &bytes[..bytes.len().min(40) / 2]).expect("write");
                }
            }
        }
    }

    fn keeping() -> Keeping {
        Keeping {
            tree: TreeOptions::new(1),
            log: Some(LogOptions::new(Box::new(|| 3))),
            kept_bytes: u64::MAX,
        }
    }

    /// Sound, but it ends before the log begins: its newest part was lost.
    fn behind_its_log(tree: &Path) {
        let mut state = State::new();
        let mut store = TreeStore::open(tree, TreeOptions::new(1)).expect("new");
        let applied = LogPoint { index: 3, term: 1 };
        store::commit(&mut store, &state.take_dirty(), applied, &MembersAt::default()).expect("commit");
        let directory = tree.with_file_name("../menagerie-log");
        let options = LogOptions::new(Box::new(|| 2));
        let (mut log, _) = SegmentLog::open(DiskFiles::shared(), &directory, options).expect("new");
        let base = LogPoint { index: 9, term: 1 };
        log.reset(base, &ConfState::default(), None).expect("reset");
    }

    #[test]
    fn a_member_sets_a_damaged_tree_aside_and_comes_back_as_a_new_one() {
        for damage in [without_root, cut_short, behind_its_log] {
            let place = tempfile::tempdir().expect("temporary directory");
            let mut directory = damaged(place.path(), MEMBER, damage);
            let files = DiskFiles::shared();
            let opened = open_or_set_aside(&files, &mut directory, &mut keeping(), 10).expect("begins anew");
            assert!(opened.loaded.is_new && directory.is_new());
            assert_eq!(opened.log.last_index(), 0);
            let expected = Identity {
                incarnation: 10,
                ..MEMBER
            };
            assert_eq!(directory.identity(), expected);
            assert!(place.path().join("menagerie.aside-1/tree").exists());
        }
    }

    #[test]
    fn a_server_of_no_ensemble_keeps_its_damaged_tree_and_says_what_to_do() {
        let place = tempfile::tempdir().expect("temporary directory");
        let alone = Identity {
            cluster_id: 0,
            ..MEMBER
        };
        let mut directory = damaged(place.path(), alone, cut_short);
        let refused = open_or_set_aside(&DiskFiles::shared(), &mut directory, &mut keeping(), 10);
        let failure = refused.err().expect("refused");
        assert!(
            failure.is_damage() && failure.to_string().contains("restore"),
            "{failure}"
        );
        assert_eq!(directory.identity(), alone);
    }

    /// What was stored of a lone server that had come to zxid 1, which was a request that failed.
    fn at_zxid_1(tree: &Path) {
        let mut state = State::new();
        let command = Command {
            origin: Origin::default(),
            session: SessionId(0),
            xid: Xid(0),
            identities: [].into(),
            op: OpCode::Delete,
            body: Default::default(),
        };
        let stamp = Stamp {
            time_ms: 0,
            rules: Rules::default(),
        };
        assert!(state.apply(&stamp, &command, &mut Vec::new()).result.is_err());
        let mut store = TreeStore::open(tree, TreeOptions::new(1)).expect("new");
        let members = MembersAt {
            conf_state: ConfState {
                voters: vec![1],
                ..ConfState::default()
            },
            ..MembersAt::default()
        };
        let applied = LogPoint { index: 3, term: 1 };
        store::commit(&mut store, &state.take_dirty(), applied, &members).expect("commit");
    }

    #[test]
    fn the_last_checkpoint_is_known_after_a_start() {
        let place = tempfile::tempdir().expect("temporary directory");
        let begun_ms = Clock::start().wall_ms();
        let directory = damaged(place.path(), MEMBER, at_zxid_1);
        let options = RecoveryOptions {
            layout: directory.layout().clone(),
            fresh: MEMBER,
            log: LogOptions::new(Box::new(|| 3)),
            tree: TreeOptions::new(1),
        };
        // Only one may have it.
        drop(directory);
        let habits = Habits {
            rules: Rules::default(),
            election_ticks: 10,
            election_slot: 0,
            is_alone: true,
        };
        let (shared, _parts) = recover(
            options,
            u64::MAX,
            habits,
            shared_alone().settings.clone(),
            Watches::new(WatchLimits::default()),
            Box::new(|_| Box::new(NoWords)),
        )
        .expect("recovered");
        let (zxid, written_ms) = shared.statistics.last_checkpoint();
        assert_eq!(zxid, 1);
        // Files have the time of the kernel's last tick.
        let expected = begun_ms - 1000..=shared.clock.wall_ms();
        assert!(expected.contains(&written_ms), "{written_ms} is not in {expected:?}");
    }

    #[test]
    fn an_error_of_the_system_is_no_damage() {
        let place = tempfile::tempdir().expect("temporary directory");
        // A file where the tree's directory should be.
        let mut directory = damaged(place.path(), MEMBER, |tree| fs::write(tree, "").expect("write"));
        let refused = open_or_set_aside(&DiskFiles::shared(), &mut directory, &mut keeping(), 10);
        let failure = refused.err().expect("refused");
        assert!(!failure.is_damage(), "{failure}");
        assert_eq!(directory.identity(), MEMBER);
    }
}
