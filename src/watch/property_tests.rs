//! Random registrations, changes, removals and ends of connections, against tables that are as simple as the words that
//! describe them: two maps from path and watcher to modes.

use super::tests::is_bare;
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// More watchers than a path's list has room for, so that all its forms occur.
const WATCHERS: u64 = 150;
const PATHS: &[&str] = &[
    "/",
    "/a",
    "/a/b",
    "/a/b/c",
    "/a/d",
    "/e",
    "odd",
    "/a/a-name-that-is-too-long-for-an-entry",
];

#[derive(Clone, Debug)]
enum Step {
    Add(u64, usize, WatchKind),
    /// A crowd registers.
    AddMany(u64, usize, WatchKind),
    Remove(u64, usize, WatchSelector),
    End(u64),
    Create(usize),
    Set(usize),
    Delete(usize),
}

fn kinds() -> impl Strategy<Value = WatchKind> {
    prop_oneof![
        4 => Just(WatchKind::Data),
        4 => Just(WatchKind::Child),
        2 => Just(WatchKind::Persistent),
        1 => Just(WatchKind::PersistentRecursive),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = || 0..PATHS.len();
    let selector = prop_oneof![Just(WatchSelector::Any), kinds().prop_map(WatchSelector::Only)];
    let step = prop_oneof![
        20 => (0..WATCHERS, path(), kinds()).prop_map(|(watcher, path, kind)| Step::Add(watcher, path, kind)),
        4 => (0..WATCHERS, path(), kinds()).prop_map(|(watcher, path, kind)| Step::AddMany(watcher, path, kind)),
        5 => (0..WATCHERS, path(), selector).prop_map(|(watcher, path, selector)| Step::Remove(watcher, path, selector)),
        2 => (0..WATCHERS).prop_map(Step::End),
        2 => path().prop_map(Step::Create),
        3 => path().prop_map(Step::Set),
        2 => path().prop_map(Step::Delete),
    ];
    prop::collection::vec(step, 1..120)
}

type Table = BTreeMap<(&'static str, u64), BTreeSet<&'static str>>;

#[derive(Default)]
struct Model {
    data: Table,
    child: Table,
    limits: WatchLimits,
}

/// Whom it told what.
type Events = Vec<(u64, EventKind, String)>;

impl Model {
    fn add(&mut self, watcher: u64, path: &'static str, kind: WatchKind) -> bool {
        let (data, child) = match kind {
            WatchKind::Data => (Some("once"), None),
            WatchKind::Child => (None, Some("once")),
            WatchKind::Persistent => (Some("persistent"), Some("persistent")),
            WatchKind::PersistentRecursive => (Some("recursive"), None),
        };
        let key = (path, watcher);
        let tables = || [&self.data, &self.child].into_iter();
        let of_watcher: BTreeSet<_> = tables()
            .flat_map(|table| table.keys().filter(|key| key.1 == watcher))
            .collect();
        let is_full = |table: &Table| {
            table.keys().filter(|other| other.0 == path).count() >= self.limits.per_znode && !table.contains_key(&key)
        };
        let too_many = self.limits.per_connection > 0
            && of_watcher.len() >= self.limits.per_connection
            && !of_watcher.contains(&key);
        let too_many_here = self.limits.per_znode > 0
            && (data.is_some() && is_full(&self.data) || child.is_some() && is_full(&self.child));
        if too_many || too_many_here {
            return false;
        }
        if let Some(mode) = data {
            self.data.entry(key).or_default().insert(mode);
        }
        if let Some(mode) = child {
            self.child.entry(key).or_default().insert(mode);
        }
        true
    }

    fn remove(&mut self, watcher: u64, path: &'static str, selector: WatchSelector) -> bool {
        let (data, child): (&[&str], &[&str]) = match selector {
            WatchSelector::Any => (&["once", "persistent", "recursive"], &["once", "persistent"]),
            WatchSelector::Only(WatchKind::Data) => (&["once"], &[]),
            WatchSelector::Only(WatchKind::Child) => (&[], &["once"]),
            WatchSelector::Only(WatchKind::Persistent) => (&["persistent"], &["persistent"]),
            WatchSelector::Only(WatchKind::PersistentRecursive) => (&["recursive"], &[]),
        };
        let mut removed = false;
        for (table, modes) in [(&mut self.data, data), (&mut self.child, child)] {
            if let Some(held) = table.get_mut(&(path, watcher)) {
                for mode in modes {
                    removed |= held.remove(mode);
                }
            }
            table.retain(|_, modes| !modes.is_empty());
        }
        removed
    }

    fn fire(table: &mut Table, path: &str) -> BTreeSet<u64> {
        let mut told = BTreeSet::new();
        for ((_, watcher), modes) in table.iter_mut().filter(|((watched, _), _)| *watched == path) {
            told.insert(*watcher);
            modes.remove("once");
        }
        table.retain(|_, modes| !modes.is_empty());
        told
    }

    fn fire_data(&mut self, path: &str, kind: EventKind, events: &mut Events) -> BTreeSet<u64> {
        let mut told = Model::fire(&mut self.data, path);
        let is_above = |watched: &str| watched == "/" || path.starts_with(&format!("{watched}/"));
        let above = self.data.iter().filter(|((watched, _), _)| is_above(watched));
        told.extend(
            above
                .filter(|(_, modes)| modes.contains("recursive"))
                .map(|((_, watcher), _)| *watcher),
        );
        events.extend(told.iter().map(|watcher| (*watcher, kind, path.to_owned())));
        told
    }

    fn fire_child(&mut self, path: &str, kind: EventKind, told: &BTreeSet<u64>, events: &mut Events) {
        let reached = Model::fire(&mut self.child, path);
        events.extend(
            reached
                .difference(told)
                .map(|watcher| (*watcher, kind, path.to_owned())),
        );
    }

    fn change(&mut self, step: &Step) -> Events {
        let mut events = Events::new();
        let nobody = BTreeSet::new();
        match step {
            Step::Create(path) => {
                self.fire_data(PATHS[*path], EventKind::Created, &mut events);
                self.fire_child(
                    parent_of(PATHS[*path]),
                    EventKind::ChildrenChanged,
                    &nobody,
                    &mut events,
                );
            }
            Step::Set(path) => {
                self.fire_data(PATHS[*path], EventKind::DataChanged, &mut events);
            }
            Step::Delete(path) => {
                let told = self.fire_data(PATHS[*path], EventKind::Deleted, &mut events);
                self.fire_child(PATHS[*path], EventKind::Deleted, &told, &mut events);
                self.fire_child(
                    parent_of(PATHS[*path]),
                    EventKind::ChildrenChanged,
                    &nobody,
                    &mut events,
                );
            }
            _ => {}
        }
        events.sort();
        events
    }

    fn counts(&self) -> WatchCounts {
        let distinct = |of: fn(&(&'static str, u64)) -> String| self.data.keys().map(of).collect::<BTreeSet<_>>().len();
        WatchCounts {
            connections: distinct(|key| key.1.to_string()),
            paths: distinct(|key| key.0.to_owned()),
            watches: self.data.len(),
        }
    }
}

fn fire(watches: &Watches, step: &Step) -> Events {
    let mut events = Events::new();
    let deliver = &mut |watcher: WatcherId, kind, path: &str| events.push((watcher.0, kind, path.to_owned()));
    match step {
        Step::Create(path) => watches.fire_created(PATHS[*path], deliver),
        Step::Set(path) => watches.fire_data_changed(PATHS[*path], deliver),
        Step::Delete(path) => watches.fire_deleted(PATHS[*path], deliver),
        _ => {}
    }
    events.sort();
    events
}

fn play(limits: WatchLimits, steps: &[Step]) {
    let watches = Watches::new(limits);
    let mut model = Model {
        limits,
        ..Model::default()
    };
    let check_add = |model: &mut Model, watcher: u64, path: usize, kind| {
        let taken = watches.add(WatcherId(watcher), PATHS[path], kind).is_ok();
        assert_eq!(taken, model.add(watcher, PATHS[path], kind));
    };
    for step in steps {
        match step {
            Step::Add(watcher, path, kind) => check_add(&mut model, *watcher, *path, *kind),
            Step::AddMany(first, path, kind) => {
                (*first..WATCHERS).for_each(|watcher| check_add(&mut model, watcher, *path, *kind));
            }
            Step::Remove(watcher, path, selector) => {
                let had = watches.contains(WatcherId(*watcher), PATHS[*path], *selector);
                let removed = watches.remove(WatcherId(*watcher), PATHS[*path], *selector);
                assert_eq!(
                    (had, removed),
                    (removed, model.remove(*watcher, PATHS[*path], *selector))
                );
            }
            Step::End(watcher) => {
                watches.remove_watcher(WatcherId(*watcher));
                model.data.retain(|key, _| key.1 != *watcher);
                model.child.retain(|key, _| key.1 != *watcher);
            }
            Step::Create(_) | Step::Set(_) | Step::Delete(_) => {
                assert_eq!(fire(&watches, step), model.change(step), "{step:?}");
            }
        }
        assert_eq!(watches.len(), model.data.len() + model.child.len(), "{step:?}");
        assert_eq!(watches.counts(), model.counts(), "{step:?}");
    }
    let mut listed = BTreeSet::new();
    watches.for_each(|path, watcher| assert!(listed.insert((path.to_owned(), watcher.0)), "{path} twice"));
    let known = model.data.keys().map(|(path, watcher)| ((*path).to_owned(), *watcher));
    assert_eq!(listed, known.collect());
    (0..WATCHERS).for_each(|watcher| watches.remove_watcher(WatcherId(watcher)));
    assert!(is_bare(&watches));
}

proptest! {
    #[test]
    fn the_tables_do_what_two_simple_maps_do(steps in steps()) {
        play(WatchLimits::default(), &steps);
    }

    #[test]
    fn limits_refuse_what_the_simple_maps_refuse(steps in steps()) {
        play(WatchLimits { per_connection: 3, per_znode: 70 }, &steps);
    }
}
