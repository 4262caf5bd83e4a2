//! Every answer against the timeline.

use super::streams::Streams;
use super::timeline::{Effect, Timeline, has_happened, parts};
use super::{Answer, Call, Promise, Request, Stat, Violation, violated};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const NO_NODE: i32 = -101;
const BAD_VERSION: i32 = -103;
const NODE_EXISTS: i32 = -110;

/// Digits behind the name of a sequential znode.
const SEQUENCE_DIGITS: usize = 10;

/// What an answer says of a znode.
enum Fact<'a> {
    /// It was there, like this.
    Like(&'a Stat),
    /// It was there.
    There,
    /// It was not.
    Absent,
    /// It was there, and had another version than this.
    NotOfVersion(i32),
    /// It was there, and had this version.
    OfVersion(i32),
}

struct Judge<'a> {
    streams: &'a Streams,
    timeline: &'a Timeline,
    /// The least zxid at which an ephemeral of a session was found gone, by its session.
    gone: BTreeMap<i64, (i64, String)>,
    violations: &'a mut Vec<Violation>,
}

/// Checks all answers.
pub(super) fn check(streams: &Streams, timeline: &Timeline, violations: &mut Vec<Violation>) {
    let mut judge = Judge {
        streams,
        timeline,
        gone: BTreeMap::new(),
        violations,
    };
    let mut children: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for path in timeline.paths.keys() {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        children.entry(parent).or_default().insert(name);
    }
    for call in &streams.calls {
        judge.call(call, &children);
    }
    for call in &streams.calls {
        judge.ephemeral_after_the_end(call);
    }
    judge.versions();
    judge.values();
    judge.sequences();
}

impl Judge<'_> {
    fn violated(&mut self, promise: Promise, text: String) {
        violated(self.violations, promise, text);
    }

    fn call(&mut self, call: &Call, children: &HashMap<&str, BTreeSet<&str>>) {
        let Some((zxid, result)) = &call.reply else { return };
        match (&call.request, result) {
            (Request::Get { path, .. }, Ok(Answer::Data(_, stat)))
            | (Request::Exists { path, .. }, Ok(Answer::Stat(stat))) => {
                self.fact(call, path, *zxid, &Fact::Like(stat));
            }
            (
                Request::Get { path, .. } | Request::Exists { path, .. } | Request::Children { path, .. },
                Err(NO_NODE),
            ) => self.fact(call, path, *zxid, &Fact::Absent),
            (Request::Children { path, .. }, Ok(Answer::Names(names))) => {
                self.listing(call, path, *zxid, names, children);
            }
            (Request::Multi(requests), result) => self.multi(call, requests, *zxid, result),
            (request, result) => {
                let result = result.as_ref().map(|_| ()).map_err(|code| *code);
                self.write(call, request, *zxid, result);
            }
        }
    }

    /// What a write's answer says of the znode before it.
    fn write(&mut self, call: &Call, request: &Request, zxid: i64, result: Result<(), i32>) {
        let before = zxid - 1;
        let (path, fact) = match (request, result) {
            (Request::Create { sequential: true, .. }, _) => return,
            (Request::Create { path, .. }, Ok(())) => (path, Fact::Absent),
            (Request::Create { path, .. }, Err(NODE_EXISTS)) => (path, Fact::There),
            (
                Request::Set { path, version, .. }
                | Request::Delete { path, version }
                | Request::Check { path, version },
                result,
            ) => match result {
                Ok(()) if *version >= 0 => (path, Fact::OfVersion(*version)),
                Ok(()) => (path, Fact::There),
                Err(NO_NODE) => (path, Fact::Absent),
                Err(BAD_VERSION) => (path, Fact::NotOfVersion(*version)),
                Err(_) => return,
            },
            _ => return,
        };
        self.fact(call, path, before, &fact);
    }

    fn multi(&mut self, call: &Call, requests: &[Request], zxid: i64, result: &Result<Answer, i32>) {
        let Ok(Answer::Multi(results)) = result else { return };
        for (request, result) in requests.iter().zip(results) {
            // What stands behind a part that failed was not tried, what stands before it was taken back.
            let told = match result {
                Ok(_) => Ok(()),
                Err(code @ (NO_NODE | BAD_VERSION | NODE_EXISTS)) => Err(*code),
                Err(_) => continue,
            };
            let is_first = requests
                .iter()
                .filter(|other| path_of(other) == path_of(request))
                .count()
                == 1;
            if is_first {
                self.write(call, request, zxid, told);
            }
        }
    }

    fn listing(
        &mut self,
        call: &Call,
        path: &str,
        zxid: i64,
        names: &[String],
        children: &HashMap<&str, BTreeSet<&str>>,
    ) {
        let parent = if path == "/" { "" } else { path };
        let listed: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        for name in &listed {
            self.fact(call, &format!("{parent}/{name}"), zxid, &Fact::There);
        }
        for name in children.get(parent).into_iter().flatten() {
            if !listed.contains(name) {
                self.fact(call, &format!("{parent}/{name}"), zxid, &Fact::Absent);
            }
        }
    }

    fn fact(&mut self, call: &Call, path: &str, zxid: i64, fact: &Fact<'_>) {
        let timeline = self.timeline;
        let last = timeline.last(path, zxid);
        let is_there = last.is_some_and(|(_, change)| change.effect != Effect::Deleted);
        match fact {
            Fact::Absent if is_there => self.vanished(call, path, zxid),
            Fact::Absent => {}
            Fact::Like(stat) => {
                let found = last.map(|(at, _)| at);
                if found != Some(stat.mzxid) {
                    let promise = last.map_or(Promise::Durable, |(_, change)| change.promise);
                    let text = format!(
                        "{call:?} shows {path} at zxid {zxid:#x} as it was at {:#x}, and its last change is {last:?}",
                        stat.mzxid
                    );
                    self.violated(promise, text);
                }
            }
            Fact::There | Fact::OfVersion(_) | Fact::NotOfVersion(_) if !is_there => {
                let may_be = timeline.unknown_writes.contains_key(path)
                    || timeline
                        .unknown_sequential
                        .iter()
                        .any(|prefix| path.starts_with(prefix.as_str()));
                if !may_be && !path.starts_with("/zookeeper") && path != "/" {
                    let promise = match (&call.request, last) {
                        (Request::Children { .. }, Some((_, change))) => change.promise,
                        (Request::Children { .. }, None) => Promise::Durable,
                        _ => Promise::TruthfulError,
                    };
                    let text =
                        format!("{call:?} says that {path} was there at zxid {zxid:#x}; its last change is {last:?}");
                    self.violated(promise, text);
                }
            }
            Fact::There => {}
            Fact::OfVersion(_) | Fact::NotOfVersion(_) => {
                let version = last.and_then(|(_, change)| change.version);
                let may_differ =
                    timeline.unknown_writes.contains_key(path) || timeline.unknown_deletes.contains_key(path);
                let fits = match (fact, version) {
                    (Fact::OfVersion(expected), Some(version)) => version == *expected,
                    (Fact::NotOfVersion(expected), Some(version)) => version != *expected,
                    _ => true,
                };
                if !fits && !may_differ {
                    let text = format!("{call:?} was judged by another version of {path} than it had: {last:?}");
                    self.violated(Promise::TruthfulError, text);
                }
            }
        }
    }

    /// A znode was not there, though nothing is known to have removed it.
    fn vanished(&mut self, call: &Call, path: &str, zxid: i64) {
        let Some((at, change)) = self.timeline.last(path, zxid) else {
            return;
        };
        if self.timeline.unknown_deletes.contains_key(path) {
            return;
        }
        let owner = self.timeline.owner(path, zxid);
        let fate = self.streams.sessions.get(&owner);
        let Some(fate) = fate.filter(|_| owner != 0) else {
            // A znode that only an event or a Stat has told of may be an ephemeral of anybody.
            let promise = match call.request {
                Request::Get { .. } | Request::Exists { .. } | Request::Children { .. } => change.promise,
                _ => Promise::TruthfulError,
            };
            let text =
                format!("{call:?} says that {path} was not there at zxid {zxid:#x}, but at {at:#x} it was {change:?}");
            return self.violated(promise, text);
        };
        if fate.alive_at > zxid || fate.closed_at.is_some_and(|closed| closed > zxid) {
            let text = format!(
                "{path} was gone at zxid {zxid:#x}, and its session {owner:#x} is there still at {:#x}",
                fate.alive_at.max(fate.closed_at.unwrap_or(0))
            );
            return self.violated(Promise::EphemeralIffSession, text);
        }
        let gone = self.gone.entry(owner).or_insert_with(|| (zxid, path.to_owned()));
        if zxid < gone.0 {
            *gone = (zxid, path.to_owned());
        }
    }

    /// An ephemeral that is shown, though its session is gone, or another of its ephemerals is.
    fn ephemeral_after_the_end(&mut self, call: &Call) {
        let Some((zxid, Ok(answer))) = &call.reply else { return };
        let shown: Vec<(String, i64)> = match (&call.request, answer) {
            (Request::Get { path, .. }, Answer::Data(_, stat)) | (Request::Exists { path, .. }, Answer::Stat(stat)) => {
                vec![(path.clone(), stat.owner)]
            }
            (Request::Children { path, .. }, Answer::Names(names)) => names
                .iter()
                .map(|name| {
                    let path = format!("{}/{name}", path.trim_end_matches('/'));
                    // Somebody else may have created it anew, without an answer.
                    let is_sure = !self.timeline.unknown_writes.contains_key(&path);
                    let owner = if is_sure { self.timeline.owner(&path, *zxid) } else { 0 };
                    (path, owner)
                })
                .collect(),
            _ => return,
        };
        for (path, owner) in shown {
            if owner == 0 {
                continue;
            }
            if let Some((gone_at, other)) = self.gone.get(&owner).filter(|(gone_at, _)| gone_at <= zxid) {
                let text = format!(
                    "{path} is there at zxid {zxid:#x}, while {other} of the same session {owner:#x} was gone at {gone_at:#x}"
                );
                self.violated(Promise::EphemeralIffSession, text);
            }
            let expired = self.streams.sessions.get(&owner).and_then(|fate| fate.expired_at_us);
            if expired.is_some_and(|at_us| at_us < call.synced_at_us) {
                let text = format!(
                    "{path} is there at zxid {zxid:#x}, after a sync; its session {owner:#x} had expired before"
                );
                self.violated(Promise::EphemeralIffSession, text);
            }
        }
    }

    /// Each set counts once.
    fn versions(&mut self) {
        let timeline = self.timeline;
        for (path, changes) in &timeline.paths {
            let unknown = timeline.unknown_writes.get(path).copied().unwrap_or(0);
            let may_be_gone = timeline.unknown_deletes.contains_key(path);
            let mut before: Option<(i64, i32)> = None;
            for (zxid, change) in changes {
                if let (Effect::Set, Some((from, version)), Some(found)) = (&change.effect, before, change.version) {
                    let steps = i64::from(found) - i64::from(version);
                    let unexplained = steps < 1 || steps > 1 + unknown as i64;
                    if unexplained && !may_be_gone {
                        let promise = if steps < 1 {
                            Promise::Durable
                        } else {
                            Promise::NoReconnectOnFailover
                        };
                        let text = format!(
                            "{path} had version {version} at zxid {from:#x} and {found} at {zxid:#x}: {steps} sets where one \
                             was asked for"
                        );
                        self.violated(promise, text);
                    }
                }
                before = match change.effect {
                    Effect::Deleted => None,
                    _ => change.version.map(|version| (*zxid, version)),
                };
            }
        }
    }

    /// The numbers of sequential znodes only grow, as long as their parent is there: no name is given out twice.
    fn sequences(&mut self) {
        let streams = self.streams;
        let mut named: Vec<(i64, &str)> = Vec::new();
        for call in streams.calls.iter().filter(|call| has_happened(call) == Some(true)) {
            let Some((zxid, _)) = &call.reply else { continue };
            for part in parts(call) {
                if let (Request::Create { sequential: true, .. }, Some(Answer::Created(path))) =
                    (part.request, part.answer)
                {
                    named.push((*zxid, path));
                }
            }
        }
        // Those of a multi have one zxid, and stay in its order.
        named.sort_by_key(|(zxid, _)| *zxid);
        let mut last: HashMap<&str, (i64, &str, i64)> = HashMap::new();
        for (zxid, path) in named {
            let Some((parent, number)) = parent_and_number(path) else {
                continue;
            };
            if let Some((from, other, before)) = last.insert(parent, (zxid, path, number))
                && number <= before
                && !self.may_have_gone(parent, from, zxid)
            {
                let text = format!(
                    "{path} was created at zxid {zxid:#x}, behind {other} at {from:#x}: a sequence does not go back"
                );
                self.violated(Promise::Durable, text);
            }
        }
    }

    /// Whether a znode may have been removed between two zxids.
    fn may_have_gone(&self, path: &str, from: i64, to: i64) -> bool {
        let changes = self.timeline.paths.get(path);
        let mut changes = changes.into_iter().flat_map(|changes| changes.range(from..=to));
        self.timeline.unknown_deletes.contains_key(path) || changes.any(|(_, change)| change.effect == Effect::Deleted)
    }

    /// Each value is at one place: a create that happened twice made two znodes.
    fn values(&mut self) {
        let mut places: HashMap<(&[u8], &str), (&str, i64)> = HashMap::new();
        for (path, changes) in &self.timeline.paths {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            for (zxid, change) in changes {
                let (Effect::Created { .. }, Some(value)) = (&change.effect, &change.value) else {
                    continue;
                };
                if value.is_empty() {
                    continue;
                }
                let (first, at) = *places.entry((value, parent)).or_insert((path, *zxid));
                if (first, at) != (path.as_str(), *zxid) {
                    let text = format!(
                        "{:?} was created as {first} at zxid {at:#x} and as {path} at {zxid:#x}: once more than it was asked \
                         for",
                        String::from_utf8_lossy(value)
                    );
                    violated(self.violations, Promise::NoReconnectOnFailover, text);
                }
            }
        }
    }
}

/// The parent and the number of a sequential znode's name.
fn parent_and_number(path: &str) -> Option<(&str, i64)> {
    let (parent, name) = path.rsplit_once('/')?;
    let number = name.get(name.len().checked_sub(SEQUENCE_DIGITS)?..)?;
    Some((parent, number.parse().ok()?))
}

fn path_of(request: &Request) -> Option<&str> {
    match request {
        Request::Create { path, .. }
        | Request::Set { path, .. }
        | Request::Delete { path, .. }
        | Request::Check { path, .. } => Some(path),
        _ => None,
    }
}
