//! Where a configuration has this server listen for the others, and how it talks to them.

use super::doors::{self, DoorError};
use crate::config::{Address, Config, Server};
use crate::net::peers::{LinkEncryption, LinkOptions};
use crate::net::tls::{TlsAcceptor, TlsConnector};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What an address comes from that cannot be listened on.
const LINE: &str = "this server's server.N line";
const OVERRIDE: &str = "quorumListenAddress";

/// Listens where other servers reach this one, whose `server.N` line is `me`. One of several addresses that cannot be
/// listened on is left out with a warning: a network may be down.
///
/// # Errors
/// Why not on any.
pub(super) fn listen(config: &Config, me: &Server) -> Result<Vec<TcpListener>, DoorError> {
    let (addresses, key) = addresses(config, me);
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut last = DoorError::NoAddress(key);
    for address in &addresses {
        match doors::bind(address, 0, key) {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                if addresses.len() > 1 {
                    tracing::warn!("other servers cannot reach this one at {address}: {error}");
                }
                last = error;
            }
        }
    }
    if listeners.is_empty() { Err(last) } else { Ok(listeners) }
}

/// Where to listen, and what says so.
fn addresses(config: &Config, me: &Server) -> (Vec<Address>, &'static str) {
    let cluster = &config.cluster;
    if let Some(address) = &cluster.listen_address {
        return (vec![address.clone()], OVERRIDE);
    }
    if cluster.listen_on_all_addresses {
        let ports: BTreeSet<u16> = me.addresses.iter().map(|address| address.quorum_port).collect();
        return (ports.into_iter().map(Address::any).collect(), LINE);
    }
    let own = me.addresses.iter().map(|address| Address {
        host: address.host.clone(),
        port: address.quorum_port,
    });
    (own.collect(), LINE)
}

/// Times, limits and encryption of the links; reads the key and trust store of `ssl.quorum.*` where they are used.
///
/// # Errors
/// What is wrong with a store, and which setting names it.
pub(super) fn link_options(config: &Config) -> Result<LinkOptions, DoorError> {
    Ok(LinkOptions {
        encryption: encryption(config)?,
        keep_alive: config.cluster.tcp_keep_alive,
        ..LinkOptions::default()
    })
}

fn encryption(config: &Config) -> Result<LinkEncryption, DoorError> {
    let tls = &config.tls;
    if !tls.quorum_enabled && !tls.quorum_port_unification {
        return Ok(LinkEncryption::default());
    }
    let options = doors::tls_options(&tls.quorum, "ssl.quorum.").ok_or(DoorError::NoQuorumKeyStore)?;
    let connector = if tls.quorum_enabled {
        Some(Arc::new(TlsConnector::new(&options, tls.quorum_host_names)?))
    } else {
        None
    };
    Ok(LinkEncryption {
        connector,
        acceptor: Some(Arc::new(TlsAcceptor::new(&options)?)),
        plain_callers: tls.quorum_port_unification,
        check_callers: tls.quorum_host_names && tls.quorum_caller_host_names,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Base, Membership, Sources, load};
    use std::path::Path;

    fn config(lines: &str) -> Config {
        let text = format!(
            "dataDir=/data\nclientPort=1\ninitLimit=1\nsyncLimit=1\nmultiAddress.enabled=true\n\
             server.1=127.0.0.1:2888:3888|zoo1:2889:3889|zoo1-b:2889:3889\nserver.2=b:1:2\nserver.3=c:1:2\n{lines}"
        );
        let sources = Sources {
            base: Base::File {
                path: Path::new("zoo.cfg"),
                text: &text,
            },
            environment: &|_| None,
            overrides: &[],
            read: &|_| Ok(Some("1\n".to_owned())),
        };
        load(&sources).unwrap().config
    }

    fn me(config: &Config) -> Server {
        match &config.cluster.membership {
            Membership::Ensemble(ensemble) => ensemble.servers[&ensemble.me].clone(),
            Membership::Standalone => panic!("no ensemble"),
        }
    }

    #[test]
    fn other_servers_are_awaited_where_the_configuration_says() {
        let shown = |lines: &str| {
            let config = config(lines);
            let (addresses, key) = addresses(&config, &me(&config));
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            (addresses.join(" "), key)
        };
        assert_eq!(shown(""), ("127.0.0.1:2888 zoo1:2889 zoo1-b:2889".to_owned(), LINE));
        assert_eq!(
            shown("quorumListenOnAllIPs=true"),
            ("0.0.0.0:2888 0.0.0.0:2889".to_owned(), LINE)
        );
        assert_eq!(
            shown("quorumListenOnAllIPs=true\nquorumListenAddress=[::1]:77"),
            ("[::1]:77".to_owned(), OVERRIDE)
        );
    }

    #[tokio::test]
    async fn an_address_that_is_taken_stops_the_start_and_says_what_names_it() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let config = config(&format!("quorumListenAddress={address}"));
        let error = listen(&config, &me(&config)).unwrap_err().to_string();
        assert!(
            error.contains("quorumListenAddress") && error.contains(&address.to_string()),
            "{error}"
        );
        drop(taken);
    }

    #[test]
    fn links_are_as_the_configuration_says() {
        let plain = link_options(&config("tcpKeepAlive=true")).unwrap();
        assert!(plain.keep_alive && plain.encryption.connector.is_none() && plain.encryption.acceptor.is_none());
        let stores = "ssl.quorum.keyStore.location=/no/such/store.p12\nssl.quorum.trustStore.location=/no/t.p12";
        for switch in ["sslQuorum", "portUnification"] {
            let error = link_options(&config(&format!("{switch}=true\n{stores}")))
                .unwrap_err()
                .to_string();
            assert!(error.contains("ssl.quorum."), "{error}");
        }
    }
}
