//! The targets of the rows of load, as issue 4 sets them: the floor that may not be lost.

use crate::figure::Target;
use crate::load::Kind;
use crate::rows::Row;

/// What a row is held to.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowTargets {
    pub(crate) throughput: Vec<Target>,
    /// The median of the latencies.
    pub(crate) latency: Vec<Target>,
    /// The 99th percentile: a fast server whose clients wait unequally long fails here.
    pub(crate) tail: Vec<Target>,
    /// Processor time of the server for each operation.
    pub(crate) processor: Vec<Target>,
}

/// An ensemble on one machine: writes and reads, whatever their shape.
const ENSEMBLE_WRITES: f64 = 2.5;
const ENSEMBLE_READS: f64 = 3.0;

/// The row's targets on so many members. A row that the issue does not name may not be behind Apache's, nor the tail of any; of one
/// with a pace both answer the same number of requests.
pub(crate) fn of_row(row: Row, servers: usize) -> RowTargets {
    let mut targets = RowTargets::default();
    if row.pace.is_some() {
        return targets;
    }
    targets.tail = vec![Target::RatioAtMost(1.0)];
    if servers >= 3 {
        let least = match row.kind {
            // Moves memory, here as there.
            Kind::LargeGet => 1.0,
            kind if kind.is_write() => ENSEMBLE_WRITES,
            _ => ENSEMBLE_READS,
        };
        targets.throughput = vec![Target::RatioAtLeast(least)];
        return targets;
    }
    let (throughput, processor) = match (row.kind, row.sessions, row.depth) {
        (Kind::Get, 100, 16) => (3.5, Some(1.0 / 6.0)),
        (Kind::Get, 100, 1) => (1.9, Some(0.4)),
        (Kind::Get, 1000, 1) => (1.8, Some(0.45)),
        (Kind::Set | Kind::Create, 100, 16) => (2.5, Some(0.25)),
        (Kind::Set | Kind::Create, 1000 | 10, 1) => (1.8, None),
        (Kind::Set | Kind::Create, 1, 1) => {
            targets.latency = vec![Target::RatioAtMost(0.6)];
            (1.0, None)
        }
        (Kind::Mixed, 100, 16) | (Kind::Children | Kind::Wide | Kind::Sessions, _, _) => (3.0, None),
        (Kind::Production, 100, 16) => (2.5, None),
        (Kind::Multi, _, _) => (2.0, None),
        _ => (1.0, None),
    };
    targets.throughput = vec![Target::RatioAtLeast(throughput)];
    targets.processor = processor.map(Target::RatioAtMost).into_iter().collect();
    targets
}
