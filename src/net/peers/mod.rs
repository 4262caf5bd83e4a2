//! Links between the servers of an ensemble, on the quorum port. Bytes, not meaning: servers are numbers here, messages are
//! `Bytes`.
//!
//! ```text
//!   server A                                                   server B
//!   send ─▶ outbox ─▶ dialler ═══ hellos, then frames ═══▶ acceptor ─▶ Reception::messages
//!             └─ a little: by whoever says it, at once ═▶
//!           outbox ─▶    …    ◀══ a connection of B's own ═   …
//!   connect_snapshot          ═══ hellos, then a stream ═▶ acceptor ─▶ Reception::snapshot
//! ```
//!
//! Invariants:
//! - One connection carries one server's messages to one other, in order; what was lost is lost at its end, never in its
//!   middle. Nothing is sent twice.
//! - A connection carries nothing before both sides have seen and accepted the other's hello. A newer connection of a server
//!   replaces the one before: nothing of the old one is delivered once the new one has begun to deliver. One of an older
//!   boot is refused.
//! - What was said while a link was down is not kept: whoever sends is told, and has better things to say when it is up.
//! - The dialler sends an empty frame when it has nothing to say, so that either side notices within seconds that the other
//!   is gone: the dialler because nobody acknowledges, the acceptor because nothing comes.
//! - With TLS both sides show certificates, before the hellos; whose host they name can be checked against the addresses of
//!   the server that was called, or that the caller says he is.
//! - Host names are resolved anew at every attempt: a container that comes back has another address.
//!
//! Limits: see [`LinkOptions`], [`BODY_BYTES`] and `acceptor`.
//!
//! Left out on purpose: who is a member, and which incarnation may vote (`server` decides it in [`Reception::admit`]);
//! repairing what was lost (raft does); the election port, which Raft does not need.

mod acceptor;
mod complaints;
mod dialler;
mod frame;
mod hello;
mod outbox;
mod packing;
mod recorded;
#[cfg(test)]
mod simulated;
mod stream;

pub use dialler::{DialError, Dialled};
pub use frame::BODY_BYTES;
pub use hello::{Hello, HelloError, PROTOCOL_VERSION, Refusal, RefusalCode};
#[cfg(test)]
pub(crate) use simulated::SimulatedLink;
pub use stream::PeerStream;

use super::tls::{TlsAcceptor, TlsConnector};
use bytes::Bytes;
use complaints::Complaints;
use hello::Purpose;
use outbox::{Outbox, Sent};
use parking_lot::{Mutex, RwLock};
use recorded::Recorded;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

/// A stream for one snapshot, after its hellos.
pub type SnapshotStream = PeerStream;

/// The room that the links serve. Nothing here may block: these are calls from the links' tasks.
pub trait Reception: Send + Sync + 'static {
    /// This server's hello, as of now: the ensemble may be learnt later. Its server number never changes.
    fn hello(&self) -> Hello;

    /// Whether to talk to `peer`; asked by the side that dials and by the side that accepts.
    ///
    /// # Errors
    /// The reason, for both sides' logs.
    fn admit(&self, peer: &Hello) -> Result<(), Refusal>;

    /// Messages can be sent to `peer` from now on.
    fn linked(&self, peer: &Hello);

    /// What was sent to `server` of late may be lost, and nothing can be sent before the next [`Reception::linked`].
    fn unlinked(&self, server: u64);

    /// The host of `server` answers that nobody listens there: its process has ended.
    fn gone(&self, server: u64);

    /// Messages of `peer` have come: all that one read has brought, in order. They share one buffer's memory of 64 KiB or
    /// more, which is free when the last of them is dropped.
    fn messages(&self, peer: &Hello, bodies: Vec<Bytes>);

    /// `peer` sends a snapshot on `stream`.
    fn snapshot(&self, peer: Hello, stream: SnapshotStream);
}

/// Where a server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    /// A name or an IP address, the latter without brackets.
    pub host: String,
    /// Its quorum port.
    pub port: u16,
}

impl PeerAddress {
    /// An IPv6 address may stand in brackets, as it does in zoo.cfg.
    pub fn new(host: &str, port: u16) -> PeerAddress {
        let unbracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = unbracketed.unwrap_or(host).to_owned();
        PeerAddress { host, port }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Times and limits of all links.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// TLS, or none.
    pub encryption: LinkEncryption,
    /// Whether the kernel probes silent connections (`tcpKeepAlive`). Not needed to notice dead peers; it keeps the entries
    /// of firewalls alive that do not count our signs of life.
    pub keep_alive: bool,
    /// One address is tried for so long.
    pub connect_limit: Duration,
    /// The hellos, and the handshake of TLS before them, may take so long.
    pub hello_limit: Duration,
    /// What was sent and is not acknowledged by then breaks a message link. Linux only.
    pub dead_after: Duration,
    /// The same of a snapshot's stream, whose receiver may wait for its disk.
    pub snapshot_dead_after: Duration,
    /// A silent dialler gives a sign of life so often.
    pub sign_of_life_interval: Duration,
    /// An acceptor to whom nothing came for so long closes the link.
    pub silence_limit: Duration,
    /// The pause after the first attempt that failed; it doubles, up to [`LinkOptions::max_pause`].
    pub first_pause: Duration,
    /// The longest pause between two attempts.
    pub max_pause: Duration,
    /// Messages that wait for one server at most; further ones are dropped, counted and told to the sender.
    pub waiting_messages: usize,
    /// Bytes that wait for one server at most; a message beyond them is dropped likewise.
    pub waiting_bytes: usize,
}

impl Default for LinkOptions {
    fn default() -> LinkOptions {
        LinkOptions {
            encryption: LinkEncryption::default(),
            keep_alive: false,
            connect_limit: Duration::from_secs(5),
            hello_limit: Duration::from_secs(10),
            dead_after: Duration::from_secs(5),
            snapshot_dead_after: Duration::from_secs(60),
            sign_of_life_interval: Duration::from_secs(1),
            silence_limit: Duration::from_secs(15),
            first_pause: Duration::from_millis(20),
            max_pause: Duration::from_secs(1),
            waiting_messages: 64 << 10,
            waiting_bytes: BODY_BYTES,
        }
    }
}

/// How links are encrypted. The default: not at all.
#[derive(Clone, Default)]
pub struct LinkEncryption {
    /// Speaks TLS with those whom we call. `None`: we call in plain.
    pub connector: Option<Arc<TlsConnector>>,
    /// Speaks TLS with those who call us. `None`: they may not speak it.
    pub acceptor: Option<Arc<TlsAcceptor>>,
    /// Where there is an acceptor: plain callers are welcome all the same, as they are while an ensemble changes to TLS.
    pub plain_callers: bool,
    /// A caller's certificate must name one of the hosts at which the server that he says he is has its addresses.
    pub check_callers: bool,
}

impl fmt::Debug for LinkEncryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkEncryption")
            .field("connector", &self.connector.is_some())
            .field("acceptor", &self.acceptor.is_some())
            .field("plain_callers", &self.plain_callers)
            .field("check_callers", &self.check_callers)
            .finish()
    }
}

/// A message was not taken. raft repairs it; forwarded commands are forwarded again by their own rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// No such peer was ever set.
    #[error("no address is known of that server")]
    Unknown,
    /// There is no link at the moment.
    #[error("the link is down")]
    Down,
    /// The peer takes messages slower than they are made.
    #[error("too much waits for that server already")]
    Full,
    /// The message has so many bytes, more than [`BODY_BYTES`].
    #[error("a message of {0} bytes is longer than any link takes")]
    TooLong(usize),
}

/// One link to another server, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// To whom.
    pub server: u64,
    /// Whether messages can be sent.
    pub is_up: bool,
    /// Messages in its queue.
    pub waiting_messages: usize,
    /// Their bytes.
    pub waiting_bytes: usize,
    /// Messages handed to the kernel since the start.
    pub sent_messages: u64,
    /// Messages dropped since the start, whatever the reason.
    pub dropped_messages: u64,
}

/// What all tasks of the links share.
struct Context {
    reception: Arc<dyn Reception>,
    options: LinkOptions,
    complaints: Complaints,
    recorded: Recorded,
    /// All that were ever set.
    peers: RwLock<HashMap<u64, Arc<Peer>>>,
    /// Whether something was put in that nobody has begun to send.
    has_put: AtomicBool,
    stop: watch::Sender<bool>,
    /// Every task holds a clone until its end; `None` when no more may be started.
    alive: Mutex<Option<mpsc::Sender<Infallible>>>,
    runtime: Handle,
}

impl Context {
    /// Starts a task, unless the links are being shut down.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(alive) = self.alive.lock().clone() {
            self.runtime.spawn(async move {
                task.await;
                drop(alive);
            });
        }
    }

    /// Where a server is, if it is a peer.
    fn addresses(&self, server: u64) -> Option<Vec<PeerAddress>> {
        let peers = self.peers.read();
        peers.get(&server)?.addresses.borrow().clone()
    }

    /// A server has linked itself to us.
    fn called_by(&self, server: u64) {
        if let Some(peer) = self.peers.read().get(&server) {
            peer.has_called.notify_one();
        }
    }

    /// Ready when the links are to end.
    async fn stopping(&self) {
        // The sender lives as long as this does.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }
}

/// Another server, as long as this one runs: one that was removed may come back.
struct Peer {
    server: u64,
    /// `None`: it is no peer at the moment.
    addresses: watch::Sender<Option<Vec<PeerAddress>>>,
    /// It has linked itself to us: so it is there.
    has_called: Notify,
    outbox: Outbox,
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// The links of this server. They end when this is dropped.
pub struct Links {
    context: Arc<Context>,
    /// Ends when the last task has ended.
    ended: tokio::sync::Mutex<mpsc::Receiver<Infallible>>,
}

impl Links {
    /// Accepts the links of other servers on `listeners`; calls nobody before [`Links::set_peers`]. Must be called inside of
    /// a tokio runtime, in which the links live from then on.
    pub fn start(reception: Arc<dyn Reception>, listeners: Vec<TcpListener>, options: LinkOptions) -> Links {
        let (alive, ended) = mpsc::channel(1);
        let context = Arc::new(Context {
            reception,
            options,
            complaints: Complaints::default(),
            recorded: Recorded::new(),
            peers: RwLock::default(),
            has_put: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            alive: Mutex::new(Some(alive)),
            runtime: Handle::current(),
        });
        acceptor::start(&context, listeners);
        Links {
            context,
            ended: tokio::sync::Mutex::new(ended),
        }
    }

    /// Whom to be linked with from now on, and where they are: adds, removes and moves. This server itself is left out where
    /// it is named. A server whose addresses have changed is dialled anew. From any thread.
    pub fn set_peers(&self, wanted: &BTreeMap<u64, Vec<PeerAddress>>) {
        let ours = self.context.reception.hello().server;
        let mut peers = self.context.peers.write();
        for (server, addresses) in wanted.iter().filter(|(server, _)| **server != ours) {
            let peer = peers.entry(*server).or_insert_with(|| self.add(*server));
            move_to(peer, Some(addresses));
        }
        for peer in peers.values().filter(|peer| !wanted.contains_key(&peer.server)) {
            move_to(peer, None);
        }
    }

    fn add(&self, server: u64) -> Arc<Peer> {
        let options = &self.context.options;
        let peer = Arc::new(Peer {
            server,
            addresses: watch::Sender::new(None),
            has_called: Notify::new(),
            outbox: Outbox::new(options.waiting_messages, options.waiting_bytes),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let task = dialler::keep_linked(self.context.clone(), peer.clone());
        self.context.spawn(task);
        peer
    }

    /// Has `body` sent to `server`, behind everything that was given for it before. Never waits; from any thread.
    ///
    /// # Errors
    /// Why it was dropped; nothing of it is sent.
    pub fn send(&self, server: u64, body: Bytes) -> Result<(), Dropped> {
        self.put(server, body)?;
        self.flush();
        Ok(())
    }

    /// The same, but it is sent by the next [`Links::flush`]: what is put in the meantime goes with it.
    ///
    /// # Errors
    /// Why it was dropped; nothing of it is sent.
    pub fn put(&self, server: u64, body: Bytes) -> Result<(), Dropped> {
        let peers = self.context.peers.read();
        let Some(peer) = peers.get(&server) else {
            self.context.recorded.messages_dropped.increment(1);
            return Err(Dropped::Unknown);
        };
        let pushed = peer.outbox.push(body);
        match pushed {
            Ok(()) => self.context.has_put.store(true, SeqCst),
            Err(_) => self.context.count_dropped(peer, 1),
        }
        pushed
    }

    /// Sends what was put in, here and now as far as that is soon done; the links' tasks send the rest. Never waits; from any
    /// thread, but with no lock held: these are system calls.
    pub fn flush(&self) {
        // Asked after whatever this thread has put in.
        if !self.context.has_put.swap(false, SeqCst) {
            return;
        }
        let peers: Vec<Arc<Peer>> = self.context.peers.read().values().cloned().collect();
        for peer in peers {
            let sent = peer.outbox.flush();
            self.context.count_sent(&peer, sent);
        }
    }

    /// Opens a stream to `server` for one snapshot. It is the caller's: it breaks when dropped, and does not end with the
    /// links.
    ///
    /// # Errors
    /// Why not: the most telling reason of its addresses.
    pub async fn connect_snapshot(&self, server: u64) -> Result<Dialled, DialError> {
        let addresses = self.context.addresses(server).ok_or(DialError::NoAddress)?;
        tokio::select! {
            dialled = dialler::dial(&self.context, server, Purpose::Snapshot, &addresses) => dialled,
            () = self.context.stopping() => Err(DialError::Stopping),
        }
    }

    /// All links to the peers of now, by server.
    pub fn views(&self) -> Vec<LinkView> {
        let peers = self.context.peers.read();
        let current = peers.values().filter(|peer| peer.addresses.borrow().is_some());
        let mut views: Vec<LinkView> = current.map(|peer| peer.view()).collect();
        views.sort_unstable_by_key(|view| view.server);
        views
    }

    /// Ends all links: lets nobody in, sends what waits if that goes quickly, and closes. Returns when it is done.
    pub async fn shutdown(&self) {
        self.context.alive.lock().take();
        self.context.stop.send_replace(true);
        // Nothing is ever sent on it: this waits until the last task has dropped its sender.
        let _ = self.ended.lock().await.recv().await;
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.context.alive.lock().take();
        self.context.stop.send_replace(true);
    }
}

/// Notes where a peer is; `None`: nowhere any more.
fn move_to(peer: &Peer, addresses: Option<&Vec<PeerAddress>>) {
    peer.addresses.send_if_modified(|current| {
        let is_new = current.as_ref() != addresses;
        if is_new {
            *current = addresses.cloned();
        }
        is_new
    });
}

impl Peer {
    fn view(&self) -> LinkView {
        let level = self.outbox.level();
        LinkView {
            server: self.server,
            is_up: level.is_open,
            waiting_messages: level.messages,
            waiting_bytes: level.bytes,
            sent_messages: self.sent.load(Relaxed),
            dropped_messages: self.dropped.load(Relaxed),
        }
    }
}

impl Context {
    fn count_sent(&self, peer: &Peer, sent: Sent) {
        if sent != Sent::default() {
            peer.sent.fetch_add(sent.messages, Relaxed);
            self.recorded.messages_sent.increment(sent.messages);
            self.recorded.bytes_sent.increment(sent.bytes);
        }
    }

    fn count_dropped(&self, peer: &Peer, messages: u64) {
        peer.dropped.fetch_add(messages, Relaxed);
        self.recorded.messages_dropped.increment(messages);
    }
}

#[cfg(test)]
mod tests;
