//! A hundred writers of values of a mebibyte, and small requests of others beside them.

use std::time::Instant;

use super::{run_row, timed};
use crate::figure::{Reading, Target};
use crate::load::Kind;
use crate::measure::{forget_peak, peak_bytes, resident_bytes};
use crate::process::Contestant;
use crate::pulse::{Pulse, percentile_ms, slowest_ms};
use crate::rows::Row;
use crate::sets::Programme;

const WRITERS: u32 = 100;
const OTHERS_PER_S: u32 = 200;
/// What "memory bounded" is held to: ten times the values that are kept, with as many in flight.
const PEAK_LIMIT_MIB: f64 = 1_000.0;
const MIB: f64 = 1_048_576.0;

pub(crate) fn title() -> String {
    format!("values of 1 MiB, {WRITERS} writers")
}

/// The writers as fast as they go, while others read and write a hundred bytes at a time.
///
/// # Errors
/// The server's.
pub(crate) fn run(server: &Contestant, programme: &Programme) -> Result<Vec<Reading>, String> {
    let (addresses, pids) = (server.addresses(), server.pids());
    let row = Row::new(Kind::Large, WRITERS, 1);
    let plan = timed(programme.row_warm_up, programme.measured);
    // What the rows before have left in the tree is not of these values.
    let before: u64 = pids.iter().copied().filter_map(resident_bytes).sum();
    pids.iter().for_each(|pid| forget_peak(*pid));
    let pulse = Pulse::start(&addresses, &[(Kind::Get, OTHERS_PER_S), (Kind::Set, OTHERS_PER_S)])?;
    let started = Instant::now();
    let measured = run_row(&addresses, &pids, row, plan, 0);
    let span = (started, Instant::now());
    let beats = pulse.stop()?;
    let measured = measured?;
    let peak: u64 = pids.iter().filter_map(|pid| peak_bytes(*pid)).sum();
    let [reads, writes] = [0, 1].map(|kind: usize| beats[kind].within(&[span]));
    let not_worse = [Target::RatioAtMost(1.0)];
    Ok(vec![
        Reading::new("writes/s", measured.operations_per_s, &[Target::RatioAtLeast(1.0)]),
        Reading::new("write p99, ms", measured.p99_ms, &[]),
        Reading::new("server CPU of a write, µs", measured.server_us, &[]),
        Reading::new(
            "RSS at its peak, more than before, MiB",
            peak.saturating_sub(before) as f64 / MIB,
            &[Target::AtMost(PEAK_LIMIT_MIB)],
        ),
        Reading::new(
            "others' getData beside it, p99 ms",
            percentile_ms(&reads, 99.0),
            &not_worse,
        ),
        Reading::new("others' getData beside it, slowest ms", slowest_ms(&reads), &[]),
        Reading::new(
            "others' setData beside it, p99 ms",
            percentile_ms(&writes, 99.0),
            &not_worse,
        ),
        Reading::new("others' setData beside it, slowest ms", slowest_ms(&writes), &[]),
    ])
}
