//! The ensemble: who this server is, who the others are, and the grammar of `server.N`.

use super::draft::{Draft, Given};
use super::key::{Key, Setter, Unit};
use super::value::{self, Address, Host, JAVA_INT_MAX, ServerId};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// This server's place among servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The number in `dataDir/myid`. `None` only where this server stands alone and has no such file.
    pub server_id: Option<ServerId>,
    /// Alone, or with whom.
    pub membership: Membership,
    /// Whether this server votes (`peerType`, corrected by its `server.N` line). Default that it does.
    pub peer_type: PeerType,
    /// Ticks in which a server must have caught up with its leader, at least 1 (`initLimit`). Required in an ensemble.
    /// Default 10, the value of ZooKeeper's sample file.
    pub init_limit_ticks: u32,
    /// Ticks after which a server that hears nothing from the others closes its clients' connections, at least 1
    /// (`syncLimit`). Required in an ensemble. Default 5, the value of ZooKeeper's sample file.
    pub sync_limit_ticks: u32,
    /// Clients may change the membership (`reconfigEnabled`). Default off, as in ZooKeeper.
    pub reconfig_enabled: bool,
    /// The file of the membership (`dynamicConfigFile`). `None`: it stands in zoo.cfg itself.
    pub dynamic_config_file: Option<PathBuf>,
    /// The leader serves clients too (`leaderServes`). Default yes, as in ZooKeeper.
    pub leader_serves_clients: bool,
    /// Listen for other servers on all addresses instead of those of our own `server.N` line
    /// (`quorumListenOnAllIPs`). Default off, as in ZooKeeper.
    pub listen_on_all_addresses: bool,
    /// TCP keep-alive between servers (`tcpKeepAlive`). Default off, as in ZooKeeper.
    pub tcp_keep_alive: bool,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            server_id: None,
            membership: Membership::Standalone,
            peer_type: PeerType::Participant,
            init_limit_ticks: 10,
            sync_limit_ticks: 5,
            reconfig_enabled: false,
            dynamic_config_file: None,
            leader_serves_clients: true,
            listen_on_all_addresses: false,
            tcp_keep_alive: false,
        }
    }
}

/// Alone, or with whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// One server, which answers `standalone` when asked for its mode.
    Standalone,
    /// An ensemble, be it of one server (`standaloneEnabled=false`).
    Ensemble(Ensemble),
}

/// The membership that the configuration names. The one in the log goes before it, once there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensemble {
    /// This server; its line is among `servers`.
    pub me: ServerId,
    /// All members, at least one of them a participant.
    pub servers: BTreeMap<ServerId, Server>,
    /// The version in the name of `dynamicConfigFile`, else 0.
    pub version: u64,
}

/// Whether a server votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerType {
    /// It votes, and can lead.
    Participant,
    /// It follows without a vote.
    Observer,
}

impl PeerType {
    fn of_name(name: &str) -> Option<Self> {
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
pub(super) const SERVER_LINE: &str =
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
        ports.map(|port| value::port(port.trim()).ok_or_else(|| format!("{port:?} is not a TCP port from 1 to 65535")));
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
    let port = value::port(port).ok_or_else(|| format!("{text:?} after the ; is not of the form [host:]clientPort"))?;
    Ok(Address { host, port })
}

fn unknown_peer_type(name: &str) -> String {
    format!("{name:?} is neither participant nor observer")
}

/// Takes a `server.N` line of either file.
pub(super) fn set_server(draft: &mut Draft, given: &Given) -> Result<(), String> {
    let number = given.suffix("server.");
    let id = value::integer(number).and_then(ServerId::new);
    let id = id.ok_or_else(|| format!("{number:?} is no server id; expected server.N with N from 1 to 254"))?;
    let server = Server::parse(&given.text)?;
    if let Some((_, earlier)) = draft.pending.servers.insert(id, (server, given.clone())) {
        return Err(format!(
            "server {id} has a line already: {}, {}",
            earlier.place, earlier.key
        ));
    }
    Ok(())
}

pub(super) const KEYS: &[Key] = &[
    Key::honoured(
        "server.*",
        "",
        Setter::Parsed {
            form: SERVER_LINE,
            set: set_server,
        },
        "a member of the ensemble; the number is the one in its myid file",
    ),
    Key::honoured(
        "initLimit",
        "10",
        Setter::Optional {
            unit: Unit::Ticks,
            unset: 0,
            max: JAVA_INT_MAX,
            set: |draft, limit| draft.pending.init_limit_ticks = limit,
        },
        "the time that a server has to catch up with its leader; required in an ensemble",
    ),
    Key::honoured(
        "syncLimit",
        "5",
        Setter::Optional {
            unit: Unit::Ticks,
            unset: 0,
            max: JAVA_INT_MAX,
            set: |draft, limit| draft.pending.sync_limit_ticks = limit,
        },
        "the time that a server may be out of touch with the others; required in an ensemble",
    ),
    Key::honoured(
        "peerType",
        "participant",
        Setter::Parsed {
            form: "participant or observer",
            set: |draft, given| {
                let peer_type = PeerType::of_name(&given.text).ok_or("expected participant or observer")?;
                draft.pending.peer_type = Some(peer_type);
                Ok(())
            },
        },
        "whether this server votes; its server.N line has the last word",
    ),
    Key::honoured(
        "standaloneEnabled",
        "true",
        Setter::Strict(|draft, on| draft.pending.standalone_enabled = on),
        "a single server.N line means a server on its own, not an ensemble of one",
    ),
    Key::honoured(
        "reconfigEnabled",
        "false",
        Setter::Strict(|draft, on| draft.config.cluster.reconfig_enabled = on),
        "clients may change the membership",
    ),
    Key::honoured(
        "dynamicConfigFile",
        "",
        Setter::Text(|draft, path| draft.pending.dynamic_config_file = Some(PathBuf::from(path))),
        "the file of the server.N lines, which may not stand in this one then",
    ),
    Key::honoured(
        "electionAlg",
        "3",
        Setter::Parsed {
            form: "3",
            set: |_, given| match value::integer(&given.text) {
                Some(3) => Ok(()),
                _ => Err("expected 3, the only one that ZooKeeper knows; elections are Raft's here".to_owned()),
            },
        },
        "accepted for compatibility: elections are Raft's",
    ),
    Key::honoured(
        "multiAddress.enabled",
        "false",
        Setter::Strict(|draft, on| draft.pending.multi_address = on),
        "a server.N line may name several addresses",
    ),
    Key::not_yet(
        "leaderServes",
        "yes",
        Setter::YesNo {
            otherwise: false,
            set: |draft, on| draft.config.cluster.leader_serves_clients = on,
        },
        "the leader serves clients too",
    ),
    Key::not_yet(
        "quorumListenOnAllIPs",
        "false",
        Setter::Strict(|draft, on| draft.config.cluster.listen_on_all_addresses = on),
        "listen for other servers on all addresses",
    ),
    Key::not_yet(
        "tcpKeepAlive",
        "false",
        Setter::Lenient(|draft, on| draft.config.cluster.tcp_keep_alive = on),
        "TCP keep-alive between servers",
    ),
];
