//! What a row is, and how it is spelled.

use std::fmt;
use std::str::FromStr;

use crate::load::Kind;

/// One line of the table: an operation, by so many sessions, with so many requests of each in flight at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) sessions: u32,
    pub(crate) depth: u32,
    /// Requests that fall due each second, of all sessions together; without it, each is followed by the next at once.
    pub(crate) pace: Option<u32>,
}

/// More sessions than a process may have files open is a mistake in the row, not in the server.
const SESSIONS_LIMIT: u32 = 15_000;
/// A driver on one thread does not ask faster.
const PACE_LIMIT: u32 = 1_000_000;
/// The slots for times of sending are allocated per session.
const DEPTH_LIMIT: u32 = 65_536;

impl FromStr for Row {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (name, shape) = text.split_once(':')?;
            let (_, kind) = Kind::ALL.into_iter().find(|(known, _)| *known == name)?;
            let (shape, pace) = shape
                .split_once('@')
                .map_or((shape, None), |(shape, pace)| (shape, Some(pace)));
            let pace = pace.map(str::parse::<u32>).transpose().ok()?;
            let (sessions, depth) = shape.split_once('x')?;
            let (sessions, depth) = (sessions.parse().ok()?, depth.parse().ok()?);
            let in_bounds = (1..=SESSIONS_LIMIT).contains(&sessions) && (1..=DEPTH_LIMIT).contains(&depth);
            let good_pace = pace.is_none_or(|pace| kind != Kind::Sessions && (1..=PACE_LIMIT).contains(&pace));
            (in_bounds && good_pace).then_some(Row {
                kind,
                sessions,
                depth,
                pace,
            })
        };
        parse().ok_or_else(|| {
            let names = Kind::ALL.map(|(name, _)| name).join(", ");
            format!("expected KIND:SESSIONSxDEPTH[@PER_SECOND] such as set:100x16, where KIND is one of {names}")
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}x{}", self.kind.name(), self.sessions, self.depth)?;
        self.pace.map_or(Ok(()), |pace| write!(f, "@{pace}"))
    }
}

impl Row {
    /// A row without a pace.
    pub(crate) fn new(kind: Kind, sessions: u32, depth: u32) -> Self {
        Self {
            kind,
            sessions,
            depth,
            pace: None,
        }
    }

    /// For a reader: what it does, and its shape.
    pub(crate) fn title(&self) -> String {
        if self.kind == Kind::Sessions {
            return format!("{}, {} at a time", self.kind.title(), self.sessions);
        }
        let pace = self.pace.map_or(String::new(), |pace| format!(" at {pace}/s"));
        format!("{} {} × {}{pace}", self.kind.title(), self.sessions, self.depth)
    }
}
