//! The ensemble: who this server is, and who the others are.

use super::draft::{Draft, Given};
use super::key::{Key, Setter, Unit};
use super::value::{self, JAVA_INT_MAX};
use crate::membership::{Address, Host, Members, PeerType, SERVER_LINE, Server, ServerId};
use std::collections::BTreeMap;
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
    /// Ticks in which one of ZooKeeper's servers must have caught up with its leader, at least 1 (`initLimit`); here it is only
    /// shown. Required in an ensemble, as there. Default 10, the value of its sample file.
    pub init_limit_ticks: u32,
    /// Ticks after which a server that hears nothing from the others closes its clients' connections, at least 1
    /// (`syncLimit`). Required in an ensemble. Default 5, the value of ZooKeeper's sample file.
    pub sync_limit_ticks: u32,
    /// A follower that hears nothing of its leader for so long stands for election, and a leader that hears of no quorum for
    /// so long steps down, ms (`electionTimeoutMs`, ours). Default 500: ten times a slow fsync, and half a second is what a
    /// lost network costs; a server whose process ended is missed sooner.
    pub election_timeout_ms: u32,
    /// Clients may change the membership (`reconfigEnabled`). Default off, as in ZooKeeper.
    pub reconfig_enabled: bool,
    /// An ensemble has at least two participants, for one alone stands alone (`standaloneEnabled`). Default on, as in
    /// ZooKeeper.
    pub standalone_enabled: bool,
    /// A server may have several addresses (`multiAddress.enabled`). Default off, as in ZooKeeper.
    pub several_addresses: bool,
    /// The file of the membership (`dynamicConfigFile`). `None`: it stands in zoo.cfg itself.
    pub dynamic_config_file: Option<PathBuf>,
    /// The leader serves clients too (`leaderServes`). Default yes, as in ZooKeeper.
    pub leader_serves_clients: bool,
    /// Listen for other servers on all addresses instead of those of our own `server.N` line
    /// (`quorumListenOnAllIPs`). Default off, as in ZooKeeper.
    pub listen_on_all_addresses: bool,
    /// Where to listen for other servers (`quorumListenAddress`), for a server that they reach through a proxy or a port
    /// mapping: its `server.N` line then names what they see. `None`: where that line says.
    pub listen_address: Option<Address>,
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
            election_timeout_ms: 500,
            reconfig_enabled: false,
            standalone_enabled: true,
            several_addresses: false,
            dynamic_config_file: None,
            leader_serves_clients: true,
            listen_on_all_addresses: false,
            listen_address: None,
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

impl Ensemble {
    /// The members as the state keeps them.
    #[must_use]
    pub fn members(&self) -> Members {
        Members {
            servers: self.servers.clone(),
            version: self.version,
        }
    }
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

const LISTEN_ADDRESS: &str = "host:port";

fn listen_address(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    Some(Address {
        host: Host::parse(host)?,
        port: port.parse().ok().filter(|port| *port != 0)?,
    })
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
        "required in an ensemble and shown by conf, as in ZooKeeper, but limits nothing: a server that catches up with its \
         leader may take as long as it needs",
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
        Setter::Strict(|draft, on| draft.config.cluster.standalone_enabled = on),
        "a single server.N line means a server on its own, not an ensemble of one",
    ),
    Key::honoured(
        "electionTimeoutMs",
        "500",
        Setter::Number {
            unit: Unit::Milliseconds,
            min: 250,
            max: 60_000,
            set: |draft, ms| draft.config.cluster.election_timeout_ms = ms,
        },
        "how long a leader may be silent before another is elected (ours)",
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
        Setter::Strict(|draft, on| draft.config.cluster.several_addresses = on),
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
    Key::honoured(
        "quorumListenOnAllIPs",
        "false",
        Setter::Strict(|draft, on| draft.config.cluster.listen_on_all_addresses = on),
        "listen for other servers on all addresses",
    ),
    Key::honoured(
        "quorumListenAddress",
        "",
        Setter::Parsed {
            form: LISTEN_ADDRESS,
            set: |draft, given| {
                let address = listen_address(&given.text).ok_or_else(|| format!("expected {LISTEN_ADDRESS}"))?;
                draft.config.cluster.listen_address = Some(address);
                Ok(())
            },
        },
        "where to listen for other servers, if they reach this one through a proxy or a port mapping",
    ),
    Key::honoured(
        "tcpKeepAlive",
        "false",
        Setter::Lenient(|draft, on| draft.config.cluster.tcp_keep_alive = on),
        "TCP keep-alive between servers",
    ),
];
