//! What each znode was at each zxid, by what was acknowledged, or shown to somebody.

use super::streams::Streams;
use super::{Answer, Call, Event, Kind, Promise, Request, Stat, Violation, What, violated};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What became of a znode at a zxid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It came into being, with this owner.
    Created { owner: i64 },
    /// Its data was set.
    Set,
    /// It is gone.
    Deleted,
}

/// A change of a znode.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) effect: Effect,
    /// Its data since then, if that is known.
    pub(super) value: Option<Vec<u8>>,
    /// Its version since then, if that is known.
    pub(super) version: Option<i32>,
    /// The promise that is broken if this change is not seen.
    pub(super) promise: Promise,
}

/// All changes that are known.
#[derive(Default)]
pub(super) struct Timeline {
    pub(super) paths: BTreeMap<String, BTreeMap<i64, Change>>,
    /// Which paths a zxid of a known command has changed.
    pub(super) commands: HashMap<i64, usize>,
    /// Calls that were not answered and were seen to have happened.
    pinned: HashMap<usize, i64>,
    /// By the value that a call writes.
    writers: HashMap<Vec<u8>, usize>,
    /// Calls without an answer that may delete a znode, by its path.
    pub(super) unknown_deletes: HashMap<String, usize>,
    /// Likewise that set it or create it.
    pub(super) unknown_writes: HashMap<String, usize>,
    /// What unknown sequential creates begin with.
    pub(super) unknown_sequential: HashSet<String>,
}

/// One write of a call, taken apart.
pub(super) struct Part<'a> {
    pub(super) path: &'a str,
    pub(super) request: &'a Request,
    pub(super) answer: Option<&'a Answer>,
}

/// The writes of a call; for one that has succeeded, with their answers.
pub(super) fn parts(call: &Call) -> Vec<Part<'_>> {
    let answer = call.reply.as_ref().and_then(|(_, result)| result.as_ref().ok());
    let single = |request, answer| written_path(request).map(|path| Part { path, request, answer });
    match (&call.request, answer) {
        (Request::Multi(requests), Some(Answer::Multi(answers))) => {
            let each = requests.iter().zip(answers);
            each.filter_map(|(request, answer)| single(request, answer.as_ref().ok()))
                .collect()
        }
        (Request::Multi(requests), _) => requests.iter().filter_map(|request| single(request, None)).collect(),
        (request, answer) => single(request, answer).into_iter().collect(),
    }
}

fn written_path(request: &Request) -> Option<&str> {
    match request {
        Request::Create { path, .. } | Request::Set { path, .. } | Request::Delete { path, .. } => Some(path),
        _ => None,
    }
}

fn written_value(request: &Request) -> Option<&Vec<u8>> {
    match request {
        Request::Create { value, .. } | Request::Set { value, .. } if !value.is_empty() => Some(value),
        _ => None,
    }
}

/// Whether a call's writes have happened, as its answer says; `None` if it has none.
pub(super) fn has_happened(call: &Call) -> Option<bool> {
    let (_, result) = call.reply.as_ref()?;
    Some(match result {
        Ok(Answer::Multi(results)) => results.iter().all(Result::is_ok),
        result => result.is_ok(),
    })
}

/// Builds the timeline of a history.
pub(super) fn build(history: &[Event], streams: &Streams, violations: &mut Vec<Violation>) -> Timeline {
    let mut timeline = Timeline::default();
    for (position, call) in streams.calls.iter().enumerate() {
        timeline.note_writer(position, call);
        match (has_happened(call), &call.reply) {
            (Some(happened), Some((zxid, _))) if call.request.is_write() => {
                timeline.commands.insert(*zxid, position);
                if happened {
                    timeline.happened(position, call, *zxid);
                }
            }
            (None, _) => timeline.note_unknown(call),
            _ => {}
        }
    }
    for (position, call) in streams.calls.iter().enumerate() {
        timeline.observe(position, call, streams, violations);
    }
    timeline.close_sessions(streams);
    for event in history {
        if let What::Fired { zxid, kind, path, .. } = &event.what
            && *zxid > 0
        {
            timeline.fired(*zxid, *kind, path, streams, violations);
        }
    }
    timeline
}

impl Timeline {
    /// The last change of a znode up to a zxid.
    pub(super) fn last(&self, path: &str, zxid: i64) -> Option<(i64, &Change)> {
        let changes = self.paths.get(path)?;
        changes.range(..=zxid).next_back().map(|(zxid, change)| (*zxid, change))
    }

    /// Who had created the znode that there was at a zxid, and owns it.
    pub(super) fn owner(&self, path: &str, zxid: i64) -> i64 {
        let changes = self
            .paths
            .get(path)
            .into_iter()
            .flat_map(|changes| changes.range(..=zxid));
        let created = changes.rev().find_map(|(_, change)| match change.effect {
            Effect::Created { owner } => Some(owner),
            _ => None,
        });
        created.unwrap_or(0)
    }

    fn note_writer(&mut self, position: usize, call: &Call) {
        for part in parts(call) {
            if let Some(value) = written_value(part.request) {
                self.writers.insert(value.clone(), position);
            }
        }
    }

    fn note_unknown(&mut self, call: &Call) {
        for part in parts(call) {
            match part.request {
                Request::Delete { .. } => *self.unknown_deletes.entry(part.path.to_owned()).or_default() += 1,
                Request::Create { sequential: true, .. } => drop(self.unknown_sequential.insert(part.path.to_owned())),
                _ => *self.unknown_writes.entry(part.path.to_owned()).or_default() += 1,
            }
        }
    }

    /// All parts of a call have happened at this zxid.
    fn happened(&mut self, position: usize, call: &Call, zxid: i64) {
        let parts = parts(call);
        let promise = if parts.len() > 1 {
            Promise::Atomic
        } else {
            Promise::Durable
        };
        for part in &parts {
            let (path, change) = match (part.request, part.answer) {
                (Request::Create { sequential: true, .. }, answer) => match answer {
                    Some(Answer::Created(path)) => (path.as_str(), self.change_of(part, call)),
                    // Whoever shows it tells its name.
                    _ => continue,
                },
                _ => (part.path, self.change_of(part, call)),
            };
            let changes = self.paths.entry(path.to_owned()).or_default();
            let mut change = Change { promise, ..change };
            if let Some(earlier) = changes.get(&zxid)
                && let (Effect::Created { .. }, Effect::Set) = (&earlier.effect, &change.effect)
            {
                change.effect = earlier.effect.clone();
            }
            changes.insert(zxid, change);
        }
        self.pinned.insert(position, zxid);
    }

    fn change_of(&self, part: &Part<'_>, call: &Call) -> Change {
        let (effect, version) = match (part.request, part.answer) {
            (Request::Create { ephemeral, .. }, _) => (
                Effect::Created {
                    owner: if *ephemeral { call.session } else { 0 },
                },
                Some(0),
            ),
            (Request::Delete { .. }, _) => (Effect::Deleted, None),
            (_, Some(Answer::Stat(stat))) => (Effect::Set, Some(stat.version)),
            _ => (Effect::Set, None),
        };
        Change {
            effect,
            value: match part.request {
                Request::Create { value, .. } | Request::Set { value, .. } => Some(value.clone()),
                _ => None,
            },
            version,
            promise: Promise::Durable,
        }
    }

    /// What a read shows tells what has become of writes that were not answered.
    fn observe(&mut self, position: usize, call: &Call, streams: &Streams, violations: &mut Vec<Violation>) {
        let Some((_, Ok(answer))) = &call.reply else { return };
        let (path, stat, value) = match (&call.request, answer) {
            (Request::Get { path, .. }, Answer::Data(value, stat)) => (path, stat, Some(value)),
            (Request::Exists { path, .. }, Answer::Stat(stat)) => (path, stat, None),
            _ => return,
        };
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.shown(position, path, value, stat, streams, violations);
        }
        let changes = self.paths.entry(path.clone()).or_default();
        let seen = |effect, version| Change {
            effect,
            value: None,
            version,
            promise: Promise::Durable,
        };
        let created = changes
            .entry(stat.czxid)
            .or_insert_with(|| seen(Effect::Created { owner: stat.owner }, Some(0)));
        if let Effect::Created { owner } = created.effect
            && owner != stat.owner
        {
            let text = format!(
                "{path} was created at zxid {:#x} by the session {owner:#x}, 0 for no ephemeral, and is shown as that of {:#x}",
                stat.czxid, stat.owner
            );
            violated(violations, Promise::EphemeralIffSession, text);
        }
        let change = changes
            .entry(stat.mzxid)
            .or_insert_with(|| seen(Effect::Set, Some(stat.version)));
        change.version = change.version.or(Some(stat.version));
        if change.value.is_none() {
            change.value = value.cloned();
        }
        if change.value.as_ref() != value && value.is_some() || change.version != Some(stat.version) {
            let text = format!(
                "{path} as of zxid {:#x} is {change:?} for some, and {value:?} of version {} for others",
                stat.mzxid, stat.version
            );
            violated(violations, Promise::TotalOrder, text);
        }
    }

    fn shown(
        &mut self,
        position: usize,
        path: &str,
        value: &[u8],
        stat: &Stat,
        streams: &Streams,
        violations: &mut Vec<Violation>,
    ) {
        let shown = String::from_utf8_lossy(value).into_owned();
        let Some(&writer) = self.writers.get(value) else {
            let text = format!("{path} has the value {shown:?}, which nobody has written");
            return violated(violations, Promise::TruthfulError, text);
        };
        let call = &streams.calls[writer];
        if has_happened(call) == Some(false) {
            let text =
                format!("{path} has the value {shown:?}, though writing it was answered with an error: {call:?}");
            let promise = if matches!(call.request, Request::Multi(_)) {
                Promise::Atomic
            } else {
                Promise::TruthfulError
            };
            return violated(violations, promise, text);
        }
        match self.pinned.get(&writer) {
            Some(zxid) if *zxid != stat.mzxid => {
                let text = format!(
                    "{shown:?} was written to {path} at zxid {:#x}, and at {zxid:#x}: once more than it was asked for",
                    stat.mzxid
                );
                return violated(violations, Promise::NoReconnectOnFailover, text);
            }
            Some(_) => {}
            None => {
                if stat.mzxid <= call.seen_before {
                    let text = format!(
                        "{shown:?} was written to {path} at zxid {:#x}, though {:#x} had been seen before it was asked for",
                        stat.mzxid, call.seen_before
                    );
                    violated(violations, Promise::Linear, text);
                }
                self.happened(writer, call, stat.mzxid);
                self.commands.insert(stat.mzxid, writer);
            }
        }
        let is_there = self
            .paths
            .get(path)
            .is_some_and(|changes| changes.contains_key(&stat.mzxid));
        let is_sequential = self.is_sequential_create(call, path, value);
        if !is_there && is_sequential {
            // A sequential znode whose name was not told until now.
            return;
        }
        if !is_there {
            let reader = &streams.calls[position];
            let text = format!("{reader:?} shows {shown:?} at {path}, which was written elsewhere: {call:?}");
            violated(violations, Promise::Durable, text);
        }
    }

    fn is_sequential_create(&self, call: &Call, path: &str, value: &[u8]) -> bool {
        parts(call).iter().any(|part| {
            matches!(part.request, Request::Create { sequential: true, value: written, .. } if written == value)
                && path.starts_with(part.path)
                && !matches!(part.answer, Some(Answer::Created(_)))
        })
    }

    /// Closing a session removes its ephemerals.
    fn close_sessions(&mut self, streams: &Streams) {
        let closed: BTreeMap<i64, i64> = streams
            .sessions
            .iter()
            .filter_map(|(session, fate)| Some((*session, fate.closed_at?)))
            .collect();
        for (path, changes) in &mut self.paths {
            if self.unknown_deletes.contains_key(path) {
                // A delete that nobody has answered may have come before the close: which of them it was cannot be told.
                continue;
            }
            let owners: Vec<i64> = changes
                .values()
                .filter_map(|change| match change.effect {
                    Effect::Created { owner } if owner != 0 => Some(owner),
                    _ => None,
                })
                .collect();
            for owner in owners {
                let Some(&zxid) = closed.get(&owner) else { continue };
                let Some((_, last)) = changes.range(..zxid).next_back() else {
                    continue;
                };
                let (is_there, is_owners) = (last.effect != Effect::Deleted, {
                    let created = changes.range(..zxid).rev().find_map(|(_, change)| match change.effect {
                        Effect::Created { owner } => Some(owner),
                        _ => None,
                    });
                    created == Some(owner)
                });
                if is_there && is_owners {
                    changes.entry(zxid).or_insert(Change {
                        effect: Effect::Deleted,
                        value: None,
                        version: None,
                        promise: Promise::EphemeralIffSession,
                    });
                }
            }
        }
    }

    /// An event tells of a change, perhaps one that is not known otherwise.
    fn fired(&mut self, zxid: i64, kind: Kind, path: &str, streams: &Streams, violations: &mut Vec<Violation>) {
        let changed = self.paths.get(path).and_then(|changes| changes.get(&zxid));
        let effect = match (kind, changed.map(|change| &change.effect)) {
            (Kind::ChildrenChanged, _)
            | (Kind::Created, Some(Effect::Created { .. }))
            | (Kind::Deleted, Some(Effect::Deleted))
            | (Kind::DataChanged, Some(Effect::Set)) => return,
            (_, Some(other)) => {
                let text = format!("the event {kind:?} {path} of zxid {zxid:#x} tells of what was {other:?}");
                return violated(violations, Promise::WatchComplete, text);
            }
            (_, None) if self.is_told_elsewhere(zxid, path, streams) => {
                let text = format!("the event {kind:?} {path} came of zxid {zxid:#x}, which has not changed it");
                return violated(violations, Promise::WatchComplete, text);
            }
            (Kind::Created, None) => Effect::Created { owner: 0 },
            (Kind::Deleted, None) => Effect::Deleted,
            (Kind::DataChanged, None) => Effect::Set,
        };
        if matches!(effect, Effect::Created { .. }) {
            // Who owns it is not known, nor whether it ever had a name that was told: nothing is concluded from it.
            return;
        }
        self.paths.entry(path.to_owned()).or_default().insert(
            zxid,
            Change {
                effect,
                value: None,
                version: None,
                promise: Promise::Durable,
            },
        );
    }

    /// Whether the command of this zxid is known, and cannot have changed this znode.
    fn is_told_elsewhere(&self, zxid: i64, path: &str, streams: &Streams) -> bool {
        let Some(position) = self.commands.get(&zxid) else {
            return false;
        };
        let call = &streams.calls[*position];
        if call.request == Request::Close {
            return self.owner(path, zxid) != call.session;
        }
        !parts(call).iter().any(|part| path.starts_with(part.path))
    }
}
