//! This server among the others: whom it talks to, what their messages become, how snapshots travel, and how a new
//! ensemble is founded.
//!
//! ```text
//!   links ── messages ──▶ Ensemble ── DriverInput::Peer ──▶ driver ── Peers::send ──▶ links
//!   links ── snapshot ──▶ transfer ── SnapshotArrived ────▶ driver ── send_snapshot ─▶ transfer
//! ```
//!
//! A server whose directory is of no ensemble yet waits. The one with the lowest number among the configured participants
//! founds the ensemble once it is linked with all the others and all are as new as itself: so an ensemble whose majority
//! has lost its disks never takes an empty tree for the truth. All others join by the first server that they meet which
//! belongs to one, and are given a snapshot by its leader.
//!
//! Invariant: a directory belongs to one ensemble for ever; servers of different ones do not talk.
//!
//! Left out on purpose: whose promises count (`replica`), sockets (`net`), what a snapshot is made of (`transfer`).

use super::ApplierInput;
use super::crew::Helper;
use super::driver::Peers;
use super::inbox::Inbox;
use super::shared::{DriverInput, Shared};
use super::snapshot::{Arrived, NewTree, SnapshotArrived, SnapshotView};
use super::transfer::{self, Intake, Pace};
use crate::membership::{Members, Server};
use crate::net::peers::{Hello, LinkOptions, Links, PeerAddress, Reception, Refusal, RefusalCode, SnapshotStream};
use crate::replica::{Peer, PeerMessage, Registry, TICK_MS};
use crate::state_machine::ServerId;
use crate::storage::directory::{DataDirectory, DirectoryError, Identity};
use crate::storage::generations::Generations;
use bytes::Bytes;
use parking_lot::Mutex;
use raft::prelude::ConfState;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How this server takes part in an ensemble.
pub struct EnsembleOptions {
    /// The members that the configuration names.
    pub members: Members,
    /// Where the others reach this one.
    pub listeners: Vec<TcpListener>,
    /// Times and limits of the links.
    pub links: LinkOptions,
    /// A follower that hears nothing of its leader for so long stands for election, and a leader that hears of no quorum
    /// steps down, ms.
    pub election_timeout_ms: u64,
}

impl EnsembleOptions {
    pub(super) fn election_ticks(&self) -> usize {
        usize::try_from(self.election_timeout_ms.div_ceil(TICK_MS)).unwrap_or(usize::MAX)
    }

    pub(super) fn participants(&self) -> Vec<u64> {
        let participants = self.members.participants();
        participants.map(|(id, _)| ServerId::from(id).0).collect()
    }

    /// The place of a server among the members.
    pub(super) fn slot(&self, server: ServerId) -> usize {
        let mut members = self.members.servers.keys().map(|id| ServerId::from(*id));
        members.position(|member| member == server).unwrap_or(0)
    }
}

/// What the ensemble works with.
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    pub(super) directory: Arc<Mutex<DataDirectory>>,
    pub(super) boot: u64,
    /// Whether this server holds no data at all.
    pub(super) is_fresh: bool,
    pub(super) generations: Arc<Generations>,
    pub(super) intake: Intake,
    pub(super) applier: Arc<Inbox<ApplierInput>>,
}

/// This server's place in its ensemble.
pub(super) struct Ensemble {
    me: Weak<Ensemble>,
    place: Place,
    /// Who may vote at the founding.
    participants: Vec<ServerId>,
    links: OnceLock<Weak<Links>>,
    /// For what takes longer than the others' messages should wait.
    runtime: Handle,
    gathering: Mutex<Gathering>,
}

/// What is known of the others before there is an ensemble.
#[derive(Default)]
struct Gathering {
    /// Linked servers that belong to no ensemble, and the lives of their directories.
    new: BTreeMap<ServerId, u64>,
    /// Whether this server has begun to found.
    founds: bool,
}

impl Ensemble {
    /// Opens the links, which run on `links_runtime`. Within another tokio runtime, on which snapshots are sent and received.
    pub(super) fn start(
        place: Place,
        options: EnsembleOptions,
        links_runtime: &Handle,
    ) -> Result<(Arc<Ensemble>, Arc<Links>), DirectoryError> {
        let participants = options
            .members
            .participants()
            .map(|(id, _)| ServerId::from(id))
            .collect();
        let ensemble = Arc::new_cyclic(|me| Ensemble {
            me: me.clone(),
            place,
            participants,
            links: OnceLock::new(),
            runtime: Handle::current(),
            gathering: Mutex::default(),
        });
        if !ensemble.place.is_fresh && ensemble.identity().cluster_id == 0 {
            // It was stopped in the middle of its founding.
            ensemble.join(rand::random::<u64>() | 1)?;
        }
        let entered = links_runtime.enter();
        let links = Arc::new(Links::start(ensemble.clone(), options.listeners, options.links));
        drop(entered);
        // Nobody else sets it.
        let _ = ensemble.links.set(Arc::downgrade(&links));
        links.set_peers(&addresses(&options.members));
        ensemble.consider_founding();
        Ok((ensemble, links))
    }

    fn identity(&self) -> Identity {
        self.place.directory.lock().identity()
    }

    fn links(&self) -> Option<Arc<Links>> {
        self.links.get().and_then(Weak::upgrade)
    }

    fn join(&self, cluster_id: u64) -> Result<(), DirectoryError> {
        self.place.directory.lock().join(cluster_id)?;
        tracing::info!("this server belongs to the ensemble {cluster_id:016x} from now on");
        Ok(())
    }

    /// Joins the ensemble that a peer belongs to, if this server belongs to none.
    fn consider_joining(&self, cluster_id: u64) {
        if cluster_id == 0 || self.identity().cluster_id != 0 || self.gathering.lock().founds {
            return;
        }
        if let Err(error) = self.join(cluster_id) {
            tracing::error!("cannot join the ensemble {cluster_id:016x}: {error}");
        }
    }

    /// Founds the ensemble if that is this server's to do, and everybody is there.
    fn consider_founding(&self) {
        let own = self.place.shared.settings.server;
        if !self.place.is_fresh || self.participants.iter().min() != Some(&own) || self.identity().cluster_id != 0 {
            return;
        }
        let mut gathering = self.gathering.lock();
        let missing = |server: &&ServerId| **server != own && !gathering.new.contains_key(server);
        let missing: Vec<u64> = self
            .participants
            .iter()
            .filter(missing)
            .map(|server| server.0)
            .collect();
        if !missing.is_empty() {
            tracing::info!(
                ?missing,
                "a new ensemble is founded when all its participants have met for the first time"
            );
            return;
        }
        if gathering.founds {
            return;
        }
        gathering.founds = true;
        let incarnation_of = |server: &ServerId| gathering.new.get(server).copied();
        let others = self
            .participants
            .iter()
            .filter_map(|server| Some((*server, incarnation_of(server)?)));
        let registry = Registry::new(others.chain([(own, self.identity().incarnation)]));
        let conf_state = ConfState {
            voters: self.participants.iter().map(|server| server.0).collect(),
            ..ConfState::default()
        };
        self.tell(DriverInput::Found { conf_state, registry });
    }

    fn tell(&self, input: DriverInput) {
        self.place.shared.driver.push(input);
    }

    fn send(&self, to: ServerId, message: &PeerMessage) {
        if let Some(links) = self.links() {
            // What is dropped is said again where it matters; the links count it.
            let _ = links.send(to.0, message.to_bytes());
        }
    }

    /// Takes a snapshot that a peer sends, and sees it installed.
    async fn take_snapshot(&self, peer: Peer, mut stream: SnapshotStream) {
        let shared = self.place.shared.clone();
        let room = move || shared.memory.room_bytes();
        let received = self.place.intake.receive(&mut stream, |_| Ok(()), room).await;
        let received = match received {
            Ok(received) => received,
            Err(error) => return tracing::warn!(server = peer.server.0, "a snapshot was not taken: {error}"),
        };
        let message = match PeerMessage::decode(&received.offer.message) {
            Ok(message) => message,
            Err(error) => {
                return tracing::warn!(server = peer.server.0, "a snapshot's message cannot be read: {error}");
            }
        };
        let (answer, answered) = oneshot::channel();
        let arrived = Arrived {
            state: received.state,
            tree: NewTree::Arrived(Box::new(received.tree)),
            answer: Some(answer),
        };
        self.tell(DriverInput::SnapshotArrived(Box::new(SnapshotArrived {
            from: peer,
            message,
            arrived,
        })));
        let told = match answered.await {
            Ok(true) => transfer::confirm(&mut stream, Pace::default()).await,
            Ok(false) | Err(_) => transfer::refuse(&mut stream, "it is not needed any more").await,
        };
        if let Err(error) = told {
            tracing::debug!(
                server = peer.server.0,
                "the sender of a snapshot could not be answered: {error}"
            );
        }
    }
}

/// Where the members are reached.
fn addresses(members: &Members) -> BTreeMap<u64, Vec<PeerAddress>> {
    let of_server = |server: &Server| {
        let addresses = server.addresses.iter();
        addresses
            .map(|address| PeerAddress {
                // The links take an IPv6 address without brackets.
                host: address.host.to_string().trim_matches(['[', ']']).to_owned(),
                port: address.quorum_port,
            })
            .collect()
    };
    let servers = members.servers.iter();
    servers
        .map(|(id, server)| (ServerId::from(*id).0, of_server(server)))
        .collect()
}

fn peer(hello: &Hello) -> Peer {
    Peer {
        server: ServerId(hello.server),
        incarnation: hello.incarnation,
    }
}

impl Reception for Ensemble {
    fn hello(&self) -> Hello {
        let identity = self.identity();
        Hello {
            cluster_id: identity.cluster_id,
            server: identity.server_id,
            incarnation: identity.incarnation,
            boot: self.place.boot,
        }
    }

    fn admit(&self, peer: &Hello) -> Result<(), Refusal> {
        let own = self.identity().cluster_id;
        if own != 0 && peer.cluster_id != 0 && own != peer.cluster_id {
            return Err(Refusal::new(
                RefusalCode::Cluster,
                format!(
                    "server {} belongs to the ensemble {:016x} and server {} to {own:016x}: they have different data. If one \
                     of them was set up by mistake, stop it, move its dataDir and dataLogDir aside, and start it empty",
                    peer.server, peer.cluster_id, self.place.shared.settings.server.0
                ),
            ));
        }
        Ok(())
    }

    fn linked(&self, hello: &Hello) {
        let server = ServerId(hello.server);
        self.consider_joining(hello.cluster_id);
        let own = self.identity().cluster_id;
        if hello.cluster_id == 0 {
            self.gathering.lock().new.insert(server, hello.incarnation);
            if own == 0 {
                self.consider_founding();
            } else {
                self.send(server, &PeerMessage::Founded { cluster_id: own });
            }
        } else {
            self.gathering.lock().new.remove(&server);
        }
        self.tell(DriverInput::Linked(peer(hello)));
    }

    fn unlinked(&self, server: u64) {
        self.gathering.lock().new.remove(&ServerId(server));
        self.tell(DriverInput::Unlinked(ServerId(server)));
    }

    fn gone(&self, server: u64) {
        self.tell(DriverInput::Gone(ServerId(server)));
    }

    fn messages(&self, hello: &Hello, bodies: Vec<Bytes>) {
        let mut messages = Vec::with_capacity(bodies.len());
        for body in bodies {
            match PeerMessage::decode(&body) {
                Ok(PeerMessage::Founded { cluster_id }) => self.consider_joining(cluster_id),
                Ok(message) => messages.push(message),
                Err(error) => tracing::error!(
                    server = hello.server,
                    "a message cannot be read ({error}) and is ignored: do all servers run versions that belong together?"
                ),
            }
        }
        let shared = &self.place.shared;
        shared.driver.put(DriverInput::Peer {
            from: peer(hello),
            messages,
        });
        shared.lend_a_hand(Helper::Free);
    }

    fn snapshot(&self, hello: Hello, stream: SnapshotStream) {
        if let Some(ensemble) = self.me.upgrade() {
            let runtime = ensemble.runtime.clone();
            runtime.spawn(async move { ensemble.take_snapshot(peer(&hello), stream).await });
        }
    }
}

/// A lone server has none. Its directory is given a name all the same.
pub(super) struct NoPeers(pub(super) Arc<Mutex<DataDirectory>>);

impl Peers for NoPeers {
    fn send(&mut self, _to: ServerId, _message: &PeerMessage) {}

    fn send_snapshot(&mut self, _to: ServerId, _view: SnapshotView, _message: &PeerMessage) {}

    fn make_snapshot(&mut self) {}

    fn founded(&mut self) -> Result<(), DirectoryError> {
        self.0.lock().join(rand::random::<u64>() | 1)
    }

    fn set_members(&mut self, _members: &Members) {}
}

/// The driver's way to the others.
pub(super) struct LinkedPeers {
    pub(super) ensemble: Arc<Ensemble>,
}

impl Peers for LinkedPeers {
    fn send(&mut self, to: ServerId, message: &PeerMessage) {
        if let Some(links) = self.ensemble.links() {
            // What is dropped is said again where it matters; the links count it.
            let _ = links.put(to.0, message.to_bytes());
        }
    }

    fn send_snapshot(&mut self, to: ServerId, view: SnapshotView, message: &PeerMessage) {
        let (ensemble, message) = (self.ensemble.clone(), message.to_bytes());
        self.ensemble.runtime.clone().spawn(async move {
            let succeeded = match send_snapshot(&ensemble, to, view, message).await {
                Ok(sent) => {
                    tracing::info!(
                        server = to.0,
                        records = sent.records,
                        bytes = sent.bytes,
                        took_ms = sent.took.as_millis(),
                        "a snapshot was sent and taken"
                    );
                    true
                }
                Err(reason) => {
                    tracing::warn!(
                        server = to.0,
                        "a snapshot was not sent: {reason}. Another one is sent when it is needed."
                    );
                    false
                }
            };
            ensemble.tell(DriverInput::SnapshotSent { to, succeeded });
        });
    }

    fn make_snapshot(&mut self) {
        let ensemble = self.ensemble.clone();
        let made = Box::new(move |view: Option<SnapshotView>| ensemble.tell(DriverInput::SnapshotMade(view)));
        self.ensemble.place.applier.push(ApplierInput::View(made));
    }

    fn founded(&mut self) -> Result<(), DirectoryError> {
        let cluster_id = rand::random::<u64>() | 1;
        self.ensemble.join(cluster_id)?;
        let others: Vec<_> = self.ensemble.gathering.lock().new.keys().copied().collect();
        for server in others {
            self.ensemble.send(server, &PeerMessage::Founded { cluster_id });
        }
        Ok(())
    }

    fn set_members(&mut self, members: &Members) {
        if let Some(links) = self.ensemble.links() {
            links.set_peers(&addresses(members));
        }
    }
}

async fn send_snapshot(
    ensemble: &Ensemble,
    to: ServerId,
    view: SnapshotView,
    message: Bytes,
) -> Result<transfer::Sent, String> {
    let links = ensemble.links().ok_or("this server is stopping")?;
    let mut dialled = links.connect_snapshot(to.0).await.map_err(|error| error.to_string())?;
    #[allow(clippy::infallible_destructuring_match)] // Tests have another kind.
    let view = match view {
        SnapshotView::Tree(view) => view,
        #[cfg(test)]
        SnapshotView::Simulated(..) => return Err("it is a simulated one".to_owned()),
    };
    let spool = ensemble.place.generations.spool();
    let sent = transfer::send(&mut dialled.stream, view, message, spool, Pace::default()).await;
    sent.map_err(|error| error.to_string())
}
