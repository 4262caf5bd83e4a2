//! Quotas: how many znodes and bytes there may be at and below a path.
//!
//! A quota on `/x` is two znodes that its owner creates: `/zookeeper/quota/x/zookeeper_limits`, which says how much, and
//! `…/zookeeper_stats`, whose data the server rewrites on every change below `/x`, without touching its stat and without
//! telling watches. The nearest quota at or above a path applies. Source: Apache's `Quotas`, `StatsTrack`, `DataTree`.

use super::State;
use super::node::{Node, NodeId};
use super::path::QUOTA_ROOT;
use super::value::Value;
use crate::proto::ErrorCode;
use std::collections::BTreeMap;
use std::fmt;

const LIMITS: &[u8] = b"/zookeeper_limits";
const STATS: &[u8] = b"/zookeeper_stats";

/// What such a znode says: `count=N,bytes=M`, and what else there may be behind `=`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    count: Option<i64>,
    bytes: Option<i64>,
    others: BTreeMap<String, i64>,
}

impl Numbers {
    /// Reads what a client wrote. A part that is not `name=number` is passed over.
    pub(super) fn parse(data: Option<&[u8]>) -> Numbers {
        let text = String::from_utf8_lossy(data.unwrap_or_default());
        let mut numbers = Numbers::default();
        for pair in text.split([',', ';']) {
            let mut parts = pair.split('=');
            let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
                continue;
            };
            let value = if value.is_empty() { Some(-1) } else { value.parse().ok() };
            let Some(value) = value else { continue };
            match name {
                "count" => numbers.count = Some(value),
                "bytes" => numbers.bytes = Some(value),
                _ => _ = numbers.others.insert(name.to_owned(), value),
            }
        }
        numbers
    }

    /// -1 stands for: not limited.
    fn count(&self) -> i64 {
        self.count.unwrap_or(-1)
    }

    fn bytes(&self) -> i64 {
        self.bytes.unwrap_or(-1)
    }

    fn hard_limit(&self, name: &str) -> Option<i64> {
        self.others.get(name).copied().filter(|limit| *limit > -1)
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "count={},bytes={}", self.count(), self.bytes())?;
        for (position, (name, value)) in self.others.iter().enumerate() {
            let separator = if position == 0 { "=;" } else { ";" };
            write!(f, "{separator}{name}={value}")?;
        }
        Ok(())
    }
}

/// For the path of a limits znode: the path that it limits. A quota on the root is ignored.
pub(super) fn limited_path(path: &[u8]) -> Option<&[u8]> {
    let limited = path.strip_prefix(QUOTA_ROOT)?.strip_suffix(LIMITS)?;
    limited.starts_with(b"/").then_some(limited)
}

/// For the path of a stats znode: the path that it counts.
fn counted_path(path: &[u8]) -> Option<&[u8]> {
    let counted = path.strip_prefix(QUOTA_ROOT)?.strip_suffix(STATS)?;
    (counted.is_empty() || counted.starts_with(b"/")).then_some(counted)
}

/// Limits and use of all quotas below one child of the root. A part that is not limited counts -1, as in ZooKeeper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaTotals {
    /// Znodes that there may be.
    pub count_limit: i64,
    /// Bytes that there may be.
    pub bytes_limit: i64,
    /// Znodes that there are.
    pub count: i64,
    /// Bytes that there are.
    pub bytes: i64,
}

impl State {
    /// Limits and use of the quotas, by the first name of their paths. Looks at every quota: for operators.
    pub fn quota_totals(&self) -> BTreeMap<String, QuotaTotals> {
        let mut totals: BTreeMap<String, QuotaTotals> = BTreeMap::new();
        for prefix in &self.quotas {
            let numbers = |name| {
                let data = self.quota_node(prefix, name).and_then(|(_, node)| node.data.bytes());
                Numbers::parse(data)
            };
            let (limits, used) = (numbers(LIMITS), numbers(STATS));
            let namespace = prefix.split(|byte| *byte == b'/').nth(1).unwrap_or_default();
            let entry = totals
                .entry(String::from_utf8_lossy(namespace).into_owned())
                .or_default();
            // A hard limit goes before a soft one.
            entry.count_limit += limits.hard_limit("countHardLimit").unwrap_or_else(|| limits.count());
            entry.bytes_limit += limits.hard_limit("byteHardLimit").unwrap_or_else(|| limits.bytes());
            entry.count += used.count();
            entry.bytes += used.bytes();
        }
        totals
    }

    /// The path of the nearest quota at or above `path`.
    fn nearest_quota<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        if self.quotas.is_empty() {
            return None;
        }
        let mut prefix = path;
        while prefix.len() > 1 {
            if self.quotas.contains(prefix) {
                return Some(prefix);
            }
            let last_slash = prefix.iter().rposition(|byte| *byte == b'/')?;
            prefix = &prefix[..last_slash];
        }
        None
    }

    /// Whether so many more znodes and bytes at `path` stay within its hard limits.
    ///
    /// # Errors
    /// `QuotaExceeded`.
    pub(super) fn check_quota(&self, path: &[u8], more_znodes: i64, more_bytes: i64) -> Result<(), ErrorCode> {
        let Some(prefix) = self.nearest_quota(path) else {
            return Ok(());
        };
        let Some((_, limits)) = self.quota_node(prefix, LIMITS) else {
            return Ok(());
        };
        let Some((_, stats)) = self.quota_node(prefix, STATS) else {
            return Ok(());
        };
        let (limits, stats) = (Numbers::parse(limits.data.bytes()), Numbers::parse(stats.data.bytes()));
        let exceeds = |more: i64, used: i64, limit: Option<i64>| {
            more != 0 && limit.is_some_and(|limit| used.saturating_add(more) > limit)
        };
        if exceeds(more_znodes, stats.count(), limits.hard_limit("countHardLimit"))
            || exceeds(more_bytes, stats.bytes(), limits.hard_limit("byteHardLimit"))
        {
            return Err(ErrorCode::QuotaExceeded);
        }
        Ok(())
    }

    /// Counts what changed at `path` in the stats of the nearest quota.
    pub(super) fn count_usage(&mut self, path: &[u8], more_znodes: i64, more_bytes: i64) {
        let Some(prefix) = self.nearest_quota(path) else { return };
        let Some((id, stats)) = self.quota_node(prefix, STATS) else {
            return;
        };
        let mut numbers = Numbers::parse(stats.data.bytes());
        numbers.count = Some(numbers.count().saturating_add(more_znodes));
        numbers.bytes = Some(numbers.bytes().saturating_add(more_bytes));
        self.write_stats(id, &numbers);
    }

    /// Fills a stats znode that was created just now with what is used already.
    pub(super) fn measure_usage(&mut self, id: NodeId, path: &[u8]) {
        let Some(counted) = counted_path(path) else { return };
        let (mut count, mut bytes) = (0_i64, 0_i64);
        if let Some(root) = self.tree.find(counted) {
            self.tree.walk(root, |_, node| {
                count += 1;
                bytes += data_bytes(node);
            });
        }
        let numbers = Numbers {
            count: Some(count),
            bytes: Some(bytes),
            others: BTreeMap::new(),
        };
        self.write_stats(id, &numbers);
    }

    fn write_stats(&mut self, id: NodeId, numbers: &Numbers) {
        let path = self.tree.path(id);
        self.replace_data(id, &path, Some(Value::from(numbers.to_string().as_bytes())), |_| ());
    }

    fn quota_node(&self, prefix: &[u8], name: &[u8]) -> Option<(NodeId, &Node)> {
        let id = self.tree.find(&[QUOTA_ROOT, prefix, name].concat())?;
        Some((id, self.tree.node(id)))
    }
}

/// Data's size as quotas count it: requests are limited to megabytes, so it always fits.
pub(super) fn data_bytes(node: &Node) -> i64 {
    node.data_bytes() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_apache_writes_them() {
        for text in [
            "count=5,bytes=-1",
            "count=1,bytes=2=;byteHardLimit=10;countHardLimit=-1",
        ] {
            assert_eq!(Numbers::parse(Some(text.as_bytes())).to_string(), text);
        }
        assert_eq!(Numbers::parse(None).to_string(), "count=-1,bytes=-1");
        assert_eq!(
            Numbers::parse(Some(b"bytes=3,junk,count=x,")).to_string(),
            "count=-1,bytes=3"
        );
    }

    #[test]
    fn quotas_stand_below_the_path_that_they_are_for() {
        assert_eq!(
            limited_path(b"/zookeeper/quota/a/b/zookeeper_limits"),
            Some(&b"/a/b"[..])
        );
        assert_eq!(limited_path(b"/zookeeper/quota/zookeeper_limits"), None);
        assert_eq!(limited_path(b"/zookeeper/quotas/a/zookeeper_limits"), None);
        assert_eq!(limited_path(b"/a/zookeeper_limits"), None);
        assert_eq!(counted_path(b"/zookeeper/quota/a/zookeeper_stats"), Some(&b"/a"[..]));
    }
}
