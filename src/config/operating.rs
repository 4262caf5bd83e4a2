//! What operators meet: four-letter words, admin server, metrics, audit log; and the switches that shed load.

use super::draft::{Draft, Given};
use super::key::{Key, Setter, Unit};
use super::value::JAVA_INT_MAX;
use crate::membership::{Address, Host};
use std::collections::BTreeSet;
use std::num::NonZeroU32;

/// Every four-letter word there is.
pub const FOUR_LETTER_WORDS: [&str; 18] = [
    "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "hash", "isro", "mntr", "ruok", "srst", "srvr", "stat",
    "stmk", "wchc", "wchp", "wchs",
];

/// The four-letter words that are answered (`4lw.commands.whitelist`). Default `srvr` alone, ZooKeeper's: the others
/// tell strangers too much, or cost too much. `srvr` is always among them, because `zkServer.sh status` needs it, and
/// `isro` is where read-only mode is on, because clients need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FourLetterWords(BTreeSet<String>);

impl FourLetterWords {
    pub(super) fn new(mut words: BTreeSet<String>, read_only_mode: bool) -> Self {
        words.insert("srvr".to_owned());
        if read_only_mode {
            words.insert("isro".to_owned());
        }
        Self(words)
    }

    /// Whether `word` is answered.
    #[must_use]
    pub fn allows(&self, word: &str) -> bool {
        self.0.contains(word)
    }

    /// The words that are answered, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Default for FourLetterWords {
    fn default() -> Self {
        Self::new(BTreeSet::new(), false)
    }
}

/// The HTTP admin server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Whether it runs (`admin.enableServer`). Default on, as in ZooKeeper.
    pub enabled: bool,
    /// Where it listens (`admin.serverAddress`, `admin.serverPort`). Default port 8080 on all addresses, ZooKeeper's.
    pub address: Address,
    /// Whether the server must not start without it. True where `admin.serverPort` was given. Where it was not, nobody
    /// asked for this port, 8080 is often taken, and a taken port costs a warning. (ZooKeeper does not start then.)
    pub required: bool,
    /// The path below which its commands are (`admin.commandURL`); begins with a slash. Default `/commands`.
    pub command_url: String,
    /// An idle connection is closed after this many milliseconds (`admin.idleTimeout`). Default 30,000, ZooKeeper's.
    pub idle_timeout_ms: u32,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            enabled: true,
            address: Address::any(8080),
            required: false,
            command_url: "/commands".to_owned(),
            idle_timeout_ms: 30_000,
        }
    }
}

/// Metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Who gets them (`metricsProvider.className`). Default [`MetricsProvider::Internal`], as in ZooKeeper.
    pub provider: MetricsProvider,
    /// Where Prometheus fetches them (`metricsProvider.httpHost`, `metricsProvider.httpPort`). Default port 7000 on all
    /// addresses, ZooKeeper's.
    pub address: Address,
    /// Show the process's own numbers too, under the names of the JVM's where there is an equivalent
    /// (`metricsProvider.exportJvmInfo`). Default on, as in ZooKeeper.
    pub export_process_info: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            provider: MetricsProvider::Internal,
            address: Address::any(7000),
            export_process_info: true,
        }
    }
}

/// Who gets the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsProvider {
    /// The four-letter word `mntr` and the admin server's `monitor`.
    Internal,
    /// Those, and an HTTP endpoint for Prometheus.
    Prometheus,
    /// Nobody; nothing is counted.
    Nobody,
}

/// The audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Whether it is written (`audit.enable`). Default off, as in ZooKeeper.
    pub enabled: bool,
}

/// Switches that shed load; all off by default, as in ZooKeeper.
#[derive(Debug, Clone, PartialEq)]
pub struct Throttle {
    /// Requests between arrival and answer, above which new ones are stalled (`request_throttle_max_requests`).
    pub max_requests: Option<NonZeroU32>,
    /// The length of a stall in milliseconds (`request_throttle_stall_time`). Default 100.
    pub stall_ms: u32,
    /// Drop a stalled request whose session or connection is gone (`request_throttle_drop_stale`). Default on.
    pub drop_stale: bool,
    /// A request that waited longer than its session's timeout is stale (`request_stale_latency_check`). Default off.
    pub stale_by_latency: bool,
    /// A request whose connection is closed is stale (`request_stale_connection_check`). Default on.
    pub stale_by_connection: bool,
    /// A request that waited longer than this many milliseconds gets a throttled error (`throttled_op_wait_time`).
    pub throttled_operation_wait_ms: Option<NonZeroU32>,
    /// A request of this many bytes or more is large (`largeRequestThreshold`).
    pub large_request_bytes: Option<u32>,
    /// Large requests held at once, in bytes (`largeRequestMaxBytes`). Default 100 MiB.
    pub large_request_max_bytes: u32,
    /// The bucket of tokens that new sessions draw from.
    pub connections: ConnectionThrottle,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            max_requests: None,
            stall_ms: 100,
            drop_stale: true,
            stale_by_latency: false,
            stale_by_connection: true,
            throttled_operation_wait_ms: None,
            large_request_bytes: None,
            large_request_max_bytes: 100 << 20,
            connections: ConnectionThrottle::default(),
        }
    }
}

/// The bucket of tokens that new sessions draw from (`connection_throttle_*`).
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionThrottle {
    /// The size of the bucket (`…tokens`). `None`: no throttling.
    pub tokens: Option<NonZeroU32>,
    /// Milliseconds between two fillings (`…fill_time`). Default 1.
    pub fill_interval_ms: u32,
    /// Tokens added each time (`…fill_count`). Default 1.
    pub fill_tokens: u32,
    /// Milliseconds between two changes of the drop probability (`…freeze_time`). `None`: it stays 0.
    pub freeze_ms: Option<u32>,
    /// What the drop probability rises by, 0 to 1 (`…drop_increase`). Default 0.02.
    pub drop_increase: f64,
    /// What it falls by, 0 to 1 (`…drop_decrease`). Default 0.002.
    pub drop_decrease: f64,
    /// The ratio of tokens above which it falls, 0 to 1 (`…decrease_ratio`). Default 0.
    pub decrease_ratio: f64,
}

impl Default for ConnectionThrottle {
    fn default() -> Self {
        Self {
            tokens: None,
            fill_interval_ms: 1,
            fill_tokens: 1,
            freeze_ms: None,
            drop_increase: 0.02,
            drop_decrease: 0.002,
            decrease_ratio: 0.0,
        }
    }
}

const HOST: &str = "an IP address or a host name";
const METRICS_PROVIDERS: &str = "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider, \
                                 org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider or \
                                 org.apache.zookeeper.metrics.impl.NullMetricsProvider";

pub(super) const KEYS: &[Key] = &[
    Key::honoured(
        "4lw.commands.whitelist",
        "srvr",
        Setter::Parsed {
            form: "four-letter words separated by commas, or * for all",
            set: set_four_letter_words,
        },
        "the four-letter words that are answered",
    ),
    Key::honoured(
        "admin.enableServer",
        "true",
        Setter::Lenient(|draft, on| draft.config.admin.enabled = on),
        "the HTTP admin server",
    ),
    Key::honoured(
        "admin.serverAddress",
        "0.0.0.0",
        Setter::Parsed {
            form: HOST,
            set: |draft, given| {
                draft.config.admin.address.host = host(given)?;
                Ok(())
            },
        },
        "the address of the admin server",
    ),
    Key::honoured(
        "admin.serverPort",
        "8080",
        Setter::Port(|draft, port| {
            draft.config.admin.address.port = port;
            draft.config.admin.required = true;
        }),
        "the port of the admin server; where it is given and taken, the server does not start",
    ),
    Key::honoured(
        "admin.commandURL",
        "/commands",
        Setter::Parsed {
            form: "a path that begins with a slash",
            set: |draft, given| {
                if !given.text.starts_with('/') {
                    return Err("expected a path that begins with a slash".to_owned());
                }
                draft.config.admin.command_url = given.text.clone();
                Ok(())
            },
        },
        "the path below which the admin server's commands are",
    ),
    Key::honoured(
        "admin.idleTimeout",
        "30000",
        Setter::Number {
            unit: Unit::Milliseconds,
            min: 1,
            max: JAVA_INT_MAX,
            set: |draft, timeout| draft.config.admin.idle_timeout_ms = timeout,
        },
        "how long a connection to the admin server may be idle",
    ),
    Key::honoured(
        "metricsProvider.className",
        "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider",
        Setter::Parsed {
            form: METRICS_PROVIDERS,
            set: |draft, given| {
                draft.config.metrics.provider = match given.text.as_str() {
                    "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider" => MetricsProvider::Internal,
                    "org.apache.zookeeper.metrics.impl.NullMetricsProvider" => MetricsProvider::Nobody,
                    "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider" => MetricsProvider::Prometheus,
                    _ => return Err(format!("expected {METRICS_PROVIDERS}")),
                };
                Ok(())
            },
        },
        "who gets the metrics",
    ),
    Key::honoured(
        "metricsProvider.httpHost",
        "0.0.0.0",
        Setter::Parsed {
            form: HOST,
            set: |draft, given| {
                draft.config.metrics.address.host = host(given)?;
                Ok(())
            },
        },
        "the address from which Prometheus fetches",
    ),
    Key::honoured(
        "metricsProvider.httpPort",
        "7000",
        Setter::Port(|draft, port| draft.config.metrics.address.port = port),
        "the port from which Prometheus fetches",
    ),
    Key::honoured(
        "metricsProvider.exportJvmInfo",
        "true",
        Setter::Lenient(|draft, on| draft.config.metrics.export_process_info = on),
        "numbers of the process beside those of the server",
    ),
    Key::not_yet(
        "audit.enable",
        "false",
        Setter::Lenient(|draft, on| draft.config.audit.enabled = on),
        "the audit log",
    ),
    Key::not_yet(
        "request_throttle_max_requests",
        "0",
        Setter::Optional {
            unit: Unit::Plain,
            unset: 0,
            max: JAVA_INT_MAX,
            set: |draft, limit| draft.config.throttle.max_requests = limit.and_then(NonZeroU32::new),
        },
        "requests between arrival and answer, above which new ones are stalled",
    ),
    Key::not_yet(
        "request_throttle_stall_time",
        "100",
        Setter::Number {
            unit: Unit::Milliseconds,
            min: 0,
            max: JAVA_INT_MAX,
            set: |draft, stall| draft.config.throttle.stall_ms = stall,
        },
        "the length of a stall",
    ),
    Key::not_yet(
        "request_throttle_drop_stale",
        "true",
        Setter::Lenient(|draft, on| draft.config.throttle.drop_stale = on),
        "drop a stalled request whose session or connection is gone",
    ),
    Key::not_yet(
        "request_stale_latency_check",
        "false",
        Setter::Lenient(|draft, on| draft.config.throttle.stale_by_latency = on),
        "a request that waited longer than its session's timeout is stale",
    ),
    Key::not_yet(
        "request_stale_connection_check",
        "true",
        Setter::Lenient(|draft, on| draft.config.throttle.stale_by_connection = on),
        "a request whose connection is closed is stale",
    ),
    Key::not_yet(
        "throttled_op_wait_time",
        "0",
        Setter::Optional {
            unit: Unit::Milliseconds,
            unset: 0,
            max: JAVA_INT_MAX,
            set: |draft, wait| draft.config.throttle.throttled_operation_wait_ms = wait.and_then(NonZeroU32::new),
        },
        "a request that waited longer gets a throttled error",
    ),
    Key::not_yet(
        "largeRequestThreshold",
        "-1",
        Setter::Optional {
            unit: Unit::Bytes,
            unset: -1,
            max: JAVA_INT_MAX,
            set: |draft, bytes| draft.config.throttle.large_request_bytes = bytes,
        },
        "a request of this size or more is large",
    ),
    Key::not_yet(
        "largeRequestMaxBytes",
        "104857600",
        Setter::Number {
            unit: Unit::Bytes,
            min: 1,
            max: JAVA_INT_MAX,
            set: |draft, bytes| draft.config.throttle.large_request_max_bytes = bytes,
        },
        "large requests held at once",
    ),
    Key::not_yet(
        "connection_throttle_tokens",
        "0",
        Setter::Optional {
            unit: Unit::Plain,
            unset: 0,
            max: JAVA_INT_MAX,
            set: |draft, tokens| draft.config.throttle.connections.tokens = tokens.and_then(NonZeroU32::new),
        },
        "the size of the bucket that new sessions draw from",
    ),
    Key::not_yet(
        "connection_throttle_fill_time",
        "1",
        Setter::Number {
            unit: Unit::Milliseconds,
            min: 1,
            max: JAVA_INT_MAX,
            set: |draft, interval| draft.config.throttle.connections.fill_interval_ms = interval,
        },
        "time between two fillings of the bucket",
    ),
    Key::not_yet(
        "connection_throttle_fill_count",
        "1",
        Setter::Number {
            unit: Unit::Plain,
            min: 1,
            max: JAVA_INT_MAX,
            set: |draft, tokens| draft.config.throttle.connections.fill_tokens = tokens,
        },
        "tokens added each time",
    ),
    Key::not_yet(
        "connection_throttle_freeze_time",
        "-1",
        Setter::Optional {
            unit: Unit::Milliseconds,
            unset: -1,
            max: JAVA_INT_MAX,
            set: |draft, freeze| draft.config.throttle.connections.freeze_ms = freeze,
        },
        "time between two changes of the drop probability",
    ),
    Key::not_yet(
        "connection_throttle_drop_increase",
        "0.02",
        Setter::Fraction(|draft, by| draft.config.throttle.connections.drop_increase = by),
        "what the drop probability rises by",
    ),
    Key::not_yet(
        "connection_throttle_drop_decrease",
        "0.002",
        Setter::Fraction(|draft, by| draft.config.throttle.connections.drop_decrease = by),
        "what the drop probability falls by",
    ),
    Key::not_yet(
        "connection_throttle_decrease_ratio",
        "0",
        Setter::Fraction(|draft, ratio| draft.config.throttle.connections.decrease_ratio = ratio),
        "the ratio of tokens above which the drop probability falls",
    ),
];

fn host(given: &Given) -> Result<Host, String> {
    Host::parse(&given.text).ok_or_else(|| format!("expected {HOST}"))
}

fn set_four_letter_words(draft: &mut Draft, given: &Given) -> Result<(), String> {
    let mut words = BTreeSet::new();
    for word in given.text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if word == "*" {
            words.extend(FOUR_LETTER_WORDS.map(str::to_owned));
        } else if FOUR_LETTER_WORDS.contains(&word) {
            words.insert(word.to_owned());
        } else {
            draft.warn(given, format!("there is no four-letter word {word:?}"));
        }
    }
    draft.pending.four_letter_words = Some(words);
    Ok(())
}
