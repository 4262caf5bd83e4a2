//! Watches under load: storms, limits, clients that do not read, herds that register again at once. Against a server
//! process of its own for each test, with a client that shares no line with the library.
//!
//! | promise | how it would show |
//! |---|---|
//! | EventBeforeData | a reply with the new value, or from behind the change, before the event |
//! | WatchComplete | an event that is missing, or comes twice |
//! | NoFalseExpiry's counterpart | a silent session that events keep alive |
//! | Bounded | a limit that is not kept, a client that is not let go, a neighbour that suffers |

#![allow(unreachable_pub, reason = "the modules of a test program are all its own")]

#[allow(
    dead_code,
    reason = "the client is shared with the differential test, which uses more of it"
)]
#[path = "../differential/client.rs"]
mod client;
mod stage;

use stage::{Frame, Server, Session};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const OK: i32 = 0;
const NO_NODE: i32 = -101;
const THROTTLED: i32 = -127;
/// What has not come to pass after so long never will.
const PATIENCE: Duration = Duration::from_secs(60);
/// Many more than a change may reach without being a storm, and few enough for 1,024 open files.
const MANY: usize = 400;
const HOT: &str = "/hot";

#[test]
fn a_storm_reaches_everybody_once_and_before_the_data() {
    const ROUNDS: usize = 3;
    /// Reads that each watcher sends while the change is on its way.
    const READS: usize = 3;
    let server = Server::start("");
    let mut writer = server.session();
    writer.create(HOT, b"0");
    let mut watchers: Vec<_> = (0..MANY).map(|_| server.session()).collect();
    for round in 1..=ROUNDS {
        watchers.iter_mut().for_each(|watcher| watcher.send_get(HOT, true));
        for watcher in &mut watchers {
            assert_eq!(watcher.reply().data().0, (round - 1).to_string().as_bytes());
        }
        writer.send_set(HOT, round.to_string().as_bytes());
        for watcher in &mut watchers {
            (0..READS).for_each(|_| watcher.send_get(HOT, false));
        }
        let changed_at = writer.reply().zxid;
        for watcher in &mut watchers {
            let (mut events, mut replies) = (0, 0);
            while events < 1 || replies < READS {
                match watcher.frame() {
                    Frame::Event { zxid, kind, path } => {
                        assert_eq!((zxid, kind, path.as_str()), (changed_at, stage::DATA_CHANGED, HOT));
                        events += 1;
                    }
                    Frame::Reply(reply) => {
                        let is_new = reply.zxid >= changed_at || reply.data().0 != (round - 1).to_string().as_bytes();
                        assert_eq!(is_new, events == 1, "EventBeforeData, round {round}: {reply:?}");
                        replies += 1;
                    }
                }
            }
            assert_eq!(events, 1, "WatchComplete: one event of one change");
        }
    }
    watchers.iter_mut().for_each(Session::is_quiet);
}

#[test]
fn a_storm_is_spread_where_that_is_wished_but_never_behind_a_reply() {
    const JITTER: Duration = Duration::from_millis(2_000);
    /// Watchers that have something else to do meanwhile.
    const BUSY: usize = 20;
    let server = Server::start("watch.fanoutJitterMs=2000\n");
    let mut writer = server.session();
    writer.create(HOT, b"0");
    let mut watchers: Vec<_> = (0..MANY).map(|_| server.session()).collect();
    for watcher in &mut watchers {
        watcher.send_get(HOT, true);
        watcher.reply();
    }
    let sent = Instant::now();
    writer.send_set(HOT, b"1");
    writer.reply();
    for watcher in &mut watchers[..BUSY] {
        watcher.send_ping();
        assert!(matches!(watcher.frame(), Frame::Event { .. }), "EventBeforeData");
        watcher.reply();
    }
    for watcher in &mut watchers[BUSY..] {
        assert!(matches!(watcher.frame(), Frame::Event { .. }));
    }
    // That none of so many drew more than half of it happens once in 2^380 times.
    assert!(sent.elapsed() > JITTER / 2, "spread over {:?} only", sent.elapsed());
    watchers.iter_mut().for_each(Session::is_quiet);
}

#[test]
fn watches_beyond_the_limits_are_refused_and_counted_and_nothing_else_is() {
    const LIMIT: usize = 1_000;
    const LIMIT_HERE: usize = 10;
    const EXCESS: usize = 500;
    let server = Server::start("maxWatchesPerConnection=1000\nmaxWatchesPerZnode=10\n");
    let mut greedy = server.session();
    greedy.create(HOT, b"");
    for number in 0..LIMIT + EXCESS {
        greedy.send_exists(&format!("/nothing/{number}"), true);
    }
    for number in 0..LIMIT + EXCESS {
        let expected = if number < LIMIT { NO_NODE } else { THROTTLED };
        assert_eq!(greedy.reply().error, expected, "watch {number}");
    }
    // What it has, it may register again, and it is served as before.
    greedy.send_exists("/nothing/0", true);
    assert_eq!(greedy.reply().error, NO_NODE);
    greedy.send_get(HOT, false);
    assert_eq!(greedy.reply().error, OK);
    let mut others: Vec<_> = (0..LIMIT_HERE + 2).map(|_| server.session()).collect();
    for (number, other) in others.iter_mut().enumerate() {
        other.send_get(HOT, true);
        let expected = if number < LIMIT_HERE { OK } else { THROTTLED };
        assert_eq!(other.reply().error, expected, "watcher {number}");
    }
    let numbers = server.monitor();
    assert_eq!(numbers["zk_watches_refused"], (EXCESS + 2) as f64);
    assert_eq!(numbers["zk_watch_count"], (LIMIT + LIMIT_HERE) as f64);
    drop(greedy);
    server.wait_until("its watches are gone with it", |numbers| {
        numbers["zk_watch_count"] == LIMIT_HERE as f64
    });
}

#[test]
fn who_does_not_read_its_events_is_let_go_and_nobody_else_suffers() {
    /// Events of 20 kB fill the buffers of any kernel soon.
    const NAME_BYTES: usize = 20_000;
    const AT_ONCE: usize = 20;
    let server = Server::start("outboundQueue.maxBytes=65536\noutboundQueue.stallTimeoutMs=1000\n");
    let path = format!("/{}", "n".repeat(NAME_BYTES));
    let mut writer = server.session();
    writer.create(&path, b"");
    let mut deaf = server.session();
    let mut healthy = server.session();
    for watcher in [&mut deaf, &mut healthy] {
        watcher.send_add_watch(&path, stage::PERSISTENT);
        assert_eq!(watcher.reply().error, OK);
    }
    let started = Instant::now();
    while server.monitor()["zk_slow_clients_closed"] < 1.0 {
        assert!(
            started.elapsed() < PATIENCE,
            "the client that does not read is still there"
        );
        (0..AT_ONCE).for_each(|_| writer.send_set(&path, b"x"));
        for _ in 0..AT_ONCE {
            assert_eq!(writer.reply().error, OK);
            assert!(matches!(healthy.frame(), Frame::Event { .. }), "WatchComplete");
        }
    }
    healthy.is_quiet();
    server.wait_until("its watch is gone with it", |numbers| numbers["zk_watch_count"] == 2.0);
    assert_eq!(server.monitor()["zk_slow_clients_closed"], 1.0);
}

#[test]
fn a_herd_that_registers_again_at_once_gets_on_and_so_does_the_writer() {
    const HERD: usize = 100;
    const WRITES: usize = 200;
    let server = Server::start("");
    let mut writer = server.session();
    writer.create(HOT, b"0");
    let last = WRITES.to_string();
    let sessions: Vec<_> = (0..HERD).map(|_| server.session()).collect();
    std::thread::scope(|scope| {
        for mut watcher in sessions {
            let last = last.as_bytes();
            scope.spawn(move || {
                let mut events = 0;
                loop {
                    watcher.send_get(HOT, true);
                    let reply = watcher.reply();
                    if reply.data().0 == last {
                        break;
                    }
                    let Frame::Event { zxid, .. } = watcher.frame() else {
                        panic!("nothing was asked");
                    };
                    assert!(zxid > reply.zxid, "the change came after the watch");
                    events += 1;
                }
                assert!((1..=WRITES).contains(&events), "{events} events of {WRITES} changes");
            });
        }
        for write in 1..=WRITES {
            writer.send_set(HOT, write.to_string().as_bytes());
            assert_eq!(writer.reply().error, OK);
        }
    });
    server.wait_until("nothing is kept of those who are gone", |numbers| {
        numbers["zk_watch_count"] == 0.0
    });
}

#[test]
fn a_silent_client_expires_however_many_events_it_gets() {
    let server = Server::start("tickTime=200\n");
    let mut writer = server.session();
    writer.create(HOT, b"");
    let mut silent = server.session_of(400);
    silent.send_create("/silent", b"", stage::EPHEMERAL);
    silent.send_add_watch(HOT, stage::PERSISTENT);
    assert_eq!((silent.reply().error, silent.reply().error), (OK, OK));
    let started = Instant::now();
    loop {
        writer.send_set(HOT, b"x");
        assert_eq!(writer.reply().error, OK);
        writer.send_exists("/silent", false);
        if writer.reply().error == NO_NODE {
            break;
        }
        // It reads what it gets, and says nothing.
        assert!(matches!(silent.frame(), Frame::Event { .. }));
        assert!(started.elapsed() < PATIENCE, "events are taken for signs of its life");
        std::thread::sleep(Duration::from_millis(20));
    }
    silent.is_sent_away();
}

/// Numbers of the server's `mntr`.
type Numbers = BTreeMap<String, f64>;
