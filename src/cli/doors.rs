//! The listening sockets that a configuration asks for, and their TLS.

use crate::config::{Address, ClientAuth, Config, TlsEndpoint, TlsVersion};
use crate::net::tls::{ClientCertificate, Store, TlsAcceptor, TlsError, TlsOptions};
use crate::net::{self, ListenError};
use crate::server::{Door, Speech};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Why clients, or other servers, cannot be let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum DoorError {
    #[error("neither clientPort nor secureClientPort is set: clients could not connect")]
    NoPort,
    #[error("secureClientPort needs a certificate: set ssl.keyStore.location")]
    NoKeyStore,
    #[error("TLS between servers needs a certificate: set ssl.quorum.keyStore.location")]
    NoQuorumKeyStore,
    #[error("the host name that {0} is to listen on has no address")]
    NoAddress(&'static str),
    #[error("cannot resolve {0}: {1}")]
    Unresolvable(String, std::io::Error),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Opens the client ports.
pub(super) fn open(config: &Config) -> Result<Vec<Door>, DoorError> {
    let listeners = &config.listeners;
    let unified = config.tls.client_port_unification && listeners.client.is_some();
    let tls = match tls_options(&config.tls.client, "ssl.") {
        Some(options) if unified || listeners.secure_client.is_some() => Some(Arc::new(TlsAcceptor::new(&options)?)),
        _ => None,
    };
    let backlog = listeners
        .backlog
        .map_or(0, |backlog| i32::try_from(backlog.get()).unwrap_or(i32::MAX));
    let mut doors = Vec::with_capacity(2);
    let mut add = |address: &Address, key: &'static str, speech: Speech| {
        doors.push(Door {
            listener: bind(address, backlog, key)?,
            speech,
            keep_alive: listeners.client_tcp_keep_alive,
        });
        Ok::<(), DoorError>(())
    };
    if let Some(address) = &listeners.client {
        // Without a certificate, the configuration's notices have told, plain connections alone are served.
        let speech = match &tls {
            Some(tls) if unified => Speech::Either(tls.clone()),
            _ => Speech::Plain,
        };
        add(address, "clientPort", speech)?;
    }
    if let Some(address) = &listeners.secure_client {
        let tls = tls.ok_or(DoorError::NoKeyStore)?;
        add(address, "secureClientPort", Speech::Encrypted(tls))?;
    }
    if doors.is_empty() {
        return Err(DoorError::NoPort);
    }
    Ok(doors)
}

/// Where clients can connect, for the log: with the ports that the system has chosen, where it was left the choice.
pub(super) fn addresses(doors: &[Door]) -> String {
    let addresses = doors.iter().filter_map(|door| {
        let address = door.listener.local_addr().ok()?;
        Some(match door.speech {
            Speech::Plain => address.to_string(),
            Speech::Encrypted(_) => format!("{address} (TLS)"),
            Speech::Either(_) => format!("{address} (plain and TLS)"),
        })
    });
    addresses.collect::<Vec<_>>().join(" and ")
}

/// Listens where a setting says; `key` is its name, `backlog` ≤ 0 takes our default.
pub(super) fn bind(address: &Address, backlog: i32, key: &'static str) -> Result<TcpListener, DoorError> {
    let mut candidates: Vec<SocketAddr> = address
        .literal_ips()
        .into_iter()
        .map(|ip| SocketAddr::new(ip, address.port))
        .collect();
    if candidates.is_empty() {
        let name = address.to_string();
        candidates = name
            .to_socket_addrs()
            .map_err(|error| DoorError::Unresolvable(name, error))?
            .collect();
    }
    let mut last = DoorError::NoAddress(key);
    for candidate in candidates {
        match net::listen(candidate, backlog, key) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// `None` without a key store. `prefix` is that of the settings.
pub(super) fn tls_options(endpoint: &TlsEndpoint, prefix: &'static str) -> Option<TlsOptions> {
    let store = |store: &crate::config::Store| Store {
        location: store.location.clone(),
        password: store.password.expose().to_owned(),
    };
    Some(TlsOptions {
        prefix,
        key_store: store(endpoint.key_store.as_ref()?),
        trust_store: endpoint.trust_store.as_ref().map(store),
        client_certificate: match endpoint.client_auth {
            ClientAuth::None => ClientCertificate::Ignored,
            ClientAuth::Want => ClientCertificate::Wanted,
            ClientAuth::Need => ClientCertificate::Needed,
        },
        tls12: endpoint.protocols.contains(&TlsVersion::Tls12),
        tls13: endpoint.protocols.contains(&TlsVersion::Tls13),
    })
}
