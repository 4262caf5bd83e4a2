//! Runs one row on one server, and a programme of rows on several servers in turn.

use std::net::SocketAddr;
use std::time::Duration;

use crate::churn;
use crate::control::Control;
use crate::figure::{Figure, Target};
use crate::fleet::Fleet;
use crate::load::{self, Kind, RowLoad};
use crate::measure::{Sample, await_quiet_machine, resident_bytes, settle};
use crate::process::{Contestant, Side};
use crate::recorder::{Plan, Run};
use crate::rows::Row;
use crate::sets::Programme;
use crate::targets;

/// How long preparing znodes may take per reply.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server may go on working after a row before the other's turn comes.
pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(15);

/// With `--quiet`: what others may use of the machine, how long to wait for that, and how often to try a turn again.
const QUIET_CORES: f64 = 0.25;
const QUIET_LIMIT: Duration = Duration::from_secs(60);
const QUIET_TRIES: u32 = 4;

/// With `--quiet`: waits before a turn until the machine is quiet, a minute at most.
pub(crate) fn await_quiet() {
    await_quiet_machine(QUIET_CORES, QUIET_LIMIT);
}

/// The result of one turn.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) operations_per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    /// The slowest whole second, as a share of the mean.
    pub(crate) worst_second: f64,
    /// Processor time of the server for each operation.
    pub(crate) server_us: f64,
    /// Processor time of the driver for each operation.
    pub(crate) driver_us: f64,
    /// Processors that anything but server and driver kept busy, on average: how quiet the machine was.
    pub(crate) others_cores: f64,
    pub(crate) resident_bytes: u64,
}

impl Measured {
    fn new(run: &Run, resident_bytes: u64) -> Self {
        let seconds = run.elapsed.as_secs_f64();
        let operations = run.operations.max(1) as f64;
        let (server, driver, others) = run.after.seconds_since(&run.before);
        let percentile_ms = |percentile| run.latency.value_at_percentile(percentile) as f64 / 1e6;
        let mean = operations / seconds;
        let worst = run
            .per_second
            .iter()
            .min()
            .map_or(mean, |operations| *operations as f64);
        Self {
            operations_per_s: mean,
            p50_ms: percentile_ms(50.0),
            p99_ms: percentile_ms(99.0),
            p999_ms: percentile_ms(99.9),
            max_ms: run.latency.max() as f64 / 1e6,
            worst_second: worst / mean,
            server_us: server * 1e6 / operations,
            driver_us: driver * 1e6 / operations,
            others_cores: others / seconds,
            resident_bytes,
        }
    }
}

/// Makes the znodes that every row needs; returns when every member shows them.
///
/// # Errors
/// The server's.
pub(crate) fn prepare(addresses: &[SocketAddr]) -> Result<(), String> {
    make(addresses, &load::common_paths().collect::<Vec<_>>(), load::VALUE)
}

/// Creates what is not there yet; returns when every member shows it.
fn make(addresses: &[SocketAddr], paths: &[Vec<u8>], value: &[u8]) -> Result<(), String> {
    let Some(last) = paths.last() else { return Ok(()) };
    let make = || {
        let mut control = Control::open(addresses[0], PATIENCE)?;
        // They are created in order: where the last is, the others are.
        if control.get(last).is_err() {
            control.create_holding(paths.iter().cloned(), value)?;
        }
        control.close()?;
        for address in &addresses[1..] {
            let mut control = Control::open(*address, PATIENCE)?;
            control.sync()?;
            control.close()?;
        }
        Ok(())
    };
    make().map_err(|error: std::io::Error| format!("preparing znodes: {error}"))
}

/// Runs one row, its sessions in turn on each of the addresses. `generation` must differ between rows that create on the same server.
///
/// # Errors
/// The server's, with the row's name.
pub(crate) fn run_row(
    addresses: &[SocketAddr],
    pids: &[u32],
    row: Row,
    plan: Plan,
    generation: u32,
) -> Result<Measured, String> {
    let sample = || Sample::take(pids);
    let run = || -> Result<Run, String> {
        if row.kind == Kind::Sessions {
            return churn::run(addresses, row.sessions, plan, &sample);
        }
        let paths = load::row_paths(row.kind, generation, row.sessions);
        make(addresses, &paths, &load::row_value(row.kind))?;
        let mut fleet = Fleet::open(addresses, row.sessions, row.depth)?;
        let mut load = RowLoad::new(row.kind, generation);
        let run = fleet.run(&mut load, row.pace, plan, &sample)?;
        fleet.close()?;
        Ok(run)
    };
    let run = run().map_err(|error| format!("{row}: {error}"))?;
    let resident = pids.iter().copied().filter_map(resident_bytes).sum();
    Ok(Measured::new(&run, resident))
}

/// All turns of one row: for each side, one result per round.
#[derive(Debug)]
pub(crate) struct RowResult {
    pub(crate) row: Row,
    pub(crate) turns: Vec<Vec<Measured>>,
    pub(crate) figures: RowFigures,
}

/// What of a row is held to a target.
#[derive(Debug)]
pub(crate) struct RowFigures {
    pub(crate) throughput: Figure,
    /// The median.
    pub(crate) latency: Figure,
    /// The 99th percentile.
    pub(crate) tail: Figure,
    /// Processor time of the server for each operation.
    pub(crate) processor: Figure,
}

impl RowResult {
    fn new(row: Row, servers: &[Contestant], turns: Vec<Vec<Measured>>) -> Self {
        let members = servers.first().map_or(1, |server| server.members.len());
        let targets = targets::of_row(row, members);
        let figure = |what: &str, targets: Vec<Target>, of: fn(&Measured) -> f64| {
            let sides = servers.iter().zip(&turns);
            Figure {
                name: format!("{}{what}", row.title()),
                targets,
                turns: sides
                    .map(|(server, turns)| (server.side, turns.iter().map(of).collect()))
                    .collect(),
            }
        };
        Self {
            figures: RowFigures {
                throughput: figure("", targets.throughput, |turn| turn.operations_per_s),
                latency: figure(", p50", targets.latency, |turn| turn.p50_ms),
                tail: figure(", p99", targets.tail, |turn| turn.p99_ms),
                processor: figure(", server CPU per op", targets.processor, |turn| turn.server_us),
            },
            row,
            turns,
        }
    }
}

/// Prepares and warms up all servers, then runs every row of a programme on them in turn: A B A B.
///
/// # Errors
/// The first row's that fails on any side.
pub(crate) fn run_rows(servers: &[Contestant], programme: &Programme) -> Result<Vec<RowResult>, String> {
    let mut generation = 0;
    for server in servers {
        eprintln!(
            "warming up {} for {} s",
            server.side.name(),
            programme.server_warm_up.as_secs()
        );
        prepare(&server.addresses())?;
        warm_up(server, programme.server_warm_up, &mut generation)?;
    }
    let plan = Plan::Timed {
        warm_up: programme.row_warm_up,
        measured: programme.measured,
    };
    let mut results = Vec::new();
    for row in &programme.rows {
        let mut turns = vec![Vec::new(); servers.len()];
        for round in 1..=programme.rounds {
            for (server, turns) in servers.iter().zip(&mut turns) {
                let label = format!("{} {round}", server.side.name());
                let tries = if programme.quiet { QUIET_TRIES } else { 1 };
                turns.push(quietest_turn(&label, server, *row, plan, tries, &mut generation)?);
            }
        }
        results.push(RowResult::new(*row, servers, turns));
    }
    Ok(results)
}

/// One turn; of several tries the first on a quiet machine, or the quietest.
fn quietest_turn(
    label: &str,
    server: &Contestant,
    row: Row,
    plan: Plan,
    tries: u32,
    generation: &mut u32,
) -> Result<Measured, String> {
    let mut best: Option<Measured> = None;
    for _ in 0..tries {
        if tries > 1 {
            await_quiet();
        }
        *generation += 1;
        let measured = run_row(&server.addresses(), &server.pids(), row, plan, *generation)?;
        eprintln!("{}", turn_line(label, row, &measured));
        server.pids().iter().for_each(|pid| settle(*pid, SETTLE_LIMIT));
        let quieter = best
            .as_ref()
            .is_none_or(|best| measured.others_cores < best.others_cores);
        let quiet = measured.others_cores < QUIET_CORES;
        if quieter {
            best = Some(measured);
        }
        if quiet {
            break;
        }
    }
    best.ok_or_else(|| format!("{row}: no turn"))
}

/// A JVM compiles what it runs often; ours warms its allocator and page tables. Few creates: they stay in the tree.
fn warm_up(server: &Contestant, total: Duration, generation: &mut u32) -> Result<(), String> {
    if server.side == Side::Ours && total > Duration::from_secs(8) {
        return warm_up(server, Duration::from_secs(8), generation);
    }
    if total.is_zero() {
        return Ok(());
    }
    let shares = [(Kind::Set, 3), (Kind::Get, 3), (Kind::Create, 1), (Kind::Multi, 1)];
    for (kind, eighths) in shares {
        *generation += 1;
        let row = Row::new(kind, 100, if kind == Kind::Multi { 2 } else { 16 });
        let plan = Plan::Timed {
            warm_up: Duration::ZERO,
            measured: total * eighths / 8,
        };
        run_row(&server.addresses(), &server.pids(), row, plan, *generation)?;
    }
    server.pids().iter().for_each(|pid| settle(*pid, SETTLE_LIMIT));
    Ok(())
}

/// One turn in a line, as progress and as the answer for a single row.
pub(crate) fn turn_line(label: &str, row: Row, measured: &Measured) -> String {
    let Measured {
        operations_per_s,
        p50_ms,
        p99_ms,
        p999_ms,
        max_ms,
        worst_second,
        ..
    } = measured;
    let Measured {
        server_us,
        driver_us,
        others_cores,
        resident_bytes,
        ..
    } = measured;
    format!(
        "{label:<9} {:<17} {operations_per_s:>8.0} ops/s  p50 {p50_ms:.3}  p99 {p99_ms:.3}  p99.9 {p999_ms:.3}  \
         max {max_ms:.1} ms  worst s {:.0} %  server {server_us:.1} us/op  driver {driver_us:.1} us/op  \
         others {others_cores:.2} cores  RSS {} MiB",
        row.to_string(),
        worst_second * 100.0,
        resident_bytes >> 20,
    )
}
