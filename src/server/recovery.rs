//! From what is on disk to parts that can run: directories, tree, log, and one truth from both.

use super::applier::Applier;
use super::chance::Chance;
use super::clock::Clock;
use super::shared::{AppliedTo, BOOT_SHIFT, DriverInput, SessionNews, Shared};
use super::{Failure, MakeWords, Settings, logging, recorded, store};
use crate::replica::{self, MembersAt, Registry, Replica, ReplicaOptions};
use crate::state_machine::{Rules, ServerId, State};
use crate::storage::directory::{DataDirectory, Identity, Layout};
use crate::storage::file::DiskFiles;
use crate::storage::generations::Generations;
use crate::storage::log::{LogOptions, LogPoint, SegmentLog};
use crate::storage::reconcile::reconcile;
use crate::storage::tree::{TreeOptions, TreeStore};
use crate::watch::Watches;
use raft::prelude::ConfState;
use std::sync::Arc;
use std::time::Instant;

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
}

/// The state as it was loaded, and the entry that it ends with.
pub(super) struct Loaded {
    pub(super) state: State,
    pub(super) applied: LogPoint,
    pub(super) members: MembersAt,
    /// Whether nothing was ever stored.
    pub(super) is_new: bool,
}

/// Reads everything back.
pub(super) fn recover(
    options: RecoveryOptions,
    habits: Habits,
    settings: Settings,
    watches: Watches,
    words: MakeWords,
) -> Result<(Arc<Shared>, Parts), Failure> {
    let files = DiskFiles::shared();
    let directory = DataDirectory::open(&files, options.layout, options.fresh)?;
    let started = Instant::now();
    let generations = Arc::new(Generations::open(&files, directory.layout())?);
    let mut tree = TreeStore::open(&generations.current(), options.tree)?;
    let loaded = store::load(&mut tree)?;
    let tree_took = started.elapsed();
    let (mut log, recovered) = SegmentLog::open(files, &directory.layout().log(), options.log)?;
    if recovered.torn_bytes > 0 {
        tracing::info!(
            bytes = recovered.torn_bytes,
            "an interrupted write was cut off the log: nobody was promised it"
        );
    }
    let log_took = started.elapsed().saturating_sub(tree_took);
    let reconciled = reconcile(loaded.applied, recovered)?;
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
    tracing::info!(
        zxid = %loaded.state.zxid(),
        znodes = loaded.state.counts().znodes,
        replaying,
        "the stored tree is loaded"
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
    let shared = Arc::new_cyclic(|weak| {
        let chance = Chance::of_machine();
        Shared::new(
            settings,
            loaded.state,
            watches,
            words(weak.clone()),
            (clock, chance, boot),
        )
    });
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
        },
    ))
}
