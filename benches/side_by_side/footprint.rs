//! Memory and start-up: loads znodes of 100 bytes into a fresh server, weighs it, and times its restarts from outside.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;

use crate::contest::{prepare, run_row};
use crate::control::Control;
use crate::fleet::Fleet;
use crate::load::{self, Kind, Load, VALUE};
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
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(60);

/// What was weighed and timed on one server.
#[derive(Clone, Debug)]
pub(crate) struct Footprint {
    pub(crate) load_operations_per_s: f64,
    pub(crate) empty_bytes: u64,
    pub(crate) loaded_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) sigterm: Duration,
    /// From the start of the process to the first reply of a new session.
    pub(crate) start_clean: Duration,
    pub(crate) restarted_bytes: u64,
    pub(crate) start_after_kill: Duration,
}

/// Loads `znodes` into a fresh server, and restarts it after SIGTERM and after SIGKILL.
///
/// # Errors
/// The server's; also a restarted server that has lost the last znode.
pub(crate) fn weigh(server: &mut Server, znodes: u32) -> Result<Footprint, String> {
    let pid = |server: &Server| server.pid().ok_or("the server does not run");
    let resident = |server: &Server| server.pid().and_then(resident_bytes).unwrap_or(0);
    let last = load::fill_path(znodes - 1);
    let empty_bytes = resident(server);
    prepare(&[server.address])?;
    let load_operations_per_s = fill(server.address, znodes)?;
    settle(pid(server)?, SETTLE_LIMIT);
    let loaded_bytes = resident(server);
    let disk_bytes = server.disk_bytes();

    eprintln!(
        "loaded at {load_operations_per_s:.0} creates/s, {} MiB resident; restarting",
        loaded_bytes >> 20
    );

    let sigterm = server.stop(Signal::TERM)?;
    let start_clean = restart(server, &last)?;
    settle(pid(server)?, SETTLE_LIMIT);
    let restarted_bytes = resident(server);

    let plan = Plan::Timed {
        warm_up: Duration::ZERO,
        measured: WRITES_BEFORE_KILL,
    };
    run_row(
        &[server.address],
        &server.pid().into_iter().collect::<Vec<_>>(),
        Row {
            kind: Kind::Set,
            sessions: 100,
            depth: 16,
        },
        plan,
        0,
    )?;
    server.stop(Signal::KILL)?;
    let start_after_kill = restart(server, &last)?;
    Ok(Footprint {
        load_operations_per_s,
        empty_bytes,
        loaded_bytes,
        disk_bytes,
        sigterm,
        start_clean,
        restarted_bytes,
        start_after_kill,
    })
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
    let mut load = Load::Fill { next: 0, end: znodes };
    let run = fleet.run(&mut load, Plan::UntilExhausted, &|| Sample::take(&[]))?;
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
