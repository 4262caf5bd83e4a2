//! Listings of 100,000 children: how many a second, and what small requests of other clients notice of them.

use std::time::Instant;

use super::{run_row, timed};
use crate::figure::{Reading, Target};
use crate::load::Kind;
use crate::process::Contestant;
use crate::pulse::{Pulse, percentile_ms};
use crate::rows::Row;
use crate::sets::Programme;

/// A listing of a hundred thousand is 1.8 MB: a few sessions are as many as a server ever sees.
const SESSIONS: u32 = 4;
/// What others notice is compared at the same rate of listings on both sides: 36 MB/s.
const LISTINGS_PER_S: u32 = 20;
const OTHERS_PER_S: u32 = 1_000;

pub(crate) fn title() -> String {
    "getChildren of 100,000 children".to_owned()
}

/// Listings as fast as they go; then small reads alone, and beside listings at a fixed rate.
///
/// # Errors
/// The server's.
pub(crate) fn run(server: &Contestant, programme: &Programme) -> Result<Vec<Reading>, String> {
    let (addresses, pids) = (server.addresses(), server.pids());
    let mut row = Row::new(Kind::Wide, SESSIONS, 1);
    let plan = timed(programme.row_warm_up, programme.measured);
    let fastest = run_row(&addresses, &pids, row, plan, 0)?;

    let others_p99 = |meanwhile: &dyn Fn() -> Result<(), String>| {
        let pulse = Pulse::start(&addresses, &[(Kind::Get, OTHERS_PER_S)])?;
        let started = Instant::now();
        let happened = meanwhile();
        let span = (started, Instant::now());
        let beats = pulse.stop()?;
        happened.map(|()| percentile_ms(&beats[0].within(&[span]), 99.0))
    };
    let alone = others_p99(&|| {
        std::thread::sleep(programme.measured);
        Ok(())
    })?;
    row.pace = Some(LISTINGS_PER_S);
    let beside = others_p99(&|| run_row(&addresses, &pids, row, plan, 0).map(|_| ()))?;
    Ok(vec![
        Reading::new(
            format!("listings/s, {SESSIONS} sessions"),
            fastest.operations_per_s,
            &[Target::RatioAtLeast(3.0)],
        ),
        Reading::new("server CPU of a listing, µs", fastest.server_us, &[]),
        Reading::new("others' getData alone, p99 ms", alone, &[]),
        Reading::new(
            format!("others' getData beside {LISTINGS_PER_S} listings/s, p99 ms"),
            beside,
            &[],
        ),
        Reading::new("growth of others' p99, times", beside / alone, &[Target::AtMost(2.0)]),
    ])
}
