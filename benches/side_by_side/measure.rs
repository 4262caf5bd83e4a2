//! What the system says: processor time of the server, of the driver and of the whole machine, memory, and limits.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The unit of `/proc`'s processor times: USER_HZ, which is 100 on every Linux that Rust's std supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor times in ticks, since the start of the process or machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) server: u64,
    pub(crate) driver: u64,
    pub(crate) machine: u64,
}

impl Sample {
    /// Reads all three; the server's is the sum of its processes', without those that are not known or have gone.
    pub(crate) fn take(server_pids: &[u32]) -> Self {
        Self {
            server: server_pids
                .iter()
                .filter_map(|pid| process_ticks(&pid.to_string()))
                .sum(),
            driver: process_ticks("self").unwrap_or(0),
            machine: machine_ticks().unwrap_or(0),
        }
    }

    /// What was used since `earlier`, in seconds: by the server, by the driver, and by everything else that ran.
    pub(crate) fn seconds_since(&self, earlier: &Sample) -> (f64, f64, f64) {
        let seconds = |later: u64, earlier: u64| later.saturating_sub(earlier) as f64 / TICKS_PER_SECOND;
        let server = seconds(self.server, earlier.server);
        let driver = seconds(self.driver, earlier.driver);
        let others = (seconds(self.machine, earlier.machine) - server - driver).max(0.0);
        (server, driver, others)
    }
}

/// User and system time of a process with all its threads.
fn process_ticks(pid: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold anything; fields are counted from behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    Some(times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?)
}

/// Time that the machine's processors were not idle: all but the columns idle and iowait, and guest time, which user
/// time includes.
fn machine_ticks() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let columns = stat.lines().next()?.split_ascii_whitespace().skip(1).take(8);
    let busy = columns.enumerate().filter(|(column, _)| !matches!(column, 3 | 4));
    busy.map(|(_, ticks)| ticks.parse::<u64>().ok()).sum()
}

/// Resident memory of a process.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The most that has been resident since the process started, or since [`forget_peak`].
pub(crate) fn peak_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmHWM:")
}

/// Begins the peak anew. Where the kernel does not allow it, the peak stays that since the start.
pub(crate) fn forget_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Files that a process may have open: this one, and the servers that it starts.
pub(crate) fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises that limit as far as the machine allows.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Where it stays as it is, storms are smaller, and say so.
    let _ = setrlimit(Resource::Nofile, raised);
}

fn status_bytes(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// Waits until a process has used less than a twentieth of a processor for half a second, or `limit` has passed: so
/// that one server's housekeeping does not fall into the other's row.
pub(crate) fn settle(pid: u32, limit: Duration) {
    let started = Instant::now();
    let window = Duration::from_millis(500);
    let mut before = process_ticks(&pid.to_string()).unwrap_or(0);
    while started.elapsed() < limit {
        std::thread::sleep(window);
        let now = process_ticks(&pid.to_string()).unwrap_or(0);
        if (now.saturating_sub(before)) as f64 / TICKS_PER_SECOND < window.as_secs_f64() / 20.0 {
            return;
        }
        before = now;
    }
}

/// Waits until the whole machine has used less than `cores` processors for a second, or `limit` has passed.
pub(crate) fn await_quiet_machine(cores: f64, limit: Duration) {
    let started = Instant::now();
    let mut before = machine_ticks().unwrap_or(0);
    while started.elapsed() < limit {
        std::thread::sleep(Duration::from_secs(1));
        let now = machine_ticks().unwrap_or(0);
        if (now.saturating_sub(before) as f64) < cores * TICKS_PER_SECOND {
            return;
        }
        before = now;
    }
}
