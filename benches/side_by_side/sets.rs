//! What a run measures: the named sets, and how long each of their parts takes.

use std::time::Duration;

use crate::rows::Row;
use crate::sections::Section;

/// A named choice of rows, sections, times and repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Set {
    /// A few rows, at most four minutes: for every day.
    Quick,
    /// What the first release must hold: writes and reads, memory, start-up.
    Issue2,
    /// Everything, long: for a release.
    Full,
    /// Every row on one server.
    Rows,
    /// Every row on ensembles of three.
    Ensemble,
    /// Ensembles of three whose leader is killed, or hands over, under paced writes.
    Failover,
    /// Five minutes of paced writes: the tail of their latencies, and the worst second.
    Steady,
    /// What beside a load must not suffer: storms of watches, large listings, large values, large sessions.
    Beside,
    /// Sessions, watches, znodes, and values beyond the memory budget.
    Memory,
}

/// What is measured on one pair of servers, or of ensembles.
#[derive(Clone, Debug)]
pub(crate) struct Programme {
    pub(crate) rows: Vec<Row>,
    pub(crate) sections: Vec<Section>,
    /// How often each side has its turn in each row, and in each section that a running server can host.
    pub(crate) rounds: u32,
    pub(crate) measured: Duration,
    /// Before each measurement, with the row's own load.
    pub(crate) row_warm_up: Duration,
    /// Once per server, with mixed loads: a JVM needs it.
    pub(crate) server_warm_up: Duration,
    /// Waits for a quiet machine before each turn, and repeats turns that others disturbed.
    pub(crate) quiet: bool,
    /// Members of each side.
    pub(crate) servers: usize,
    /// How often each side's leader is killed, and how often it hands over.
    pub(crate) failovers: u32,
    /// How large the sections are.
    pub(crate) sizes: Sizes,
}

/// How large the sections are.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    /// The steady run's load and length.
    pub(crate) steady_row: Row,
    pub(crate) steady: Duration,
    /// Watchers of one znode, one storm section for each number; and how often it changes in a turn.
    pub(crate) watchers: Vec<u32>,
    pub(crate) changes: u32,
    /// Ephemerals of the session that closes.
    pub(crate) ephemerals: u32,
    pub(crate) idle_sessions: u32,
    /// Znodes of the memory and start-up sections, one for each number; of the tree in which a leader fails, the first.
    pub(crate) znodes: Vec<u32>,
    /// The budget section's values in all, and the budget.
    pub(crate) values_bytes: u64,
    pub(crate) budget_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            steady_row: "set:100x16@20000".parse().expect("it is spelled right"),
            steady: Duration::from_secs(300),
            watchers: vec![10_000, 50_000],
            changes: 20,
            ephemerals: 10_000,
            idle_sessions: 10_000,
            znodes: vec![1_000_000, 10_000_000],
            values_bytes: 10_000_000_000,
            budget_bytes: 1_000_000_000,
        }
    }
}

const QUICK_ROWS: &[&str] = &[
    "set:100x16",
    "set:1000x1",
    "set:1x1",
    "get:100x16",
    "get:100x1",
    "mixed:100x16",
    "multi:10x16",
    "children:10x16",
    "sessions:50x1",
    "create:100x16",
];

const ISSUE2_ROWS: &[&str] = &[
    "set:100x16",
    "set:1x1",
    "get:100x16",
    "get:1x1",
    "create:1x1",
    "create:100x16",
];

/// Those that create run last: what they create stays.
const ALL_ROWS: &[&str] = &[
    "set:100x16",
    "set:1000x1",
    "set:10x1",
    "set:1x1",
    "get:100x16",
    "get:100x1",
    "get:1000x1",
    "get:1x1",
    "mixed:100x16",
    "multi:10x16",
    "children:10x16",
    "largeget:10x1",
    "sessions:50x1",
    "create:1x1",
    "create:10x1",
    "create:1000x1",
    "create:100x16",
    "production:100x16",
];

const BESIDE: &[Section] = &[Section::Listing, Section::Storm, Section::Closing, Section::Large];
const MEMORY: &[Section] = &[Section::Idle, Section::Znodes, Section::Budget];

impl Set {
    /// What the set measures, one programme after the other.
    pub(crate) fn programmes(self) -> Vec<Programme> {
        match self {
            Set::Quick => vec![programme(QUICK_ROWS, &[Section::Closing], 2, 2_000, 700, 8)],
            Set::Issue2 => {
                let mut programme = programme(ISSUE2_ROWS, &[Section::Znodes], 3, 5_000, 1_500, 20);
                programme.sizes.znodes = vec![1_000_000];
                vec![programme]
            }
            Set::Rows => vec![programme(ALL_ROWS, &[], 3, 6_000, 2_000, 20)],
            Set::Ensemble => vec![Programme {
                servers: 3,
                ..programme(ALL_ROWS, &[], 3, 4_000, 1_500, 12)
            }],
            Set::Failover => {
                let mut programme = programme(&[], &[], 0, 0, 0, 0);
                (programme.servers, programme.failovers) = (3, 5);
                programme.sizes.znodes.clear();
                vec![programme]
            }
            Set::Steady => vec![programme(&[], &[Section::Steady], 1, 0, 2_000, 20)],
            Set::Beside => vec![programme(&[], BESIDE, 3, 6_000, 2_000, 20)],
            Set::Memory => vec![programme(&[], MEMORY, 1, 6_000, 2_000, 0)],
            Set::Full => {
                let parts = [
                    Set::Rows,
                    Set::Beside,
                    Set::Memory,
                    Set::Steady,
                    Set::Ensemble,
                    Set::Failover,
                ];
                parts.into_iter().flat_map(Set::programmes).collect()
            }
        }
    }
}

fn programme(
    rows: &[&str],
    sections: &[Section],
    rounds: u32,
    measured_ms: u64,
    row_warm_up_ms: u64,
    server_warm_up_s: u64,
) -> Programme {
    let rows = rows.iter().map(|row| row.parse().expect("the sets are spelled right"));
    Programme {
        rows: rows.collect(),
        sections: sections.to_vec(),
        rounds,
        measured: Duration::from_millis(measured_ms),
        row_warm_up: Duration::from_millis(row_warm_up_ms),
        server_warm_up: Duration::from_secs(server_warm_up_s),
        quiet: false,
        servers: 1,
        failovers: 0,
        sizes: Sizes::default(),
    }
}
