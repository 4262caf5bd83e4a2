//! Metrics: the numbers that the rooms record, under ZooKeeper's names, in the two forms in which it shows them.
//!
//! ```text
//!   metrics::counter!("commit_count") ── Recorder ──▶ Registry ──┬─ dump ────▶ mntr, /commands/monitor
//!   (rooms keep the handle)                              gauges ─┴─ expose ──▶ Prometheus
//! ```
//!
//! Recording takes no lock; rooms get their handles once and record per batch. A name that is not in the catalogue goes
//! nowhere. Times are recorded in ms, with fractions.

mod catalogue;
mod exposition;
mod summary;

pub(super) use exposition::expose;

use catalogue::{ADVANCED_TIMES, BASIC_NUMBERS, BASIC_TIMES, COUNTERS};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use std::sync::Arc;
use summary::{Count, Summary};

/// Parts of a millisecond that times tell apart.
const TIME_SCALE: u32 = 1000;
/// Quantiles of the advanced summaries, as `mntr` names and shows them.
const DUMPED: [(&str, f64); 4] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)];

/// A number as ZooKeeper's texts tell it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(i64),
    Fraction(f64),
}

impl Number {
    pub(super) fn as_f64(self) -> f64 {
        match self {
            Number::Whole(number) => number as f64,
            Number::Fraction(number) => number,
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Number::Whole(number) => write!(f, "{number}"),
            Number::Fraction(number) => f.write_str(&super::java::double(*number)),
        }
    }
}

/// The values of one gauge, by key.
#[derive(Clone, Debug)]
pub(super) struct GaugeSet {
    pub(super) name: &'static str,
    pub(super) values: Vec<(String, i64)>,
}

/// Numbers that are read when they are asked for, not recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct Computed {
    pub(super) gauges: Vec<(&'static str, Number)>,
    /// Gauges without a value, Java's null: Prometheus is told 0, and `mntr` says nothing, as in ZooKeeper.
    pub(super) unset: Vec<&'static str>,
    /// Gauges that have a value per member of a set.
    pub(super) sets: Vec<GaugeSet>,
    /// Counters that are kept elsewhere.
    pub(super) counters: Vec<(&'static str, u64)>,
}

struct NamedSummary {
    name: &'static str,
    is_advanced: bool,
    summary: Arc<Summary>,
}

/// All counters and summaries of the catalogue.
pub struct Registry {
    counters: Vec<(&'static str, Arc<Count>)>,
    summaries: Vec<NamedSummary>,
}

impl Default for Registry {
    fn default() -> Registry {
        let summaries = |names: &'static [&'static str], is_advanced, scale| {
            names.iter().map(move |name| NamedSummary {
                name,
                is_advanced,
                summary: Arc::new(Summary::new(scale)),
            })
        };
        Registry {
            counters: COUNTERS.iter().map(|name| (*name, Arc::default())).collect(),
            summaries: summaries(BASIC_TIMES, false, TIME_SCALE)
                .chain(summaries(BASIC_NUMBERS, false, 1))
                .chain(summaries(ADVANCED_TIMES, true, TIME_SCALE))
                .collect(),
        }
    }
}

impl Registry {
    /// Has the rooms' numbers recorded here from now on. Only the first call of a process does; handles that were made
    /// before it record nowhere.
    pub fn install(self: &Arc<Registry>) {
        if metrics::set_global_recorder(Handles(self.clone())).is_err() {
            tracing::warn!("metrics are recorded by another part of this process already; mntr will show none of them");
        }
    }

    /// `srst`: counters and summaries begin anew.
    pub(super) fn reset(&self) {
        self.counters.iter().for_each(|(_, count)| count.reset());
        self.summaries.iter().for_each(|named| named.summary.reset());
    }

    /// A window of the quantiles for Prometheus ends.
    pub(super) fn end_window(&self) {
        self.summaries.iter().for_each(|named| named.summary.end_window());
    }

    fn counters<'a>(&'a self, computed: &'a Computed) -> impl Iterator<Item = (&'static str, u64)> + 'a {
        self.counters.iter().map(|(name, count)| {
            let elsewhere = computed.counters.iter().find(|(other, _)| other == name);
            (*name, elsewhere.map_or_else(|| count.get(), |(_, value)| *value))
        })
    }

    /// Everything in the form of ZooKeeper's default provider. Times in whole ms, as there, but averages.
    pub(super) fn dump(&self, computed: &Computed, mut tell: impl FnMut(&str, Number)) {
        for (name, number) in &computed.gauges {
            tell(name, *number);
        }
        for set in &computed.sets {
            for (key, value) in &set.values {
                tell(&format!("{}_{}", word(key), set.name), Number::Whole(*value));
            }
        }
        for (name, value) in self.counters(computed) {
            tell(name, whole(value as f64));
        }
        for NamedSummary {
            name,
            is_advanced,
            summary,
        } in &self.summaries
        {
            let asked: &[(&str, f64)] = if *is_advanced { &DUMPED } else { &[] };
            let quantiles: Vec<f64> = asked.iter().map(|(_, quantile)| *quantile).collect();
            let figures = summary.figures(&quantiles);
            tell(&format!("avg_{name}"), Number::Fraction(figures.average()));
            tell(&format!("min_{name}"), whole(figures.min));
            tell(&format!("max_{name}"), whole(figures.max));
            tell(&format!("cnt_{name}"), whole(figures.count as f64));
            tell(&format!("sum_{name}"), whole(figures.sum));
            for ((label, _), quantile) in asked.iter().zip(&figures.quantiles) {
                tell(&format!("{label}_{name}"), whole(*quantile));
            }
        }
    }
}

/// A key as part of a name: what is no letter, digit or underscore becomes one, or Telegraf would give up the whole answer.
fn word(key: &str) -> String {
    key.replace(|character: char| !character.is_ascii_alphanumeric(), "_")
}

/// NaN is 0, as in ZooKeeper.
fn whole(value: f64) -> Number {
    Number::Whole(value.round() as i64)
}

/// Gives rooms their handles.
struct Handles(Arc<Registry>);

impl Recorder for Handles {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let found = self.0.counters.iter().find(|(name, _)| *name == key.name());
        found.map_or(Counter::noop(), |(_, count)| Counter::from_arc(count.clone()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let found = self.0.summaries.iter().find(|named| named.name == key.name());
        found.map_or(Histogram::noop(), |named| Histogram::from_arc(named.summary.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn dumped(registry: &Registry, computed: &Computed) -> BTreeMap<String, String> {
        let mut lines = BTreeMap::new();
        registry.dump(computed, |key, number| {
            assert!(
                lines.insert(key.to_owned(), number.to_string()).is_none(),
                "{key} twice"
            );
        });
        lines
    }

    #[test]
    fn what_rooms_record_is_shown_under_zookeepers_names() {
        let registry = Arc::new(Registry::default());
        metrics::with_local_recorder(&Handles(registry.clone()), || {
            metrics::counter!("commit_count").increment(3);
            metrics::histogram!("fsynctime").record(1.5);
            metrics::histogram!("readlatency").record_many(2.0, 10);
            metrics::counter!("no_such_name").increment(1);
        });
        let computed = Computed {
            gauges: vec![
                ("znode_count", Number::Whole(5)),
                ("avg_latency", Number::Fraction(0.0)),
            ],
            unset: vec!["synced_observers"],
            sets: vec![GaugeSet {
                name: "quota_count_limit_per_namespace",
                values: vec![("my-app".to_owned(), 9)],
            }],
            counters: vec![("bytes_received_count", 7)],
        };
        let lines = dumped(&registry, &computed);
        for (key, value) in [
            ("znode_count", "5"),
            ("my_app_quota_count_limit_per_namespace", "9"),
            ("avg_latency", "0.0"),
            ("bytes_received_count", "7"),
            ("commit_count", "3"),
            ("avg_fsynctime", "1.5"),
            ("max_fsynctime", "2"),
            ("cnt_fsynctime", "1"),
            ("cnt_readlatency", "10"),
            ("sum_readlatency", "20"),
            ("p50_readlatency", "2"),
            ("p999_readlatency", "2"),
            ("p50_updatelatency", "0"),
            ("avg_updatelatency", "0.0"),
        ] {
            assert_eq!(lines.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(!lines.contains_key("p50_fsynctime"));
        assert!(!lines.contains_key("no_such_name"));
        assert!(!lines.contains_key("synced_observers"));
        registry.reset();
        assert_eq!(dumped(&registry, &computed)["commit_count"], "0");
    }

    #[test]
    fn the_exposition_is_that_of_the_java_client() {
        let registry = Arc::new(Registry::default());
        metrics::with_local_recorder(&Handles(registry.clone()), || {
            metrics::counter!("commit_count").increment(3);
            metrics::histogram!("fsynctime").record(1.0);
        });
        let computed = Computed {
            gauges: vec![("znode_count", Number::Whole(5))],
            unset: vec!["synced_observers"],
            sets: vec![GaugeSet {
                name: "quota_count_limit_per_namespace",
                values: vec![("a\"b".to_owned(), 9)],
            }],
            counters: Vec::new(),
        };
        let text = expose(&registry, &computed, None);
        for expected in [
            "# HELP znode_count znode_count\n# TYPE znode_count gauge\nznode_count 5.0\n",
            "# TYPE synced_observers gauge\nsynced_observers 0.0\n",
            "# TYPE quota_count_limit_per_namespace gauge\nquota_count_limit_per_namespace{key=\"a\\\"b\",} 9.0\n",
            "# HELP commit_count commit_count\n# TYPE commit_count counter\ncommit_count 3.0\n",
            "# HELP fsynctime fsynctime\n# TYPE fsynctime summary\nfsynctime{quantile=\"0.5\",} 1.0\n\
             fsynctime_count 1.0\nfsynctime_sum 1.0\n",
            "updatelatency{quantile=\"0.5\",} NaN\nupdatelatency{quantile=\"0.9\",} NaN\n\
             updatelatency{quantile=\"0.99\",} NaN\nupdatelatency_count 0.0\nupdatelatency_sum 0.0\n",
        ] {
            assert!(text.contains(expected), "{expected}\nis not in\n{text}");
        }
    }
}
