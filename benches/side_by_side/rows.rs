//! Which rows a set has, and how long each is measured.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::load::Kind;

/// One line of the table: an operation, by so many sessions, with so many requests of each in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) sessions: u32,
    pub(crate) depth: u32,
}

/// More sessions than a process may have files open is a mistake in the row, not in the server.
const SESSIONS_LIMIT: u32 = 15_000;
/// The slots for times of sending are allocated per session.
const DEPTH_LIMIT: u32 = 65_536;

impl FromStr for Row {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (name, shape) = text.split_once(':')?;
            let (_, kind) = Kind::ALL.into_iter().find(|(known, _)| *known == name)?;
            let (sessions, depth) = shape.split_once('x')?;
            let (sessions, depth) = (sessions.parse().ok()?, depth.parse().ok()?);
            let in_bounds = (1..=SESSIONS_LIMIT).contains(&sessions) && (1..=DEPTH_LIMIT).contains(&depth);
            in_bounds.then_some(Row { kind, sessions, depth })
        };
        parse().ok_or_else(|| {
            let names = Kind::ALL.map(|(name, _)| name).join(", ");
            format!("expected KIND:SESSIONSxDEPTH such as set:100x16, where KIND is one of {names}")
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}x{}", self.kind.name(), self.sessions, self.depth)
    }
}

impl Row {
    /// For a reader: what it does, and its shape.
    pub(crate) fn title(&self) -> String {
        if self.kind == Kind::Sessions {
            return format!("{}, {} at a time", self.kind.title(), self.sessions);
        }
        format!("{} {} × {}", self.kind.title(), self.sessions, self.depth)
    }
}

/// A named choice of rows, times and repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Set {
    /// A few rows, at most four minutes: for every day.
    Quick,
    /// What the first release must hold: writes and reads, memory, start-up.
    Issue2,
    /// Every row, long: for a release.
    Full,
    /// Ensembles of three: the rows that issue 3 names.
    Ensemble,
    /// Ensembles of three whose leader is killed, or hands over, under paced writes.
    Failover,
}

/// What a set measures.
#[derive(Clone, Debug)]
pub(crate) struct Programme {
    pub(crate) rows: Vec<Row>,
    /// How often each side has its turn in each row.
    pub(crate) rounds: u32,
    pub(crate) measured: Duration,
    /// Before each measurement, with the row's own load.
    pub(crate) row_warm_up: Duration,
    /// Once per server, with mixed loads: a JVM needs it.
    pub(crate) server_warm_up: Duration,
    /// Znodes of the memory and start-up rows; none leaves them out.
    pub(crate) znodes: u32,
    /// Waits for a quiet machine before each turn, and repeats turns that others disturbed.
    pub(crate) quiet: bool,
    /// Members of each side.
    pub(crate) servers: usize,
    /// How often each side's leader is killed, and how often it hands over.
    pub(crate) failovers: u32,
}

impl Set {
    pub(crate) fn programme(self) -> Programme {
        let (rows, rounds, measured_s, row_warm_up_ms, server_warm_up_s, znodes): (&[&str], _, _, _, _, _) = match self
        {
            Set::Quick => (
                &[
                    "set:100x16",
                    "set:1x1",
                    "get:100x16",
                    "get:100x1",
                    "get:1x1",
                    "mixed:100x16",
                    "multi:10x16",
                    "children:10x16",
                    "sessions:50x1",
                    "create:100x16",
                ],
                2,
                3,
                700,
                8,
                0,
            ),
            Set::Issue2 => (
                &[
                    "set:100x16",
                    "set:1x1",
                    "get:100x16",
                    "get:1x1",
                    "create:1x1",
                    "create:100x16",
                ],
                3,
                5,
                1_500,
                20,
                1_000_000,
            ),
            Set::Full => (
                &[
                    "set:100x16",
                    "set:100x1",
                    "set:1000x1",
                    "set:10x1",
                    "set:1x1",
                    "get:100x16",
                    "get:100x1",
                    "get:1000x1",
                    "get:10x1",
                    "get:1x1",
                    "mixed:100x16",
                    "multi:10x16",
                    "children:10x16",
                    "sessions:50x1",
                    "create:1x1",
                    "create:10x1",
                    "create:1000x1",
                    "create:100x16",
                    "production:100x16",
                ],
                3,
                10,
                2_000,
                20,
                1_000_000,
            ),
            Set::Ensemble => (
                &["set:100x16", "set:1000x1", "set:1x1", "get:100x1"],
                3,
                4,
                1_500,
                12,
                0,
            ),
            Set::Failover => (&[], 0, 0, 0, 0, 0),
        };
        let ensemble = matches!(self, Set::Ensemble | Set::Failover);
        Programme {
            rows: rows
                .iter()
                .map(|row| row.parse().expect("the sets are spelled right"))
                .collect(),
            rounds,
            measured: Duration::from_secs(measured_s),
            row_warm_up: Duration::from_millis(row_warm_up_ms),
            server_warm_up: Duration::from_secs(server_warm_up_s),
            znodes,
            quiet: false,
            servers: if ensemble { 3 } else { 1 },
            failovers: if self == Set::Failover { 5 } else { 0 },
        }
    }
}
