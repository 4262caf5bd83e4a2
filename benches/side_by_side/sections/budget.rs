//! Values ten times larger than `memoryBudget`, on our server alone: Apache keeps all in its heap.
//!
//! Nine of ten reads are of hot znodes, whose values take a quarter of the budget; the tenth is of any. In memory means
//! the same reads of hot znodes only.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::timed;
use crate::contest::prepare;
use crate::control::Control;
use crate::figure::{Reading, Target, short};
use crate::fleet::Fleet;
use crate::footprint::PATIENCE;
use crate::load::{self, Kind, Load, Place, fill_path};
use crate::measure::{Sample, peak_bytes, resident_bytes, settle};
use crate::process::{Programs, Server, Side};
use crate::pulse::{Pulse, percentile_ms, slowest_ms};
use crate::recorder::{Plan, Run};
use crate::sets::{Programme, Sizes};
use crate::wire::{self, REPLY_HEADER_BYTES, STAT_BYTES, op};

const VALUE_BYTES: usize = 10_000;
/// Values are cut from it at different places, and it does not compress.
const NOISE_BYTES: usize = 1 << 20;
/// The hot values' share of the budget.
const HOT_SHARE: f64 = 0.25;
/// What may be resident beside the values: the server itself, and each znode without its value.
const ALLOWANCE_BYTES: u64 = 256 << 20;
const ZNODE_BYTES: u64 = 320;
const LOADING_SESSIONS: u32 = 16;
const LOADING_DEPTH: u32 = 4;
const READING_SESSIONS: u32 = 50;
const READING_DEPTH: u32 = 4;
const WRITES_PER_S: u32 = 500;
const MIB: f64 = 1_048_576.0;

pub(crate) fn title(sizes: &Sizes) -> String {
    format!(
        "values of {} MB with a memoryBudget of {} MB",
        short(sizes.values_bytes as f64 / 1e6),
        short(sizes.budget_bytes as f64 / 1e6)
    )
}

/// Fills a fresh server, then reads hot znodes alone, and hot and cold ones, with a few writes beside.
///
/// # Errors
/// The server's.
pub(crate) fn run(programs: &Programs, directory: &Path, programme: &Programme) -> Result<Vec<Reading>, String> {
    let sizes = &programme.sizes;
    let mut programs = programs.clone();
    programs.settings.push(format!("memoryBudget={}", sizes.budget_bytes));
    let server = Server::start_fresh(Side::Ours, &programs, directory)?;
    let pid = server.pid().ok_or("the server does not run")?;
    prepare(&[server.address])?;
    let znodes = u32::try_from(sizes.values_bytes / VALUE_BYTES as u64).map_err(|_| "too many values")?;
    let loaded_per_s = fill(server.address, znodes)?;
    settle(pid, crate::footprint::SETTLE_LIMIT);
    let resident = resident_bytes(pid).unwrap_or(0) as f64;

    let hot = (sizes.budget_bytes as f64 * HOT_SHARE) as u32 / VALUE_BYTES as u32;
    let reads = |cold_percent| Reads {
        znodes,
        hot: hot.clamp(1, znodes),
        cold_percent,
    };
    let plan = timed(programme.measured, programme.measured);
    let in_memory = read(server.address, &mut reads(0), plan)?;
    let mixed = read(server.address, &mut reads(10), plan)?;
    let bound = sizes.budget_bytes + ALLOWANCE_BYTES + u64::from(znodes) * ZNODE_BYTES;
    let bound = [Target::AtMost((bound as f64 / MIB).round())];
    Ok(vec![
        Reading::new("loading, creates/s", loaded_per_s, &[]),
        Reading::new("RSS when loaded, MiB", resident / MIB, &bound),
        Reading::new(
            "RSS at its peak, MiB",
            peak_bytes(pid).unwrap_or(0) as f64 / MIB,
            &bound,
        ),
        Reading::new("reads/s, all hot", in_memory.per_s, &[]),
        Reading::new("reads/s, 90 % hot", mixed.per_s, &[]),
        Reading::new(
            "share of the speed in memory",
            mixed.per_s / in_memory.per_s,
            &[Target::AtLeast(0.5)],
        ),
        Reading::new("read p99, 90 % hot, ms", mixed.p99_ms, &[]),
        Reading::new("others' setData beside hot reads, p99 ms", in_memory.write_p99_ms, &[]),
        Reading::new("others' setData beside 90 % hot, p99 ms", mixed.write_p99_ms, &[]),
        Reading::new(
            "others' setData beside 90 % hot, slowest ms",
            mixed.write_slowest_ms,
            &[],
        ),
        Reading::new(
            "growth of others' setData p99, times",
            mixed.write_p99_ms / in_memory.write_p99_ms,
            &[Target::AtMost(2.0)],
        ),
    ])
}

fn fill(address: SocketAddr, znodes: u32) -> Result<f64, String> {
    let mut control = Control::open(address, PATIENCE).map_err(|error| error.to_string())?;
    control
        .create_all(load::fill_parents(znodes))
        .map_err(|error| format!("creating parents: {error}"))?;
    control.close().map_err(|error| error.to_string())?;
    let mut fleet = Fleet::open(&[address], LOADING_SESSIONS, LOADING_DEPTH)?;
    let mut load = Values {
        noise: noise(),
        next: 0,
        end: znodes,
    };
    let run = fleet.run(&mut load, None, Plan::UntilExhausted, &|| Sample::take(&[]))?;
    fleet.close()?;
    Ok(run.operations as f64 / run.elapsed.as_secs_f64())
}

/// What reads at full speed got, and what the few writes beside them.
struct Served {
    per_s: f64,
    p99_ms: f64,
    write_p99_ms: f64,
    write_slowest_ms: f64,
}

fn read(address: SocketAddr, load: &mut Reads, plan: Plan) -> Result<Served, String> {
    let mut fleet = Fleet::open(&[address], READING_SESSIONS, READING_DEPTH)?;
    let pulse = Pulse::start(&[address], &[(Kind::Set, WRITES_PER_S)])?;
    let started = Instant::now();
    let run: Result<Run, String> = fleet.run(load, None, plan, &|| Sample::take(&[]));
    let ended = Instant::now();
    let writes = pulse.stop()?;
    let run = run?;
    fleet.close()?;
    // The first half warms the cache.
    let measured = (started + (ended - started) / 2, ended);
    let writes = writes[0].within(&[measured]);
    Ok(Served {
        per_s: run.operations as f64 / run.elapsed.as_secs_f64(),
        p99_ms: percentile_ms(&run.latency, 99.0),
        write_p99_ms: percentile_ms(&writes, 99.0),
        write_slowest_ms: slowest_ms(&writes),
    })
}

/// Creates the znodes.
struct Values {
    noise: Arc<[u8]>,
    next: u32,
    end: u32,
}

impl Load for Values {
    fn append(&mut self, _: &mut Place, xid: i32, out: &mut Vec<u8>) -> bool {
        if self.next == self.end {
            return false;
        }
        let start = (self.next as usize).wrapping_mul(7_919) % (NOISE_BYTES - VALUE_BYTES);
        let (path, value) = (fill_path(self.next), &self.noise[start..start + VALUE_BYTES]);
        wire::request(out, xid, op::CREATE, |out| wire::create_body(out, &path, value));
        self.next += 1;
        true
    }

    fn expects(&self, payload: &[u8]) -> bool {
        payload.len() > REPLY_HEADER_BYTES + 4
    }
}

/// Reads them: hot ones, which lie evenly among all, and so many of a hundred anywhere.
struct Reads {
    znodes: u32,
    hot: u32,
    cold_percent: u32,
}

impl Load for Reads {
    fn append(&mut self, place: &mut Place, xid: i32, out: &mut Vec<u8>) -> bool {
        let number = if place.draw(100) < self.cold_percent {
            place.draw(self.znodes)
        } else {
            place.draw(self.hot) * (self.znodes / self.hot)
        };
        let path = fill_path(number);
        wire::request(out, xid, op::GET_DATA, |out| wire::read_body(out, &path, false));
        true
    }

    fn expects(&self, payload: &[u8]) -> bool {
        payload.len() == REPLY_HEADER_BYTES + 4 + VALUE_BYTES + STAT_BYTES
    }
}

fn noise() -> Arc<[u8]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes = (0..NOISE_BYTES).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    });
    bytes.collect()
}
