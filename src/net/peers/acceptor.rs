//! The inbound side: who comes in, and what they bring.
//!
//! One message connection per server; hellos under way are limited in number, altogether and per address, and in time. The
//! receiver of snapshots limits these itself.

use super::Context;
use super::complaints::About;
use super::dialler::REFUSAL_INTERVAL;
use super::frame::{self, FrameError};
use super::hello::{self, Greeting, Hello, HelloError, PROTOCOL_VERSION, Purpose, Refusal, RefusalCode, Word};
use super::stream::{self, PeerStream};
use crate::net::tls::{self, HandshakeError};
use bytes::BytesMut;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// Hellos under way at most; who comes then is closed at once, and tries again.
const HELLOS: usize = 256;
/// Those of one address: nobody can take all places.
const HELLOS_PER_ADDRESS: usize = 64;
/// After an accept failed (out of files, say): how long to wait before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A read has room for so many bytes, at least.
const READ_BYTES: usize = 64 << 10;
/// And for so many at most: a length alone makes nobody allocate a whole frame.
const MAX_READ_BYTES: usize = 1 << 20;

/// What the connections of all listeners share.
struct Acceptor {
    context: Arc<Context>,
    /// Who was let in, by server.
    inbound: Mutex<HashMap<u64, Inbound>>,
    /// Hellos under way, by address.
    hellos: Mutex<HashMap<IpAddr, usize>>,
}

/// The newest message connection of a server. It stays when it has ended, so that an older boot is known as one.
struct Inbound {
    incarnation: u64,
    boot: u64,
    /// Counts the connections of the server.
    serial: u64,
    /// Dropped to end the connection.
    stop: Option<oneshot::Sender<()>>,
    /// Held by the connection that delivers.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A connection that may deliver when it is its turn.
struct Registered {
    serial: u64,
    superseded: oneshot::Receiver<()>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Why a message connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the other side has closed it")]
    Closed,
    #[error("nothing has come for {0:?}, not even a sign of life")]
    Silent(Duration),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Broken(#[from] io::Error),
    #[error("the same server has opened a newer one")]
    Superseded,
    #[error("this server is stopping")]
    Stopping,
}

/// Starts to let servers in.
pub(super) fn start(context: &Arc<Context>, listeners: Vec<TcpListener>) {
    let acceptor = Arc::new(Acceptor {
        context: context.clone(),
        inbound: Mutex::default(),
        hellos: Mutex::default(),
    });
    for listener in listeners {
        let acceptor = acceptor.clone();
        context.spawn(async move {
            tokio::select! {
                () = acceptor.accept(&listener) => {}
                () = acceptor.context.stopping() => {}
            }
        });
    }
}

impl Acceptor {
    async fn accept(self: &Arc<Acceptor>, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => self.begin(stream, address),
                Err(error) => {
                    tracing::warn!("cannot accept a connection of another server: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn begin(self: &Arc<Acceptor>, stream: TcpStream, address: SocketAddr) {
        // The same host may come as IPv4 or as IPv6 that wraps it.
        let ip = address.ip().to_canonical();
        let Some(place) = Place::take(self, ip) else {
            let complaints = &self.context.complaints;
            if complaints.is_due(About::Address(ip), "too many", REFUSAL_INTERVAL) {
                tracing::warn!(
                    "a connection from {address} to the quorum port is closed: too many have not said yet who they are"
                );
            }
            return;
        };
        let acceptor = self.clone();
        self.context.spawn(async move {
            let context = &acceptor.context;
            tokio::select! {
                () = acceptor.serve(stream, address, place) => {}
                () = context.stopping() => {}
            }
        });
    }

    async fn serve(&self, stream: TcpStream, address: SocketAddr, place: Place) {
        let context = &self.context;
        let met = hello::in_time(&context.options, self.meet(stream)).await;
        drop(place);
        match met {
            Ok((greeting, stream)) => match greeting.purpose {
                Purpose::Messages => self.receive(&greeting.hello, address, stream).await,
                Purpose::Snapshot => context.reception.snapshot(greeting.hello, stream),
            },
            Err(error) => self.complain(address, &error),
        }
    }

    fn complain(&self, address: SocketAddr, error: &HelloError) {
        let context = &self.context;
        if error.is_refusal() {
            context.recorded.hellos_refused.increment(1);
        }
        let about = About::Address(address.ip().to_canonical());
        if context.complaints.is_due(about, error.name(), REFUSAL_INTERVAL) {
            tracing::warn!("no link from {address}: {error}");
        }
    }

    /// The acceptor's part of the hellos.
    async fn meet(&self, stream: TcpStream) -> Result<(Greeting, PeerStream), HelloError> {
        let options = &self.context.options;
        stream::prepare(&stream, options)?;
        let mut stream = self.encrypt(stream).await?;
        let theirs = match hello::hear(&mut stream).await? {
            Word::Hello(greeting) => greeting,
            _ => return Err(HelloError::Damaged("it does not begin with a hello")),
        };
        let ours = self.context.reception.hello();
        let admitted = hello::examine_caller(&ours, &theirs)
            .and_then(|()| self.check_certificate(&stream, theirs.hello.server))
            .and_then(|()| self.check_boot(&theirs.hello))
            .and_then(|()| self.context.reception.admit(&theirs.hello));
        if let Err(refusal) = admitted {
            hello::say(&mut stream, &Word::Refusal(refusal.clone())).await?;
            return Err(HelloError::Refused(refusal));
        }
        let answer = Greeting {
            protocol_version: PROTOCOL_VERSION,
            hello: ours,
            addressee: theirs.hello.server,
            purpose: theirs.purpose,
        };
        hello::say(&mut stream, &Word::Hello(answer)).await?;
        match hello::hear(&mut stream).await? {
            Word::Agreed => {}
            Word::Refusal(refusal) => return Err(HelloError::RefusedByPeer(refusal)),
            Word::Hello(_) => return Err(HelloError::Damaged("it says hello twice")),
        }
        stream.set_purpose(theirs.purpose, options)?;
        Ok((theirs, stream))
    }

    /// The handshake of TLS, where it is spoken.
    async fn encrypt(&self, stream: TcpStream) -> Result<PeerStream, HelloError> {
        let options = &self.context.options;
        let Some(acceptor) = &options.encryption.acceptor else {
            return Ok(PeerStream::plain(stream));
        };
        if options.encryption.plain_callers {
            let mut first = [0];
            stream.peek(&mut first).await?;
            if first[0] != tls::FIRST_BYTE {
                return Ok(PeerStream::plain(stream));
            }
        }
        match acceptor.accept(stream, options.hello_limit).await {
            Ok((stream, _)) => Ok(PeerStream::encrypted(stream)),
            Err(HandshakeError::TooLate) => Err(HelloError::TooLate),
            Err(HandshakeError::Failed(error)) => Err(HelloError::Tls(error)),
        }
    }

    /// A certificate of the ensemble is not enough to be any of its members: it has to name the right one's host. Who has
    /// shown none, where none is needed, is not checked.
    fn check_certificate(&self, stream: &PeerStream, server: u64) -> Result<(), Refusal> {
        let is_checked = self.context.options.encryption.check_callers;
        let Some(certificate) = stream.certificate().filter(|_| is_checked) else {
            return Ok(());
        };
        let addresses = self.context.addresses(server).unwrap_or_default();
        if addresses
            .iter()
            .any(|address| tls::names_host(certificate, &address.host))
        {
            return Ok(());
        }
        let hosts: Vec<&str> = addresses.iter().map(|address| address.host.as_str()).collect();
        Err(Refusal::new(
            RefusalCode::Certificate,
            format!(
                "the certificate that server {server} shows does not name its host, which is [{}] by its server.{server} \
                 line: give it the name as a subject alternative name, or set ssl.quorum.hostnameVerification=false",
                hosts.join(", ")
            ),
        ))
    }

    fn check_boot(&self, peer: &Hello) -> Result<(), Refusal> {
        match self.inbound.lock().get(&peer.server) {
            Some(newest) => newest.check_boot(peer),
            None => Ok(()),
        }
    }

    /// Takes messages in until the connection ends.
    async fn receive(&self, peer: &Hello, address: SocketAddr, stream: PeerStream) {
        let registered = match self.register(peer) {
            Ok(registered) => registered,
            // It was overtaken during its hello.
            Err(refusal) => return self.complain(address, &HelloError::Refused(refusal)),
        };
        self.context.called_by(peer.server);
        let serial = registered.serial;
        let ended = tokio::select! {
            biased;
            _ = registered.superseded => Ended::Superseded,
            () = self.context.stopping() => Ended::Stopping,
            ended = async {
                let _turn = registered.turn.lock().await;
                self.read(peer, stream).await
            } => ended,
        };
        if let Some(newest) = self.inbound.lock().get_mut(&peer.server)
            && newest.serial == serial
        {
            newest.stop = None;
        }
        self.tell(peer, address, &ended);
    }

    /// Makes this the newest connection of `peer`, and ends the one before.
    fn register(&self, peer: &Hello) -> Result<Registered, Refusal> {
        let mut inbound = self.inbound.lock();
        let newest = inbound.entry(peer.server).or_insert_with(|| Inbound {
            incarnation: peer.incarnation,
            boot: peer.boot,
            serial: 0,
            stop: None,
            turn: Arc::default(),
        });
        newest.check_boot(peer)?;
        let (stop, superseded) = oneshot::channel();
        newest.incarnation = peer.incarnation;
        newest.boot = peer.boot;
        newest.serial += 1;
        newest.stop = Some(stop);
        Ok(Registered {
            serial: newest.serial,
            superseded,
            turn: newest.turn.clone(),
        })
    }

    async fn read(&self, peer: &Hello, mut stream: PeerStream) -> Ended {
        let Context {
            reception,
            options,
            recorded,
            ..
        } = &*self.context;
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(frame::missing(&buffer).clamp(READ_BYTES, MAX_READ_BYTES));
            match timeout(options.silence_limit, stream.read_buf(&mut buffer)).await {
                Err(_) => return Ended::Silent(options.silence_limit),
                Ok(Err(error)) => return error.into(),
                Ok(Ok(0)) => return Ended::Closed,
                Ok(Ok(bytes)) => recorded.bytes_received.increment(bytes as u64),
            }
            let mut bodies = Vec::new();
            let damage = loop {
                match frame::split(&mut buffer) {
                    // A sign of life.
                    Ok(Some(body)) if body.is_empty() => {}
                    Ok(Some(body)) => bodies.push(body),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            if !bodies.is_empty() {
                recorded.messages_received.increment(bodies.len() as u64);
                reception.messages(peer, bodies);
            }
            if let Some(error) = damage {
                recorded.frames_damaged.increment(1);
                return error.into();
            }
        }
    }

    fn tell(&self, peer: &Hello, address: SocketAddr, ended: &Ended) {
        let server = peer.server;
        if !self
            .context
            .complaints
            .is_due(About::Server(server), ended.name(), REFUSAL_INTERVAL)
        {
            return;
        }
        match ended {
            Ended::Frame(error) => {
                tracing::error!(
                    "the link from server {server} at {address} is closed: {error}. Nothing of it was used; the other side \
                     connects and sends again. If this comes back, something between the servers changes bytes: a faulty \
                     network card, memory or proxy."
                );
            }
            Ended::Silent(_) => tracing::warn!("the link from server {server} at {address} is closed: {ended}"),
            _ => tracing::info!("the link from server {server} at {address} has ended: {ended}"),
        }
    }
}

impl Ended {
    /// The reason in a word, by which log lines about it are counted as the same.
    fn name(&self) -> &'static str {
        match self {
            Ended::Frame(_) => "inbound damaged",
            Ended::Silent(_) => "inbound silent",
            _ => "inbound ended",
        }
    }
}

impl Inbound {
    /// A connection of an older start of the server has waited somewhere: what it carries is past.
    fn check_boot(&self, peer: &Hello) -> Result<(), Refusal> {
        if self.incarnation != peer.incarnation || peer.boot >= self.boot {
            return Ok(());
        }
        Err(Refusal::new(
            RefusalCode::OlderBoot,
            format!(
                "server {} has been started again since (this is its boot {}, {} was seen): a connection of the past, or two \
                 servers run on copies of one data directory",
                peer.server, peer.boot, self.boot
            ),
        ))
    }
}

/// A place among the hellos under way, for as long as this lives.
struct Place {
    acceptor: Arc<Acceptor>,
    ip: IpAddr,
}

impl Place {
    fn take(acceptor: &Arc<Acceptor>, ip: IpAddr) -> Option<Place> {
        let mut hellos = acceptor.hellos.lock();
        let all: usize = hellos.values().sum();
        let own = hellos.entry(ip).or_default();
        if all >= HELLOS || *own >= HELLOS_PER_ADDRESS {
            if *own == 0 {
                hellos.remove(&ip);
            }
            return None;
        }
        *own += 1;
        Some(Place {
            acceptor: acceptor.clone(),
            ip,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut hellos = self.acceptor.hellos.lock();
        if let Some(own) = hellos.get_mut(&self.ip) {
            *own -= 1;
            if *own == 0 {
                hellos.remove(&self.ip);
            }
        }
    }
}
