//! One `server.N` line: its grammar, and how it is shown.

use super::address::{Address, Host};
use std::fmt;

/// Whether a server votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerType {
    /// It votes, and can lead.
    Participant,
    /// It follows without a vote.
    Observer,
}

impl PeerType {
    /// The type with this name, in any case; `None` if there is none.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        match name.trim().to_lowercase().as_str() {
            "participant" => Some(Self::Participant),
            "observer" => Some(Self::Observer),
            _ => None,
        }
    }
}

impl fmt::Display for PeerType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Participant => "participant",
            Self::Observer => "observer",
        })
    }
}

/// One `server.N` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where the other servers reach it; never empty, more than one only with `multiAddress.enabled`.
    pub addresses: Vec<PeerAddress>,
    /// Whether it votes.
    pub peer_type: PeerType,
    /// Where its clients reach it, if the line says so.
    pub client: Option<Address>,
}

/// One address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// The host.
    pub host: Host,
    /// The port for the traffic between servers.
    pub quorum_port: u16,
    /// ZooKeeper's port for elections. We need none, and keep it so that the line can be shown as it was.
    pub election_port: u16,
}

/// The grammar, as errors and the reference show it.
pub const SERVER_LINE: &str =
    "host:port:port[:participant|observer][;[host:]clientPort], several addresses of one server joined by |";

impl Server {
    /// Parses the value of a `server.N` line.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(line: &str) -> Result<Self, String> {
        let (peers, client) = match line.split_once(';') {
            // A semicolon with nothing behind it is none, says Java's way to split.
            Some((peers, client)) if client.trim().is_empty() => (peers, None),
            Some((peers, client)) => (peers, Some(parse_client(client.trim())?)),
            None => (line, None),
        };
        let mut addresses = Vec::new();
        let mut peer_type: Option<PeerType> = None;
        for part in peers.split('|') {
            let (address, named) = parse_peer(part.trim())?;
            if let (Some(one), Some(other)) = (peer_type, named)
                && one != other
            {
                return Err(format!(
                    "one address says {one}, another {other}; a server has one role"
                ));
            }
            peer_type = peer_type.or(named);
            addresses.push(address);
        }
        Ok(Self {
            addresses,
            peer_type: peer_type.unwrap_or(PeerType::Participant),
            client,
        })
    }
}

impl fmt::Display for Server {
    /// The form in which ZooKeeper shows a member in `/zookeeper/config`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.addresses.iter().enumerate() {
            let separator = if index == 0 { "" } else { "|" };
            write!(
                formatter,
                "{separator}{}:{}:{}",
                address.host, address.quorum_port, address.election_port
            )?;
        }
        write!(formatter, ":{}", self.peer_type)?;
        if let Some(client) = &self.client {
            write!(formatter, ";{client}")?;
        }
        Ok(())
    }
}

/// Cuts the host (in brackets where it is an IPv6 address) from what follows its colon.
fn split_host(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('[') {
        let end = text.find(']')? + 1;
        return Some((&text[..end], text[end..].strip_prefix(':')?));
    }
    text.split_once(':')
}

fn parse_peer(text: &str) -> Result<(PeerAddress, Option<PeerType>), String> {
    let malformed = || format!("{text:?} does not have the form {SERVER_LINE}");
    let (host, rest) = split_host(text).ok_or_else(malformed)?;
    let host = Host::parse(host).ok_or_else(|| format!("{host:?} is neither a host name nor an IP address"))?;
    let parts: Vec<&str> = rest.split(':').collect();
    let (ports, role) = match parts.as_slice() {
        [quorum, election] => ([quorum, election], None),
        [quorum, election, role] => ([quorum, election], Some(role)),
        _ => return Err(malformed()),
    };
    let [quorum_port, election_port] =
        ports.map(|port| parse_port(port.trim()).ok_or_else(|| format!("{port:?} is not a TCP port from 1 to 65535")));
    let (quorum_port, election_port) = (quorum_port?, election_port?);
    if quorum_port == election_port {
        return Err(format!(
            "the ports for quorum and election are both {quorum_port}; they must differ"
        ));
    }
    let role = match role {
        Some(role) => Some(PeerType::of_name(role).ok_or_else(|| unknown_peer_type(role))?),
        None => None,
    };
    Ok((
        PeerAddress {
            host,
            quorum_port,
            election_port,
        },
        role,
    ))
}

fn parse_client(text: &str) -> Result<Address, String> {
    let (host, port) = split_host(text).unwrap_or(("0.0.0.0", text));
    let host = Host::parse(host).ok_or_else(|| format!("{host:?} is neither a host name nor an IP address"))?;
    let port = parse_port(port).ok_or_else(|| format!("{text:?} after the ; is not of the form [host:]clientPort"))?;
    Ok(Address { host, port })
}

fn unknown_peer_type(name: &str) -> String {
    format!("{name:?} is neither participant nor observer")
}

/// A TCP port, 1 to 65535.
fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}
