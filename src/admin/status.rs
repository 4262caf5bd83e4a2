//! The status handle: everything that operators are shown is read through it.

use super::metrics::{Computed, GaugeSet, Number, Registry};
use super::process::{Process, directory_bytes};
use crate::config::{Config, Membership, MetricsProvider, PeerType};
use crate::membership::{Members, Server, ServerId};
use crate::proto::Zxid;
use crate::server::{ConnectionView, EnsembleRole, EnsembleView, Latency, ProposalSizes, Service, Shared};
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
    pub(super) role: EnsembleRole,
    pub(super) proposals: ProposalSizes,
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

    /// The server, if it serves anybody.
    pub(super) fn serving(&self) -> Option<Arc<Shared>> {
        self.present().filter(|shared| shared.service() != Service::Nobody)
    }

    /// The server, if there is one, be it that it serves nobody.
    pub(super) fn present(&self) -> Option<Arc<Shared>> {
        self.shared.get()?.upgrade()
    }

    /// What this server shows of its ensemble; `None`: it stands alone.
    pub(super) fn ensemble(&self, shared: &Shared) -> Option<EnsembleStatus> {
        let Membership::Ensemble(configured) = &self.config.cluster.membership else {
            return None;
        };
        let members = shared.state.read().membership().cloned();
        Some(EnsembleStatus {
            me: configured.me,
            // Before the ensemble was founded, there is only what the files say.
            members: members.unwrap_or_else(|| configured.members()),
            view: shared.ensemble(),
        })
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
            role: shared.ensemble().role,
            proposals: shared.statistics.proposal_sizes(),
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
            shared.statistics.reset_counters();
        }
    }

    /// The gauges, and the counters that the server keeps itself.
    pub(super) fn computed(&self, shared: &Shared, process: &Process) -> Computed {
        let numbers = self.numbers(shared);
        let (counts, in_memory) = {
            let state = shared.state.read();
            (state.counts(), state.nodes_in_memory())
        };
        let mut gauges = client_gauges(&numbers, &counts, in_memory, shared, process);
        let mut unset = Vec::new();
        if let Some(ensemble) = self.ensemble(shared) {
            gauges.extend(ensemble.gauges(&numbers.proposals, shared.role_age_ms()));
            unset.extend(ensemble.unset_gauges());
        }
        let counters = shared.statistics.counters();
        Computed {
            gauges,
            unset,
            sets: quota_gauges(shared.state.read().quota_totals()),
            counters: counters.map(|(name, counter)| (name, counter.load(Relaxed))).to_vec(),
        }
    }
}

fn whole(value: u64) -> Number {
    Number::Whole(i64::try_from(value).unwrap_or(i64::MAX))
}

fn client_gauges(
    numbers: &ServerNumbers,
    counts: &Counts,
    nodes_in_memory: u64,
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
        (
            "outstanding_tls_handshake",
            whole(statistics.tls_handshakes.load(Relaxed) as u64),
        ),
        // Names of our own: connections that there may be, and what waits in line.
        (
            "client_connection_limit",
            whole(shared.settings.connection_limit() as u64),
        ),
        ("handshakes_waiting", whole(shared.handshakes_waiting() as u64)),
        (
            "client_queued_bytes",
            whole(statistics.queued_bytes.load(Relaxed) as u64),
        ),
        ("large_values_waiting", whole(shared.large_values_waiting() as u64)),
        ("auth_failed_count", whole(statistics.auth_failed.load(Relaxed))),
        ("non_mtls_remote_conn_count", Number::Whole(0)),
        ("non_mtls_local_conn_count", Number::Whole(0)),
        // A name of our own: how far a start has come with reading the tree. The root counts twice, as in znode_count.
        ("znodes_in_memory", whole(nodes_in_memory + 1)),
        // The state's memory, and what has left it.
        ("memory_bytes", whole(shared.memory.used_bytes())),
        (
            "memory_budget_bytes",
            shared.memory.budget_bytes().map_or(unknown, whole),
        ),
        ("memory_is_short", Number::Whole(shared.memory.is_short().into())),
        ("values_away", whole(shared.memory.values_away())),
        ("values_fetched", whole(shared.memory.values_fetched())),
        ("values_gone", whole(shared.memory.values_gone())),
        ("memtable_bytes", whole(statistics.memtable_bytes.load(Relaxed))),
        // And others: free space where it is least, and whether growth is refused because of it.
        ("disk_free_bytes", Number::Whole(statistics.room.free_bytes())),
        ("disk_short_bytes", Number::Whole(statistics.room.short_bytes())),
        ("disk_is_short", Number::Whole(statistics.room.is_short().into())),
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

/// What a server of an ensemble shows of it.
pub(super) struct EnsembleStatus {
    pub(super) me: ServerId,
    /// Who belongs to it, as `/zookeeper/config` says.
    pub(super) members: Members,
    pub(super) view: Arc<EnsembleView>,
}

impl EnsembleStatus {
    pub(super) fn mine(&self) -> Option<&Server> {
        self.members.servers.get(&self.me)
    }

    /// Who leads, and its line, if that is known.
    pub(super) fn leader(&self) -> Option<(ServerId, Option<&Server>)> {
        let leader = self.view.leader?.member()?;
        Some((leader, self.members.servers.get(&leader)))
    }

    pub(super) fn is_observer(&self) -> bool {
        self.mine().is_some_and(|me| me.peer_type == PeerType::Observer)
    }

    /// `peer_state`: what the server does, and how far it has come with it.
    pub(super) fn peer_state(&self) -> &'static str {
        match self.view.role {
            EnsembleRole::Leader => "leading - broadcast",
            EnsembleRole::Follower => "following - broadcast",
            EnsembleRole::Observer => "observing - broadcast",
            EnsembleRole::Standalone | EnsembleRole::Looking | EnsembleRole::ReadOnly => "looking - election",
        }
    }

    /// Whom an observer hears of changes from: the leader.
    pub(super) fn observer_master(&self) -> Option<ServerId> {
        let observes = self.view.role == EnsembleRole::Observer;
        self.leader().filter(|_| observes).map(|(leader, _)| leader)
    }

    /// `zabstate`, the second half of the same.
    pub(super) fn zab_state(&self) -> &'static str {
        if self.view.role.has_leader() {
            "broadcast"
        } else {
            "election"
        }
    }

    /// Gauges without a value: a follower of ZooKeeper's counts the observers that follow it, and we have no such ones.
    fn unset_gauges(&self) -> Option<&'static str> {
        (self.view.role == EnsembleRole::Follower).then_some("synced_observers")
    }

    /// Gauges of ensembles. `followers` is ZooKeeper's name for `learners` before 3.6, which monitoring still reads.
    fn gauges(&self, proposals: &ProposalSizes, leading_ms: u64) -> Vec<(&'static str, Number)> {
        let count = |number: usize| whole(number as u64);
        let participants = self.members.participants().count();
        if self.view.role != EnsembleRole::Leader {
            return vec![("quorum_size", count(participants))];
        }
        let shall_vote = |server: crate::state_machine::ServerId| {
            server
                .member()
                .is_some_and(|member| self.members.is_participant(member))
        };
        let view = &self.view;
        vec![
            ("quorum_size", count(participants)),
            ("learners", count(view.count(|peer| peer.in_contact))),
            (
                "followers",
                count(view.count(|peer| peer.in_contact && shall_vote(peer.server))),
            ),
            ("synced_followers", count(view.count(|peer| peer.synced && peer.voter))),
            (
                "synced_non_voting_followers",
                count(view.count(|peer| peer.synced && !peer.voter && shall_vote(peer.server))),
            ),
            (
                "synced_observers",
                count(view.count(|peer| peer.synced && !peer.voter && !shall_vote(peer.server))),
            ),
            // A sync waits for a quorum here, not in a line of the leader's.
            ("pending_syncs", Number::Whole(0)),
            ("leader_uptime", whole(leading_ms)),
            ("last_proposal_size", Number::Whole(proposals.last)),
            ("max_proposal_size", Number::Whole(proposals.greatest)),
            ("min_proposal_size", Number::Whole(proposals.least)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::PeerView;
    use crate::server::simulated::shared_alone;
    use crate::state_machine;

    fn status(role: EnsembleRole) -> EnsembleStatus {
        let text = "server.1=a:1:2:participant\nserver.2=b:1:2:participant\nserver.3=c:1:2:participant\n\
                    server.4=d:1:2:observer\nserver.5=e:1:2:observer\nserver.6=f:1:2:participant\nversion=1";
        let peer = |server, voter, in_contact, synced| PeerView {
            server: state_machine::ServerId(server),
            voter,
            in_contact,
            synced,
        };
        let view = EnsembleView {
            role,
            leader: role.has_leader().then_some(state_machine::ServerId(1)),
            term: 3,
            votes: true,
            peers: vec![
                peer(2, true, true, true),
                peer(3, true, false, false),
                peer(4, false, true, true),
                peer(5, false, true, false),
                peer(6, false, true, true),
            ],
        };
        EnsembleStatus {
            me: ServerId::FIRST,
            members: Members::parse(text).unwrap(),
            view: Arc::new(view),
        }
    }

    #[test]
    fn a_leader_counts_the_others_and_everybody_counts_the_participants() {
        let gauges = |role| status(role).gauges(&ProposalSizes::default(), 77);
        assert_eq!(gauges(EnsembleRole::Follower), [("quorum_size", Number::Whole(4))]);
        let unset = |role| status(role).unset_gauges();
        assert_eq!(unset(EnsembleRole::Follower), Some("synced_observers"));
        assert_eq!(
            (unset(EnsembleRole::Leader), unset(EnsembleRole::Observer)),
            (None, None)
        );
        let expected = [
            ("quorum_size", 4),
            ("learners", 4),
            ("followers", 2),
            ("synced_followers", 1),
            ("synced_non_voting_followers", 1),
            ("synced_observers", 1),
            ("pending_syncs", 0),
            ("leader_uptime", 77),
            ("last_proposal_size", -1),
            ("max_proposal_size", -1),
            ("min_proposal_size", -1),
        ];
        let expected = expected.map(|(name, value)| (name, Number::Whole(value)));
        assert_eq!(gauges(EnsembleRole::Leader), expected);
    }

    #[test]
    fn a_reset_begins_every_counter_anew_but_none_of_prometheus() {
        for provider in [MetricsProvider::Internal, MetricsProvider::Prometheus] {
            let mut config = Config::embedded_default();
            config.metrics.provider = provider;
            let status = Status::new(config, Directories::default(), Arc::default());
            let shared = shared_alone();
            let statistics = &shared.statistics;
            for (_, counter) in statistics.counters() {
                counter.store(5, Relaxed);
            }
            for number in [&statistics.packets_received, &statistics.auth_failed] {
                number.store(5, Relaxed);
            }
            status.reset(&shared);
            let computed = status.computed(&shared, &Process::look());
            let left = if provider == MetricsProvider::Prometheus { 5 } else { 0 };
            assert!(
                computed.counters.iter().all(|(_, value)| *value == left),
                "{provider:?}: {:?}",
                computed.counters
            );
            let gauge = |name| {
                computed
                    .gauges
                    .iter()
                    .find(|(other, _)| *other == name)
                    .map(|(_, value)| *value)
            };
            assert_eq!(gauge("packets_received"), Some(Number::Whole(0)));
            assert_eq!(gauge("auth_failed_count"), Some(Number::Whole(5)));
        }
    }

    #[test]
    fn the_state_of_a_server_is_told_in_zookeepers_words() {
        let told = |role| {
            let status = status(role);
            let master = status.observer_master().map(ServerId::get);
            (status.peer_state(), status.zab_state(), master)
        };
        assert_eq!(told(EnsembleRole::Leader), ("leading - broadcast", "broadcast", None));
        assert_eq!(
            told(EnsembleRole::Follower),
            ("following - broadcast", "broadcast", None)
        );
        assert_eq!(
            told(EnsembleRole::Observer),
            ("observing - broadcast", "broadcast", Some(1))
        );
        assert_eq!(told(EnsembleRole::Looking), ("looking - election", "election", None));
        assert_eq!(told(EnsembleRole::ReadOnly), ("looking - election", "election", None));
    }

    #[test]
    fn the_leader_and_the_observers_are_told_over_http() {
        use crate::admin::{json::Json, members};
        let render = |fields| Json::Object(fields).render();
        let leader = status(EnsembleRole::Leader);
        let told = members::leader(&leader).map(render).unwrap_or_default();
        assert_eq!(
            told,
            "{\n  \"is_leader\" : true,\n  \"leader_id\" : 1,\n  \"leader_ip\" : \"a\"\n}"
        );
        let mut follower = status(EnsembleRole::Follower);
        follower.me = ServerId::new(2).unwrap();
        let told = members::leader(&follower).map(render).unwrap_or_default();
        assert!(told.contains("\"is_leader\" : false,\n  \"leader_id\" : 1"), "{told}");
        assert!(members::leader(&status(EnsembleRole::Looking)).is_none());

        let told = render(members::observers(Some(&leader)));
        assert!(told.contains("\"synced_observers\" : 1"), "{told}");
        assert!(
            told.contains("\"remote_socket_address\" : \"d:1\",\n    \"sid\" : 4,\n    \"synced\" : true"),
            "{told}"
        );
        assert!(told.contains("\"sid\" : 5") && !told.contains("\"sid\" : 6"), "{told}");
        for nobody in [None, Some(&follower)] {
            let told = render(members::observers(nobody));
            assert!(
                told.starts_with("{\n  \"synced_observers\" : 0,\n  \"observers\" : [ ]"),
                "{told}"
            );
        }
        let view = members::voting_view(Some(&leader)).render();
        assert!(view.contains("\"6\" : {") && !view.contains("\"4\" : {"), "{view}");
    }
}
