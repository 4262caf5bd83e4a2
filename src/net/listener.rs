//! Listening sockets.

use socket2::{Domain, Protocol, Socket, Type};
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Connections that the kernel keeps for us before they are accepted, where the configuration does not say: all that it is
/// willing to, which is `net.core.somaxconn` on Linux. After a restart thousands of clients come at once, and one that finds
/// no place tries again only after a second.
const DEFAULT_BACKLOG: i32 = 65_535;

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}. Is another server running there? The port is set by {key} in zoo.cfg.")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// The setting that says so.
    pub key: &'static str,
    /// Why not.
    #[source]
    pub source: std::io::Error,
}

/// Opens a listening socket. `key` is the setting that the address comes from, for the error's text; `backlog` ≤ 0 takes
/// our default. An IPv6 wildcard takes IPv4 connections as well, as Java's does.
pub fn listen(address: SocketAddr, backlog: i32, key: &'static str) -> Result<TcpListener, ListenError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(if backlog > 0 { backlog } else { DEFAULT_BACKLOG })?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|source| ListenError { address, key, source })
}
