//! Translates what only one server knows (zxids, times, session ids, the run's root) into names that two servers share.
//!
//! - A zxid becomes the name of the write whose reply carried it: `#7.0` is the first request of step 7. So two servers
//!   agree only if every czxid, mzxid, pzxid and event points at the same write, whatever their counters stand at.
//! - A read's header becomes `≥#7.0`, the last write that it can have seen. Not its own value: our counter also moves
//!   for things that Apache's does not count (taking up a session), and clients may only rely on its order.
//! - A time becomes `ok` if it keeps the promises that a time can keep: it lies within the run, it is the same wherever
//!   its zxid is the same, and mtime is not before ctime.
//! - What lasts longer than a run (`/`, `/zookeeper`, `/zookeeper/quota`) is shown relative to the run's beginning.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::operation::ROOT_MARK;
use crate::reply::{Piece, Stat};

/// How far a server's clock reading may lie outside the run: the clocks are the same, their rounding is not.
const CLOCK_TOLERANCE_MS: i64 = 2_000;

/// The names of one run on one server.
pub struct Names {
    root: String,
    /// The highest zxid that existed when the run began.
    first_zxid: i64,
    /// The wall clock at that time.
    started_ms: i64,
    writes: BTreeMap<i64, String>,
    sessions: HashMap<i64, usize>,
    times: HashMap<i64, i64>,
    bases: HashMap<String, Stat>,
}

impl Names {
    /// Starts with nothing named.
    pub fn new(root: String, first_zxid: i64) -> Self {
        Self {
            root,
            first_zxid,
            started_ms: now_ms(),
            writes: BTreeMap::new(),
            sessions: HashMap::new(),
            times: HashMap::new(),
            bases: HashMap::new(),
        }
    }

    /// Shows `path`'s Stat relative to this one from now on.
    pub fn set_base(&mut self, path: &str, stat: Stat) {
        self.bases.insert(path.to_owned(), stat);
    }

    /// Names a write. Whether its zxid is above all that were named before is the answer.
    pub fn name_write(&mut self, zxid: i64, name: String) -> bool {
        let advances = zxid > self.first_zxid && self.writes.last_key_value().is_none_or(|(last, _)| zxid > *last);
        if advances {
            self.writes.insert(zxid, name);
        }
        advances
    }

    /// Numbers a session by its first appearance.
    pub fn number_session(&mut self, id: i64) -> usize {
        let next = self.sessions.len();
        *self.sessions.entry(id).or_insert(next)
    }

    /// The name of a zxid that must be a write's own.
    pub fn exact(&self, zxid: i64) -> String {
        match self.writes.get(&zxid) {
            Some(name) => name.clone(),
            None if zxid <= 0 => zxid.to_string(),
            None if zxid <= self.first_zxid => "before".to_owned(),
            None => format!("unknown, {}", self.at_least(zxid)),
        }
    }

    /// The last write that a state at `zxid` contains.
    pub fn at_least(&self, zxid: i64) -> String {
        match self.writes.range(..=zxid).next_back() {
            Some((_, name)) => format!("≥{name}"),
            None if zxid <= 0 => zxid.to_string(),
            None => "≥start".to_owned(),
        }
    }

    /// Whether `zxid` lies before the last named write.
    pub fn is_behind(&self, zxid: i64) -> bool {
        self.writes.last_key_value().is_some_and(|(last, _)| zxid < *last)
    }

    /// The run's root replaced by its mark.
    pub fn unrooted(&self, text: &str) -> String {
        text.replace(&self.root, &ROOT_MARK.to_string())
    }

    /// A piece of a reply, comparable.
    pub fn piece(&mut self, piece: &Piece) -> String {
        match piece {
            Piece::Text(text) => self.unrooted(text),
            Piece::Stat(stat, path) => self.stat(stat, path),
        }
    }

    fn stat(&mut self, stat: &Stat, path: &str) -> String {
        let base = self.bases.get(if path.is_empty() { "/" } else { path }).copied();
        let (note, base) = base.map_or_else(|| ("", Stat::default()), |base| ("relative ", base));
        let owner = match stat.ephemeral_owner {
            0 => "none".to_owned(),
            id => self
                .sessions
                .get(&id)
                .map_or_else(|| format!("unknown {id:#x}"), |number| format!("session {number}")),
        };
        let created = self.time(stat.czxid, stat.ctime);
        let modified = self.time(stat.mzxid, stat.mtime);
        let order = if stat.mtime < stat.ctime { " mtime<ctime!" } else { "" };
        format!(
            "{note}stat(czxid {} mzxid {} pzxid {} ctime {created} mtime {modified}{order} version {} cversion {} \
             aversion {} owner {owner} length {} children {})",
            self.exact(stat.czxid),
            self.exact(stat.mzxid),
            self.exact(stat.pzxid),
            stat.version.wrapping_sub(base.version),
            stat.cversion.wrapping_sub(base.cversion),
            stat.aversion.wrapping_sub(base.aversion),
            stat.data_length,
            stat.num_children.wrapping_sub(base.num_children),
        )
    }

    fn time(&mut self, zxid: i64, time_ms: i64) -> String {
        if time_ms == 0 {
            return "0".to_owned();
        }
        if *self.times.entry(zxid).or_insert(time_ms) != time_ms {
            return "differs from another of its zxid".to_owned();
        }
        let earliest = if zxid > self.first_zxid {
            self.started_ms - CLOCK_TOLERANCE_MS
        } else {
            1
        };
        if (earliest..=now_ms() + CLOCK_TOLERANCE_MS).contains(&time_ms) {
            "ok".to_owned()
        } else {
            format!("{time_ms} is outside the run")
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is past 1970");
    i64::try_from(since.as_millis()).expect("the clock is before the year 292 million")
}

/// An event's kind, in words.
pub fn event_name(kind: i32) -> String {
    match kind {
        1 => "Created".to_owned(),
        2 => "Deleted".to_owned(),
        3 => "DataChanged".to_owned(),
        4 => "ChildrenChanged".to_owned(),
        other => format!("of kind {other}"),
    }
}

/// An error code's name.
pub fn error_name(error: i32) -> String {
    match error {
        0 => "OK".to_owned(),
        -5 => "MARSHALLINGERROR".to_owned(),
        -6 => "UNIMPLEMENTED".to_owned(),
        -8 => "BADARGUMENTS".to_owned(),
        -101 => "NONODE".to_owned(),
        -102 => "NOAUTH".to_owned(),
        -103 => "BADVERSION".to_owned(),
        -108 => "NOCHILDRENFOREPHEMERALS".to_owned(),
        -110 => "NODEEXISTS".to_owned(),
        -111 => "NOTEMPTY".to_owned(),
        -114 => "INVALIDACL".to_owned(),
        -115 => "AUTHFAILED".to_owned(),
        -121 => "NOWATCHER".to_owned(),
        -123 => "RECONFIGDISABLED".to_owned(),
        -125 => "QUOTAEXCEEDED".to_owned(),
        other => format!("error {other}"),
    }
}
