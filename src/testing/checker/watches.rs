//! Every event against the watches that were armed, and every armed watch against the changes that are known.

use super::streams::Streams;
use super::timeline::{Effect, Timeline, parts};
use super::{Answer, Event, Kind, Promise, Request, Violation, What, violated};
use std::collections::{BTreeMap, HashMap};

const NO_NODE: i32 = -101;

/// What a watch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum For {
    /// A znode's data and being, once.
    Data,
    /// Its children, once.
    Children,
    /// All of that, until it is removed.
    Persistent,
    /// Data and being of everything from there on.
    Recursive,
}

impl For {
    fn is_once(self) -> bool {
        matches!(self, For::Data | For::Children)
    }

    fn fits(self, watched: &str, kind: Kind, path: &str) -> bool {
        match self {
            For::Data => path == watched && kind != Kind::ChildrenChanged,
            For::Children => path == watched && matches!(kind, Kind::ChildrenChanged | Kind::Deleted),
            For::Persistent => path == watched,
            For::Recursive => kind != Kind::ChildrenChanged && is_below(watched, path),
        }
    }
}

fn is_below(top: &str, path: &str) -> bool {
    top == "/" || path == top || path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'))
}

/// The watches of a connection, and what it was told.
#[derive(Default)]
struct Watcher {
    /// Each with the zxid up to which nothing was missed.
    armed: BTreeMap<(String, For), i64>,
    /// And how often.
    told: BTreeMap<(String, Kind, i64), usize>,
}

/// Checks all events.
pub(super) fn check(history: &[Event], streams: &Streams, timeline: &Timeline, violations: &mut Vec<Violation>) {
    let mut parents: HashMap<&str, BTreeMap<i64, &str>> = HashMap::new();
    for (path, changes) in &timeline.paths {
        let parent = parent_of(path);
        for (zxid, change) in changes {
            if change.effect != Effect::Set {
                parents.entry(parent).or_default().insert(*zxid, path);
            }
        }
    }
    let known = Known {
        timeline,
        streams,
        parents,
        of_one_session: ephemerals(streams),
    };
    let mut watchers: HashMap<u64, Watcher> = HashMap::new();
    for event in history {
        match &event.what {
            What::Replied {
                connection,
                call,
                zxid,
                result,
            } => {
                let watcher = watchers.entry(*connection).or_default();
                watcher.shown(*connection, *zxid, &known, violations);
                if let Some(position) = streams.positions.get(call) {
                    watcher.arm(&streams.calls[*position].request, result, *zxid);
                }
            }
            What::Fired {
                connection,
                zxid,
                kind,
                path,
            } => {
                let watcher = watchers.entry(*connection).or_default();
                if *zxid > 0 {
                    watcher.shown(*connection, *zxid - 1, &known, violations);
                }
                watcher.fired(*connection, (*zxid, *kind, path), &known, violations);
            }
            _ => {}
        }
    }
}

fn parent_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

/// For each znode, how many ephemeral children one session may have had at most. Some have no name that was told to anybody.
fn ephemerals(streams: &Streams) -> HashMap<&str, usize> {
    let mut of_sessions: HashMap<(&str, i64), usize> = HashMap::new();
    for call in &streams.calls {
        for part in parts(call) {
            if matches!(part.request, Request::Create { ephemeral: true, .. }) {
                *of_sessions.entry((parent_of(part.path), call.session)).or_default() += 1;
            }
        }
    }
    let mut most: HashMap<&str, usize> = HashMap::new();
    for ((parent, _), count) in of_sessions {
        let known = most.entry(parent).or_default();
        *known = count.max(*known);
    }
    most
}

/// The changes that are known.
struct Known<'a> {
    timeline: &'a Timeline,
    streams: &'a Streams,
    /// Children that came or went, by their parent.
    parents: HashMap<&'a str, BTreeMap<i64, &'a str>>,
    of_one_session: HashMap<&'a str, usize>,
}

impl Known<'_> {
    /// How many events of a kind a zxid may have made for a path. Several for a parent: one for each child, of a multi, or that
    /// went with its session.
    fn most(&self, path: &str, kind: Kind, zxid: i64) -> usize {
        if kind != Kind::ChildrenChanged {
            return 1;
        }
        let call = self
            .timeline
            .commands
            .get(&zxid)
            .map(|position| &self.streams.calls[*position]);
        match call.filter(|call| call.request != Request::Close) {
            Some(call) => parts(call).iter().filter(|part| parent_of(part.path) == path).count(),
            None => self.of_one_session.get(path).copied().unwrap_or(0).max(1),
        }
    }

    /// The events that a watch must have been given for changes in (from, to].
    fn due(&self, watched: &str, what: For, from: i64, to: i64) -> Vec<(String, Kind, i64)> {
        let mut due = Vec::new();
        if from >= to {
            return due;
        }
        let mut of_path = |path: &str, changes: &BTreeMap<i64, super::timeline::Change>| {
            for (zxid, change) in changes.range(from + 1..=to) {
                let kind = match change.effect {
                    Effect::Created { .. } => Kind::Created,
                    Effect::Set => Kind::DataChanged,
                    Effect::Deleted => Kind::Deleted,
                };
                if what.fits(watched, kind, path) {
                    due.push((path.to_owned(), kind, *zxid));
                }
            }
        };
        if what == For::Recursive {
            let below = self.timeline.paths.range(watched.to_owned()..);
            let below = below.take_while(|(path, _)| path.starts_with(watched));
            below.for_each(|(path, changes)| of_path(path, changes));
        } else if let Some(changes) = self.timeline.paths.get(watched) {
            of_path(watched, changes);
        }
        if matches!(what, For::Children | For::Persistent)
            && let Some(children) = self.parents.get(watched)
        {
            let changed = children.range(from + 1..=to);
            due.extend(changed.map(|(zxid, _)| (watched.to_owned(), Kind::ChildrenChanged, *zxid)));
        }
        due
    }
}

impl Watcher {
    fn arm(&mut self, request: &Request, result: &Result<Answer, i32>, zxid: i64) {
        let (path, what) = match (request, result) {
            (Request::Get { path, watch: true }, Ok(_))
            | (Request::Exists { path, watch: true }, Ok(_) | Err(NO_NODE)) => (path, For::Data),
            (Request::Children { path, watch: true }, Ok(_)) => (path, For::Children),
            (Request::AddWatch { path, recursive: true }, Ok(_)) => (path, For::Recursive),
            (Request::AddWatch { path, recursive: false }, Ok(_)) => (path, For::Persistent),
            _ => return,
        };
        self.armed.entry((path.clone(), what)).or_insert(zxid);
    }

    /// The connection was shown the state of this zxid: all events up to it must have come.
    fn shown(&mut self, connection: u64, zxid: i64, known: &Known<'_>, violations: &mut Vec<Violation>) {
        for ((watched, what), checked) in &mut self.armed {
            for due in known.due(watched, *what, *checked, zxid) {
                if !self.told.contains_key(&due) {
                    let (path, kind, at) = due;
                    let text = format!(
                        "connection {connection} had a watch ({what:?}) on {watched}, was shown zxid {zxid:#x}, and was not \
                         told of {kind:?} {path} at {at:#x}"
                    );
                    violated(violations, Promise::WatchComplete, text);
                }
            }
            *checked = (*checked).max(zxid);
        }
    }

    fn fired(
        &mut self,
        connection: u64,
        (zxid, kind, path): (i64, Kind, &str),
        known: &Known<'_>,
        violations: &mut Vec<Violation>,
    ) {
        let fitting: Vec<_> = self
            .armed
            .iter()
            .filter(|((watched, what), _)| what.fits(watched, kind, path))
            .map(|(key, _)| key.clone())
            .collect();
        if fitting.is_empty() {
            let text = format!("connection {connection} was told of {kind:?} {path} at {zxid:#x} without a watch");
            violated(violations, Promise::WatchComplete, text);
        }
        for key in fitting.iter().filter(|(_, what)| what.is_once()) {
            self.armed.remove(key);
        }
        if zxid == 0 {
            return;
        }
        let times = self.told.entry((path.to_owned(), kind, zxid)).or_default();
        *times += 1;
        if *times > known.most(path, kind, zxid) {
            let text = format!("connection {connection} was told {times} times of {kind:?} {path} at {zxid:#x}");
            violated(violations, Promise::WatchComplete, text);
        }
    }
}
