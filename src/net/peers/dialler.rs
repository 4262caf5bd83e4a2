//! The outbound side: one task per other server keeps a link to it and carries our messages.

use super::complaints::About;
use super::hello::{self, Greeting, Hello, HelloError, PROTOCOL_VERSION, Purpose, Word};
use super::outbox::Sent;
use super::packing::Packed;
use super::stream::{self, PeerStream};
use super::{Context, Peer, PeerAddress};
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// The same line about a refused hello is written so often.
pub(super) const REFUSAL_INTERVAL: Duration = Duration::from_secs(10);
/// The same line about a server that cannot be reached: it may be down for days.
const UNREACHABLE_INTERVAL: Duration = Duration::from_secs(60);
/// When the links end, what waits may take so long to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why a server could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No address is known, or its name has none.
    #[error("no address is known")]
    NoAddress,
    /// Its name.
    #[error("the name {0} cannot be resolved: {1}")]
    Unresolvable(PeerAddress, #[source] io::Error),
    /// Nobody answers.
    #[error("{0} does not take the connection: {1}")]
    Connect(SocketAddr, #[source] io::Error),
    /// Somebody answers, and the two do not come together.
    #[error("{0} does not come together with this server: {1}")]
    Hello(SocketAddr, #[source] HelloError),
    /// This server ends.
    #[error("this server is stopping")]
    Stopping,
}

impl DialError {
    fn name(&self) -> &'static str {
        match self {
            DialError::NoAddress => "no address",
            DialError::Unresolvable(..) => "unresolvable",
            DialError::Connect(..) => "unreachable",
            DialError::Hello(_, error) => error.name(),
            DialError::Stopping => "stopping",
        }
    }

    /// Of the failures at several addresses, that of the lowest rank is told: somebody's refusal says more than another
    /// address's silence, and that nobody listens says something only if it is so everywhere.
    fn rank(&self) -> u8 {
        match self {
            error if error.is_refusal() => 0,
            DialError::Connect(_, error) if error.kind() == io::ErrorKind::ConnectionRefused => 2,
            _ => 1,
        }
    }

    fn is_refusal(&self) -> bool {
        matches!(self, DialError::Hello(_, error) if error.is_refusal())
    }
}

/// A connection that stands.
#[derive(Debug)]
pub struct Dialled {
    /// Who answered: the one that was called.
    pub peer: Hello,
    /// Where.
    pub address: SocketAddr,
    /// Ours to write on.
    pub stream: PeerStream,
}

/// How a link ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("this server is stopping")]
    Stopping,
    #[error("the other side has closed it")]
    Closed,
    #[error("the other side talks on it, which none of our servers does")]
    Answered,
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// What came of one attempt.
enum Attempt {
    /// There is a new list of addresses.
    Moved,
    Stopped,
    Failed,
    /// There was a link for so long.
    Linked(Duration),
}

/// Keeps a link to `peer` until the links end.
pub(super) async fn keep_linked(context: Arc<Context>, peer: Arc<Peer>) {
    let mut addresses = peer.addresses.subscribe();
    let mut pause = context.options.first_pause;
    loop {
        let current = addresses.borrow_and_update().clone();
        let attempt = tokio::select! {
            // The task holds the sender, too: this cannot fail.
            _ = addresses.changed() => Attempt::Moved,
            attempt = attempt(&context, &peer, current) => attempt,
        };
        let is_down = matches!(attempt, Attempt::Failed);
        match attempt {
            Attempt::Stopped => return,
            Attempt::Moved => {
                pause = context.options.first_pause;
                continue;
            }
            Attempt::Linked(lasted) if lasted >= context.options.max_pause => {
                // Whether anybody is still there is worth knowing at once: it may have been the leader.
                pause = context.options.first_pause;
                continue;
            }
            // A link that breaks soon is no better than none.
            Attempt::Linked(_) | Attempt::Failed => {}
        }
        tokio::select! {
            () = sleep(pause.mul_f64(rand::random_range(0.5..1.5))) => {}
            // It was down, and is back: it would wait for its leader until the pause is over.
            () = peer.has_called.notified(), if is_down => {
                pause = context.options.first_pause;
                continue;
            }
            // Looked at, and noted as seen, at the beginning of the loop.
            _ = addresses.changed() => {}
            () = context.stopping() => return,
        }
        pause = (pause * 2).min(context.options.max_pause);
    }
}

/// Connects and sends until the link ends. Dropping this ends the link as well.
async fn attempt(context: &Context, peer: &Peer, addresses: Option<Vec<PeerAddress>>) -> Attempt {
    let Some(addresses) = addresses else {
        context.stopping().await;
        return Attempt::Stopped;
    };
    let dialled = tokio::select! {
        dialled = dial(context, peer.server, Purpose::Messages, &addresses) => dialled,
        () = context.stopping() => return Attempt::Stopped,
    };
    let dialled = match dialled {
        Ok(dialled) => dialled,
        Err(error) => {
            if matches!(&error, DialError::Connect(_, source) if source.kind() == io::ErrorKind::ConnectionRefused) {
                context.reception.gone(peer.server);
            }
            return Attempt::Failed;
        }
    };
    let since = Instant::now();
    let up = Up::new(context, peer, &dialled);
    let ended = talk(context, peer, dialled.stream).await;
    let lasted = since.elapsed();
    up.tell(&ended, lasted);
    match ended {
        Ended::Stopping => Attempt::Stopped,
        _ => Attempt::Linked(lasted),
    }
}

/// A link that is up, for as long as this lives.
struct Up<'a> {
    context: &'a Context,
    peer: &'a Peer,
    address: SocketAddr,
}

impl<'a> Up<'a> {
    fn new(context: &'a Context, peer: &'a Peer, dialled: &Dialled) -> Up<'a> {
        let Dialled {
            peer: hello, address, ..
        } = dialled;
        if context
            .complaints
            .is_due(About::Server(peer.server), "linked", REFUSAL_INTERVAL)
        {
            tracing::info!("linked to {hello}, at {address}");
        }
        context.recorded.links.increment(1);
        peer.outbox.open(dialled.stream.writer());
        context.reception.linked(hello);
        Up {
            context,
            peer,
            address: *address,
        }
    }

    fn tell(&self, ended: &Ended, lasted: Duration) {
        let Up { context, peer, address } = self;
        if matches!(ended, Ended::Stopping) {
            return;
        }
        let about = About::Server(peer.server);
        if lasted >= REFUSAL_INTERVAL {
            // All was well: what happens now is news. Links that come and go every second are not.
            context.complaints.forget(peer.server);
        }
        if context.complaints.is_due(about, "link", REFUSAL_INTERVAL) {
            tracing::warn!(
                "the link to server {} at {address} is broken: {ended}. {} waiting messages are dropped; they are repeated \
                 where needed. Connecting again.",
                peer.server,
                peer.outbox.level().messages
            );
        }
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        let dropped = self.peer.outbox.close();
        self.context.count_dropped(self.peer, dropped as u64);
        self.context.reception.unlinked(self.peer.server);
    }
}

/// Sends what waits and others do not send, until the link ends.
async fn talk(context: &Context, peer: &Peer, stream: PeerStream) -> Ended {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut ended = pin!(wait_for_end(&mut reader));
    let mut stopping = pin!(context.stopping());
    let mut packed = Packed::default();
    loop {
        let sent_before = peer.sent.load(Relaxed);
        let (is_last, is_silent) = tokio::select! {
            biased;
            ended = &mut ended => return ended,
            () = &mut stopping => (true, false),
            () = peer.outbox.filled() => (false, false),
            () = sleep(context.options.sign_of_life_interval) => (false, peer.sent.load(Relaxed) == sent_before),
        };
        let Some(messages) = peer.outbox.take(&mut packed) else {
            // Somebody else sends, and is soon done.
            tokio::task::yield_now().await;
            continue;
        };
        if is_silent && messages == 0 {
            packed.add(Bytes::new());
        }
        let written = async {
            if !is_last {
                return packed.write(&mut writer).await;
            }
            let last_words = async {
                let bytes = packed.write(&mut writer).await?;
                writer.shutdown().await.map(|()| bytes)
            };
            timeout(LAST_WORDS, last_words).await.unwrap_or(Ok(0))
        };
        let bytes = tokio::select! {
            biased;
            ended = &mut ended => return ended,
            written = written => match written {
                Ok(bytes) => bytes,
                Err(error) => return error.into(),
            },
        };
        peer.outbox.taken();
        context.count_sent(peer, Sent { messages, bytes });
        if is_last {
            return Ended::Stopping;
        }
    }
}

/// The acceptor says nothing after its hello: whatever can be read is the end.
async fn wait_for_end(reader: &mut (impl AsyncRead + Unpin)) -> Ended {
    match reader.read(&mut [0]).await {
        Ok(0) => Ended::Closed,
        Ok(_) => Ended::Answered,
        Err(error) => error.into(),
    }
}

/// Tries all addresses in turn. What is wrong is told to the log only if all have failed.
pub(super) async fn dial(
    context: &Context,
    server: u64,
    purpose: Purpose,
    addresses: &[PeerAddress],
) -> Result<Dialled, DialError> {
    let mut failures = Vec::new();
    for address in addresses {
        match tokio::net::lookup_host((address.host.as_str(), address.port)).await {
            Ok(resolved) => {
                for socket in resolved {
                    match call(context, server, purpose, &address.host, socket).await {
                        Ok(dialled) => return Ok(dialled),
                        Err(error) => failures.push((address, error)),
                    }
                }
            }
            Err(error) => failures.push((address, DialError::Unresolvable(address.clone(), error))),
        }
    }
    let most_telling = failures.into_iter().min_by_key(|(_, error)| error.rank());
    let (address, error) = most_telling.ok_or(DialError::NoAddress)?;
    complain(context, server, address, &error);
    Err(error)
}

/// Tells the log, now and then.
fn complain(context: &Context, server: u64, address: &PeerAddress, error: &DialError) {
    let interval = if error.is_refusal() {
        context.recorded.hellos_refused.increment(1);
        REFUSAL_INTERVAL
    } else {
        UNREACHABLE_INTERVAL
    };
    let complaints = &context.complaints;
    if complaints.is_due(About::Server(server), error.name(), interval) {
        tracing::warn!("no link to server {server} at {address}: {error}. Trying again until there is one.");
    }
}

async fn call(
    context: &Context,
    server: u64,
    purpose: Purpose,
    host: &str,
    address: SocketAddr,
) -> Result<Dialled, DialError> {
    let connected = timeout(context.options.connect_limit, TcpStream::connect(address)).await;
    let stream = connected
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .and_then(|stream| stream::prepare(&stream, &context.options).map(|()| stream))
        .map_err(|error| DialError::Connect(address, error))?;
    let hellos = async {
        let stream = match &context.options.encryption.connector {
            None => PeerStream::plain(stream),
            Some(connector) => {
                let encrypted = connector.connect(stream, host, address.ip()).await;
                PeerStream::encrypted(encrypted.map_err(HelloError::Tls)?)
            }
        };
        introduce(context, server, purpose, stream).await
    };
    let (peer, stream) = hello::in_time(&context.options, hellos)
        .await
        .map_err(|error| DialError::Hello(address, error))?;
    Ok(Dialled { peer, address, stream })
}

/// The dialler's part of the hellos.
async fn introduce(
    context: &Context,
    called: u64,
    purpose: Purpose,
    mut stream: PeerStream,
) -> Result<(Hello, PeerStream), HelloError> {
    let ours = Greeting {
        protocol_version: PROTOCOL_VERSION,
        hello: context.reception.hello(),
        addressee: called,
        purpose,
    };
    hello::say(&mut stream, &Word::Hello(ours)).await?;
    let theirs = match hello::hear(&mut stream).await? {
        Word::Hello(greeting) => greeting,
        Word::Refusal(refusal) => return Err(HelloError::RefusedByPeer(refusal)),
        Word::Agreed => return Err(HelloError::Damaged("it agrees before it has said who it is")),
    };
    let admitted =
        hello::examine_answer(&ours.hello, &theirs, called).and_then(|()| context.reception.admit(&theirs.hello));
    if let Err(refusal) = admitted {
        // That it is heard is not needed: our own log has it.
        let _ = hello::say(&mut stream, &Word::Refusal(refusal.clone())).await;
        return Err(HelloError::Refused(refusal));
    }
    hello::say(&mut stream, &Word::Agreed).await?;
    stream.set_purpose(purpose, &context.options)?;
    Ok((theirs.hello, stream))
}
