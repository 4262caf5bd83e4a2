//! Doors: listening sockets, who is let in by them, and what is spoken behind them.

use super::connection::Connection;
use super::shared::Shared;
use crate::net;
use crate::net::tls::{self, TlsAcceptor};
use crate::proto::Identity;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// How often connections are looked at that take too long.
const JANITOR_INTERVAL: Duration = Duration::from_millis(500);
/// After an accept failed (out of files, say): how long to wait before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    loop {
        let accepted = tokio::select! {
            accepted = door.listener.accept() => accepted,
            () = shared.stopped() => return,
        };
        match accepted {
            Ok((stream, peer)) => admit(&shared, &door, stream, peer),
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
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
                serve(&connection, stream, speech).await;
                connection.ended();
            });
        }
        Err(reason) => {
            shared.statistics.connections_rejected.fetch_add(1, Relaxed);
            tracing::warn!(%peer, "connection refused: {reason}");
        }
    }
}

async fn serve(connection: &Connection, stream: TcpStream, speech: Speech) {
    match speech {
        Speech::Plain => converse(connection, stream).await,
        Speech::Encrypted(tls) => encrypt(connection, stream, &tls).await,
        Speech::Either(tls) => {
            let mut first = [0];
            let limit = connection.handshake_limit();
            match tokio::time::timeout(limit, stream.peek(&mut first)).await {
                Ok(Ok(1)) if first[0] == tls::FIRST_BYTE => encrypt(connection, stream, &tls).await,
                Ok(Ok(1)) => converse(connection, stream).await,
                // Closed, broken or silent: nothing was asked.
                _ => {}
            }
        }
    }
}

/// TLS first: a connection that does not get through it has asked nothing, and is told nothing.
async fn encrypt(connection: &Connection, stream: TcpStream, tls: &TlsAcceptor) {
    match tls.accept(stream, connection.handshake_limit()).await {
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

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(connection: &Connection, stream: S) {
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
        let now_us = shared.clock.now_us();
        shared.for_each_connection(|connection| {
            if connection.is_overdue(now_us) {
                connection.abort();
            }
        });
    }
}
