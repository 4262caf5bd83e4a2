//! What the session pipelines must know of the configuration.

use crate::state_machine::ServerId;

/// Bytes of the first frame at most, before a session is open: a ConnectRequest has about 45.
pub const HANDSHAKE_BYTES: usize = 8 << 10;
/// Requests that one connection may have waiting; beyond, its socket is not read.
pub const PENDING_REQUESTS: usize = 1024;
/// Bytes of requests that one connection may have waiting, a single larger one aside; beyond, its socket is not read.
pub const PENDING_BYTES: usize = 4 << 20;
/// Local requests that are answered under one hold of the state's lock: bounds how long the applier may have to wait.
pub const ANSWERS_PER_HOLD: usize = 128;
/// Bytes of answers likewise, the last answer aside: a listing of a hundred thousand children has a megabyte and a half.
/// Beyond, the connection also lets the others of its thread have their turn.
pub const ANSWER_BYTES_PER_HOLD: usize = 256 << 10;
/// How many times the outbound limit a connection's queue may grow by events and by replies to requests that were taken in
/// before; beyond, the connection is closed.
pub const OUTBOUND_HARD_FACTOR: usize = 8;

/// Settings of client connections. Each is named after its key where it has one.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `myid`.
    pub server: ServerId,
    /// Whether the server is one of an ensemble: then `/zookeeper/config` says who belongs to it before anybody is served.
    pub in_ensemble: bool,
    /// `jute.maxbuffer`: bytes of a request at most.
    pub max_request_bytes: usize,
    /// `minSessionTimeout`, ms.
    pub min_session_timeout_ms: i32,
    /// `maxSessionTimeout`, ms.
    pub max_session_timeout_ms: i32,
    /// `globalOutstandingLimit`: requests in work; beyond, connections that have some are not read.
    pub global_outstanding_limit: usize,
    /// `maxClientCnxns`: connections of one address; 0 for no limit.
    pub max_connections_per_address: usize,
    /// `maxCnxns`: connections in all; 0 for no limit.
    pub max_connections: usize,
    /// Connections that the process's descriptors leave room for (`ulimit -n`, less what the server itself needs).
    pub descriptor_connections: usize,
    /// `nio.sessionlessCnxnTimeout`: how long a connection may take to open a session, ms.
    pub handshake_timeout_ms: u64,
    /// `outboundQueue.maxBytes`: bytes that may be queued for one connection; beyond, nothing more is read from it.
    pub outbound_limit_bytes: usize,
    /// `outboundQueue.maxMessages`: events that may be queued for one connection, likewise. A burst beyond it is kept, up to
    /// the bytes of [`OUTBOUND_HARD_FACTOR`].
    pub outbound_limit_events: usize,
    /// Bytes that may be queued for all connections together, from `memoryBudget`; beyond, those of which much waits get nothing
    /// more, and who does not take it is closed.
    pub outbound_total_bytes: usize,
    /// `outboundQueue.stallTimeoutMs`: how long a connection's queue may stay over its limit before it is closed, ms.
    pub outbound_stall_ms: u64,
    /// `watch.fanoutJitterMs`: over how long the events of a change that reaches many connections are spread, ms.
    pub fan_out_jitter_ms: u64,
    /// `skipACL`.
    pub skip_acl: bool,
    /// `DigestAuthenticationProvider.enabled`.
    pub digest_enabled: bool,
    /// `DigestAuthenticationProvider.digestAlg`.
    pub digest_algorithm: super::authentication::DigestAlgorithm,
    /// `DigestAuthenticationProvider.superDigest`: who may do everything.
    pub super_digest: Option<String>,
    /// Who may authenticate with SASL; `None`: it is not configured.
    pub sasl: Option<super::sasl::SaslUsers>,
    /// Whether a client's certificate gives it an identity (`ssl.authProvider=x509`).
    pub x509_enabled: bool,
    /// `X509AuthenticationProvider.superUser`: the subject of the certificate whose owner may do everything.
    pub x509_super_user: Option<String>,
    /// Schemes of which a connection must have an identity before it may do anything; empty for no such demand.
    pub required_schemes: Vec<String>,
    /// `linearizableReads`: every read waits behind a barrier.
    pub linearizable_reads: bool,
}

impl Settings {
    /// Connections that there may be.
    pub fn connection_limit(&self) -> usize {
        match self.max_connections {
            0 => self.descriptor_connections,
            limit => limit.min(self.descriptor_connections),
        }
    }

    /// The session timeout that a client gets that asks for `wanted_ms`.
    pub fn negotiate_timeout_ms(&self, wanted_ms: i32) -> i32 {
        wanted_ms
            .max(self.min_session_timeout_ms)
            .min(self.max_session_timeout_ms)
    }
}
