//! Memory and start-up: loads znodes of 100 bytes into a fresh server, weighs it and watches on them, and times its
//! restarts from outside.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;

use crate::contest::{prepare, run_row};
use crate::control::Control;
use crate::figure::{Reading, Target, thousands};
use crate::fleet::Fleet;
use crate::load::{self, Kind, Numbered, Step, VALUE};
use crate::measure::{Sample, resident_bytes, settle};
use crate::process::Server;
use crate::recorder::Plan;
use crate::rows::Row;

/// The fleet that loads: enough in flight to keep the log's batches full.
const LOADING_SESSIONS: u32 = 32;
const LOADING_DEPTH: u32 = 32;
/// Writes right before SIGKILL, so that it finds a log with a tail.
const WRITES_BEFORE_KILL: Duration = Duration::from_secs(2);
/// Until housekeeping after the load (snapshots, collections, compactions) should be over.
pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Ours writes its last checkpoint up to five seconds after the last write, and ten seconds later lets go of what that took.
const STEADY: Duration = Duration::from_secs(20);
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// More than these are measured on ours alone: Apache's heap of 4 GiB would not hold them.
pub(crate) const APACHE_ZNODES: u32 = 2_000_000;
const WATCHES_LIMIT: u32 = 1_000_000;
const WATCHING_SESSIONS: u32 = 100;
const WATCHING_DEPTH: u32 = 16;
const MIB: f64 = 1_048_576.0;

pub(crate) fn title(znodes: u32) -> String {
    format!("{} znodes of 100 bytes", thousands(f64::from(znodes)))
}

/// Loads `znodes` into a fresh server and weighs it; restarts it after SIGTERM, arms watches and weighs those; restarts it
/// after SIGKILL under writes.
///
/// # Errors
/// The server's; also a restarted server that has lost the last znode.
pub(crate) fn run(server: &mut Server, znodes: u32) -> Result<Vec<Reading>, String> {
    let last = load::fill_path(znodes - 1);
    let empty_bytes = resident_at_rest(server)?;
    prepare(&[server.address])?;
    let loaded_per_s = fill(server.address, znodes)?;
    let loaded_bytes = resident_at_rest(server)?;
    let disk_bytes = server.disk_bytes();

    let sigterm = server.stop(Signal::TERM)?;
    let start_clean = restart(server, &last)?;
    let restarted_bytes = resident_at_rest(server)?;
    let watch_bytes = weigh_watches(server, znodes, restarted_bytes)?;

    let plan = Plan::Timed {
        warm_up: Duration::ZERO,
        measured: WRITES_BEFORE_KILL,
    };
    let pids: Vec<u32> = server.pid().into_iter().collect();
    run_row(&[server.address], &pids, Row::new(Kind::Set, 100, 16), plan, 0)?;
    server.stop(Signal::KILL)?;
    let start_after_kill = restart(server, &last)?;

    let start = [Target::AtMost(if znodes > APACHE_ZNODES { 3.0 } else { 1.0 })];
    let each = [Target::AtMost(320.0), Target::RatioAtMost(0.25)];
    Ok(vec![
        Reading::new("loading, creates/s", loaded_per_s, &[]),
        Reading::new("RSS when empty, MiB", empty_bytes / MIB, &[]),
        Reading::new("RSS when loaded, MiB", loaded_bytes / MIB, &[]),
        Reading::new("RSS for each znode, bytes", loaded_bytes / f64::from(znodes), &each),
        Reading::new("RSS after a restart, MiB", restarted_bytes / MIB, &[]),
        Reading::new(
            "RSS for each of as many one-shot watches (1 million at most), bytes",
            watch_bytes,
            &[Target::AtMost(64.0)],
        ),
        Reading::new("data directory, MiB", disk_bytes as f64 / MIB, &[]),
        Reading::new("SIGTERM to exit, s", sigterm.as_secs_f64(), &[]),
        Reading::new("start to first reply, clean, s", start_clean.as_secs_f64(), &start),
        Reading::new(
            "start to first reply, after SIGKILL under writes, s",
            start_after_kill.as_secs_f64(),
            &start,
        ),
    ])
}

/// Arms a watch on each znode, a million at most, from a hundred sessions; returns the bytes that each took.
fn weigh_watches(server: &Server, znodes: u32, before: f64) -> Result<f64, String> {
    let watches = znodes.min(WATCHES_LIMIT);
    let mut fleet = Fleet::open(&[server.address], WATCHING_SESSIONS, WATCHING_DEPTH)?;
    let mut load = Numbered {
        what: Step::Watch,
        next: 0,
        end: watches,
    };
    fleet.run(&mut load, None, Plan::UntilExhausted, &|| Sample::take(&[]))?;
    let armed = resident_at_rest(server)?;
    fleet.close()?;
    Ok((armed - before) / f64::from(watches))
}

/// What is resident once housekeeping is over, and what it has freed is given back: until it has not fallen for so long.
fn resident_at_rest(server: &Server) -> Result<f64, String> {
    let pid = server.pid().ok_or("the server does not run")?;
    settle(pid, SETTLE_LIMIT);
    let mut resident = resident_bytes(pid).unwrap_or(0);
    loop {
        std::thread::sleep(STEADY);
        let now = resident_bytes(pid).unwrap_or(0);
        if now + resident / 1000 >= resident {
            return Ok(now as f64);
        }
        resident = now;
    }
}

/// Creates the znodes of the memory row; returns the rate, in creates per second.
///
/// # Errors
/// The server's.
pub(crate) fn fill(address: SocketAddr, znodes: u32) -> Result<f64, String> {
    let mut control = Control::open(address, PATIENCE).map_err(|error| error.to_string())?;
    control
        .create_all(load::fill_parents(znodes))
        .map_err(|error| format!("creating parents: {error}"))?;
    control.close().map_err(|error| error.to_string())?;
    let mut fleet = Fleet::open(&[address], LOADING_SESSIONS, LOADING_DEPTH)?;
    let mut load = Numbered {
        what: Step::Fill,
        next: 0,
        end: znodes,
    };
    let run = fleet.run(&mut load, None, Plan::UntilExhausted, &|| Sample::take(&[]))?;
    fleet.close()?;
    if run.operations != u64::from(znodes) {
        return Err(format!("{} of {znodes} creates were answered", run.operations));
    }
    Ok(run.operations as f64 / run.elapsed.as_secs_f64())
}

/// Starts the server again; the reply that counts is that to a read of the last znode, with its data.
fn restart(server: &mut Server, last: &[u8]) -> Result<Duration, String> {
    let elapsed = server.start(last)?;
    let read = Control::open(server.address, PATIENCE).and_then(|mut control| {
        let data = control.get(last)?;
        control.close()?;
        Ok(data)
    });
    match read {
        Ok(data) if data == VALUE => Ok(elapsed),
        Ok(data) => Err(format!("after a restart the last znode holds {} bytes", data.len())),
        Err(error) => Err(format!("after a restart: {error}")),
    }
}
