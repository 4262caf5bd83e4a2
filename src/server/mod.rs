//! Assembly: start and stop order, the threads, one session pipeline per connection.
//!
//! ```text
//!   thread            waits for                        does
//!   tokio workers     sockets                          frames, pipelines, reads; snapshots for and from other servers
//!   links             sockets                          messages for and from the other servers
//!   driver            ticks, and what others leave      the replica
//!                     to it
//!   log               appends                          one write and one fsync per group
//!   applier           checkpoints, and what others     the publish step; takes what a checkpoint must write
//!                     leave to it
//!   store             checkpoints                      fjall; makes points durable
//!   loader            what reads wish for              reads the rest of the tree after a start; then it ends
//!   values            reads of values that are away    brings them back from the tree on disk, and answers the reads
//!   space             time                             looks at the room on the disks
//! ```
//!
//! Invariants:
//! - Locks are taken in this order: state, then the storm's, then a connection's pipeline, then whatever is left; none is
//!   held across an await, a file or a socket. Who is at a part (`crew`) holds its seat whatever the part does meanwhile: no
//!   thread waits for a seat but the part's own.
//! - A reply to a write is queued only by the applier, which gets an entry only when it is on disk and committed.
//! - Any thread that fails stops the whole server with its reason: nothing is retried that may have lost a promise.
//!
//! Pure parts: [`pipeline`], `parking`, `local`, `handshake`, `read_only`, `authentication`, `sasl`, `digest_md5`, `stall`, `storm`;
//! `applier` but for waking tasks.

mod admission;
mod applier;
pub mod authentication;
mod backlog;
mod chance;
mod checkpointer;
mod clock;
mod connection;
mod crew;
mod digest_md5;
mod disks;
mod doors;
mod driver;
mod duties;
mod ensemble;
mod ensemble_view;
mod fan_out;
mod fetcher;
mod hand_over;
mod handshake;
mod inbox;
mod installing;
mod lines;
mod link_thread;
mod loading;
mod local;
mod log_writer;
mod logging;
pub mod memory;
mod numbers;
mod outbound;
mod parking;
mod pending;
mod pipeline;
mod queued;
mod read_only;
mod recorded;
mod recovery;
pub mod sasl;
pub mod settings;
pub mod shared;
mod signs;
mod snapshot;
pub mod space;
mod stall;
pub mod statistics;
mod store;
mod storm;
mod tally;
pub mod transfer;

pub use checkpointer::CheckpointSchedule;
pub use connection::{Connection, ConnectionView};
pub use doors::{Door, Speech};
pub use driver::{ContainerSchedule, Patience};
pub use ensemble::EnsembleOptions;
pub use ensemble_view::{EnsembleRole, EnsembleView, PeerView};
pub use hand_over::{HandedOver, NotHandedOver};
pub use log_writer::Syncing;
pub use numbers::ConnectionNumbers;
pub use recovery::RecoveryOptions;
pub use sasl::SaslUsers;
pub use settings::Settings;
pub use shared::{Service, Shared, Word, Words};
pub use statistics::{Latency, ProposalSizes, Statistics};

use crate::net::peers::Links;
use crate::proto::Zxid;
use crate::replica::{self, MembersAt, PassedBarriers, ReplicaError, Role, SnapshotPoint};
use crate::state_machine::{ConnectionId, Rules, State};
use crate::storage::behind::give_way;
use crate::storage::directory::{DataDirectory, DirectoryError, Identity};
use crate::storage::log::{LogError, LogPoint};
use crate::storage::reconcile::GapBetweenTreeAndLog;
use crate::storage::tree::TreeError;
use crate::watch::{WatchLimits, Watches};
use applier::Unappliable;
use checkpointer::Checkpointer;
use crew::{Crew, Post};
use driver::{Driver, Peers};
use ensemble::{Ensemble, LinkedPeers, NoPeers, Place};
use inbox::Inbox;
use link_thread::LinkThread;
use log_writer::LogWriter;
use parking_lot::Mutex;
use raft::prelude::{ConfState, Entry};
use recovery::Habits;
use shared::DriverInput;
use snapshot::{NewTree, SnapshotView};
use space::Watching;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use transfer::{Intake, Pace};

/// How long a stopping server waits for connections that have something in work at every moment.
const PAUSES: Duration = Duration::from_millis(500);
/// How long a stopping server waits for requests that are in work.
const DRAIN: Duration = Duration::from_secs(5);

/// A lone server has nobody to wait for; raft wants a number.
const ALONE_ELECTION_TICKS: usize = 10;
/// How long a stopping leader waits for another to take over; then the others elect one when it is gone.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Why a server could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The raft log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The tree on disk.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The records of the tree on disk are not those of one state.
    #[error(
        "the stored tree is no state: {0}. A lone server: restore dataDir and dataLogDir from the same backup, and check the \
         disk and the memory of this machine. A member of an ensemble sets the tree aside by itself and gets it anew."
    )]
    Load(#[from] crate::state_machine::LoadError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The log does not join the tree.
    #[error(transparent)]
    Gap(#[from] GapBetweenTreeAndLog),
    /// raft.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// An entry that cannot be applied.
    #[error(transparent)]
    Unappliable(#[from] Unappliable),
    /// The stored members cannot be read.
    #[error(
        "the list of members in the stored tree cannot be read: it was written by another version of this program, or it is \
         damaged. Start the version that wrote it, or restore the data directory from a copy."
    )]
    Members,
    /// The data is an ensemble's, the configuration a lone server's.
    #[error(
        "the data directory is that of a member of an ensemble of the servers {0:?}, but the configuration names no other \
         server. A server that goes on alone with it could lose what the others have acknowledged: name the members \
         (server.N lines), or set another dataDir"
    )]
    NotAlone(Vec<u64>),
    /// A member that was given no data yet is configured as a lone server.
    #[error(
        "the data directory belongs to {0}, which has not got that ensemble's data yet, or has set it aside; but the \
         configuration names no other server. Alone it would begin with an empty tree, under the name of an ensemble that has \
         another one: name the members (server.N lines), and it gets the data from them. If it is to be a server of its own, \
         set another dataDir, or remove menagerie from dataDir and menagerie-log from dataLogDir. Nothing was changed"
    )]
    NoDataYet(Identity),
    /// What is damaged is nowhere else.
    #[error(
        "{0} This server is the only one that votes in its ensemble, by what is stored here or configured: nobody else has the \
         data, so it was not set aside. Restore dataDir and dataLogDir from the same backup, and check the disk and the memory \
         of this machine. If others have the data after all, or it may be lost: move menagerie and menagerie-log out of dataDir \
         and dataLogDir, and start this server empty"
    )]
    OnlyCopy(String),
    /// raft installs a snapshot that nobody has received: a defect.
    #[error(
        "raft installs a snapshot that was not received; this is a defect of the server, please report it with the log"
    )]
    NoSnapshot,
    /// Our state is not the leader's.
    #[error(
        "the state of this server differs from that of server {by}: at zxid {zxid} their digests are {ours:016x} and \
         {theirs:016x}. Nothing more is served from it. Keep a copy of dataDir and dataLogDir for a report, then move both \
         aside and start this server again: it gets the state anew."
    )]
    Diverged {
        /// Where both were compared.
        zxid: Zxid,
        /// Our digest.
        ours: u64,
        /// Who was compared with.
        by: u64,
        /// Its digest.
        theirs: u64,
    },
    /// A value that had left memory is not the one that comes back.
    #[error(
        "the stored data of the znode {0} is not what was stored: the disk or the memory of this machine is damaged. Nothing \
         wrong was served. Start this server again: a member of an ensemble then finds the damage, sets its data aside and \
         gets it anew; a lone server must be restored from a copy of dataDir and dataLogDir"
    )]
    Value(String),
    /// A thread could not be started.
    #[error("cannot start the thread {0}: {1}")]
    Thread(&'static str, #[source] std::io::Error),
    /// A thread panicked: a defect.
    #[error("the thread {0} has panicked; this is a defect of the server, please report it with the log")]
    Panicked(&'static str),
}

impl Failure {
    /// Whether the stored tree is damaged, so that a member of an ensemble is better off without it.
    fn is_damage(&self) -> bool {
        match self {
            Failure::Tree(error) => error.is_damage(),
            // Behind its log: what was stored last is not there.
            Failure::Load(_) | Failure::Gap(_) => true,
            _ => false,
        }
    }
}

/// What the log's thread is told.
enum LogInput {
    Append(replica::Append),
    /// Begin anew behind this entry; an append follows.
    Reset {
        base: LogPoint,
        conf_state: ConfState,
    },
    Purge {
        below: u64,
    },
    Stop,
}

/// What the applier's thread is told.
enum ApplierInput {
    /// Committed entries, and the members as of those that change them.
    Entries {
        entries: Vec<Entry>,
        members: Vec<MembersAt>,
    },
    Barriers(Vec<PassedBarriers>),
    /// This state takes the place of ours.
    Install {
        state: Box<State>,
        tree: NewTree,
        point: Box<SnapshotPoint>,
        /// Connections from this one on belong to it.
        own_from: ConnectionId,
    },
    /// Bring the tree on disk up to now, and give a view of it.
    View(Box<dyn FnOnce(Option<SnapshotView>) + Send>),
    Stop,
}

/// Makes what answers four-letter words, of what all parts share.
pub type MakeWords = Box<dyn FnOnce(std::sync::Weak<Shared>) -> Box<dyn Words> + Send>;

/// How a server is set up.
pub struct Options {
    /// Settings of client connections.
    pub settings: Settings,
    /// What the leader stamps on its entries.
    pub rules: Rules,
    /// Limits on watches.
    pub watches: WatchLimits,
    /// Where the data is, and how it is kept.
    pub recovery: RecoveryOptions,
    /// `memoryBudget`, bytes; `None` for no limit.
    pub memory_budget_bytes: Option<u64>,
    /// How appends are made durable.
    pub syncing: Syncing,
    /// When the tree on disk follows.
    pub checkpoints: CheckpointSchedule,
    /// How containers are removed.
    pub containers: ContainerSchedule,
    /// How a member of an ensemble bears with the others.
    pub patience: Patience,
    /// The ensemble, unless this server is to be alone.
    pub ensemble: Option<EnsembleOptions>,
    /// Answers four-letter words. Given what all parts share once that exists.
    pub words: MakeWords,
}

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    log: Arc<Inbox<LogInput>>,
    threads: Vec<(&'static str, JoinHandle<()>)>,
    failures: mpsc::UnboundedReceiver<Failure>,
    linked: Option<Linked>,
    /// Locked as long as anything may be written.
    directory: Arc<Mutex<DataDirectory>>,
    /// Whether nobody else voted when it started.
    voted_alone: bool,
    /// Over the room on the disks.
    _watching: Option<Watching>,
}

/// How this server is linked with the others.
struct Linked {
    links: Arc<Links>,
    /// Ends after them.
    _thread: LinkThread,
}

impl Server {
    /// Loads what is on disk and starts the threads, and the links to the others: a lone server then leads, a member of an
    /// ensemble elects. Clients are let in by [`Server::accept`]. With an ensemble, within a tokio runtime.
    pub fn start(options: Options) -> Result<Server, Failure> {
        let Options {
            settings,
            rules,
            watches,
            recovery,
            memory_budget_bytes,
            syncing,
            checkpoints,
            containers,
            patience,
            ensemble,
            words,
        } = options;
        let tree_options = recovery.tree;
        let budget_bytes = memory_budget_bytes.unwrap_or(u64::MAX);
        let habits = Habits {
            rules,
            election_ticks: ensemble
                .as_ref()
                .map_or(ALONE_ELECTION_TICKS, EnsembleOptions::election_ticks),
            election_slot: ensemble.as_ref().map_or(0, |ensemble| ensemble.slot(settings.server)),
            is_alone: ensemble.is_none(),
            participants: ensemble.as_ref().map(EnsembleOptions::participants).unwrap_or_default(),
        };
        let (shared, parts) =
            recovery::recover(recovery, budget_bytes, habits, settings, Watches::new(watches), words)?;
        let room = shared.statistics.room.clone();
        let watching = parts.space.map(|space| space.start(room)).transpose();
        let watching = watching.map_err(|error| Failure::Thread("space", error))?;
        let (failed, failures) = mpsc::unbounded_channel();
        let log_inbox = Arc::new(Inbox::default());
        let applier_inbox = Arc::new(Inbox::default());
        let store_inbox = parts.store;
        let mut threads = Vec::new();
        let mut spawn = |name: &'static str, work: Box<dyn FnOnce() -> Result<(), Failure> + Send>| {
            let failed = failed.clone();
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                // Whoever would receive it may have ended already, with another failure.
                match outcome {
                    Ok(Ok(())) => {}
                    Ok(Err(failure)) => drop(failed.send(failure)),
                    Err(_) => drop(failed.send(Failure::Panicked(name))),
                }
            });
            threads.push((name, thread.map_err(|error| Failure::Thread(name, error))?));
            Ok::<(), Failure>(())
        };
        let generations = parts.generations;
        let directory = Arc::new(Mutex::new(parts.directory));
        let membership = ensemble.as_ref().map(|ensemble| ensemble.members.clone());
        let (peers, linked): (Box<dyn Peers>, _) = match ensemble {
            None => (Box::new(NoPeers(directory.clone())), None),
            Some(ensemble) => {
                let place = Place {
                    shared: shared.clone(),
                    directory: directory.clone(),
                    boot: parts.boot,
                    is_fresh: parts.is_fresh,
                    intake: Intake::new(generations.clone(), tree_options, Pace::default()),
                    generations: generations.clone(),
                    applier: applier_inbox.clone(),
                };
                let thread = LinkThread::start().map_err(|error| Failure::Thread("links", error))?;
                let (ensemble, links) = Ensemble::start(place, ensemble, thread.runtime())?;
                (
                    Box::new(LinkedPeers { ensemble }),
                    Some(Linked { links, _thread: thread }),
                )
            }
        };
        let driver = Driver::new(
            shared.clone(),
            parts.replica,
            (log_inbox.clone(), applier_inbox.clone()),
            peers,
            (containers, patience),
            membership,
        );
        let checkpointer = Checkpointer::new(shared.clone(), parts.applier, store_inbox.clone(), checkpoints);
        let writer = LogWriter::new(shared.clone(), parts.log, syncing);
        let crew = Crew {
            log: Post::new(writer, log_inbox.clone()),
            driver: Post::new(driver, shared.driver.clone()),
            applier: Post::new(checkpointer, applier_inbox),
            tasks_at_the_disk: 0.into(),
            links: linked.as_ref().map(|linked| Arc::downgrade(&linked.links)),
        };
        let crew = Arc::new(crew);
        // Nobody else sets it.
        let _ = shared.crew.set(crew.clone());
        let (of_log, of_driver) = (crew.clone(), crew.clone());
        spawn("log", Box::new(move || of_log.serve_log()))?;
        spawn("driver", Box::new(move || of_driver.serve_driver()))?;
        spawn("applier", Box::new(move || crew.serve_applier()))?;
        let (of_shared, tree) = (shared.clone(), parts.tree);
        spawn(
            "store",
            Box::new(move || {
                give_way();
                store::run(&of_shared, &store_inbox, tree, &generations, checkpoints)
            }),
        )?;
        let of_shared = shared.clone();
        if let Some(reader) = parts.reader {
            shared.fetcher.replace(Some(Arc::new(reader)));
            let of_shared = shared.clone();
            spawn("values", Box::new(move || fetcher::run(&of_shared)))?;
        }
        spawn("loader", Box::new(move || loading::run(&of_shared)))?;
        Ok(Server {
            shared,
            log: log_inbox,
            threads,
            failures,
            linked,
            directory,
            voted_alone: parts.votes_alone,
            _watching: watching,
        })
    }

    /// Has the next start of this server begin a new life in its ensemble, with what it has now set aside, if that is what
    /// `failure` calls for. Says whether it is.
    ///
    /// # Errors
    /// `OnlyCopy` if nobody else has the data; `Directory`.
    pub fn begin_anew(&self, failure: &Failure, incarnation: u64) -> Result<bool, Failure> {
        // Damage that a start finds is set aside at once; what is read later is found later.
        let is_damage = failure.is_damage() && self.identity().cluster_id != 0;
        let calls_for_it = is_damage || matches!(failure, Failure::Replica(ReplicaError::Forgotten { .. }));
        if !calls_for_it || self.linked.is_none() {
            return Ok(false);
        }
        if is_damage && self.votes_alone() {
            return Err(Failure::OnlyCopy(failure.to_string()));
        }
        self.directory.lock().order_aside(incarnation, &failure.to_string())?;
        Ok(true)
    }

    /// Whether nobody else votes. Damage shows soon after the start, perhaps before the first look at the ensemble.
    fn votes_alone(&self) -> bool {
        self.shared.ensemble().votes_alone().unwrap_or(self.voted_alone)
    }

    /// Whose the data is.
    pub fn identity(&self) -> Identity {
        self.directory.lock().identity()
    }

    /// What all parts share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Waits until there is a leader and all that was acknowledged before is applied here; gives the zxid it has come to.
    pub async fn ready(&mut self) -> Result<Zxid, Failure> {
        while !self.shared.is_serving() {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
                failure = self.failures.recv() => return Err(failure.unwrap_or(Failure::Panicked("driver"))),
            }
        }
        Ok(self.shared.applied_zxid())
    }

    /// Lets clients in from now on.
    pub fn accept(&self, doors: Vec<Door>) {
        if doors.is_empty() {
            return;
        }
        for door in doors {
            tokio::spawn(doors::accept(self.shared.clone(), door));
        }
        tokio::spawn(doors::sweep(self.shared.clone()));
        for _ in 0..tokio::runtime::Handle::current().metrics().num_workers() {
            tokio::spawn(fan_out::run(self.shared.clone()));
        }
    }

    /// Waits until something fails.
    pub async fn failure(&mut self) -> Failure {
        self.failures.recv().await.unwrap_or(Failure::Panicked("driver"))
    }

    /// Finishes what is in work, makes everything durable and ends the threads. The doors close, and nothing more is
    /// taken in.
    ///
    /// A leader hands leadership over first: so the others go on without an election timeout, and what is in work here is
    /// finished by the new leader. Then each connection is closed at a moment when it waits for nothing.
    pub async fn stop(mut self) -> Result<(), Failure> {
        if self.linked.is_some() {
            self.hand_over().await;
        }
        self.shared.set_draining();
        let closed = async {
            while self.shared.connection_count() > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        // Whoever never pauses is cut off.
        let _ = tokio::time::timeout(PAUSES, closed).await;
        self.shared.set_stopping();
        let drained = async {
            while self
                .shared
                .statistics
                .outstanding
                .load(std::sync::atomic::Ordering::Relaxed)
                > 0
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("requests were still in work: their clients will not know what became of them");
        }
        self.shared.loading.stop();
        self.shared.driver.push(DriverInput::Stop);
        self.shared.fetcher.stop();
        let threads = std::mem::take(&mut self.threads);
        let (drivers, others): (Vec<_>, Vec<_>) = threads.into_iter().partition(|(name, _)| *name != "log");
        join(drivers).await;
        self.log.push(LogInput::Stop);
        join(others).await;
        if let Some(linked) = self.linked.take() {
            linked.links.shutdown().await;
        }
        match self.failures.try_recv() {
            Ok(failure) => Err(failure),
            Err(_) => Ok(()),
        }
    }
}

impl Server {
    async fn hand_over(&self) {
        self.shared.driver.push(DriverInput::HandOver);
        let started = std::time::Instant::now();
        while self.shared.standing().role == Role::Leader && started.elapsed() < HAND_OVER {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn join(threads: Vec<(&'static str, JoinHandle<()>)>) {
    // A panic was told by the thread itself.
    let _ = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|(_, thread)| drop(thread.join()))).await;
}

#[cfg(test)]
pub(crate) mod simulated;
