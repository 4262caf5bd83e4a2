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
use crate::state_machine::{Batch, Rules, ServerId, State};
use crate::storage::directory::{DataDirectory, Identity, Layout};
use crate::storage::file::{DiskFiles, Files};
use crate::storage::generations::Generations;
use crate::storage::log::{LogError, LogOptions, LogPoint, Recovered, SegmentLog};
use crate::storage::reconcile::{Reconciled, reconcile};
use crate::storage::tree::{StoredGroups, TreeOptions, TreeReader, TreeStore};
use crate::watch::Watches;
use raft::prelude::{ConfState, Entry, EntryType};
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
    /// Whose data it is if there is none yet: the incarnation is random, the server's id is configured, and the cluster id is
    /// given later.
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
    /// Who votes, by the configuration; nobody if it is to be alone.
    pub(super) participants: Vec<u64>,
}

/// What the threads are given.
pub(super) struct Parts {
    pub(super) boot: u64,
    /// Whether there was no data at all.
    pub(super) is_fresh: bool,
    /// Whether nobody else voted, by what was stored.
    pub(super) votes_alone: bool,
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
    /// The members, by the tree; none before that was read.
    conf_state: ConfState,
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
    let members = tree.committed().and_then(|meta| store::decode_members(meta).ok());
    keeping.conf_state = members.map(|members| members.conf_state).unwrap_or_default();
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
/// and may vote once they have let it in again. Unless nobody else has it.
fn open_or_set_aside(
    files: &Files,
    directory: &mut DataDirectory,
    keeping: &mut Keeping,
    incarnation: u64,
    participants: &[u64],
) -> Result<Stores, Failure> {
    let damage = match open_stores(files, directory, keeping) {
        // A member of none yet has nobody to get it from.
        Err(failure) if failure.is_damage() && directory.identity().cluster_id != 0 => failure,
        opened => return opened,
    };
    if is_only_copy(files, directory, &keeping.conf_state, participants) {
        return Err(Failure::OnlyCopy(damage.to_string()));
    }
    directory.set_aside(incarnation, &damage.to_string())?;
    open_stores(files, directory, keeping)
}

/// Whether nobody but this server has what it stores, as far as that can be told: by the voters that the tree names; if it cannot
/// be read, by what the log says of them; and if that says nothing, by the participants that are configured.
fn is_only_copy(files: &Files, directory: &DataDirectory, conf_state: &ConfState, participants: &[u64]) -> bool {
    let own = directory.identity().server_id;
    if !conf_state.voters.is_empty() {
        return votes_alone(own, conf_state);
    }
    let options = LogOptions::new(Box::new(rand::random));
    let opened = SegmentLog::open(files.clone(), &directory.layout().log(), options);
    let by_log = opened.ok().and_then(|(_, recovered)| voted_alone(own, &recovered));
    by_log.unwrap_or(participants == [own])
}

fn votes_alone(own: u64, conf_state: &ConfState) -> bool {
    conf_state.voters == [own] && conf_state.voters_outgoing.iter().all(|voter| *voter == own)
}

/// Whether the server that wrote a log was its only voter in the end; `None` if nothing in it says so. A lone server stamps its
/// entries as such; later it becomes one of several by entries that change the members.
fn voted_alone(own: u64, recovered: &Recovered) -> Option<bool> {
    let by_entry = |entry: &Entry| match entry.get_entry_type() {
        EntryType::EntryNormal => {
            let batch = Batch::decode(&entry.data).ok()?;
            batch.stamp.rules.has(Rules::STANDALONE).then_some(true)
        }
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => Some(false),
    };
    let snapshot = recovered.snapshot.as_ref().map(|marker| &marker.conf_state);
    let named = snapshot.filter(|conf_state| !conf_state.voters.is_empty());
    let by_snapshot = named.map(|conf_state| votes_alone(own, conf_state));
    recovered.entries.iter().rev().find_map(by_entry).or(by_snapshot)
}

/// Whether a server that is configured to be alone may go on with what it has found.
///
/// A lone server is given its cluster id when it has founded its ensemble of one: so one that has an id and no data is a member
/// that has joined the ensemble of others and was not given their data yet, or has set its own aside. Alone it would found a
/// second truth under the name of theirs.
fn check_alone(identity: Identity, is_fresh: bool, voters: &[u64]) -> Result<(), Failure> {
    if is_fresh && identity.cluster_id != 0 {
        Err(Failure::NoDataYet(identity))
    } else if !is_fresh && voters != [identity.server_id] {
        Err(Failure::NotAlone(voters.to_vec()))
    } else {
        Ok(())
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
    // It gets the name of an ensemble when it has joined or founded one.
    let fresh = Identity {
        cluster_id: 0,
        ..options.fresh
    };
    let mut directory = DataDirectory::open(&files, options.layout, fresh)?;
    // A start upon a full disk needs what was kept in reserve.
    let space = space::look_before_start(directory.layout());
    let mut keeping = Keeping {
        tree: options.tree,
        log: Some(options.log),
        kept_bytes: Memory::kept_bytes(budget_bytes),
        conf_state: ConfState::default(),
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
        let participants = &habits.participants;
        open_or_set_aside(&files, &mut directory, &mut keeping, incarnation, participants)?
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
    if habits.is_alone {
        check_alone(identity, is_fresh, &members.conf_state.voters)?;
        if !is_fresh && identity.cluster_id == 0 {
            // It was stopped in the middle of its founding.
            directory.join(rand::random::<u64>() | 1)?;
        }
    }
    let votes_alone = votes_alone(identity.server_id, &members.conf_state);
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
            votes_alone,
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
    use crate::storage::log::{Durability, SnapshotMarker};
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
            conf_state: ConfState::default(),
        }
    }

    /// Of an ensemble of three, by the configuration.
    const PARTICIPANTS: [u64; 3] = [1, 2, 3];

    fn open(directory: &mut DataDirectory, participants: &[u64]) -> Result<Stores, Failure> {
        open_or_set_aside(&DiskFiles::shared(), directory, &mut keeping(), 10, participants)
    }

    fn with_voters(voters: &[u64]) -> MembersAt {
        let mut members = MembersAt::default();
        members.conf_state.voters = voters.to_vec();
        members
    }

    /// A sound tree that ends with the third entry.
    fn sound(tree: &Path, members: &MembersAt) {
        let mut state = State::new();
        let mut store = TreeStore::open(tree, TreeOptions::new(1)).expect("new");
        let applied = LogPoint { index: 3, term: 1 };
        store::commit(&mut store, &state.take_dirty(), applied, members).expect("commit");
    }

    fn log_of(tree: &Path) -> SegmentLog {
        let directory = tree.with_file_name("../menagerie-log");
        let options = LogOptions::new(Box::new(|| 2));
        SegmentLog::open(DiskFiles::shared(), &directory, options)
            .expect("new")
            .0
    }

    /// Sound, but it ends before the log begins: its newest part was lost.
    fn behind_its_log(tree: &Path) {
        behind_its_log_with(tree, &PARTICIPANTS);
    }

    fn behind_its_log_with(tree: &Path, voters: &[u64]) {
        sound(tree, &with_voters(voters));
        let base = LogPoint { index: 9, term: 1 };
        log_of(tree).reset(base, &ConfState::default(), None).expect("reset");
    }

    /// An entry of a server with these rules.
    fn stamped(index: u64, rules: Rules) -> Entry {
        let stamp = Stamp { time_ms: 1, rules };
        Entry {
            index,
            term: 1,
            data: Batch::encode(stamp, &[]),
            ..Entry::default()
        }
    }

    #[test]
    fn a_member_that_votes_alone_keeps_its_damaged_tree_and_says_what_to_do() {
        type Damage = fn(&Path);
        let cases: [(Damage, &[u64]); 3] = [
            // It has just been given others.
            (|tree| behind_its_log_with(tree, &[1]), &PARTICIPANTS),
            // Its tree cannot be read, but its log says that it was alone.
            (
                |tree| {
                    cut_short(tree);
                    let entries = [stamped(1, Rules::STANDALONE), stamped(2, Rules::default())];
                    log_of(tree).append(&entries, None, Durability::Now).expect("append");
                },
                &PARTICIPANTS,
            ),
            // Nothing else says who votes.
            (cut_short, &[1]),
        ];
        for (number, (damage, participants)) in cases.into_iter().enumerate() {
            let place = tempfile::tempdir().expect("temporary directory");
            let mut directory = damaged(place.path(), MEMBER, damage);
            let failure = open(&mut directory, participants).err().expect("refused");
            assert!(matches!(failure, Failure::OnlyCopy(_)), "{number}: {failure}");
            assert!(!failure.is_damage() && failure.to_string().contains("Restore dataDir"));
            assert_eq!(directory.identity(), MEMBER);
            let aside = place.path().join("menagerie.aside-1");
            assert!(directory.layout().tree().exists() && !aside.exists(), "{number}");
        }
    }

    #[test]
    fn a_log_says_whether_its_server_was_alone_in_the_end() {
        let lone = stamped(1, Rules::STANDALONE);
        let other = stamped(2, Rules::default());
        let mut change = stamped(3, Rules::default());
        change.set_entry_type(EntryType::EntryConfChangeV2);
        let marker = |voters: &[u64]| SnapshotMarker {
            point: LogPoint::default(),
            conf_state: with_voters(voters).conf_state,
        };
        let cases = [
            (None, vec![], None),
            (None, vec![&other], None),
            (None, vec![&lone, &other], Some(true)),
            (None, vec![&lone, &change, &other], Some(false)),
            (None, vec![&change, &lone], Some(true)),
            (Some(marker(&[])), vec![&other], None),
            (Some(marker(&[1])), vec![&other], Some(true)),
            (Some(marker(&[1, 2])), vec![], Some(false)),
            (Some(marker(&[1])), vec![&change], Some(false)),
        ];
        for (number, (snapshot, entries, expected)) in cases.into_iter().enumerate() {
            let recovered = Recovered {
                snapshot,
                entries: entries.into_iter().cloned().collect(),
                ..Recovered::default()
            };
            assert_eq!(voted_alone(1, &recovered), expected, "{number}");
        }
    }

    fn layout(place: &Path) -> Layout {
        Layout {
            data_directory: place.to_path_buf(),
            log_directory: place.to_path_buf(),
        }
    }

    /// A start without others.
    fn start_alone(place: &Path) -> Result<Parts, Failure> {
        let options = RecoveryOptions {
            layout: layout(place),
            fresh: MEMBER,
            log: LogOptions::new(Box::new(|| 3)),
            tree: TreeOptions::new(1),
        };
        let habits = Habits {
            rules: Rules::STANDALONE,
            election_ticks: 10,
            election_slot: 0,
            is_alone: true,
            participants: Vec::new(),
        };
        let settings = shared_alone().settings.clone();
        let watches = Watches::new(WatchLimits::default());
        let recovered = recover(
            options,
            u64::MAX,
            habits,
            settings,
            watches,
            Box::new(|_| Box::new(NoWords)),
        );
        recovered.map(|(_, parts)| parts)
    }

    #[test]
    fn a_member_that_waits_for_its_data_does_not_begin_alone() {
        let place = tempfile::tempdir().expect("temporary directory");
        let of_none = Identity {
            cluster_id: 0,
            ..MEMBER
        };
        let files = DiskFiles::shared();
        let mut directory = DataDirectory::open(&files, layout(place.path()), of_none).expect("new");
        // It has started as a member, and joined.
        open(&mut directory, &PARTICIPANTS).expect("opens");
        directory.boot(1).expect("boots");
        directory.join(MEMBER.cluster_id).expect("joins");
        drop(directory);
        for _ in 0..2 {
            let failure = start_alone(place.path()).err().expect("refused");
            assert!(matches!(failure, Failure::NoDataYet(MEMBER)), "{failure}");
        }
        // And it goes on waiting for it as a member.
        let mut directory = DataDirectory::open(&files, layout(place.path()), of_none).expect("opens");
        assert_eq!(directory.identity(), MEMBER);
        assert!(open(&mut directory, &PARTICIPANTS).expect("opens").loaded.is_new);
    }

    #[test]
    fn a_lone_server_whose_first_start_was_cut_off_starts_again() {
        let place = tempfile::tempdir().expect("temporary directory");
        // Behind its identity, and before anything is founded.
        for _ in 0..2 {
            let parts = start_alone(place.path()).expect("starts");
            assert!(parts.is_fresh);
            assert_eq!(parts.directory.identity().cluster_id, 0);
        }
        // Behind its founding, and before it has a name.
        sound(&layout(place.path()).tree(), &with_voters(&[1]));
        let parts = start_alone(place.path()).expect("starts");
        assert!(!parts.is_fresh);
        let identity = parts.directory.identity();
        assert!(identity.cluster_id != 0);
        drop(parts);
        assert_eq!(
            start_alone(place.path()).expect("starts").directory.identity(),
            identity
        );
    }

    #[test]
    fn a_member_sets_a_damaged_tree_aside_and_comes_back_as_a_new_one() {
        for damage in [without_root, cut_short, behind_its_log] {
            let place = tempfile::tempdir().expect("temporary directory");
            let mut directory = damaged(place.path(), MEMBER, damage);
            let opened = open(&mut directory, &PARTICIPANTS).expect("begins anew");
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
        let refused = open(&mut directory, &PARTICIPANTS);
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
            participants: Vec::new(),
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
        let refused = open(&mut directory, &PARTICIPANTS);
        let failure = refused.err().expect("refused");
        assert!(!failure.is_damage(), "{failure}");
        assert_eq!(directory.identity(), MEMBER);
    }
}
