//! A session that closes and takes ten thousand ephemerals with it: how long that takes, and what others notice.

use std::time::{Duration, Instant};

use crate::control::Control;
use crate::figure::{Reading, Spread, Target, short};
use crate::load::Kind;
use crate::process::Contestant;
use crate::pulse::{Pulse, slowest_ms};

/// Closings in one turn.
const CLOSINGS: u32 = 5;
/// Between the creates and the close: what the creates left to do must not count.
const REST: Duration = Duration::from_millis(500);
const OTHERS_PER_S: u32 = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn title(ephemerals: u32) -> String {
    format!("closing a session with {} ephemerals", short(f64::from(ephemerals)))
}

/// Opens, fills and closes such a session a few times, while others read and write.
///
/// # Errors
/// The server's.
pub(crate) fn run(server: &Contestant, ephemerals: u32) -> Result<Vec<Reading>, String> {
    let addresses = server.addresses();
    let pulse = Pulse::start(&addresses, &[(Kind::Get, OTHERS_PER_S), (Kind::Set, OTHERS_PER_S)])?;
    let close_all = || -> std::io::Result<Vec<(Instant, Instant)>> {
        let mut spans = Vec::new();
        for _ in 0..CLOSINGS {
            let mut owner = Control::open(addresses[0], PATIENCE)?;
            owner.create_all(std::iter::once(b"/bench/owned".to_vec()))?;
            let paths = (0..ephemerals).map(|number| format!("/bench/owned/{number:08}").into_bytes());
            owner.create_ephemerals(paths)?;
            std::thread::sleep(REST);
            let closing = Instant::now();
            owner.close()?;
            spans.push((closing, Instant::now()));
        }
        Ok(spans)
    };
    let spans = close_all().map_err(|error| error.to_string());
    let beats = pulse.stop()?;
    let spans = spans?;
    let times = spans.iter().map(|(from, to)| (*to - *from).as_secs_f64() * 1e3);
    let times = Spread::of(times.collect());
    let others = [Target::AtMost(50.0)];
    Ok(vec![
        Reading::new("close to its answer, ms", times.median, &[Target::RatioAtMost(0.5)]),
        Reading::new("slowest close, ms", times.most, &[]),
        Reading::new(
            "others' getData meanwhile, slowest ms",
            slowest_ms(&beats[0].within(&spans)),
            &others,
        ),
        Reading::new(
            "others' setData meanwhile, slowest ms",
            slowest_ms(&beats[1].within(&spans)),
            &others,
        ),
    ])
}
