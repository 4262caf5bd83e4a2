//! Doors: listening sockets, who is let in by them, and what is spoken behind them.

use super::connection::Connection;
use super::queued;
use super::shared::Shared;
use crate::net;
use crate::net::tls::{self, TlsAcceptor};
use crate::proto::Identity;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};

/// How often connections are looked at that take too long.
const JANITOR_INTERVAL: Duration = Duration::from_millis(500);
/// After an accept failed because there are no descriptors or no memory: how long to wait before the next. Clients wait in
/// the kernel's line meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// That accepts fail is logged so often at most.
const ACCEPT_COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);
/// Connections that are looked at in one go; then others get their turn on the thread.
const SWEPT_AT_A_TIME: usize = 1024;

/// What is spoken behind a door.
#[derive(Clone)]
pub enum Speech {
    /// ZooKeeper's protocol as it is.
    Plain,
    /// TLS.
    Encrypted(Arc<TlsAcceptor>),
    /// Either; the first byte tells (`client.portUnification`).
    Either(Arc<TlsAcceptor>),
}

/// A listening socket for clients.
pub struct Door {
    /// The socket.
    pub listener: TcpListener,
    /// What is spoken behind it.
    pub speech: Speech,
    /// Whether the kernel probes silent connections (`clientTcpKeepAlive`).
    pub keep_alive: bool,
}

/// Lets clients in until the server stops.
pub(super) async fn accept(shared: Arc<Shared>, door: Door) {
    let mut complained: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = door.listener.accept() => accepted,
            () = shared.stopped() => return,
        };
        let error = match accepted {
            Ok((stream, peer)) => {
                admit(&shared, &door, stream, peer);
                continue;
            }
            // A client that has given up while it waited in line.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => error,
        };
        shared.statistics.accepts_failed.fetch_add(1, Relaxed);
        if complained.is_none_or(|at| at.elapsed() > ACCEPT_COMPLAINT_INTERVAL) {
            complained = Some(Instant::now());
            tracing::warn!(
                "cannot accept connections: {error}. Those that there are go on; new ones wait until there is room. More \
                 descriptors (ulimit -n) or memory would help. Further failures are not logged for a while."
            );
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

fn admit(shared: &Arc<Shared>, door: &Door, stream: TcpStream, peer: SocketAddr) {
    // Best effort: a socket that refuses is closed already.
    let _ = stream.set_nodelay(true);
    if door.keep_alive {
        let _ = socket2::SockRef::from(&stream).set_keepalive(true);
    }
    match shared.admit(peer) {
        Ok(connection) => {
            let speech = door.speech.clone();
            tokio::spawn(async move {
                let panicking = Panicking(&connection);
                serve(&connection, stream, speech).await;
                drop(panicking);
                connection.ended();
            });
        }
        Err(reason) => {
            shared.statistics.connections_rejected.fetch_add(1, Relaxed);
            shared.complain(peer, &reason);
        }
    }
}

/// Ends a connection whose task has panicked, which would else stay in all the tables, and keep its place and its watches.
struct Panicking<'a>(&'a Connection);

impl Drop for Panicking<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.ended();
        }
    }
}

/// A plain connection pays nothing for TLS: what that needs has a place of its own on the heap, taken once the client has
/// said something. (Else each of ten thousand idle sessions, or of silent connections, would have room for it.)
async fn serve(connection: &Connection, stream: TcpStream, speech: Speech) {
    let (tls, is_unified) = match speech {
        Speech::Plain => return converse_plainly(connection, stream).await,
        Speech::Encrypted(tls) => (tls, false),
        Speech::Either(tls) => (tls, true),
    };
    let mut first = [0];
    let heard = tokio::select! {
        heard = stream.peek(&mut first) => heard,
        () = connection.aborted() => return,
    };
    match heard {
        Ok(1) if is_unified && first[0] != tls::FIRST_BYTE => converse_plainly(connection, stream).await,
        Ok(1) => Box::pin(encrypt(connection, stream, &tls)).await,
        // Closed or broken: nothing was asked.
        _ => {}
    }
}

/// TLS first: a connection that does not get through it has asked nothing, and is told nothing.
async fn encrypt(connection: &Connection, stream: TcpStream, tls: &TlsAcceptor) {
    let under_way = &connection.statistics().tls_handshakes;
    under_way.fetch_add(1, Relaxed);
    let accepted = tls.accept(stream, connection.handshake_limit()).await;
    under_way.fetch_sub(1, Relaxed);
    match accepted {
        Ok((stream, peer)) => {
            connection.secured(identities(connection, peer.subject.as_deref()));
            converse(connection, stream).await;
        }
        Err(error) => connection.handshake_failed(&error),
    }
}

/// What a certificate proves.
fn identities(connection: &Connection, subject: Option<&str>) -> Vec<Identity> {
    let settings = connection.settings();
    let Some(subject) = subject.filter(|_| settings.x509_enabled) else {
        return Vec::new();
    };
    let mut identities = Vec::with_capacity(2);
    if settings.x509_super_user.as_deref() == Some(subject) {
        identities.push(Identity::new("super", ""));
    }
    identities.push(Identity::new("x509", subject));
    identities
}

/// A plain connection.
async fn converse_plainly(connection: &Connection, stream: TcpStream) {
    let stream = net::PlainStream::new(stream);
    connection.set_prompt_writer(stream.writer());
    converse(connection, stream).await;
}

async fn converse(connection: &Connection, stream: impl net::Stream) {
    if let Err(error) = net::converse(stream, connection).await {
        tracing::debug!(peer = %connection.peer, "connection lost: {error}");
    }
}

/// Ends connections that take too long to open a session, or to take what is sent to them.
pub(super) async fn sweep(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(JANITOR_INTERVAL) => {}
            () = shared.stopped() => return,
        }
        shared.touch_waiting();
        let now_us = shared.clock.now_us();
        for (place, connection) in shared.connections().into_iter().enumerate() {
            if connection.is_overdue(now_us) {
                connection.abort();
            }
            if place % SWEPT_AT_A_TIME == SWEPT_AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
        }
        shed(&shared, now_us);
    }
}

/// Closes those who have left something untaken for longest, if too much waits for all clients together.
fn shed(shared: &Shared, now_us: u64) {
    let (limit, waiting_bytes) = (
        shared.settings.outbound_total_bytes,
        shared.statistics.queued_bytes.load(Relaxed),
    );
    if waiting_bytes <= limit {
        return;
    }
    let connections = shared.connections().into_iter();
    let waiting = connections.filter_map(|connection| Some((connection.waiting()?, connection)));
    let closed = queued::to_shed(waiting.collect(), waiting_bytes - limit, now_us);
    if closed.is_empty() {
        return;
    }
    tracing::warn!(
        connections = closed.len(),
        "closing connections whose clients do not take what is sent: {} MiB wait for clients, of {} MiB that there may be",
        waiting_bytes >> 20,
        limit >> 20
    );
    for connection in closed {
        shared.statistics.slow_clients.fetch_add(1, Relaxed);
        connection.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::simulated::shared_alone;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_connection_whose_task_panics_ends() {
        let shared = shared_alone();
        let connection = shared.admit(([127, 0, 0, 1], 1).into()).expect("there is room");
        drop(Panicking(&connection));
        assert_eq!(shared.connection_count(), 1, "its task goes on");
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _panicking = Panicking(&connection);
            panic!("a defect");
        }));
        assert!(panicked.is_err());
        assert_eq!(shared.connection_count(), 0);
    }
}
