use super::*;

const ME: WatcherId = WatcherId(1);
const OTHER: WatcherId = WatcherId(2);

fn watches(registrations: &[(WatcherId, &str, WatchKind)]) -> Watches {
    let watches = Watches::default();
    for (watcher, path, kind) in registrations {
        watches.add(*watcher, path, *kind).unwrap();
    }
    watches
}

fn events(fire: impl FnOnce(&mut dyn FnMut(WatcherId, EventKind, &str))) -> Vec<(WatcherId, EventKind, String)> {
    let mut events = Vec::new();
    fire(&mut |watcher, kind, path| events.push((watcher, kind, path.to_owned())));
    events
}

/// Whether nothing is left of what was registered.
pub(super) fn is_bare(watches: &Watches) -> bool {
    watches.is_empty()
        && watches.paths.is_empty()
        && watches.watchers.is_empty()
        && watches.recursive.load(Relaxed) == 0
}

type Fire<'a> = &'a dyn Fn(&Watches, &mut dyn FnMut(WatcherId, EventKind, &str));

#[test]
fn the_table_of_kinds_and_changes_holds() {
    use EventKind::{ChildrenChanged, Created, DataChanged, Deleted};
    // kind and path of the watch; what creating, setting and deleting /a/b tells it
    type Row = (
        WatchKind,
        &'static str,
        &'static [EventKind],
        &'static [EventKind],
        &'static [EventKind],
    );
    let table: &[Row] = &[
        (WatchKind::Data, "/a/b", &[Created], &[DataChanged], &[Deleted]),
        (WatchKind::Child, "/a/b", &[], &[], &[Deleted]),
        (WatchKind::Data, "/a", &[], &[], &[]),
        (WatchKind::Child, "/a", &[ChildrenChanged], &[], &[ChildrenChanged]),
        (WatchKind::Persistent, "/a/b", &[Created], &[DataChanged], &[Deleted]),
        (WatchKind::Persistent, "/a", &[ChildrenChanged], &[], &[ChildrenChanged]),
        (
            WatchKind::PersistentRecursive,
            "/a/b",
            &[Created],
            &[DataChanged],
            &[Deleted],
        ),
        (
            WatchKind::PersistentRecursive,
            "/a",
            &[Created],
            &[DataChanged],
            &[Deleted],
        ),
        (
            WatchKind::PersistentRecursive,
            "/",
            &[Created],
            &[DataChanged],
            &[Deleted],
        ),
        (WatchKind::PersistentRecursive, "/a/b/c", &[], &[], &[]),
    ];
    for (kind, path, created, set, deleted) in table {
        let told = |fire: Fire<'_>| {
            let watches = watches(&[(ME, path, *kind)]);
            events(|deliver| fire(&watches, deliver))
                .into_iter()
                .map(|(_, kind, _)| kind)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(&|watches, deliver| watches.fire_created("/a/b", deliver)),
            *created,
            "{kind:?} {path}"
        );
        assert_eq!(
            told(&|watches, deliver| watches.fire_data_changed("/a/b", deliver)),
            *set,
            "{kind:?} {path}"
        );
        assert_eq!(
            told(&|watches, deliver| watches.fire_deleted("/a/b", deliver)),
            *deleted,
            "{kind:?} {path}"
        );
    }
}

#[test]
fn a_one_shot_fires_once_and_a_persistent_watch_every_time() {
    let watches = watches(&[(ME, "/a", WatchKind::Data), (OTHER, "/a", WatchKind::Persistent)]);
    assert_eq!(events(|deliver| watches.fire_data_changed("/a", deliver)).len(), 2);
    let again = events(|deliver| watches.fire_data_changed("/a", deliver));
    assert_eq!(again, [(OTHER, EventKind::DataChanged, "/a".to_owned())]);
}

#[test]
fn one_trigger_gives_one_event_however_often_a_connection_registered() {
    let watches = watches(&[
        (ME, "/a", WatchKind::Data),
        (ME, "/a", WatchKind::Child),
        (ME, "/a", WatchKind::Persistent),
        (ME, "/a", WatchKind::PersistentRecursive),
        (ME, "/", WatchKind::PersistentRecursive),
    ]);
    assert_eq!(
        events(|deliver| watches.fire_deleted("/a", deliver)),
        [(ME, EventKind::Deleted, "/a".to_owned())]
    );
}

#[test]
fn removing_one_kind_leaves_the_others() {
    let watches = watches(&[(ME, "/a", WatchKind::Data), (ME, "/a", WatchKind::Persistent)]);
    assert!(watches.remove(ME, "/a", WatchSelector::Only(WatchKind::Data)));
    assert!(!watches.contains(ME, "/a", WatchSelector::Only(WatchKind::Data)));
    assert!(watches.contains(ME, "/a", WatchSelector::Only(WatchKind::Persistent)));
    assert!(!watches.remove(ME, "/a", WatchSelector::Only(WatchKind::Data)));
    assert!(watches.remove(ME, "/a", WatchSelector::Any));
    assert!(watches.is_empty());
    assert!(is_bare(&watches));
}

#[test]
fn a_connection_that_ends_leaves_nothing_behind() {
    let watches = Watches::default();
    for watcher in 0..100 {
        for path in ["/a", "/b"] {
            watches.add(WatcherId(watcher), path, WatchKind::Persistent).unwrap();
        }
    }
    assert_eq!(watches.len(), 400);
    assert_eq!(
        watches.counts(),
        WatchCounts {
            connections: 100,
            paths: 2,
            watches: 200
        }
    );
    for watcher in 0..100 {
        watches.remove_watcher(WatcherId(watcher));
    }
    assert_eq!(watches.counts(), WatchCounts::default());
    assert!(is_bare(&watches));
}

#[test]
fn a_spent_one_shot_leaves_nothing_behind() {
    let watches = watches(&[(ME, "/a", WatchKind::Data), (ME, "/", WatchKind::Child)]);
    watches.fire_deleted("/a", &mut |_, _, _| {});
    assert!(watches.is_empty());
    assert!(is_bare(&watches));
}

#[test]
fn limits_refuse_new_watches_and_keep_old_ones() {
    let watches = Watches::new(WatchLimits {
        per_connection: 2,
        per_znode: 1,
    });
    watches.add(ME, "/a", WatchKind::Data).unwrap();
    watches.add(ME, "/a", WatchKind::Data).unwrap();
    assert_eq!(watches.add(OTHER, "/a", WatchKind::Data), Err(TooManyWatches::OfZnode));
    watches.add(ME, "/b", WatchKind::Child).unwrap();
    assert_eq!(
        watches.add(ME, "/c", WatchKind::Data),
        Err(TooManyWatches::OfConnection)
    );
    watches.add(ME, "/b", WatchKind::Data).unwrap();
}
