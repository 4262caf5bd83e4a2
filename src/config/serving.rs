//! What clients meet: listeners, sessions, reads, limits.

use super::key::{Key, Setter, Unit};
use super::value::{self, JAVA_INT_MAX};
use crate::membership::{Address, Host};
use std::num::{NonZeroU32, NonZeroU64};

/// Where clients connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listeners {
    /// The plain client port (`clientPort`, `clientPortAddress`, or this server's `server.N` line). `None` where no key
    /// names one, as in ZooKeeper; the embedded default is 2181 on all addresses. Port 0: the system chooses, as in
    /// ZooKeeper 3.9.
    pub client: Option<Address>,
    /// The TLS client port (`secureClientPort`, `secureClientPortAddress`). `None`: no TLS port, ZooKeeper's default.
    pub secure_client: Option<Address>,
    /// Connections that the kernel queues for us on each client port (`clientPortListenBacklog`). `None`: the
    /// platform's default, as in ZooKeeper.
    pub backlog: Option<NonZeroU32>,
    /// TCP keep-alive on client connections (`clientTcpKeepAlive`). Default off, as in ZooKeeper: pings and session
    /// timeouts find dead clients sooner.
    pub client_tcp_keep_alive: bool,
}

/// Ticks and session timeouts. `min_timeout_ms` ≤ `max_timeout_ms`; all of them fit a Java `int`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    /// The length of a tick in milliseconds, at least 1 (`tickTime`). Default 3000, ZooKeeper's for a file without the
    /// key; the embedded default is 2000, the value of every sample file.
    pub tick_ms: u32,
    /// The shortest session timeout that is granted, in milliseconds (`minSessionTimeout`). Default 2 ticks.
    pub min_timeout_ms: u32,
    /// The longest session timeout that is granted, in milliseconds (`maxSessionTimeout`). Default 20 ticks.
    pub max_timeout_ms: u32,
    /// Sessions live on their server alone until they need more (`localSessionsEnabled`). Default off, as in ZooKeeper.
    pub local: bool,
    /// A local session becomes a global one when it creates its first ephemeral (`localSessionsUpgradingEnabled`).
    /// Default off, as in ZooKeeper.
    pub local_upgrading: bool,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            tick_ms: 3000,
            min_timeout_ms: 6000,
            max_timeout_ms: 60_000,
            local: false,
            local_upgrading: false,
        }
    }
}

/// How reads are served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// Every read waits for a quorum's word that it sees all acknowledged writes (`linearizableReads`, ours). Default
    /// off: ZooKeeper's promise is sequential consistency, and a hop per read costs most of the read throughput.
    pub linearizable: bool,
    /// Serve read-only clients while there is no quorum, and answer `isro` (`readonlymode.enabled`). Default off, as in
    /// ZooKeeper.
    pub read_only_mode: bool,
}

/// How much memory the server plans with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryBudget {
    /// That many percent, 1 to 100, of the memory that this process may use (the machine's, or its control group's).
    Percent(u8),
    /// That many bytes.
    Bytes(NonZeroU64),
}

/// An event that is a minute late is of no use to anybody.
const MOST_JITTER_MS: u32 = 60_000;

/// The longest request that is taken, whatever `jute.maxbuffer` says, in bytes. A request is one command, which stands in the
/// log in one piece; an entry of the log has 16 MiB, in which there must be room for whom the request comes from, too.
pub const MOST_REQUEST_BYTES: u32 = 15 << 20;

/// What clients may make the server hold. `None` stands for "unlimited".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest request frame, in bytes, at most [`MOST_REQUEST_BYTES`] (`jute.maxbuffer`). Default 1 MiB − 1,
    /// ZooKeeper's.
    pub max_frame_bytes: u32,
    /// Connections from one address (`maxClientCnxns`). Default 60, ZooKeeper's.
    pub max_connections_per_address: Option<NonZeroU32>,
    /// Connections in all (`maxCnxns`). Default unlimited, as in ZooKeeper.
    pub max_connections: Option<NonZeroU32>,
    /// Requests that the server has taken in and not answered (`globalOutstandingLimit`); above it, sockets with a
    /// request in flight are not read. Default 1000, ZooKeeper's.
    pub max_outstanding_requests: u32,
    /// Watches of one connection (`maxWatchesPerConnection`, ours). Default unlimited, as in ZooKeeper; 10,000 is sane.
    pub max_watches_per_connection: Option<NonZeroU32>,
    /// Watches on one path (`maxWatchesPerZnode`, ours). Default unlimited, as in ZooKeeper; 10,000 is sane.
    pub max_watches_per_znode: Option<NonZeroU32>,
    /// Over how long the events of one change are spread that reaches more than 64 connections, in milliseconds
    /// (`watch.fanoutJitterMs`, ours). Default 0: as fast as they can be sent.
    pub watch_fan_out_jitter_ms: u32,
    /// Memory for the tree, what is still to be written, and the log (`memoryBudget`, ours). Default 50 %:
    /// the other half is for the page cache, in which the disk engine's blocks live, and for bursts.
    pub memory_budget: MemoryBudget,
    /// Events queued for one connection, at least 1 (`outboundQueue.maxMessages`, ours). Default 1000: more than any healthy
    /// client lags behind. Replies need no such limit: there are no more of them than requests that were taken in.
    pub outbound_queue_messages: u32,
    /// Bytes of replies and events queued for one connection, at least 1 (`outboundQueue.maxBytes`, ours). Default 4 MiB: a
    /// few of the largest replies. One message longer than this is still sent, alone.
    pub outbound_queue_bytes: u64,
    /// How long a connection's queue may stay full before the connection is closed, in milliseconds
    /// (`outboundQueue.stallTimeoutMs`, ours). Default 60,000: longer than any sensible session timeout.
    pub outbound_stall_timeout_ms: u32,
    /// How long a connection may stay without a session, in milliseconds (`nio.sessionlessCnxnTimeout`). Default
    /// 10,000, ZooKeeper's.
    pub handshake_timeout_ms: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame_bytes: 0xf_ffff,
            max_connections_per_address: NonZeroU32::new(60),
            max_connections: None,
            max_outstanding_requests: 1000,
            max_watches_per_connection: None,
            max_watches_per_znode: None,
            watch_fan_out_jitter_ms: 0,
            memory_budget: MemoryBudget::Percent(50),
            outbound_queue_messages: 1000,
            outbound_queue_bytes: 4 << 20,
            outbound_stall_timeout_ms: 60_000,
            handshake_timeout_ms: 10_000,
        }
    }
}

/// Takes `50%` or a size.
fn memory_budget(text: &str) -> Option<MemoryBudget> {
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.trim_end().parse::<u8>().ok()?;
            (1..=100).contains(&percent).then_some(MemoryBudget::Percent(percent))
        }
        None => value::size_bytes(text)
            .and_then(NonZeroU64::new)
            .map(MemoryBudget::Bytes),
    }
}

const HOST: &str = "an IP address or a host name";
const SIZE_OR_SHARE: &str = "a size such as 2GiB, or a share of the memory such as 50%";

pub(super) const KEYS: &[Key] = &[
    Key::honoured(
        "clientPort",
        "",
        Setter::Port(|draft, port| draft.pending.client_port = Some(port)),
        "the port for clients",
    ),
    Key::honoured(
        "clientPortAddress",
        "",
        Setter::Parsed {
            form: HOST,
            set: |draft, given| {
                draft.pending.client_host = Some(Host::parse(&given.text).ok_or_else(|| format!("expected {HOST}"))?);
                Ok(())
            },
        },
        "the address on which clientPort listens; all addresses where it is not given",
    ),
    Key::honoured(
        "secureClientPort",
        "",
        Setter::Port(|draft, port| draft.pending.secure_port = Some(port)),
        "the port for clients that speak TLS",
    ),
    Key::honoured(
        "secureClientPortAddress",
        "",
        Setter::Parsed {
            form: HOST,
            set: |draft, given| {
                draft.pending.secure_host = Some(Host::parse(&given.text).ok_or_else(|| format!("expected {HOST}"))?);
                Ok(())
            },
        },
        "the address on which secureClientPort listens; all addresses where it is not given",
    ),
    Key::honoured(
        "clientPortListenBacklog",
        "-1",
        Setter::Optional {
            unit: Unit::Plain,
            unset: -1,
            max: JAVA_INT_MAX,
            set: |draft, backlog| draft.config.listeners.backlog = backlog.and_then(NonZeroU32::new),
        },
        "connections that the kernel queues on a client port",
    ),
    Key::honoured(
        "clientTcpKeepAlive",
        "false",
        Setter::Lenient(|draft, on| draft.config.listeners.client_tcp_keep_alive = on),
        "TCP keep-alive on client connections",
    ),
    Key::honoured(
        "tickTime",
        "3000",
        Setter::Number {
            unit: Unit::Milliseconds,
            min: 1,
            max: JAVA_INT_MAX,
            set: |draft, tick| draft.config.sessions.tick_ms = tick,
        },
        "the unit of time: heartbeats, limits and session timeouts are counted in ticks",
    ),
    Key::honoured(
        "minSessionTimeout",
        "-1",
        Setter::Optional {
            unit: Unit::Milliseconds,
            unset: -1,
            max: JAVA_INT_MAX,
            set: |draft, timeout| draft.pending.min_session_timeout_ms = timeout,
        },
        "the shortest session timeout that is granted; 2 ticks where it is not given",
    ),
    Key::honoured(
        "maxSessionTimeout",
        "-1",
        Setter::Optional {
            unit: Unit::Milliseconds,
            unset: -1,
            max: JAVA_INT_MAX,
            set: |draft, timeout| draft.pending.max_session_timeout_ms = timeout,
        },
        "the longest session timeout that is granted; 20 ticks where it is not given",
    ),
    Key::not_yet(
        "localSessionsEnabled",
        "false",
        Setter::Strict(|draft, on| draft.config.sessions.local = on),
        "sessions live on their server alone",
    ),
    Key::not_yet(
        "localSessionsUpgradingEnabled",
        "false",
        Setter::Strict(|draft, on| draft.config.sessions.local_upgrading = on),
        "a local session that creates an ephemeral becomes a global one",
    ),
    Key::honoured(
        "readonlymode.enabled",
        "false",
        Setter::Lenient(|draft, on| draft.config.reads.read_only_mode = on),
        "serve read-only clients while there is no quorum",
    ),
    Key::honoured(
        "linearizableReads",
        "false",
        Setter::Strict(|draft, on| draft.config.reads.linearizable = on),
        "every read sees every write that was acknowledged before it began (ours)",
    ),
    Key::honoured(
        "jute.maxbuffer",
        "1048575",
        Setter::Number {
            unit: Unit::Bytes,
            min: 1,
            max: JAVA_INT_MAX,
            set: |draft, bytes| draft.config.limits.max_frame_bytes = bytes,
        },
        "the longest request; more than 15728640 counts as that, for the log holds no larger one",
    ),
    Key::honoured(
        "maxClientCnxns",
        "60",
        Setter::Optional {
            unit: Unit::Plain,
            unset: 0,
            max: JAVA_INT_MAX,
            set: |draft, limit| draft.config.limits.max_connections_per_address = limit.and_then(NonZeroU32::new),
        },
        "connections from one address",
    ),
    Key::honoured(
        "maxCnxns",
        "0",
        Setter::Optional {
            unit: Unit::Plain,
            unset: 0,
            max: JAVA_INT_MAX,
            set: |draft, limit| draft.config.limits.max_connections = limit.and_then(NonZeroU32::new),
        },
        "connections in all",
    ),
    Key::honoured(
        "globalOutstandingLimit",
        "1000",
        Setter::Number {
            unit: Unit::Plain,
            min: 1,
            max: JAVA_INT_MAX,
            set: |draft, limit| draft.config.limits.max_outstanding_requests = limit,
        },
        "requests taken in and not yet answered, above which busy connections are not read",
    ),
    Key::honoured(
        "maxWatchesPerConnection",
        "0",
        Setter::Optional {
            unit: Unit::Plain,
            unset: 0,
            max: JAVA_INT_MAX,
            set: |draft, limit| draft.config.limits.max_watches_per_connection = limit.and_then(NonZeroU32::new),
        },
        "watches of one connection; more are refused with an error (ours)",
    ),
    Key::honoured(
        "maxWatchesPerZnode",
        "0",
        Setter::Optional {
            unit: Unit::Plain,
            unset: 0,
            max: JAVA_INT_MAX,
            set: |draft, limit| draft.config.limits.max_watches_per_znode = limit.and_then(NonZeroU32::new),
        },
        "watches on one path; more are refused with an error (ours)",
    ),
    Key::honoured(
        "watch.fanoutJitterMs",
        "0",
        Setter::Number {
            unit: Unit::Milliseconds,
            min: 0,
            max: MOST_JITTER_MS,
            set: |draft, jitter| draft.config.limits.watch_fan_out_jitter_ms = jitter,
        },
        "over how long the events of a change that reaches more than 64 clients are spread, at random (ours)",
    ),
    Key::honoured(
        "memoryBudget",
        "50%",
        Setter::Parsed {
            form: SIZE_OR_SHARE,
            set: |draft, given| {
                draft.config.limits.memory_budget =
                    memory_budget(&given.text).ok_or_else(|| format!("expected {SIZE_OR_SHARE}"))?;
                Ok(())
            },
        },
        "memory for the tree, what is still to be written, and the log (ours)",
    ),
    Key::honoured(
        "outboundQueue.maxMessages",
        "1000",
        Setter::Number {
            unit: Unit::Plain,
            min: 1,
            max: JAVA_INT_MAX,
            set: |draft, limit| draft.config.limits.outbound_queue_messages = limit,
        },
        "events queued for one connection, above which it is neither read nor answered (ours)",
    ),
    Key::honoured(
        "outboundQueue.maxBytes",
        "4194304",
        Setter::Large {
            unit: Unit::Bytes,
            min: 1,
            set: |draft, limit| draft.config.limits.outbound_queue_bytes = limit,
        },
        "bytes of replies and events queued for one connection, above which it is neither read nor answered (ours)",
    ),
    Key::honoured(
        "outboundQueue.stallTimeoutMs",
        "60000",
        Setter::Number {
            unit: Unit::Milliseconds,
            min: 1,
            max: JAVA_INT_MAX,
            set: |draft, timeout| draft.config.limits.outbound_stall_timeout_ms = timeout,
        },
        "how long that queue may stay full before the connection is closed (ours)",
    ),
    Key::honoured(
        "nio.sessionlessCnxnTimeout",
        "10000",
        Setter::Number {
            unit: Unit::Milliseconds,
            min: 1,
            max: JAVA_INT_MAX,
            set: |draft, timeout| draft.config.limits.handshake_timeout_ms = timeout,
        },
        "how long a connection may stay without a session",
    ),
];
