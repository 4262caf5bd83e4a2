//! The status handle: everything that operators are shown is read through it.

use super::metrics::{Computed, GaugeSet, Number, Registry};
use super::process::{Process, directory_bytes};
use crate::config::{Config, Membership, MetricsProvider};
use crate::proto::Zxid;
use crate::server::{ConnectionView, Latency, Shared};
use crate::state_machine::{Counts, QuotaTotals};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

/// `zk_version` and the like. Begins as Apache's: scripts look for `3.9`, and stop at the first dash.
pub(super) fn version() -> String {
    format!(
        "3.9.5-menagerie-{}-{}, built on {}",
        env!("CARGO_PKG_VERSION"),
        option_env!("MENAGERIE_COMMIT").unwrap_or("unknown"),
        // A constant, not the clock of the build: the same source gives the same program.
        option_env!("MENAGERIE_BUILT_ON").unwrap_or("2026-11-22 00:00 UTC"),
    )
}

/// The trace mask with which ZooKeeper starts. It has no effect here: RUST_LOG chooses what is logged.
const TRACE_MASK: i64 = 306;

/// Where the data is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directories {
    /// The tree.
    pub tree: PathBuf,
    /// The log.
    pub log: PathBuf,
}

/// What operators are shown is read through this.
pub struct Status {
    pub(super) config: Config,
    pub(super) directories: Directories,
    pub(super) registry: Arc<Registry>,
    shared: OnceLock<Weak<Shared>>,
    trace_mask: AtomicI64,
}

/// The numbers of `srvr`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ServerNumbers {
    pub(super) latency: Latency,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) connections: usize,
    pub(super) outstanding: usize,
    pub(super) zxid: Zxid,
    pub(super) mode: &'static str,
    pub(super) znodes: usize,
}

impl ServerNumbers {
    /// ms.
    pub(super) fn average_latency(&self) -> f64 {
        super::java::four_decimals(self.latency.mean_us / 1000.0)
    }
}

impl Status {
    /// A handle for a server that is still to be started.
    pub fn new(config: Config, directories: Directories, registry: Arc<Registry>) -> Status {
        Status {
            config,
            directories,
            registry,
            shared: OnceLock::new(),
            trace_mask: AtomicI64::new(TRACE_MASK),
        }
    }

    /// The server is there. Only the first call counts.
    pub fn attach(&self, shared: Weak<Shared>) {
        // A second one would be a second server, which this handle is not of.
        let _ = self.shared.set(shared);
    }

    /// The server, if it serves.
    pub(super) fn serving(&self) -> Option<Arc<Shared>> {
        self.shared.get()?.upgrade().filter(|shared| shared.is_serving())
    }

    /// `Mode`: the one word by which `zkServer.sh status` and monitoring tell servers apart.
    pub(super) fn mode(&self) -> &'static str {
        match self.config.cluster.membership {
            Membership::Standalone => "standalone",
            // This version runs ensembles of one server alone, which leads whenever it serves.
            Membership::Ensemble(_) => "leader",
        }
    }

    pub(super) fn is_ensemble(&self) -> bool {
        self.config.cluster.membership != Membership::Standalone
    }

    /// The server's number as ZooKeeper tells it: 0 where it stands alone.
    pub(super) fn server_id(&self) -> u32 {
        match (&self.config.cluster.membership, self.config.cluster.server_id) {
            (Membership::Ensemble(_), Some(id)) => u32::from(id.get()),
            _ => 0,
        }
    }

    pub(super) fn trace_mask(&self) -> i64 {
        self.trace_mask.load(Relaxed)
    }

    pub(super) fn set_trace_mask(&self, mask: i64) {
        self.trace_mask.store(mask, Relaxed);
    }

    pub(super) fn numbers(&self, shared: &Shared) -> ServerNumbers {
        let counts = shared.state.read().counts();
        ServerNumbers {
            latency: shared.statistics.latency(),
            received: shared.statistics.packets_received.load(Relaxed),
            sent: shared.statistics.packets_sent.load(Relaxed),
            connections: shared.connection_count(),
            outstanding: shared.statistics.outstanding.load(Relaxed),
            zxid: shared.applied_zxid(),
            mode: self.mode(),
            znodes: counts.znodes,
        }
    }

    /// Bytes of the tree's and of the log's directory. Looks at every file.
    pub(super) fn directory_sizes(&self) -> (u64, u64) {
        (
            directory_bytes(&self.directories.tree),
            directory_bytes(&self.directories.log),
        )
    }

    pub(super) fn connections(&self, shared: &Shared) -> Vec<ConnectionView> {
        shared.connection_views()
    }

    /// Whether anything but version and mode is counted.
    pub(super) fn has_metrics(&self) -> bool {
        self.config.metrics.provider != MetricsProvider::Nobody
    }

    /// `srst`. With Prometheus, whose counters must not go back, only the numbers of `srvr` begin anew, as in ZooKeeper.
    pub(super) fn reset(&self, shared: &Shared) {
        shared.statistics.reset();
        if self.config.metrics.provider != MetricsProvider::Prometheus {
            self.registry.reset();
        }
    }

    /// The gauges, and the counters that the server keeps itself.
    pub(super) fn computed(&self, shared: &Shared, process: &Process) -> Computed {
        let (numbers, counts) = (self.numbers(shared), shared.state.read().counts());
        let mut gauges = client_gauges(&numbers, &counts, shared, process);
        if self.is_ensemble() {
            gauges.extend(leader_gauges(shared.clock.now_us()));
        }
        let statistics = &shared.statistics;
        Computed {
            gauges,
            sets: quota_gauges(shared.state.read().quota_totals()),
            counters: vec![
                ("bytes_received_count", statistics.bytes_received.load(Relaxed)),
                ("connection_rejected", statistics.connections_rejected.load(Relaxed)),
                (
                    "sessionless_connections_expired",
                    statistics.handshakes_timed_out.load(Relaxed),
                ),
            ],
        }
    }
}

fn whole(value: u64) -> Number {
    Number::Whole(i64::try_from(value).unwrap_or(i64::MAX))
}

fn client_gauges(
    numbers: &ServerNumbers,
    counts: &Counts,
    shared: &Shared,
    process: &Process,
) -> Vec<(&'static str, Number)> {
    let statistics = &shared.statistics;
    let (last_reply, least_reply, greatest_reply) = statistics.response_sizes();
    let unknown = Number::Whole(-1);
    vec![
        ("avg_latency", Number::Fraction(numbers.average_latency())),
        ("max_latency", whole(numbers.latency.max_us / 1000)),
        ("min_latency", whole(numbers.latency.min_us / 1000)),
        ("packets_received", whole(numbers.received)),
        ("packets_sent", whole(numbers.sent)),
        ("num_alive_connections", whole(numbers.connections as u64)),
        ("outstanding_requests", whole(numbers.outstanding as u64)),
        ("uptime", whole(shared.clock.now_us() / 1000)),
        ("znode_count", whole(numbers.znodes as u64)),
        ("watch_count", whole(shared.watches.len() as u64)),
        ("ephemerals_count", whole(counts.ephemerals as u64)),
        ("approximate_data_size", whole(counts.approximate_data_bytes)),
        ("global_sessions", whole(counts.sessions as u64)),
        ("local_sessions", Number::Whole(0)),
        ("open_file_descriptor_count", process.open_files.map_or(unknown, whole)),
        ("max_file_descriptor_count", process.max_files.map_or(unknown, whole)),
        ("connection_drop_probability", Number::Fraction(0.0)),
        ("last_client_response_size", Number::Whole(last_reply)),
        ("max_client_response_size", Number::Whole(greatest_reply)),
        ("min_client_response_size", Number::Whole(least_reply)),
        ("outstanding_tls_handshake", Number::Whole(0)),
        ("auth_failed_count", whole(statistics.auth_failed.load(Relaxed))),
        ("non_mtls_remote_conn_count", Number::Whole(0)),
        ("non_mtls_local_conn_count", Number::Whole(0)),
        (
            "fsync_threshold_exceed_count",
            whole(statistics.slow_syncs.load(Relaxed)),
        ),
    ]
}

fn quota_gauges(totals: BTreeMap<String, QuotaTotals>) -> Vec<GaugeSet> {
    let set = |name, of: fn(&QuotaTotals) -> i64| GaugeSet {
        name,
        values: totals.iter().map(|(key, totals)| (key.clone(), of(totals))).collect(),
    };
    vec![
        set("quota_count_limit_per_namespace", |totals| totals.count_limit),
        set("quota_bytes_limit_per_namespace", |totals| totals.bytes_limit),
        set("quota_count_usage_per_namespace", |totals| totals.count),
        set("quota_bytes_usage_per_namespace", |totals| totals.bytes),
    ]
}

/// What the leader of an ensemble shows besides. It is alone in it.
fn leader_gauges(uptime_us: u64) -> Vec<(&'static str, Number)> {
    let none = Number::Whole(0);
    let unknown = Number::Whole(-1);
    vec![
        ("quorum_size", Number::Whole(1)),
        ("learners", none),
        ("synced_followers", none),
        ("synced_non_voting_followers", none),
        ("synced_observers", none),
        ("pending_syncs", none),
        ("leader_uptime", whole(uptime_us / 1000)),
        ("last_proposal_size", unknown),
        ("max_proposal_size", unknown),
        ("min_proposal_size", unknown),
    ]
}
