//! A member for simulations: the production parts, each run by a call instead of a thread.
//!
//! ```text
//!   bytes of clients ──▶ Connection ──▶ Shared ──▶ Driver ──▶ messages for peers
//!                                        │ inboxes, as between threads
//!                                        └──▶ LogWriter on files in memory, Checkpointer, a tree in memory
//! ```
//!
//! Real: connections, pipelines, driver, replica, log with its segments and recovery, applier, checkpoints, reconciliation
//! at the start. Simulated: clocks, chance, files, links, and the tree's store, which keeps the records of checkpoints in a
//! map, and knows which of them a power cut would take away. fjall itself is not simulated: it has threads of its own.

mod alone;
mod crewed;
mod disk;
mod founder;

pub(crate) use alone::{LargeValues, shared_alone};
pub(crate) use crewed::CrewedMember;
pub(crate) use disk::SimulatedDisk;
pub(crate) use founder::Founder;

use super::applier::Applier;
use super::authentication::DigestAlgorithm;
use super::backlog::Backlog;
use super::chance::Chance;
use super::checkpointer::{CheckpointSchedule, Checkpointer};
use super::clock::{Clock, SimulatedTime};
use super::connection::Connection;
use super::driver::{ContainerSchedule, Driver, Patience, Peers};
use super::inbox::Inbox;
use super::loading::{self, Loading};
use super::log_writer::{LogWriter, Syncing};
use super::memory::Memory;
use super::settings::Settings;
use super::shared::{AppliedTo, BOOT_SHIFT, DriverInput, SessionNews, Shared, Word, Words};
use super::snapshot::{Arrived, NewTree, SnapshotArrived, SnapshotView};
use super::store::{StoreInput, decode_members};
use super::{ApplierInput, Failure, LogInput, fetcher, logging};
use crate::membership::Members;
use crate::net::PromptWriter;
use crate::proto::Zxid;
use crate::replica::{self, MembersAt, Peer, PeerMessage, Replica, ReplicaOptions, Standing};
use crate::state_machine::{Rules, ServerId};
use crate::storage::directory::DirectoryError;
use crate::storage::file::memory;
use crate::storage::log::{LogOptions, LogPoint, Preparation, SegmentLog};
use crate::storage::reconcile::reconcile;
use crate::watch::{WatchLimits, Watches};
use bytes::Bytes;
use disk::StoredTree;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// Where the log is in its file system.
const LOG_DIRECTORY: &str = "/log";
/// Small, so that segments are rotated and purged all the time.
const SEGMENT_BYTES: u64 = 32 << 10;
/// Time between two durable points of the tree, µs.
const PERSIST_INTERVAL_US: u64 = 400_000;
/// So few that even a small tree is read in many turns.
const SLICE_NODES: usize = 3;

/// How a simulated member is set up.
#[derive(Clone, Debug)]
pub(crate) struct MemberPlan {
    pub(crate) server: ServerId,
    /// Who belongs to the ensemble.
    pub(crate) members: Members,
    /// Its place among those that stand for election.
    pub(crate) slot: usize,
    pub(crate) seed: u64,
    /// Bytes of log that are kept for others.
    pub(crate) log_budget_bytes: usize,
    /// Without a leader for so long, clients are sent away, ms.
    pub(crate) leaderless_ms: u64,
    pub(crate) linearizable_reads: bool,
    /// Whether values leave memory as soon as they can.
    pub(crate) values_leave: bool,
    /// It takes no entries while so many bytes of them wait to be applied.
    pub(crate) backlog_bytes: u64,
    /// Requests that its clients may have in work together.
    pub(crate) outstanding_limit: usize,
}

/// A part of a member that has a thread in production.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Driver,
    Log,
    Applier,
    Store,
    Loader,
    Values,
}

impl Part {
    pub(crate) const ALL: [Part; 6] = [
        Part::Driver,
        Part::Log,
        Part::Applier,
        Part::Store,
        Part::Loader,
        Part::Values,
    ];
}

/// A snapshot on its way: the tree, and the message that installs it.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedSnapshot {
    tree: StoredTree,
    message: Bytes,
}

/// Tells, in the end, whether a snapshot was taken.
pub(crate) type Verdict = oneshot::Receiver<bool>;

/// What is on its way to the links.
#[derive(Default)]
struct Outgoing {
    messages: Vec<(ServerId, Bytes)>,
    snapshots: Vec<(ServerId, SimulatedSnapshot)>,
}

struct Links {
    outgoing: Arc<Mutex<Outgoing>>,
    applier: Arc<Inbox<ApplierInput>>,
}

impl Peers for Links {
    fn send(&mut self, to: ServerId, message: &PeerMessage) {
        self.outgoing.lock().messages.push((to, message.to_bytes()));
    }

    fn send_snapshot(&mut self, to: ServerId, view: SnapshotView, message: &PeerMessage) {
        if let SnapshotView::Simulated(_, tree) = view
            && let Ok(tree) = tree.downcast::<StoredTree>()
        {
            let message = message.to_bytes();
            let snapshot = SimulatedSnapshot { tree: *tree, message };
            self.outgoing.lock().snapshots.push((to, snapshot));
        }
    }

    fn make_snapshot(&mut self) {
        // The store answers the driver itself: the view is not one of a keyspace.
        self.applier.push(ApplierInput::View(Box::new(drop)));
    }

    fn founded(&mut self) -> Result<(), DirectoryError> {
        Ok(())
    }

    fn set_members(&mut self, _members: &Members) {}
}

/// Answers no words: every connection begins with a handshake.
pub(super) struct NoWords;

impl Words for NoWords {
    fn answer(&self, _first_bytes: &[u8]) -> Word {
        Word::Unknown
    }
}

/// A running member.
pub(crate) struct SimulatedMember {
    shared: Arc<Shared>,
    parting: Parting,
    time: Arc<SimulatedTime>,
    driver: Driver,
    log: LogWriter,
    checkpointer: Checkpointer,
    log_inbox: Arc<Inbox<LogInput>>,
    applier_inbox: Arc<Inbox<ApplierInput>>,
    store_inbox: Arc<Inbox<StoreInput>>,
    outgoing: Arc<Mutex<Outgoing>>,
    last_persist_us: u64,
    is_loading: bool,
}

impl SimulatedMember {
    /// Starts from what `disk` holds.
    pub(crate) fn start(disk: &mut SimulatedDisk, plan: &MemberPlan, wall_ms: i64) -> Result<SimulatedMember, Failure> {
        let time = Arc::new(SimulatedTime::default());
        time.wall_ms.store(wall_ms, Ordering::Relaxed);
        // As a data directory counts its starts.
        disk.boots = (disk.boots + 1).max(u64::try_from(wall_ms / 1000).unwrap_or(0));
        let boot = disk.boots;
        let seed = plan.seed ^ (disk.incarnation << 20) ^ boot;

        let (state, groups) = disk.committed.load_first()?;
        let (applied, members) = match &disk.committed.meta {
            Some(meta) => (meta.applied, decode_members(meta)?),
            None => (LogPoint::default(), MembersAt::default()),
        };
        let (mut log, recovered) = SegmentLog::open(disk.files.shared(), Path::new(LOG_DIRECTORY), log_options(seed))?;
        let reconciled = reconcile(applied, recovered)?;
        reconciled.settle(&mut log, &members.conf_state)?;
        let recovered = reconciled.recovered;

        let sessions = state.sessions().map(|session| SessionNews::Opened {
            session: session.id,
            timeout_ms: session.timeout_ms,
        });
        let sessions: Vec<_> = sessions.collect();
        let clock = Clock::simulated(time.clone());
        let watches = Watches::new(WatchLimits {
            per_connection: usize::MAX,
            per_znode: usize::MAX,
        });
        let memory = if plan.values_leave {
            Memory::none_to_spare(state.zxid())
        } else {
            Memory::new(u64::MAX, state.zxid(), 0)
        };
        let shared = Arc::new(Shared::new(
            settings(plan),
            (state, Loading::new(groups, SLICE_NODES), memory),
            watches,
            Box::new(NoWords),
            (clock, Chance::seeded(seed), boot),
        ));
        shared.driver.push(DriverInput::Applied(AppliedTo {
            index: applied.index,
            term: applied.term,
            own: 0,
            sessions,
        }));
        let replica = Replica::new(
            ReplicaOptions {
                server: plan.server,
                incarnation: disk.incarnation,
                stream: boot << BOOT_SHIFT,
                rules: Rules::default(),
                election_ticks: 10,
                election_slot: plan.slot,
                log_budget_bytes: plan.log_budget_bytes,
            },
            replica::Recovered {
                truncated: (recovered.base.index, recovered.base.term),
                entries: recovered.entries,
                hard_state: recovered.hard_state,
                conf_state: members.conf_state.clone(),
                registry: members.registry.clone(),
                applied_index: applied.index,
            },
            &logging::slog_to_tracing(),
        )?;
        let applier = Applier::new(shared.clone(), applied.index, applied.term, members);
        let (log_inbox, applier_inbox) = (Arc::new(Inbox::default()), Arc::new(Inbox::default()));
        let store_inbox = Arc::new(Inbox::default());
        let outgoing = Arc::<Mutex<Outgoing>>::default();
        let mut driver = Driver::new(
            shared.clone(),
            replica,
            (log_inbox.clone(), applier_inbox.clone()),
            Box::new(Links {
                outgoing: outgoing.clone(),
                applier: applier_inbox.clone(),
            }),
            (
                ContainerSchedule {
                    check_interval_ms: 1000,
                    max_per_minute: 10_000,
                    max_never_used_ms: 0,
                },
                Patience {
                    leaderless_ms: Some(plan.leaderless_ms),
                    read_only_ms: None,
                },
            ),
            Some(plan.members.clone()),
        );
        driver.progress.backlog = Backlog::new(plan.backlog_bytes);
        let syncing = Syncing {
            force: true,
            warn_after: Duration::from_secs(3600),
        };
        let schedule = CheckpointSchedule {
            interval_ms: 100,
            records: 500,
            bytes: 1 << 20,
            persist_interval_ms: PERSIST_INTERVAL_US / 1000,
            log_bytes: 1 << 20,
        };
        Ok(SimulatedMember {
            driver,
            log: LogWriter::new(shared.clone(), log, syncing),
            checkpointer: Checkpointer::new(shared.clone(), applier, store_inbox.clone(), schedule),
            parting: Parting(shared.clone()),
            shared,
            time,
            log_inbox,
            applier_inbox,
            store_inbox,
            outgoing,
            last_persist_us: 0,
            is_loading: true,
        })
    }

    /// Sets its clocks: since its start, µs, and wall time, ms.
    pub(crate) fn set_time(&self, now_us: u64, wall_ms: i64) {
        self.time.now_us.store(now_us, Ordering::Relaxed);
        self.time.wall_ms.store(wall_ms, Ordering::Relaxed);
    }

    /// Whether something waits for a part.
    pub(crate) fn is_busy(&self, part: Part) -> bool {
        match part {
            Part::Driver => !self.shared.driver.is_empty(),
            Part::Log => !self.log_inbox.is_empty(),
            Part::Applier => !self.applier_inbox.is_empty(),
            Part::Store => !self.store_inbox.is_empty(),
            Part::Loader => self.is_loading,
            Part::Values => self.shared.fetcher.is_busy(),
        }
    }

    /// Lets a part do what waits for it, and what the time says.
    pub(crate) fn turn(&mut self, part: Part, disk: &mut SimulatedDisk) -> Result<(), Failure> {
        match part {
            Part::Driver => drop(self.driver.step(&mut taken(&self.shared.driver))?),
            Part::Log => drop(self.log.write(&mut taken(&self.log_inbox), false)?),
            Part::Applier => {
                self.checkpointer.step(&mut taken(&self.applier_inbox))?;
                self.shared.fan_out.wake_all();
            }
            Part::Store => self.store(disk),
            Part::Loader => self.is_loading = loading::turn(&self.shared)?,
            Part::Values => {
                // In production the reader of a snapshot's tree comes with its state; here the store's turn brings it.
                self.store(disk);
                let values = Arc::new(disk.committed.clone());
                self.shared.fetcher.replace(Some(values));
                fetcher::turn(&self.shared, Duration::ZERO)?;
            }
        }
        Ok(())
    }

    fn store(&mut self, disk: &mut SimulatedDisk) {
        for input in taken(&self.store_inbox) {
            match input {
                StoreInput::Checkpoint {
                    checkpoint,
                    applied,
                    members,
                    ..
                } => {
                    let (zxid, bytes) = (checkpoint.zxid, checkpoint.bytes());
                    disk.committed.commit(checkpoint, applied, &members);
                    self.shared.checkpoint_stored(zxid, bytes);
                }
                StoreInput::Found {
                    checkpoint,
                    applied,
                    members,
                } => {
                    disk.committed.commit(checkpoint, applied, &members);
                    disk.durable = disk.committed.clone();
                    self.shared.driver.push(DriverInput::Installed);
                }
                StoreInput::View(_) => {
                    let tree = disk.committed.clone();
                    let view = tree.meta.clone();
                    let view = view.map(|meta| SnapshotView::Simulated(meta, Box::new(tree)));
                    self.shared.driver.push(DriverInput::SnapshotMade(view));
                }
                StoreInput::Simulated(tree) => {
                    if let Ok(tree) = tree.downcast::<StoredTree>() {
                        disk.committed = *tree;
                        disk.durable = disk.committed.clone();
                    }
                    self.shared.driver.push(DriverInput::Installed);
                }
                StoreInput::Switch { .. } | StoreInput::GroupsRead(_) | StoreInput::Stop => {}
            }
        }
        let now_us = self.shared.clock.now_us();
        if now_us.saturating_sub(self.last_persist_us) >= PERSIST_INTERVAL_US {
            self.last_persist_us = now_us;
            disk.durable = disk.committed.clone();
            if let Some(meta) = &disk.durable.meta {
                let index = meta.applied.index;
                self.shared.driver.push(DriverInput::Durable { index });
            }
        }
    }

    /// What it says to its peers.
    pub(crate) fn take_messages(&self) -> Vec<(ServerId, Bytes)> {
        std::mem::take(&mut self.outgoing.lock().messages)
    }

    /// What it sends to those that lag too far.
    pub(crate) fn take_snapshots(&self) -> Vec<(ServerId, SimulatedSnapshot)> {
        std::mem::take(&mut self.outgoing.lock().snapshots)
    }

    /// A snapshot of a peer has come whole.
    pub(crate) fn receive_snapshot(&self, from: Peer, snapshot: SimulatedSnapshot) -> Result<Verdict, Failure> {
        let (answer, verdict) = oneshot::channel();
        let state = snapshot.tree.load()?;
        if let Ok(message) = PeerMessage::decode(&snapshot.message) {
            let arrived = Arrived {
                state,
                tree: NewTree::Simulated(Box::new(snapshot.tree)),
                answer: Some(answer),
            };
            let arrived = SnapshotArrived { from, message, arrived };
            self.shared.driver.push(DriverInput::SnapshotArrived(Box::new(arrived)));
        }
        Ok(verdict)
    }

    /// Sending a snapshot has ended.
    pub(crate) fn snapshot_sent(&self, to: ServerId, succeeded: bool) {
        self.shared.driver.push(DriverInput::SnapshotSent { to, succeeded });
    }

    /// A message of a peer has come.
    pub(crate) fn receive(&self, from: Peer, message: &Bytes) {
        // What cannot be read was never sent.
        if let Ok(message) = PeerMessage::decode(message) {
            let messages = vec![message];
            self.shared.driver.push(DriverInput::Peer { from, messages });
        }
    }

    /// A link to a peer is up.
    pub(crate) fn linked(&self, peer: Peer) {
        self.shared.driver.push(DriverInput::Linked(peer));
    }

    /// A link to a peer has broken; `is_gone`: its host says that nobody is there.
    pub(crate) fn unlinked(&self, server: ServerId, is_gone: bool) {
        self.shared.driver.push(DriverInput::Unlinked(server));
        if is_gone {
            self.shared.driver.push(DriverInput::Gone(server));
        }
    }

    /// If it leads, another one should.
    pub(crate) fn hand_over(&self) {
        self.shared.driver.push(DriverInput::HandOver);
    }

    /// Lets a client in, to whom others than its socket's task may send if there is a `writer`.
    pub(crate) fn admit(&self, peer: SocketAddr, writer: Option<PromptWriter>) -> Option<Arc<Connection>> {
        admit(&self.shared, peer, writer)
    }

    /// Whether something is queued for a client and nobody is about to send it, if the task is not about to look either.
    pub(crate) fn is_forgotten(connection: &Connection) -> bool {
        connection.is_forgotten()
    }

    /// How many clients had to wait because this member had not come as far.
    pub(crate) fn clients_ahead(&self) -> u64 {
        self.shared.statistics.clients_ahead.load(Ordering::Relaxed)
    }

    /// The socket of a connection is closed.
    pub(crate) fn ended(connection: &Connection) {
        assert_eq!(
            connection.sent_away_ahead(),
            None,
            "a client has only seen what is said here"
        );
        connection.ended();
    }

    /// What it is, and who leads.
    pub(crate) fn standing(&self) -> Standing {
        self.shared.standing()
    }

    /// How far its log is on disk.
    pub(crate) fn reach(&self) -> u64 {
        self.driver.replica.reach()
    }

    /// If it leads: how far it believes that the others' logs are, as far as that counts.
    pub(crate) fn acknowledged(&self) -> Vec<(ServerId, u64)> {
        let replica = &self.driver.replica;
        let progress = replica.progress().filter(|_| replica.is_leader());
        progress
            .map(|(server, matched)| (server, matched.min(replica.committed())))
            .collect()
    }

    /// Messages with entries that it did not take since its start, because it was behind.
    pub(crate) fn appends_refused(&self) -> u64 {
        self.driver.progress.backlog.refused()
    }

    /// Whether it serves clients.
    pub(crate) fn is_serving(&self) -> bool {
        self.shared.is_serving()
    }

    /// How far its state has come, and what it is.
    pub(crate) fn digest(&self) -> (Zxid, u64) {
        let state = self.shared.state.read();
        (state.zxid(), state.digest())
    }
}

/// Connections and what they share hold each other: they are taken apart in the end.
struct Parting(Arc<Shared>);

impl Drop for Parting {
    fn drop(&mut self) {
        self.0.for_each_connection(Connection::ended);
    }
}

fn admit(shared: &Arc<Shared>, peer: SocketAddr, writer: Option<PromptWriter>) -> Option<Arc<Connection>> {
    let connection = shared.admit(peer).ok()?;
    if let Some(writer) = writer {
        connection.set_prompt_writer(writer);
    }
    Some(connection)
}

/// Everything that waits.
fn taken<T>(inbox: &Inbox<T>) -> Vec<T> {
    let mut inputs = Vec::new();
    inbox.take(&mut inputs);
    inputs
}

fn log_options(seed: u64) -> LogOptions {
    let mut salts = memory::Chance(seed);
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        first_segment_bytes: SEGMENT_BYTES,
        max_spares: 2,
        preparation: Preparation::Inline,
        salts: Box::new(move || salts.next()),
    }
}

pub(super) fn settings(plan: &MemberPlan) -> Settings {
    Settings {
        server: plan.server,
        max_request_bytes: 1 << 20,
        min_session_timeout_ms: 100,
        max_session_timeout_ms: 60_000,
        global_outstanding_limit: plan.outstanding_limit,
        max_connections_per_address: 0,
        descriptor_connections: usize::MAX,
        max_connections: 0,
        handshake_timeout_ms: 10_000,
        outbound_limit_bytes: 4 << 20,
        outbound_limit_events: 1000,
        outbound_total_bytes: 64 << 20,
        outbound_stall_ms: 60_000,
        fan_out_jitter_ms: 0,
        skip_acl: false,
        digest_enabled: false,
        digest_algorithm: DigestAlgorithm::default(),
        super_digest: None,
        sasl: None,
        x509_enabled: false,
        x509_super_user: None,
        required_schemes: Vec::new(),
        linearizable_reads: plan.linearizable_reads,
        in_ensemble: true,
    }
}
