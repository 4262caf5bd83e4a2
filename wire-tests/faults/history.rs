//! What the clients of a run have seen, and what it must fulfil.
//!
//! Everything is judged at the end, from records with the client's own clock: a write or read is known by when it was
//! sent and when its reply was read. Versions of a register number its writes, so that the order need not be searched
//! for, and each check is one pass. Real-time order is checked by the clock, never by zxids.

use super::checker::{self, What};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Nanoseconds since the run began.
pub(crate) type Moment = u64;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Acknowledged, with the version that it made and the zxid that it got.
    Done { returned: Moment, version: i32, mzxid: i64 },
    /// The connection ended before the reply.
    Unknown,
    /// Refused because of its expected version: it has not happened.
    Refused,
}

/// A write of a value that is written nowhere else.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) register: usize,
    pub(crate) value: u64,
    /// Of a compare-and-set.
    pub(crate) expected: Option<i32>,
    pub(crate) invoked: Moment,
    pub(crate) fate: Fate,
}

/// A reply that showed a register.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) register: usize,
    /// `None` before the first write.
    pub(crate) value: Option<u64>,
    pub(crate) version: i32,
    pub(crate) mzxid: i64,
    pub(crate) invoked: Moment,
    pub(crate) returned: Moment,
    /// Behind a sync of the same session: it must show everything that was acknowledged before it was sent.
    pub(crate) strong: bool,
}

/// A sequential znode. Its payload is part of its name.
#[derive(Clone, Debug)]
pub(crate) struct Append {
    pub(crate) payload: String,
    pub(crate) invoked: Moment,
    /// When and under which name, if it was acknowledged.
    pub(crate) done: Option<(Moment, String)>,
}

/// A connection that ended without the client's doing.
#[derive(Clone, Debug)]
pub(crate) struct Disconnect {
    pub(crate) worker: usize,
    pub(crate) member: usize,
    pub(crate) at: Moment,
    /// Requests without a reply.
    pub(crate) pending: usize,
    pub(crate) reason: &'static str,
}

/// A handshake that was left alone without an answer. The member may take it up when it comes to, and with it the
/// session, from wherever that is by then; as ZooKeeper's would.
#[derive(Clone, Debug)]
pub(crate) struct Abandoned {
    pub(crate) worker: usize,
    pub(crate) member: usize,
    /// When it was begun, and when it was left alone.
    pub(crate) asked: Moment,
    pub(crate) at: Moment,
}

/// All that one client, or after [`History::merge`] all of them, have seen.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
    pub(crate) appends: Vec<Append>,
    pub(crate) disconnects: Vec<Disconnect>,
    pub(crate) abandoned: Vec<Abandoned>,
    /// Ephemerals of sessions that live at the end, with their owner.
    pub(crate) held: BTreeMap<String, i64>,
    /// Everything again, for the simulator's checker.
    pub(crate) trace: Vec<checker::Event>,
    /// What a client noticed itself.
    pub(crate) violations: Vec<String>,
    pub(crate) answered: u64,
    pub(crate) events: u64,
    pub(crate) moves: u64,
    pub(crate) sessions: u64,
}

/// The registers and the queue as every member shows them at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Final {
    /// Value and version by register.
    pub(crate) registers: Vec<(Option<u64>, i32)>,
    pub(crate) queue: BTreeSet<String>,
    /// Owners by path, while the workers' sessions live.
    pub(crate) ephemerals: BTreeMap<String, i64>,
    /// Those that were still there when every session's timeout had long passed.
    pub(crate) left: BTreeSet<String>,
}

impl History {
    pub(crate) fn merge(&mut self, other: History) {
        self.writes.extend(other.writes);
        self.reads.extend(other.reads);
        self.appends.extend(other.appends);
        self.disconnects.extend(other.disconnects);
        self.abandoned.extend(other.abandoned);
        self.held.extend(other.held);
        self.trace.extend(other.trace);
        self.violations.extend(other.violations);
        self.answered += other.answered;
        self.events += other.events;
        self.moves += other.moves;
        self.sessions += other.sessions;
    }

    /// What the simulator's checker says. It takes a zxid for a command's place in the log and for the state that a
    /// reply shows, which they are on our server alone.
    pub(crate) fn check_trace(&mut self) -> Vec<String> {
        // At the same microsecond, what may have been first comes first: then nothing is expected that need not be.
        self.trace.sort_by_key(|event| {
            let rank = match event.what {
                What::Opened { .. } => 0,
                What::Called { .. } => 1,
                What::Replied { .. } | What::Fired { .. } => 2,
                _ => 3,
            };
            (event.at_us, rank)
        });
        match checker::check(&self.trace, checker::Expectations::default()) {
            Ok(summary) => {
                eprintln!("the simulator's checker: {summary:?}");
                Vec::new()
            }
            Err(violations) => violations.iter().map(ToString::to_string).collect(),
        }
    }

    /// Every broken promise, by its name.
    pub(crate) fn check(&self, end: &Final) -> Vec<String> {
        let mut broken = self.violations.clone();
        for (register, (value, version)) in end.registers.iter().enumerate() {
            self.check_register(register, *value, *version, &mut broken);
        }
        self.check_zxids(&mut broken);
        self.check_queue(&end.queue, &mut broken);
        self.check_ephemerals(end, &mut broken);
        broken
    }

    fn check_register(&self, register: usize, value: Option<u64>, version: i32, broken: &mut Vec<String>) {
        let writes: Vec<&Write> = self.writes.iter().filter(|write| write.register == register).collect();
        let reads: Vec<&Read> = self.reads.iter().filter(|read| read.register == register).collect();
        let seen = versions(register, &writes, &reads, value, version, broken);
        // Versions that nobody saw must be writes whose fate nobody knows; another one was applied twice.
        let known: BTreeSet<u64> = seen.values().copied().collect();
        let unseen = version - i32::try_from(seen.range(1..=version).count()).expect("few versions");
        let unknown = writes
            .iter()
            .filter(|write| write.fate == Fate::Unknown && !known.contains(&write.value))
            .count();
        if usize::try_from(unseen).map_or(true, |unseen| unseen > unknown) {
            broken.push(format!(
                "exactly once: register {register} has {unseen} versions that nobody saw, and only {unknown} writes \
                 have an unknown outcome"
            ));
        }
        if let Some((last, _)) = seen.last_key_value()
            && *last > version
        {
            broken.push(format!(
                "Durable: register {register} ends at version {version}, but {last} was acknowledged or read"
            ));
        }
        check_expectations(register, &writes, &seen, broken);
        check_real_time(register, &writes, &reads, broken);
    }

    /// A zxid belongs to one write, and per register their order is that of the versions.
    fn check_zxids(&self, broken: &mut Vec<String>) {
        let mut by_zxid: BTreeMap<i64, (usize, u64)> = BTreeMap::new();
        let mut by_version: BTreeMap<(usize, i32), i64> = BTreeMap::new();
        for write in &self.writes {
            if let Fate::Done { version, mzxid, .. } = write.fate {
                let other = by_zxid.insert(mzxid, (write.register, write.value));
                if let Some(other) = other {
                    broken.push(format!(
                        "TotalOrder: zxid {mzxid:#x} was given to {other:?} and to {:?}",
                        (write.register, write.value)
                    ));
                }
                by_version.insert((write.register, version), mzxid);
            }
        }
        for read in &self.reads {
            let known = *by_version.entry((read.register, read.version)).or_insert(read.mzxid);
            if known != read.mzxid && read.version > 0 {
                broken.push(format!(
                    "TotalOrder: version {} of register {} has mzxid {known:#x} and {:#x}",
                    read.version, read.register, read.mzxid
                ));
            }
        }
        let mut last: Option<((usize, i32), i64)> = None;
        for (key, mzxid) in by_version {
            if let Some((before, zxid)) = last
                && before.0 == key.0
                && zxid >= mzxid
            {
                broken.push(format!(
                    "TotalOrder: {before:?} has zxid {zxid:#x}, its follower {key:?} has {mzxid:#x}"
                ));
            }
            last = Some((key, mzxid));
        }
    }

    fn check_queue(&self, queue: &BTreeSet<String>, broken: &mut Vec<String>) {
        let mut found: HashMap<&str, &str> = HashMap::new();
        let mut numbers = BTreeMap::new();
        for name in queue {
            let (payload, number) = name.rsplit_once('-').unwrap_or((name, ""));
            if let Some(other) = found.insert(payload, name) {
                broken.push(format!(
                    "exactly once: {payload} is in the queue as {name} and as {other}"
                ));
            }
            if let Some(other) = numbers.insert(number, name) {
                broken.push(format!("sequence numbers: {name} and {other}"));
            }
        }
        let sent: BTreeSet<&str> = self.appends.iter().map(|append| append.payload.as_str()).collect();
        for payload in found.keys().filter(|payload| !sent.contains(*payload)) {
            broken.push(format!("TruthfulError: nobody has put {payload} into the queue"));
        }
        let mut order = Vec::new();
        for append in &self.appends {
            let Some((returned, name)) = &append.done else { continue };
            if found.get(append.payload.as_str()) != Some(&name.as_str()) {
                broken.push(format!("Durable: {name} was acknowledged and is not in the queue"));
            }
            let number = name.rsplit_once('-').and_then(|(_, number)| number.parse().ok());
            order.push((append.invoked, *returned, number.unwrap_or(-1)));
        }
        check_order("the queue", &order, broken);
    }

    fn check_ephemerals(&self, end: &Final, broken: &mut Vec<String>) {
        for (path, session) in &self.held {
            match end.ephemerals.get(path) {
                None => broken.push(format!(
                    "EphemeralIffSession: {path} is gone, its session {session:#x} lives"
                )),
                Some(owner) if owner != session => {
                    broken.push(format!(
                        "EphemeralIffSession: {path} is owned by {owner:#x}, not {session:#x}"
                    ));
                }
                Some(_) => {}
            }
        }
        for path in &end.left {
            broken.push(format!("EphemeralIffSession: {path} has outlived its session"));
        }
    }
}

/// How a read behind a sync is called in a broken promise.
pub(crate) const BEHIND_SYNC: &str = "a read behind a sync";

/// The values by version, from every reply that told one. A version has one value, a value one version.
fn versions(
    register: usize,
    writes: &[&Write],
    reads: &[&Read],
    value: Option<u64>,
    version: i32,
    broken: &mut Vec<String>,
) -> BTreeMap<i32, u64> {
    let acknowledged = writes.iter().filter_map(|write| match write.fate {
        Fate::Done { version, .. } => Some((version, write.value)),
        _ => None,
    });
    let read = reads
        .iter()
        .filter_map(|read| read.value.map(|value| (read.version, value)));
    let last = value.map(|value| (version, value));
    let mut seen = BTreeMap::new();
    let mut places: HashMap<u64, i32> = HashMap::new();
    for (version, value) in acknowledged.chain(read).chain(last) {
        let other = *seen.entry(version).or_insert(value);
        if other != value {
            broken.push(format!(
                "TotalOrder: version {version} of register {register} is {other} and {value}"
            ));
        }
        let place = *places.entry(value).or_insert(version);
        if place != version {
            broken.push(format!(
                "exactly once: {value} is version {place} and {version} of register {register}"
            ));
        }
    }
    seen
}

/// A compare-and-set makes the version behind the one that it expects; what was refused has not happened.
fn check_expectations(register: usize, writes: &[&Write], seen: &BTreeMap<i32, u64>, broken: &mut Vec<String>) {
    let places: HashMap<u64, i32> = seen.iter().map(|(version, value)| (*value, *version)).collect();
    for write in writes {
        let place = places.get(&write.value);
        if write.fate == Fate::Refused && place.is_some() {
            broken.push(format!(
                "TruthfulError: {} was refused, and is in register {register}",
                write.value
            ));
        }
        if let (Some(expected), Some(place)) = (write.expected, place)
            && *place != expected + 1
        {
            broken.push(format!(
                "Linear: {} was to follow version {expected} of register {register}, and is version {place}",
                write.value
            ));
        }
    }
}

/// What was acknowledged or shown before a write or a strong read was sent, lies before it. Nothing is read before it
/// is written.
fn check_real_time(register: usize, writes: &[&Write], reads: &[&Read], broken: &mut Vec<String>) {
    let invoked: HashMap<u64, Moment> = writes.iter().map(|write| (write.value, write.invoked)).collect();
    for read in reads {
        let Some(value) = read.value else { continue };
        if invoked.get(&value).is_none_or(|invoked| *invoked > read.returned) {
            broken.push(format!(
                "Linear: {value} was read from register {register} before it was written"
            ));
        }
    }
    let mut told: Vec<(Moment, i32)> = reads.iter().map(|read| (read.returned, read.version)).collect();
    let mut asked: Vec<(Moment, i32, String)> = Vec::new();
    for write in writes {
        if let Fate::Done { returned, version, .. } = write.fate {
            told.push((returned, version));
            // A write lies behind everything that was known before: it must be later than that, not only as late.
            asked.push((write.invoked, version - 1, format!("the write of {}", write.value)));
        }
    }
    for read in reads.iter().filter(|read| read.strong) {
        asked.push((read.invoked, read.version, BEHIND_SYNC.to_owned()));
    }
    told.sort_unstable();
    asked.sort_unstable();
    let (mut floor, mut next) = (0, 0);
    for (invoked, version, what) in asked {
        while next < told.len() && told[next].0 < invoked {
            floor = floor.max(told[next].1);
            next += 1;
        }
        if version < floor {
            broken.push(format!(
                "Linear: {what} of register {register} is at version {version}, but {floor} was known before"
            ));
        }
    }
}

/// Numbers of what was acknowledged before something was sent are below its own.
fn check_order(what: &str, entries: &[(Moment, Moment, i64)], broken: &mut Vec<String>) {
    let mut told: Vec<(Moment, i64)> = entries
        .iter()
        .map(|(_, returned, number)| (*returned, *number))
        .collect();
    let mut asked: Vec<(Moment, i64)> = entries.iter().map(|(invoked, _, number)| (*invoked, *number)).collect();
    told.sort_unstable();
    asked.sort_unstable();
    let (mut floor, mut next) = (-1, 0);
    for (invoked, number) in asked {
        while next < told.len() && told[next].0 < invoked {
            floor = floor.max(told[next].1);
            next += 1;
        }
        if number <= floor {
            broken.push(format!(
                "Linear: number {number} of {what} was asked for after {floor} was acknowledged"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(value: u64, invoked: Moment, returned: Moment, version: i32) -> Write {
        let mzxid = i64::from(version) * 10;
        let fate = Fate::Done {
            returned,
            version,
            mzxid,
        };
        Write {
            register: 0,
            value,
            expected: None,
            invoked,
            fate,
        }
    }

    fn read(value: u64, version: i32, invoked: Moment, returned: Moment, strong: bool) -> Read {
        Read {
            register: 0,
            value: Some(value),
            version,
            mzxid: i64::from(version) * 10,
            invoked,
            returned,
            strong,
        }
    }

    fn of(writes: Vec<Write>, reads: Vec<Read>) -> History {
        History {
            writes,
            reads,
            ..History::default()
        }
    }

    fn end(value: u64, version: i32) -> Final {
        Final {
            registers: vec![(Some(value), version)],
            queue: BTreeSet::new(),
            ephemerals: BTreeMap::new(),
            left: BTreeSet::new(),
        }
    }

    /// Asserts that the checker finds exactly the promises named.
    fn finds(history: &History, end: &Final, promises: &[&str]) {
        let broken = history.check(end);
        assert_eq!(broken.len(), promises.len(), "{broken:?}");
        for (broken, promise) in broken.iter().zip(promises) {
            assert!(broken.starts_with(promise), "{broken} is not about {promise}");
        }
    }

    #[test]
    fn an_orderly_history_passes() {
        let writes = vec![write(7, 0, 1, 1), write(8, 2, 3, 2)];
        let history = of(writes, vec![read(8, 2, 4, 5, true), read(7, 1, 4, 5, false)]);
        finds(&history, &end(8, 2), &[]);
    }

    #[test]
    fn a_lost_write_is_found() {
        let history = of(vec![write(7, 0, 1, 1), write(8, 2, 3, 2)], Vec::new());
        finds(&history, &end(7, 1), &["Durable"]);
    }

    #[test]
    fn a_write_that_is_applied_twice_is_found() {
        let mut history = of(vec![write(7, 0, 1, 1)], Vec::new());
        finds(
            &history,
            &end(7, 2),
            &["exactly once: 7 is version 1 and 2", "exactly once: register 0 has 1"][..1],
        );
        history.writes.push(write(8, 2, 3, 3));
        finds(&history, &end(8, 3), &["exactly once: register 0 has 1 versions"]);
        history.writes.push(Write {
            fate: Fate::Unknown,
            ..write(9, 0, 0, 0)
        });
        finds(&history, &end(8, 3), &[]);
    }

    #[test]
    fn a_version_with_two_values_is_found() {
        let mut history = of(vec![write(7, 0, 9, 1)], vec![read(8, 1, 2, 3, false)]);
        history.writes.push(Write {
            fate: Fate::Unknown,
            ..write(8, 0, 0, 0)
        });
        finds(&history, &end(7, 1), &["TotalOrder"]);
    }

    #[test]
    fn a_stale_strong_read_is_found_and_a_stale_plain_one_is_none() {
        let mut history = of(
            vec![write(7, 0, 1, 1), write(8, 2, 3, 2)],
            vec![read(7, 1, 4, 5, false)],
        );
        finds(&history, &end(8, 2), &[]);
        history.reads = vec![read(7, 1, 4, 5, true)];
        finds(&history, &end(8, 2), &["Linear"]);
    }

    #[test]
    fn a_write_behind_a_later_one_is_found() {
        let history = of(vec![write(7, 0, 1, 2), write(8, 2, 3, 1)], Vec::new());
        finds(&history, &end(7, 2), &["Linear"]);
    }

    #[test]
    fn a_refused_write_that_happened_is_found() {
        let mut history = History::default();
        let refused = Write {
            fate: Fate::Refused,
            expected: Some(0),
            ..write(7, 0, 1, 1)
        };
        history.writes.push(refused);
        finds(&history, &end(7, 1), &["TruthfulError"]);
    }

    #[test]
    fn queues_and_ephemerals_are_checked() {
        let mut history = History::default();
        let append = |payload: &str, name: &str, invoked, returned| Append {
            payload: payload.to_owned(),
            invoked,
            done: Some((returned, name.to_owned())),
        };
        history.appends = vec![append("a", "a-0000000001", 0, 1), append("b", "b-0000000000", 2, 3)];
        let mut end = end(0, 0);
        end.registers.clear();
        end.queue = ["a-0000000001", "b-0000000000"].map(str::to_owned).into();
        finds(&history, &end, &["Linear: number 0 of the queue"]);
        history.appends.pop();
        finds(&history, &end, &["TruthfulError: nobody has put b"]);
        end.queue = ["a-0000000003"].map(str::to_owned).into();
        finds(&history, &end, &["Durable: a-0000000001"]);
        history.appends.clear();
        end.queue.clear();
        history.held.insert("/x".to_owned(), 1);
        end.left.insert("/y".to_owned());
        finds(
            &history,
            &end,
            &[
                "EphemeralIffSession: /x is gone",
                "EphemeralIffSession: /y has outlived",
            ],
        );
    }
}
