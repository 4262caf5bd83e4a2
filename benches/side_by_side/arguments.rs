//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use crate::process::{Programs, Side};
use crate::rows::Row;
use crate::sections::Section;
use crate::sets::{Programme, Set};

#[derive(Debug, Parser)]
#[command(
    name = "side_by_side",
    about = "Measures menagerie beside Apache ZooKeeper, in turn, in one run"
)]
pub(crate) struct Arguments {
    /// What to run, and for how long
    #[arg(long, value_enum, default_value = "quick")]
    pub(crate) set: Set,
    /// Rows to run instead of the set's, such as set:100x16, or set:100x16@20000 at a pace (may be repeated)
    #[arg(long = "row")]
    pub(crate) rows: Vec<Row>,
    /// Sections to run instead of the set's (may be repeated)
    #[arg(long = "section", value_enum)]
    pub(crate) sections: Vec<Section>,
    /// Runs the rows once against a server that is already up, and prints a line for each
    #[arg(long, value_name = "HOST:PORT", requires = "rows")]
    pub(crate) target: Option<String>,
    /// With --target: the server's process, for its processor time and memory
    #[arg(long, requires = "target")]
    pub(crate) pid: Option<u32>,
    /// Runs one side alone
    #[arg(long, value_enum)]
    pub(crate) only: Option<Side>,
    /// Which servers to compare; the same one twice shows how much the machine wavers
    #[arg(long, value_enum, value_delimiter = ',', num_args = 1, default_values = ["ours", "apache"])]
    pub(crate) sides: Vec<Side>,
    /// Seconds of each measurement, the steady run included
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// Turns of each side in each row and section
    #[arg(long)]
    pub(crate) rounds: Option<u32>,
    /// Seconds of warming up each server (ours needs, and takes, at most 8)
    #[arg(long)]
    pub(crate) warm_up: Option<u64>,
    /// Members of each side: ensembles on this machine. The sets ensemble and failover have 3, the others 1
    #[arg(long)]
    pub(crate) servers: Option<usize>,
    /// How often each side's leader is killed, and how often it hands over
    #[arg(long)]
    pub(crate) failovers: Option<u32>,
    /// Leaves the rows of load out, for the sections alone
    #[arg(long)]
    pub(crate) no_rows: bool,
    /// Znodes of the memory and start-up section (may be repeated), or in the tree before a failover; 0 leaves them out
    #[arg(long)]
    pub(crate) znodes: Vec<u32>,
    /// Watchers of one znode in the section storm (may be repeated)
    #[arg(long)]
    pub(crate) watchers: Vec<u32>,
    /// How often it changes
    #[arg(long)]
    pub(crate) changes: Option<u32>,
    /// Values of the section budget in all, in GB
    #[arg(long)]
    pub(crate) values_gb: Option<f64>,
    /// Its memoryBudget, in MB
    #[arg(long)]
    pub(crate) budget_mb: Option<f64>,
    /// Waits for a quiet machine before each turn (at most a minute), and repeats turns that others disturbed
    #[arg(long)]
    pub(crate) quiet: bool,
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
    pub(crate) directory: PathBuf,
    /// Keeps the servers' directories
    #[arg(long)]
    pub(crate) keep: bool,
    /// Writes one line per turn of each row to this file, tab separated
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Draws the figures that have a target beside Apache's into this file, as SVG
    #[arg(long)]
    pub(crate) chart: Option<PathBuf>,
    /// Exits with 1 if a target is missed
    #[arg(long)]
    pub(crate) check: bool,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
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

impl Arguments {
    pub(crate) fn sides(&self) -> Vec<Side> {
        self.only.map_or_else(|| self.sides.clone(), |side| vec![side])
    }

    pub(crate) fn programs(&self) -> Programs {
        Programs {
            ours: self.ours.clone(),
            oracle: self.oracle.clone(),
            java_heap: self.java_heap.clone(),
            settings: self.settings.clone(),
        }
    }

    /// The set's programmes, changed as the command line wants. Rows or sections of one's own replace all of the set's.
    ///
    /// # Errors
    /// A failover without an ensemble.
    pub(crate) fn programmes(&self) -> Result<Vec<Programme>, String> {
        let mut programmes = self.set.programmes();
        if !self.rows.is_empty() || !self.sections.is_empty() {
            programmes.truncate(1);
        }
        for programme in &mut programmes {
            self.choose(programme);
            self.adapt(programme);
            if programme.failovers > 0 && programme.servers < 3 {
                return Err("a failover needs --servers 3 or more".to_owned());
            }
        }
        Ok(programmes)
    }

    /// Rows and sections of one's own. A row with a pace is the steady run's load, where that is wanted.
    fn choose(&self, programme: &mut Programme) {
        let is_steady = self.sections.is_empty() && programme.sections == [Section::Steady];
        if !self.rows.is_empty() || !self.sections.is_empty() {
            programme.rows.clone_from(&self.rows);
            if !is_steady {
                programme.sections.clone_from(&self.sections);
            }
        }
        let paced = programme.rows.iter().position(|row| row.pace.is_some());
        if let Some(paced) = paced.filter(|_| programme.sections.contains(&Section::Steady)) {
            programme.sizes.steady_row = programme.rows.remove(paced);
        }
    }

    fn adapt(&self, programme: &mut Programme) {
        fn set<T: Clone>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        if self.no_rows {
            programme.rows.clear();
        }
        let seconds = self.seconds.map(Duration::from_secs);
        set(&mut programme.rounds, self.rounds);
        set(&mut programme.measured, seconds);
        set(&mut programme.server_warm_up, self.warm_up.map(Duration::from_secs));
        set(&mut programme.servers, self.servers.map(|servers| servers.max(1)));
        // Of a set of several programmes, only the one that has failovers anyway.
        let are_wanted = self.set != Set::Full || programme.failovers > 0;
        set(&mut programme.failovers, self.failovers.filter(|_| are_wanted));
        programme.quiet = self.quiet;
        let sizes = &mut programme.sizes;
        set(&mut sizes.steady, seconds);
        set(&mut sizes.changes, self.changes);
        set(&mut sizes.values_bytes, self.values_gb.map(|gb| (gb * 1e9) as u64));
        set(&mut sizes.budget_bytes, self.budget_mb.map(|mb| (mb * 1e6) as u64));
        set(
            &mut sizes.watchers,
            Some(self.watchers.clone()).filter(|all| !all.is_empty()),
        );
        set(
            &mut sizes.znodes,
            Some(self.znodes.clone()).filter(|all| !all.is_empty()),
        );
        sizes.znodes.retain(|znodes| *znodes > 0);
    }
}
