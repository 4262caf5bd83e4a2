//! Every metric of ZooKeeper 3.9, by kind. Dashboards break where a name is missing, so those of parts that do not exist
//! here are there too, and stay 0.
//!
//! True values (who records them):
//!
//! | who | names |
//! |---|---|
//! | read when asked for | all gauges but those below; `bytes_received_count`, `connection_rejected`, `sessionless_connections_expired`, `unsuccessful_handshake` (of TLS), `request_throttle_wait_count` (a socket was not read on because of a limit) |
//! | the same (names of our own) | gauges `client_connection_limit`, `client_queued_bytes`, `handshakes_waiting`, `large_values_waiting`; `accepts_failed`, `clients_ahead`, `malformed_connections_closed`, `slow_clients_closed`, `watches_refused` |
//! | session pipelines | `readlatency`, `updatelatency`, `response_bytes`, `watch_bytes`, `*_client_response_size`, `connection_request_count`, `connection_revalidate_count` |
//! | log thread | `fsynctime`, `sync_process_time`, `sync_processor_batch_size`, `sync_processor_queue_size`, `sync_processor_request_queued` |
//! | driver | `proposal_count`, `election_time`, `looking_count`; of our own: `appends_refused` |
//! | applier | `commit_count`, `propagation_latency`, `write_batch_time_in_commit_processor`, `stale_sessions_expired`, `node_*_watch_count` |
//! | store thread, start | `snapshottime`, `dbinittime`, `startup_*` |
//! | links between servers (names of our own) | `peer_*` |
//!
//! Always 0 or empty, because the thing does not exist here:
//! - ZooKeeper's chain of processors: `prep_*`, `outstanding_changes_*`, `*commit_proc*`, `*_final_proc_time_ms`,
//!   `*_session_queue*`, `session_queues_drained`, `pending_session_queue_size`, `request_commit_queued`,
//!   `requests_not_forwarded_to_commit_processor`, `sync_processor_queue_*time_ms`, `close_session_prep_time`,
//!   `*write_committed_time_ms`, `commit_process_time`, `read_commitproc_time_ms`, `write_commitproc_time_ms`;
//! - its caches and cleaners: `response_packet_*`, `*dead_watcher*`, `socket_closing_time`, `netty_*`, `jvm_pause_time_ms`;
//! - throttling, not available yet: `request_throttle_queue_time_ms`, `throttled_ops`, `stale_requests*`, `stale_replies`,
//!   `connection_drop_*`, `connection_token_deficit`, `large_requests_rejected`, `tls_handshake_exceeded`,
//!   `ensemble_auth_*`, `non_mtls_*`, `insecure_admin_count`, `local_sessions`;
//! - other servers, in a server that is alone: `learner_*`, `follower_sync_time`, `observer_sync_time`, `om_*`,
//!   `quorum_ack_latency`, `proposal_latency`, `proposal_ack_creation_latency`, `proposal_process_time`,
//!   `commit_propagation_latency`, `diff_count`, `snap_count`, `inflight_*`, `revalidate_count`, `quit_leading_*`,
//!   `leader_unavailable_time`, `unavailable_time`, `digest_mismatches_count`, `skip_learner_*`;
//! - `snapshot_*_count`, `restore_*`: the admin commands are not available yet; `unrecoverable_error_count`,
//!   `cnxn_closed_without_zk_server_running`: the server ends instead.
//!
//! Left out: `read_per_namespace`, `write_per_namespace`, `quota_exceeded_error_per_namespace` and the sets by server, which
//! ZooKeeper shows only once they have a member.

/// Counters.
pub(super) const COUNTERS: &[&str] = &[
    "accepts_failed",
    "add_dead_watcher_stall_time",
    "appends_refused",
    "bytes_received_count",
    "clients_ahead",
    "cnxn_closed_without_zk_server_running",
    "commit_count",
    "connection_drop_count",
    "connection_rejected",
    "connection_request_count",
    "connection_revalidate_count",
    "dead_watchers_cleared",
    "dead_watchers_queued",
    "diff_count",
    "digest_mismatches_count",
    "ensemble_auth_fail",
    "ensemble_auth_skip",
    "ensemble_auth_success",
    "insecure_admin_count",
    "large_requests_rejected",
    "learner_commit_received_count",
    "learner_proposal_received_count",
    "looking_count",
    "malformed_connections_closed",
    "outstanding_changes_queued",
    "outstanding_changes_removed",
    "peer_bytes_received",
    "peer_bytes_sent",
    "peer_frames_damaged",
    "peer_hellos_refused",
    "peer_links_established",
    "peer_messages_dropped",
    "peer_messages_received",
    "peer_messages_sent",
    "prep_processor_request_queued",
    "proposal_count",
    "quit_leading_due_to_disloyal_voter",
    "request_commit_queued",
    "request_throttle_wait_count",
    "requests_not_forwarded_to_commit_processor",
    "response_bytes",
    "response_packet_cache_hits",
    "response_packet_cache_misses",
    "response_packet_get_children_cache_hits",
    "response_packet_get_children_cache_misses",
    "restore_error_count",
    "restore_rate_limited_count",
    "revalidate_count",
    "sessionless_connections_expired",
    "skip_learner_request_to_next_processor_count",
    "slow_clients_closed",
    "snap_count",
    "snapshot_error_count",
    "snapshot_rate_limited_count",
    "stale_replies",
    "stale_requests",
    "stale_requests_dropped",
    "stale_sessions_expired",
    "sync_processor_request_queued",
    "throttled_ops",
    "tls_handshake_exceeded",
    "unrecoverable_error_count",
    "unsuccessful_handshake",
    "watch_bytes",
    "watches_refused",
];

/// Summaries of times, in ms, with the median alone.
pub(super) const BASIC_TIMES: &[&str] = &[
    "commit_process_time",
    "dbinittime",
    "election_time",
    "follower_sync_time",
    "fsynctime",
    "leader_unavailable_time",
    "observer_sync_time",
    "prep_process_time",
    "proposal_process_time",
    "restore_time",
    "snapshottime",
    "socket_closing_time",
    "startup_snap_load_time",
    "startup_txns_load_time",
    "sync_process_time",
    "time_waiting_empty_pool_in_commit_processor_read_ms",
    "unavailable_time",
    "write_batch_time_in_commit_processor",
];

/// Summaries of numbers, with the median alone.
pub(super) const BASIC_NUMBERS: &[&str] = &[
    "commit_commit_proc_req_queued",
    "concurrent_request_processing_in_commit_processor",
    "connection_token_deficit",
    "inflight_diff_count",
    "inflight_snap_count",
    "learner_request_processor_queue_size",
    "netty_queued_buffer_capacity",
    "node_changed_watch_count",
    "node_children_watch_count",
    "node_created_watch_count",
    "node_deleted_watch_count",
    "pending_session_queue_size",
    "prep_processor_queue_size",
    "read_commit_proc_issued",
    "read_commit_proc_req_queued",
    "reads_after_write_in_session_queue",
    "reads_issued_from_session_queue",
    "requests_in_session_queue",
    "session_queues_drained",
    "startup_txns_loaded",
    "sync_processor_batch_size",
    "sync_processor_queue_size",
    "write_commit_proc_issued",
    "write_commit_proc_req_queued",
];

/// Summaries of times, in ms, with more quantiles.
pub(super) const ADVANCED_TIMES: &[&str] = &[
    "close_session_prep_time",
    "commit_propagation_latency",
    "dead_watchers_cleaner_latency",
    "jvm_pause_time_ms",
    "local_write_committed_time_ms",
    "om_commit_process_time_ms",
    "om_proposal_process_time_ms",
    "prep_processor_queue_time_ms",
    "propagation_latency",
    "proposal_ack_creation_latency",
    "proposal_latency",
    "quorum_ack_latency",
    "read_commitproc_time_ms",
    "read_final_proc_time_ms",
    "readlatency",
    "request_throttle_queue_time_ms",
    "server_write_committed_time_ms",
    "sync_processor_queue_and_flush_time_ms",
    "sync_processor_queue_flush_time_ms",
    "sync_processor_queue_time_ms",
    "updatelatency",
    "write_commitproc_time_ms",
    "write_final_proc_time_ms",
];
