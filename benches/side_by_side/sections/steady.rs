//! Minutes of writes at a pace that both sides keep, with checkpoints, compaction and purging of the log going on: the
//! tail of the latencies, counted from when a write was due, and the worst whole second.

use std::time::Duration;

use super::{run_row, timed};
use crate::figure::{Reading, Target};
use crate::process::Contestant;
use crate::sets::Sizes;

/// Before it counts: sessions open, files grow to their size.
const WARM_UP: Duration = Duration::from_secs(2);
const MIB: f64 = 1_048_576.0;

pub(crate) fn title(sizes: &Sizes) -> String {
    format!("{} for {} s", sizes.steady_row.title(), sizes.steady.as_secs())
}

/// One long row.
///
/// # Errors
/// The server's.
pub(crate) fn run(server: &Contestant, sizes: &Sizes) -> Result<Vec<Reading>, String> {
    // Names that the rows' creates do not use.
    const GENERATION: u32 = 9_000;
    let plan = timed(WARM_UP, sizes.steady);
    let disk_bytes = || server.members.iter().map(|member| member.disk_bytes()).sum::<u64>();
    let disk_before = disk_bytes();
    let measured = run_row(&server.addresses(), &server.pids(), sizes.steady_row, plan, GENERATION)?;
    Ok(vec![
        Reading::new("operations/s", measured.operations_per_s, &[]),
        Reading::new("p50, ms", measured.p50_ms, &[]),
        Reading::new("p99, ms", measured.p99_ms, &[]),
        Reading::new("p99.9, ms", measured.p999_ms, &[Target::RatioAtMost(0.5)]),
        Reading::new("slowest, ms", measured.max_ms, &[]),
        Reading::new(
            "worst second, share of the mean",
            measured.worst_second,
            &[Target::AtLeast(0.8)],
        ),
        Reading::new("server CPU µs/op", measured.server_us, &[]),
        Reading::new("data directory before, MiB", disk_before as f64 / MIB, &[]),
        Reading::new("data directory after, MiB", disk_bytes() as f64 / MIB, &[]),
    ])
}
