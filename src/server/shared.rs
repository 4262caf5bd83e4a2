//! What all parts of a running server share.

use super::admission::{Admission, HANDSHAKES, LARGE_VALUES};
use super::chance::Chance;
use super::clock::Clock;
use super::connection::{Connection, ConnectionView};
use super::crew::{Crew, Helper};
use super::ensemble_view::{EnsembleBoard, EnsembleRole, EnsembleView};
use super::fan_out::FanOut;
use super::fetcher::Fetcher;
use super::handshake::NewSession;
use super::inbox::Inbox;
use super::loading::Loading;
use super::memory::Memory;
use super::pending::Closing;
use super::pipeline::Surroundings;
use super::read_only::ReadOnlySessions;
use super::settings::Settings;
use super::signs::Signs;
use super::snapshot::{SnapshotArrived, SnapshotView};
use super::statistics::Statistics;
use super::storm::Storm;
use crate::proto::{Identity, SessionId, Zxid, host_address};
use crate::replica::{Peer, PeerMessage, Registry, Standing};
use crate::state_machine::{Command, ConnectionId, ServerId, State};
use crate::watch::Watches;
use dashmap::DashMap;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use raft::prelude::ConfState;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A complaint about malformed bytes is logged once per peer address and so many µs.
const COMPLAINT_INTERVAL_US: u64 = 10_000_000;
/// Addresses that complaints are remembered of; when there are more, all are forgotten and may be logged again.
const COMPLAINTS_REMEMBERED: usize = 1024;

/// How long an operator's question waits for the driver, which is busy for milliseconds at most unless it hangs.
const DRIVER_PATIENCE: Duration = Duration::from_secs(1);

/// The barrier that tells that clients may be served; the others are named by their connections, whose numbers stay below.
pub(super) const SERVING: u64 = u64::MAX;

/// The number of a start stands above so many bits of the connections' numbers: four billion of them per start.
pub(super) const BOOT_SHIFT: u32 = 32;

/// How far the applier has come.
#[derive(Debug)]
pub(super) struct AppliedTo {
    /// The last entry.
    pub(super) index: u64,
    /// Its term.
    pub(super) term: u64,
    /// Commands of this server's connections since the last report.
    pub(super) own: usize,
    /// What became of sessions on the way.
    pub(super) sessions: Vec<SessionNews>,
}

/// What the driver is told.
pub(super) enum DriverInput {
    /// Commands of a connection, in its order.
    Commands(Vec<Command>),
    /// A connection asks for a read barrier.
    Barrier(ConnectionId),
    /// The log has written up to this append.
    Persisted(u64),
    /// The applier has come further.
    Applied(AppliedTo),
    /// The tree on disk holds everything up to this index.
    Durable { index: u64 },
    /// This server founds an ensemble of these members, be it of itself alone.
    Found { conf_state: ConfState, registry: Registry },
    /// The tree on disk is that of the snapshot being installed.
    Installed,
    /// A snapshot for others was made, or could not be.
    SnapshotMade(Option<SnapshotView>),
    /// Sending a snapshot has ended.
    SnapshotSent { to: ServerId, succeeded: bool },
    /// A peer has sent a snapshot.
    SnapshotArrived(Box<SnapshotArrived>),
    /// A peer has sent messages.
    Peer { from: Peer, messages: Vec<PeerMessage> },
    /// Our link to a peer is up.
    Linked(Peer),
    /// Our link to a peer has broken.
    Unlinked(ServerId),
    /// A peer's host says that nobody listens there.
    Gone(ServerId),
    /// If this server leads, another one should.
    HandOver,
    /// The same, asked by an operator, who is told to whom; `None`: nobody can take over.
    HandOverAsked(std::sync::mpsc::Sender<Option<ServerId>>),
    /// An operator asks how long the sessions may stay silent, ms.
    Deadlines(std::sync::mpsc::Sender<Vec<(SessionId, u64)>>),
    /// End, once everything handed in before is done.
    Stop,
}

/// What became of a session.
#[derive(Clone, Copy, Debug)]
pub(super) enum SessionNews {
    Opened { session: SessionId, timeout_ms: i32 },
    Closed { session: SessionId },
}

/// What the first bytes of a connection are to the four-letter words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// No word: it is a handshake.
    Unknown,
    /// More bytes must arrive to tell.
    Incomplete,
    /// The answer; then the connection is closed.
    Answer(String),
}

/// Answers four-letter words: made by `admin`, given to the server when it starts.
pub trait Words: Send + Sync {
    /// What `first_bytes` of a connection are.
    fn answer(&self, first_bytes: &[u8]) -> Word;
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TurnedAway {
    #[error("its address has {0} connections already (maxClientCnxns)")]
    Address(usize),
    #[error("there are {0} connections already (maxCnxns)")]
    Total(usize),
    #[error("there are {0} connections already, and the remaining descriptors are the server's own (ulimit -n)")]
    Descriptors(usize),
}

/// Whom this server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It starts, stops, or has no leader.
    Nobody,
    /// It has no leader, and serves reads to clients that have asked for that.
    ReadOnly,
    /// All clients.
    Everybody,
}

/// Where clients come from.
struct Address {
    connections: usize,
    /// What every connection from there is.
    identities: [Identity; 1],
}

impl Address {
    fn new(ip: IpAddr) -> Address {
        Address {
            connections: 0,
            identities: [Identity::new("ip", &host_address(ip))],
        }
    }
}

/// What all parts share.
pub struct Shared {
    /// Settings of client connections.
    pub settings: Settings,
    /// Counters.
    pub statistics: Statistics,
    /// Clocks.
    pub clock: Clock,
    /// The state, changed by the applier alone.
    pub state: RwLock<State>,
    /// What of the state is not in memory yet.
    pub(super) loading: Loading,
    /// How much memory the state takes.
    pub memory: Memory,
    /// Who waits for values that are away.
    pub(super) fetcher: Fetcher,
    /// The watch tables.
    pub watches: Watches,
    pub(super) driver: Arc<Inbox<DriverInput>>,
    /// Whoever brings something runs the parts with it; set when they are there.
    pub(super) crew: OnceLock<Arc<Crew>>,
    /// Whether the log writes something that others wait for.
    log_is_busy: AtomicBool,
    /// Connections to be woken, of changes that reach many.
    pub(super) fan_out: FanOut,
    /// Events that a publish step has left over.
    pub(super) storm: Storm,
    pub(super) words: Box<dyn Words>,
    pub(super) connections: DashMap<ConnectionId, Arc<Connection>, RandomState>,
    /// Which connection a session is bound to on this server.
    bound: Mutex<HashMap<SessionId, ConnectionId, RandomState>>,
    /// Where clients come from.
    addresses: Mutex<HashMap<IpAddr, Address, RandomState>>,
    /// Sessions that are being opened and resumed.
    pub(super) handshakes: Admission,
    /// Large values that are being written.
    pub(super) large_values: Admission,
    complaints: Mutex<HashMap<IpAddr, u64, RandomState>>,
    pub(super) signs: Signs,
    applied_zxid: AtomicI64,
    ensemble: EnsembleBoard,
    service: Mutex<Service>,
    read_only: Mutex<ReadOnlySessions>,
    standing: Mutex<Standing>,
    draining: AtomicBool,
    stopping: CancellationToken,
    /// The same as a flag: the token asks a lock, and every turn of every connection asks.
    is_stopping: AtomicBool,
    chance: Chance,
    next_connection: AtomicU64,
    next_session: AtomicI64,
}

impl Shared {
    /// `boot` is greater than at every earlier start, and less than 2^32.
    pub(super) fn new(
        settings: Settings,
        (mut state, loading, memory): (State, Loading, Memory),
        watches: Watches,
        words: Box<dyn Words>,
        (clock, chance, boot): (Clock, Chance, u64),
    ) -> Shared {
        let wall_ms = clock.wall_ms();
        let first_connection = first_connection(boot, chance.sixteen_bytes());
        state.set_values_may_leave(memory.values_may_leave());
        Shared {
            applied_zxid: AtomicI64::new(state.zxid().0),
            state: RwLock::new(state),
            loading,
            memory,
            fetcher: Fetcher::default(),
            watches,
            statistics: Statistics::default(),
            clock,
            driver: Arc::default(),
            crew: OnceLock::new(),
            log_is_busy: AtomicBool::new(false),
            fan_out: FanOut::default(),
            storm: Storm::default(),
            words,
            connections: DashMap::default(),
            bound: Mutex::default(),
            addresses: Mutex::default(),
            handshakes: Admission::new(HANDSHAKES),
            large_values: Admission::new(LARGE_VALUES),
            complaints: Mutex::default(),
            signs: Signs::default(),
            ensemble: EnsembleBoard::default(),
            service: Mutex::new(Service::Nobody),
            read_only: Mutex::default(),
            draining: AtomicBool::new(false),
            stopping: CancellationToken::new(),
            is_stopping: AtomicBool::new(false),
            standing: Mutex::default(),
            chance,
            next_connection: AtomicU64::new(first_connection),
            next_session: AtomicI64::new(first_session(settings.server.0, wall_ms)),
            settings,
        }
    }

    pub(super) fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            settings: &self.settings,
            watches: &self.watches,
            read_only: &self.read_only,
            statistics: &self.statistics,
            values_may_leave: self.memory.values_may_leave(),
            now_us: self.clock.now_us(),
        }
    }

    /// Commands of a connection, in its order. While the log is busy they stay in line: its thread runs the driver when it is
    /// done, and they all become one batch.
    pub(super) fn submit(&self, commands: Vec<Command>) {
        let was_busy = planted!(AskedBeforeTheLine) && self.log_is_busy.load(Ordering::SeqCst);
        interleave!();
        self.driver.leave(DriverInput::Commands(commands));
        interleave!();
        // Asked after they stand in line: who finds the log done looks at the line again.
        if !self.log_is_busy.load(Ordering::SeqCst) && !was_busy {
            interleave!();
            self.lend_a_hand(match self.signs.is_quiet() {
                true => Helper::Alone,
                false => Helper::Free,
            });
        }
    }

    pub(super) fn set_log_busy(&self, is_busy: bool) {
        self.log_is_busy.store(is_busy, Ordering::SeqCst);
    }

    /// Runs what waits for the driver on this thread: see [`Crew::lend_a_hand`].
    pub(super) fn lend_a_hand(&self, helper: Helper) {
        match self.crew.get() {
            Some(crew) => crew.lend_a_hand(helper),
            None => self.driver.wake(),
        }
    }

    /// Called every tick: while a client's task waits for the disk, another of the runtime's threads looks after the sockets.
    pub(super) fn relieve(&self) {
        let is_held = |crew: &Arc<Crew>| crew.tasks_at_the_disk.load(Ordering::Relaxed) > 0;
        if self.crew.get().is_some_and(is_held) {
            self.fan_out.call();
        }
    }

    /// Wakes the applier's own thread, for what others may not do.
    pub(super) fn call_applier(&self) {
        if let Some(crew) = self.crew.get() {
            crew.call_applier();
        }
    }

    /// Lets a connection in, or says why not.
    pub(super) fn admit(self: &Arc<Shared>, peer: SocketAddr) -> Result<Arc<Connection>, TurnedAway> {
        let total = self.connection_count();
        if self.settings.max_connections > 0 && total >= self.settings.max_connections {
            return Err(TurnedAway::Total(total));
        }
        if total >= self.settings.descriptor_connections {
            return Err(TurnedAway::Descriptors(total));
        }
        let mut addresses = self.addresses.lock();
        // An IPv4 client on an IPv6 socket is the same client.
        let ip = peer.ip().to_canonical();
        let address = addresses.entry(ip).or_insert_with(|| Address::new(ip));
        let limit = self.settings.max_connections_per_address;
        if limit > 0 && address.connections >= limit {
            return Err(TurnedAway::Address(address.connections));
        }
        address.connections += 1;
        // A list of its own: every request counts itself in and out there, on whatever core.
        let identities = address.identities.iter().cloned().collect();
        drop(addresses);
        let id = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let connection = Arc::new(Connection::new(self.clone(), id, peer, identities));
        self.connections.insert(id, connection.clone());
        Ok(connection)
    }

    pub(super) fn connection(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        self.connections.get(&id).map(|connection| connection.clone())
    }

    /// Removes what stands of a connection that has ended.
    pub(super) fn connection_ended(&self, connection: &Connection, session: SessionId) {
        self.connections.remove(&connection.id);
        self.watches.remove_watcher(crate::watch::WatcherId(connection.id.0));
        let address = connection.peer.ip().to_canonical();
        let mut addresses = self.addresses.lock();
        if let Some(entry) = addresses.get_mut(&address) {
            entry.connections -= 1;
            if entry.connections == 0 {
                addresses.remove(&address);
            }
        }
        drop(addresses);
        let mut bound = self.bound.lock();
        if bound.get(&session) == Some(&connection.id) {
            bound.remove(&session);
        }
    }

    /// Binds a session to a connection; gives the connection that it was bound to.
    pub(super) fn bind(&self, session: SessionId, connection: ConnectionId) -> Option<Arc<Connection>> {
        let previous = self.bound.lock().insert(session, connection)?;
        if previous == connection {
            None
        } else {
            self.connection(previous)
        }
    }

    /// The session is gone, or lives on another server; gives the connection that it was bound to.
    pub(super) fn unbind(&self, session: SessionId) -> Option<Arc<Connection>> {
        let previous = self.bound.lock().remove(&session)?;
        self.connection(previous)
    }

    /// The last command that was applied.
    pub fn applied_zxid(&self) -> Zxid {
        Zxid(self.applied_zxid.load(Ordering::Acquire))
    }

    pub(super) fn set_applied_zxid(&self, zxid: Zxid) {
        self.applied_zxid.store(zxid.0, Ordering::Release);
    }

    /// What this server knows of its ensemble.
    pub fn ensemble(&self) -> Arc<EnsembleView> {
        self.ensemble.get().0
    }

    /// How long this server has had its role, ms.
    pub fn role_age_ms(&self) -> u64 {
        self.clock.now_us().saturating_sub(self.ensemble.get().1) / 1000
    }

    /// The driver knows more, or something else, of the ensemble.
    pub fn set_ensemble(&self, view: EnsembleView) {
        self.ensemble.set(view, self.clock.now_us());
    }

    /// Whether all clients are served.
    pub fn is_serving(&self) -> bool {
        self.service() == Service::Everybody
    }

    /// Whom this server serves.
    pub fn service(&self) -> Service {
        *self.service.lock()
    }

    /// All that was acknowledged before a leader was last found is applied: clients may be served, unless the server stops.
    pub(super) fn set_serving(&self) {
        if self.service() == Service::ReadOnly {
            // They come back, and get sessions of the ensemble.
            self.set_out_of_service();
        }
        self.set_service(Service::Everybody);
    }

    fn set_service(&self, wanted: Service) {
        let mut service = self.service.lock();
        let ends = self.is_stopping() || self.is_draining();
        *service = if ends { Service::Nobody } else { wanted };
    }

    /// Clients that have asked for that are served reads, until there is a leader; all others are sent away.
    pub(super) fn set_read_only(&self) {
        self.set_out_of_service();
        let mut view = EnsembleView::clone(&self.ensemble());
        view.role = EnsembleRole::ReadOnly;
        self.set_ensemble(view);
        self.set_service(Service::ReadOnly);
    }

    /// A tick has passed, in which these sessions gave a sign of life: read-only ones whose time has run out end.
    pub(super) fn age_read_only(&self, touched: &[SessionId]) {
        let expired = self.read_only.lock().tick(touched);
        for session in expired {
            tracing::info!(%session, "read-only session expired");
            if let Some(connection) = self.unbind(session) {
                connection.close(Closing::SessionGone);
            }
        }
    }

    /// Clients are sent away until there is a leader again.
    pub(super) fn set_out_of_service(&self) {
        self.set_service(Service::Nobody);
        self.for_each_connection(|connection| connection.close(Closing::NotServing));
        self.read_only.lock().clear();
    }

    /// What this server is in its ensemble, and who leads.
    pub fn standing(&self) -> Standing {
        *self.standing.lock()
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        *self.standing.lock() = standing;
    }

    /// Every connection is closed as soon as it has nothing in work: so hardly any client is left without an answer to what
    /// it has asked. New ones are sent elsewhere.
    pub(super) fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
        self.set_service(Service::Nobody);
        self.for_each_connection(Connection::wake_up);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Waits until the server ends.
    pub(super) async fn stopped(&self) {
        self.stopping.cancelled().await;
    }

    /// The server ends: nothing is served from here on.
    pub(super) fn set_stopping(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.stopping.cancel();
        self.set_service(Service::Nobody);
    }

    /// Random bytes.
    pub(super) fn sixteen_random_bytes(&self) -> [u8; 16] {
        self.chance.sixteen_bytes()
    }

    /// The number that the next connection will have.
    pub(super) fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.next_connection.load(Ordering::Relaxed))
    }

    /// An id and a password for a session that may be opened.
    pub(super) fn new_session(&self) -> NewSession {
        NewSession {
            id: SessionId(self.next_session.fetch_add(1, Ordering::Relaxed)),
            password: self.chance.sixteen_bytes(),
        }
    }

    /// All connections, in no order.
    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        self.connections.iter().map(|entry| entry.value().clone()).collect()
    }

    /// Calls `visit` with every connection, in no order.
    pub fn for_each_connection(&self, mut visit: impl FnMut(&Connection)) {
        // The map's guards must not be held while a connection's lock is taken.
        self.connections().iter().for_each(|connection| visit(connection));
    }

    /// What operators are shown of all connections, oldest first.
    pub fn connection_views(&self) -> Vec<ConnectionView> {
        let mut connections = self.connections();
        connections.sort_unstable_by_key(|connection| connection.id);
        connections.iter().map(|connection| connection.view()).collect()
    }

    /// The session that a connection has, for the watch listings.
    pub fn session_of(&self, connection: ConnectionId) -> Option<SessionId> {
        self.connection(connection).map(|connection| connection.view().session)
    }

    /// How long each session may stay silent from now on, ms, in no order; empty if that cannot be told in time. Waits for
    /// the driver: for operators, not for the request path.
    pub fn session_deadlines(&self) -> Vec<(SessionId, u64)> {
        let (answer, answered) = std::sync::mpsc::channel();
        self.driver.push(DriverInput::Deadlines(answer));
        answered.recv_timeout(DRIVER_PATIENCE).unwrap_or_default()
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Tells the log why a peer was turned away that does not keep to the protocol: once per address and interval.
    pub(super) fn complain(&self, peer: SocketAddr, closing: &dyn std::fmt::Display) {
        let now_us = self.clock.now_us();
        let mut complaints = self.complaints.lock();
        if complaints.len() >= COMPLAINTS_REMEMBERED {
            complaints.clear();
        }
        let last = complaints.get(&peer.ip()).copied();
        if last.is_none_or(|last| now_us - last > COMPLAINT_INTERVAL_US) {
            complaints.insert(peer.ip(), now_us);
            tracing::warn!(%peer, "connection closed: {closing}. Further ones of this address are not logged for a while.");
        }
    }
}

/// Connections are numbered anew at every start, and never again with a number of an earlier one: commands of connections
/// long gone may still stand in the log. A wiped directory may give the same number of a start again, within the same
/// second; then chance keeps them apart.
fn first_connection(boot: u64, [a, b, c, ..]: [u8; 16]) -> u64 {
    (boot << BOOT_SHIFT) | u64::from_be_bytes([0, 0, 0, 0, 0, a, b, c]) << 6 | 1
}

/// ZooKeeper's session ids: the server in the top byte, then 40 bits of milliseconds, then a counter.
fn first_session(server: u64, wall_ms: i64) -> i64 {
    ((wall_ms << 24).cast_unsigned() >> 8).cast_signed() | (server << 56).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ids_are_zookeepers() {
        let id = first_session(1, 1_700_000_000_000);
        assert_eq!(id.cast_unsigned() >> 56, 1);
        assert_eq!(id & 0xffff, 0);
        assert!(first_session(255, 1_700_000_000_000) < 0);
    }
}
