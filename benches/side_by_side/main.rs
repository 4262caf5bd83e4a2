//! Side by side with Apache ZooKeeper: a load driver of our own, run against both servers in turn in one run.
//!
//! ```text
//!   main ── rows (what to run) ── contest (in turn: A B A B) ── table (ratios with their spread)
//!                                   │            │
//!                     process (the servers)   fleet, churn (the driver) ── load, wire (requests, own codec)
//!                     measure (/proc)         recorder (latencies)  footprint (memory, start-up) ── control (one session)
//!                                             failover (paced writes, and the leader is killed)
//! ```
//!
//! It uses nothing of the server's code: what it measures is what is on the wire. `benches/README.md` says how to run
//! it and what each row is.
#![allow(clippy::print_stdout, reason = "printing the tables is what this program is for")]

mod churn;
mod contest;
mod control;
mod failover;
mod fleet;
mod footprint;
mod load;
mod measure;
mod process;
mod recorder;
mod rows;
mod table;
mod wire;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;

use crate::process::{Contestant, Programs, Server, Side};
use crate::recorder::Plan;
use crate::rows::{Programme, Row, Set};

#[derive(Debug, Parser)]
#[command(
    name = "side_by_side",
    about = "Measures menagerie beside Apache ZooKeeper, in turn, in one run"
)]
struct Arguments {
    /// Which rows to run, and for how long
    #[arg(long, value_enum, default_value = "quick")]
    set: Set,
    /// Rows to run instead of the set's, such as set:100x16 (may be repeated)
    #[arg(long = "row")]
    rows: Vec<Row>,
    /// Runs the rows once against a server that is already up, and prints a line for each
    #[arg(long, value_name = "HOST:PORT", requires = "rows")]
    target: Option<String>,
    /// With --target: the server's process, for its processor time and memory
    #[arg(long, requires = "target")]
    pid: Option<u32>,
    /// Runs one side alone
    #[arg(long, value_enum)]
    only: Option<Side>,
    /// Which servers to compare; the same one twice shows how much the machine wavers
    #[arg(long, value_enum, value_delimiter = ',', num_args = 1, default_values = ["ours", "apache"])]
    sides: Vec<Side>,
    /// Seconds of each measurement
    #[arg(long)]
    seconds: Option<u64>,
    /// Turns of each side in each row
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds of warming up each server (ours needs, and takes, at most 8)
    #[arg(long)]
    warm_up: Option<u64>,
    /// Znodes of the memory and start-up rows; 0 leaves them out
    #[arg(long)]
    znodes: Option<u32>,
    /// Members of each side: ensembles on this machine. The sets ensemble and failover have 3, the others 1
    #[arg(long)]
    servers: Option<usize>,
    /// How often each side's leader is killed, and how often it hands over
    #[arg(long)]
    failovers: Option<u32>,
    /// Leaves the rows of load out, for the memory and start-up rows alone
    #[arg(long)]
    no_rows: bool,
    /// Waits for a quiet machine before each turn (at most a minute), and repeats turns that others disturbed
    #[arg(long)]
    quiet: bool,
    /// Our release binary
    #[arg(long, default_value_os_t = in_repository("target/release/menagerie"))]
    ours: PathBuf,
    /// The script that fetches Apache ZooKeeper
    #[arg(long, default_value_os_t = in_repository("compat/oracle/run.sh"))]
    oracle: PathBuf,
    /// The largest heap of Apache's JVM
    #[arg(long, default_value = "4g")]
    java_heap: String,
    /// A further line for both zoo.cfg files (may be repeated)
    #[arg(long = "cfg", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Where the servers' directories go; both must be on the same disk
    #[arg(long, default_value_os_t = in_repository("target/side_by_side"))]
    directory: PathBuf,
    /// Keeps the servers' directories
    #[arg(long)]
    keep: bool,
    /// Writes one line per turn to this file, tab separated
    #[arg(long)]
    out: Option<PathBuf>,
    /// Exits with 1 if ours is behind in any row
    #[arg(long)]
    check: bool,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

impl clap::ValueEnum for Side {
    fn value_variants<'a>() -> &'a [Self] {
        &[Side::Ours, Side::Apache]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(self.name().into())
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.target {
        Some(target) => run_against(target, &arguments),
        None => run_side_by_side(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("side_by_side: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One server that someone else has started: each row once.
fn run_against(target: &str, arguments: &Arguments) -> Result<bool, String> {
    let address = target.to_socket_addrs().ok().and_then(|mut all| all.next());
    let address: SocketAddr = address.ok_or_else(|| format!("{target} is not a host and port"))?;
    contest::prepare(&[address])?;
    let measured = Duration::from_secs(arguments.seconds.unwrap_or(10));
    let plan = Plan::Timed {
        warm_up: Duration::from_secs(1),
        measured,
    };
    // Names of created znodes have room for four digits; the clock keeps them apart from an earlier run's.
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    for (index, row) in arguments.rows.iter().enumerate() {
        let generation = ((seconds + index as u64) % 10_000) as u32;
        let measured = contest::run_row(&[address], arguments.pid.as_slice(), *row, plan, generation)?;
        println!("{}", contest::turn_line(target, *row, &measured));
    }
    Ok(true)
}

fn run_side_by_side(arguments: &Arguments) -> Result<bool, String> {
    let sides = arguments
        .only
        .map_or_else(|| arguments.sides.clone(), |side| vec![side]);
    let mut programme = arguments.set.programme();
    if !arguments.rows.is_empty() {
        programme.rows.clone_from(&arguments.rows);
    }
    if arguments.no_rows {
        programme.rows.clear();
    }
    programme.rounds = arguments.rounds.unwrap_or(programme.rounds);
    programme.measured = arguments.seconds.map_or(programme.measured, Duration::from_secs);
    programme.server_warm_up = arguments.warm_up.map_or(programme.server_warm_up, Duration::from_secs);
    programme.znodes = arguments.znodes.unwrap_or(programme.znodes);
    programme.quiet = arguments.quiet;
    programme.servers = arguments.servers.unwrap_or(programme.servers).max(1);
    programme.failovers = arguments.failovers.unwrap_or(programme.failovers);
    if programme.failovers > 0 && programme.servers < 3 {
        return Err("a failover needs --servers 3 or more".to_owned());
    }
    let programs = Programs {
        ours: arguments.ours.clone(),
        oracle: arguments.oracle.clone(),
        java_heap: arguments.java_heap.clone(),
        settings: arguments.settings.clone(),
    };
    println!("{}", heading());
    let mut scratch = Scratch::make(&arguments.directory)?;
    let outcome = run_sets(&sides, &programs, &programme, &scratch, arguments);
    // What went wrong is in the servers' logs.
    scratch.keep = arguments.keep || outcome.is_err();
    outcome
}

/// Rows, then memory and start-up; prints their tables and returns whether all is well.
fn run_sets(
    sides: &[Side],
    programs: &Programs,
    programme: &Programme,
    scratch: &Scratch,
    arguments: &Arguments,
) -> Result<bool, String> {
    let mut results = Vec::new();
    if !programme.rows.is_empty() {
        let servers = sides.iter().enumerate().map(|(index, side)| {
            let directory = scratch.directory(&format!("rows-{index}-{}", side.name()));
            Contestant::start_fresh(*side, programs, &directory, programme.servers)
        });
        results = contest::run_programme(&servers.collect::<Result<Vec<_>, _>>()?, programme)?;
        println!("{}", table::rows_table(sides, &results));
    }
    if let Some(path) = &arguments.out {
        std::fs::write(path, table::raw(sides, &results)).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if programme.failovers > 0 {
        let mut suffered = Vec::new();
        for (index, side) in sides.iter().enumerate() {
            let directory = scratch.directory(&format!("failover-{index}-{}", side.name()));
            let mut contestant = Contestant::start_fresh(*side, programs, &directory, programme.servers)?;
            suffered.push((*side, failover::run(&mut contestant, programme)?));
        }
        println!("{}", table::failover_table(&suffered));
        let lost =
            |(_, failovers): &(Side, Vec<failover::Outcome>)| failovers.iter().any(|outcome| outcome.is_broken());
        return Ok(!(arguments.check && suffered.iter().any(lost)));
    }
    let mut weighed = Vec::new();
    if programme.znodes > 0 {
        for (index, side) in sides.iter().enumerate() {
            eprintln!("loading {} znodes into {}", programme.znodes, side.name());
            let directory = scratch.directory(&format!("znodes-{index}-{}", side.name()));
            let mut server = Server::start_fresh(*side, programs, &directory)?;
            weighed.push((*side, footprint::weigh(&mut server, programme.znodes)?));
        }
        println!("{}", table::footprint_table(programme.znodes, &weighed));
    }
    if sides != [Side::Ours, Side::Apache] {
        return Ok(true);
    }
    let behind = table::shortfalls(&results, &weighed);
    for line in &behind {
        println!("BEHIND: {line}");
    }
    Ok(behind.is_empty() || !arguments.check)
}

/// Date, commit and machine: without them a figure means nothing.
fn heading() -> String {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .unwrap_or_default()
    };
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}, commit {}, {cores} cores of {}, Linux {}, load before {}\n",
        output("date", &["+%F %H:%M"]),
        output(
            "git",
            &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]
        ),
        processor.trim_start_matches([' ', '\t', ':']),
        output("uname", &["-r"]),
        std::fs::read_to_string("/proc/loadavg")
            .unwrap_or_default()
            .split(' ')
            .next()
            .unwrap_or_default(),
    )
}

/// The directory of one run, removed at its end.
struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    fn make(parent: &Path) -> Result<Self, String> {
        let path = parent.join(std::process::id().to_string());
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path, keep: false })
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After a panic the logs are wanted.
        if !self.keep && !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
