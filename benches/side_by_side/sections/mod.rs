//! What is not a row: each section measures one thing that needs more than a load, and names its figures itself.
//!
//! Some are hosted by the servers that run the rows, warmed up as those are, in turn A B A B; others weigh a server that
//! was started for them.

mod budget;
mod closing;
mod idle;
mod large;
mod listing;
mod steady;
mod storm;

use std::path::Path;
use std::time::Duration;

use crate::contest::{SETTLE_LIMIT, await_quiet, run_row};
use crate::figure::{Figure, Reading};
use crate::footprint;
use crate::measure::settle;
use crate::process::{Contestant, Programs, Server, Side};
use crate::recorder::Plan;
use crate::sets::{Programme, Sizes};

/// One section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Section {
    /// getChildren of a znode with 100,000 children, and what others notice
    Listing,
    /// One change that thousands watch
    Storm,
    /// A session that closes with 10,000 ephemerals
    Closing,
    /// Values of a mebibyte, and small requests beside them
    Large,
    /// Minutes of paced writes
    Steady,
    /// Memory of idle sessions
    Idle,
    /// Memory of znodes and watches, and start-up
    Znodes,
    /// Values ten times larger than the memory budget
    Budget,
}

/// The figures of one section, or of one size of it.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) title: String,
    pub(crate) figures: Vec<Figure>,
}

impl Section {
    /// Whether a server that has other znodes already will do.
    pub(crate) fn is_hosted(self) -> bool {
        !matches!(self, Section::Idle | Section::Znodes | Section::Budget)
    }
}

/// A section, or one size of it: so many watchers, so many znodes.
#[derive(Clone, Copy, Debug)]
struct Part {
    section: Section,
    size: u32,
}

/// What a programme has of them, hosted by running servers or not.
fn parts(programme: &Programme, hosted: bool) -> Vec<Part> {
    let sections = programme.sections.iter().copied();
    let sized = sections
        .filter(|section| section.is_hosted() == hosted)
        .flat_map(|section| {
            let sizes = match section {
                Section::Storm => programme.sizes.watchers.clone(),
                Section::Znodes => programme.sizes.znodes.clone(),
                Section::Closing => vec![programme.sizes.ephemerals],
                Section::Idle => vec![programme.sizes.idle_sessions],
                Section::Listing | Section::Large | Section::Steady | Section::Budget => vec![0],
            };
            sizes.into_iter().map(move |size| Part { section, size })
        });
    sized.collect()
}

impl Part {
    fn title(self, sizes: &Sizes) -> String {
        match self.section {
            Section::Listing => listing::title(),
            Section::Storm => storm::title(self.size),
            Section::Closing => closing::title(self.size),
            Section::Large => large::title(),
            Section::Steady => steady::title(sizes),
            Section::Idle => idle::title(self.size),
            Section::Znodes => footprint::title(self.size),
            Section::Budget => budget::title(sizes),
        }
    }

    /// One turn on a server that runs.
    fn run_hosted(self, server: &Contestant, programme: &Programme) -> Result<Vec<Reading>, String> {
        match self.section {
            Section::Listing => listing::run(server, programme),
            Section::Storm => storm::run(server, self.size, programme.sizes.changes),
            Section::Closing => closing::run(server, self.size),
            Section::Large => large::run(server, programme),
            Section::Steady => steady::run(server, &programme.sizes),
            Section::Idle | Section::Znodes | Section::Budget => Ok(Vec::new()),
        }
    }

    /// The one turn on a server that is started for it. What a side cannot do has no readings.
    fn run_alone(
        self,
        side: Side,
        programs: &Programs,
        programme: &Programme,
        directory: &Path,
    ) -> Result<Vec<Reading>, String> {
        let fresh = || Server::start_fresh(side, programs, directory);
        match self.section {
            Section::Idle => idle::run(&fresh()?, self.size),
            Section::Znodes if side == Side::Ours || self.size <= footprint::APACHE_ZNODES => {
                footprint::run(&mut fresh()?, self.size)
            }
            // Apache has no such setting.
            Section::Budget if side == Side::Ours => budget::run(programs, directory, programme),
            _ => Ok(Vec::new()),
        }
    }
}

/// Runs the sections that running servers host, in turn: A B A B.
///
/// # Errors
/// The first that fails on any side.
pub(crate) fn run_hosted(
    servers: &[Contestant],
    programme: &Programme,
    tell_findings: impl Fn(&Findings),
) -> Result<Vec<Findings>, String> {
    let mut findings = Vec::new();
    for part in parts(programme, true) {
        let title = part.title(&programme.sizes);
        // Five minutes each are enough of the steady run.
        let rounds = if part.section == Section::Steady {
            1
        } else {
            programme.rounds
        };
        let mut sides: Vec<_> = servers.iter().map(|server| (server.side, Vec::new())).collect();
        for round in 1..=rounds {
            for (server, (side, turns)) in servers.iter().zip(&mut sides) {
                if programme.quiet {
                    await_quiet();
                }
                let readings = part.run_hosted(server, programme);
                let readings = readings.map_err(|error| format!("{title}: {}: {error}", side.name()))?;
                tell(&title, *side, round, &readings);
                turns.push(readings);
                server.pids().iter().for_each(|pid| settle(*pid, SETTLE_LIMIT));
            }
        }
        let figures = Figure::join(&sides);
        findings.push(Findings { title, figures });
        findings.last().into_iter().for_each(&tell_findings);
    }
    Ok(findings)
}

/// Runs the sections that want servers of their own, one side after the other.
///
/// # Errors
/// The first that fails on any side.
pub(crate) fn run_alone(
    sides: &[Side],
    programs: &Programs,
    programme: &Programme,
    directory: &Path,
    tell_findings: impl Fn(&Findings),
) -> Result<Vec<Findings>, String> {
    let mut findings = Vec::new();
    for (number, part) in parts(programme, false).into_iter().enumerate() {
        let title = part.title(&programme.sizes);
        let mut turns = Vec::new();
        for (index, side) in sides.iter().enumerate() {
            let directory = directory.join(format!("alone-{number}-{index}-{}", side.name()));
            if programme.quiet {
                await_quiet();
            }
            let readings = part.run_alone(*side, programs, programme, &directory);
            let readings = readings.map_err(|error| format!("{title}: {}: {error}", side.name()))?;
            tell(&title, *side, 1, &readings);
            turns.push((*side, vec![readings]));
            // The next may want the disk. What has failed is kept, with its log.
            let _ = std::fs::remove_dir_all(&directory);
        }
        let figures = Figure::join(&turns);
        findings.push(Findings { title, figures });
        findings.last().into_iter().for_each(&tell_findings);
    }
    Ok(findings)
}

/// Progress, on standard error.
fn tell(title: &str, side: Side, round: u32, readings: &[Reading]) {
    for reading in readings {
        eprintln!(
            "{:<6} {round} {title}: {} {:.3}",
            side.name(),
            reading.name,
            reading.value
        );
    }
}

/// Nothing is counted while a load warms up.
fn timed(warm_up: Duration, measured: Duration) -> Plan {
    Plan::Timed { warm_up, measured }
}
