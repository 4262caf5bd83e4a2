//! Side by side with Apache ZooKeeper: a load driver of our own, run against both servers in turn in one run.
//!
//! ```text
//!   main, arguments, sets (what to run) ── contest (rows, in turn: A B A B) ── figure, targets ── table, chart
//!                                       └─ sections/, footprint, failover (what is not a row)
//!   below them:  process (the servers)   fleet, churn (the driver) ── recorder ── rows, load, wire (requests, own codec)
//!                measure (/proc)         pulse, syncs (what others notice)        control (one blocking session)
//! ```
//!
//! It uses nothing of the server's code: what it measures is what is on the wire. `benches/README.md` says how to run
//! it and what each row is.
#![allow(clippy::print_stdout, reason = "printing the tables is what this program is for")]

mod arguments;
mod chart;
mod churn;
mod contest;
mod control;
mod failover;
mod figure;
mod fleet;
mod footprint;
mod load;
mod measure;
mod process;
mod pulse;
mod recorder;
mod rows;
mod sections;
mod sets;
mod syncs;
mod table;
mod targets;
mod wire;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;

use crate::arguments::Arguments;
use crate::contest::RowResult;
use crate::figure::Figure;
use crate::process::{Contestant, Programs, Side};
use crate::recorder::Plan;
use crate::sections::Findings;
use crate::sets::Programme;

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
    let (sides, programs) = (arguments.sides(), arguments.programs());
    let programmes = arguments.programmes()?;
    measure::raise_file_limit();
    let heading = heading();
    println!("{heading}\n");
    println!("`cargo bench --bench side_by_side -- {}`\n", command_line());
    let mut scratch = Scratch::make(&arguments.directory)?;
    let mut found = Found::default();
    let outcome = programmes.iter().enumerate().try_for_each(|(number, programme)| {
        let directory = scratch.path.join(number.to_string());
        run_programme(&sides, &programs, programme, &directory, &mut found)?;
        if !arguments.keep {
            // The next programme may want the disk.
            let _ = std::fs::remove_dir_all(&directory);
        }
        Ok::<_, String>(())
    });
    // What went wrong is in the servers' logs.
    scratch.keep = arguments.keep || outcome.is_err();
    // What was measured before a failure is kept too.
    found.write(&sides, arguments, &heading)?;
    outcome?;
    Ok(!arguments.check || found.report())
}

/// What a run has measured.
#[derive(Default)]
struct Found {
    /// With the number of members of each side.
    rows: Vec<(usize, RowResult)>,
    sections: Vec<Findings>,
    /// Acknowledged writes that were lost, or writes that were applied twice.
    is_broken: bool,
}

impl Found {
    /// Every figure, with what it belongs to.
    fn figures(&self) -> impl Iterator<Item = (String, &Figure)> {
        let rows = self.rows.iter().flat_map(|(servers, result)| {
            let figures = &result.figures;
            let figures = [&figures.throughput, &figures.latency, &figures.tail, &figures.processor];
            figures.map(|figure| {
                (
                    if *servers > 1 {
                        format!("{servers} members")
                    } else {
                        "one server".to_owned()
                    },
                    figure,
                )
            })
        });
        let sections = self.sections.iter().flat_map(|findings| {
            let figures = findings.figures.iter();
            figures.map(|figure| (findings.title.clone(), figure))
        });
        rows.chain(sections)
    }

    /// The files that the command line asks for.
    fn write(&self, sides: &[Side], arguments: &Arguments, heading: &str) -> Result<(), String> {
        let write = |path: &Path, text: String| {
            std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        if let Some(path) = &arguments.out {
            write(path, table::raw(sides, &self.rows))?;
        }
        if let Some(path) = &arguments.chart {
            let caption = format!("{heading}. Red: the target. Amber: missed.");
            write(path, chart::svg(&self.groups(), &caption))?;
        }
        Ok(())
    }

    /// For the chart: what users of one server, and of three, notice. Processor time is in the tables.
    fn groups(&self) -> Vec<chart::Group> {
        let rows = |is_ensemble: bool| {
            let rows = self
                .rows
                .iter()
                .filter(move |(servers, _)| (*servers > 1) == is_ensemble);
            rows.flat_map(|(_, result)| [&result.figures.throughput, &result.figures.latency])
        };
        let mut groups = vec![chart::Group::of("One server (sessions × in flight)", rows(false))];
        let sections = self.sections.iter();
        groups.extend(sections.map(|findings| chart::Group::of(&findings.title, findings.figures.iter())));
        groups.push(chart::Group::of("Ensemble of three on one machine", rows(true)));
        groups
    }

    /// Names every target that was missed; returns whether all is well.
    fn report(&self) -> bool {
        let mut is_well = !self.is_broken;
        for (place, figure) in self.figures() {
            for (target, _) in figure.verdicts().into_iter().filter(|(_, met)| !met) {
                is_well = false;
                let reached = match (target.is_absolute(), figure.value(0), figure.ratio()) {
                    (true, Some(ours), _) => figure::short(ours),
                    (false, _, Some(ratio)) => format!("{}×", figure::short(ratio.median)),
                    _ => "nothing".to_owned(),
                };
                println!("MISSED: {place}: {}: {reached}, the target is {target}", figure.name);
            }
        }
        is_well
    }
}

/// Rows, hosted sections, sections with servers of their own, failovers; prints their tables.
fn run_programme(
    sides: &[Side],
    programs: &Programs,
    programme: &Programme,
    directory: &Path,
    found: &mut Found,
) -> Result<(), String> {
    let is_hosting = programme.sections.iter().any(|section| section.is_hosted());
    if !programme.rows.is_empty() || is_hosting {
        let servers = sides.iter().enumerate().map(|(index, side)| {
            let directory = directory.join(format!("rows-{index}-{}", side.name()));
            Contestant::start_fresh(*side, programs, &directory, programme.servers)
        });
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        let results = contest::run_rows(&servers, programme)?;
        if !results.is_empty() {
            println!("{}", table::rows_table(sides, programme.servers, &results));
        }
        found
            .rows
            .extend(results.into_iter().map(|result| (programme.servers, result)));
        let findings = sections::run_hosted(&servers, programme, |findings| {
            println!("{}", table::section_table(sides, findings));
        })?;
        found.sections.extend(findings);
    }
    let findings = sections::run_alone(sides, programs, programme, directory, |findings| {
        println!("{}", table::section_table(sides, findings));
    })?;
    found.sections.extend(findings);
    if programme.failovers > 0 {
        let mut suffered = Vec::new();
        for (index, side) in sides.iter().enumerate() {
            let directory = directory.join(format!("failover-{index}-{}", side.name()));
            let mut contestant = Contestant::start_fresh(*side, programs, &directory, programme.servers)?;
            suffered.push((*side, failover::run(&mut contestant, programme)?));
        }
        println!("{}", table::failover_table(&suffered));
        let mut outcomes = suffered.iter().flat_map(|(_, outcomes)| outcomes);
        found.is_broken |= outcomes.any(failover::Outcome::is_broken);
    }
    Ok(())
}

/// What to call to get these figures again.
fn command_line() -> String {
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    arguments.collect::<Vec<_>>().join(" ")
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
        "{}, commit {}, {cores} cores of {}, Linux {}, load before {}",
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
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After a panic the logs are wanted.
        if !self.keep && !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
