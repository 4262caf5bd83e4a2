//! The text that Prometheus fetches: that of Java's simpleclient 0.9.0, so that every dashboard made for ZooKeeper fits.
//! Names without prefix or `_total`, the help text is the name, label blocks end with a comma.

use super::{Computed, Number, Registry};
use crate::admin::java;
use crate::admin::process::Process;
use std::fmt::Write as _;

/// Quantiles of the basic and of the advanced summaries.
const BASIC: &[(&str, f64)] = &[("0.5", 0.5)];
const ADVANCED: &[(&str, f64)] = &[("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99)];

/// Everything, and what there is to say of the process if it is given.
pub(in crate::admin) fn expose(registry: &Registry, computed: &Computed, process: Option<&Process>) -> String {
    let mut text = Text(String::with_capacity(32 << 10));
    let unset = computed.unset.iter().map(|name| (*name, Number::Whole(0)));
    for (name, number) in computed.gauges.iter().copied().chain(unset) {
        text.head(name, name, "gauge");
        text.sample(name, "", number.as_f64());
    }
    for set in &computed.sets {
        text.head(set.name, set.name, "gauge");
        for (key, value) in &set.values {
            let key = key.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            text.sample(set.name, &format!("{{key=\"{key}\",}}"), *value as f64);
        }
    }
    for (name, value) in registry.counters(computed) {
        text.head(name, name, "counter");
        text.sample(name, "", value as f64);
    }
    for named in &registry.summaries {
        let asked = if named.is_advanced { ADVANCED } else { BASIC };
        let quantiles: Vec<f64> = asked.iter().map(|(_, quantile)| *quantile).collect();
        let figures = named.summary.recent_figures(&quantiles);
        text.head(named.name, named.name, "summary");
        for ((label, _), value) in asked.iter().zip(&figures.quantiles) {
            text.sample(named.name, &format!("{{quantile=\"{label}\",}}"), *value);
        }
        text.sample(&format!("{}_count", named.name), "", figures.count as f64);
        text.sample(&format!("{}_sum", named.name), "", figures.sum);
    }
    if let Some(process) = process {
        text.process(process);
    }
    text.0
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.0, "{name}{labels} {}", java::double(value));
    }

    /// The process's numbers; and its memory once more under the JVM's names, which ZooKeeper's own alert rules use.
    fn process(&mut self, process: &Process) {
        let bytes = |value: Option<u64>| value.map(|bytes| bytes as f64);
        let families = [
            (
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
                "counter",
                process.cpu_seconds,
            ),
            (
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
                "gauge",
                process.start_seconds,
            ),
            (
                "process_open_fds",
                "Number of open file descriptors.",
                "gauge",
                bytes(process.open_files),
            ),
            (
                "process_max_fds",
                "Maximum number of open file descriptors.",
                "gauge",
                bytes(process.max_files),
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes.",
                "gauge",
                bytes(process.virtual_bytes),
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
                "gauge",
                bytes(process.resident_bytes),
            ),
        ];
        for (name, help, kind, value) in families {
            if let Some(value) = value {
                self.head(name, help, kind);
                self.sample(name, "", value);
            }
        }
        let resident = bytes(process.resident_bytes).unwrap_or(0.0);
        let max = bytes(process.max_memory_bytes).unwrap_or(-1.0);
        for (name, help, value) in [
            (
                "jvm_memory_bytes_used",
                "Resident memory of this process: there is no JVM.",
                resident,
            ),
            (
                "jvm_memory_bytes_committed",
                "Resident memory of this process: there is no JVM.",
                resident,
            ),
            (
                "jvm_memory_bytes_max",
                "Memory that this process may use: there is no JVM.",
                max,
            ),
            ("jvm_memory_bytes_init", "Nothing: there is no JVM.", 0.0),
        ] {
            self.head(name, help, "gauge");
            self.sample(name, "{area=\"heap\",}", value);
        }
    }
}
