//! One history per promise that breaks it, beside those that are as they should be.

use super::{Answer, Event, Expectations, Kind, Promise, Request, Stat, What, check};

const A: u64 = 1;
const B: u64 = 2;
const SESSION_A: i64 = 0xa;
const SESSION_B: i64 = 0xb;

/// Writes a history down, one event per millisecond.
#[derive(Default)]
struct Scribe {
    events: Vec<Event>,
    calls: u64,
    expectations: Expectations,
}

impl Scribe {
    /// Two clients, each with a session.
    fn new() -> Scribe {
        let mut scribe = Scribe::default();
        scribe.open(A, SESSION_A);
        scribe.open(B, SESSION_B);
        scribe
    }

    fn see(&mut self, what: What) -> &mut Scribe {
        let at_us = self.events.len() as u64 * 1000 + 1;
        self.events.push(Event { at_us, what });
        self
    }

    fn open(&mut self, connection: u64, session: i64) -> &mut Scribe {
        let asked_at_us = self.events.len() as u64 * 1000;
        self.see(What::Opened {
            connection,
            server: connection,
            session,
            timeout_ms: 100,
            asked_at_us,
        })
    }

    fn call(&mut self, connection: u64, request: Request) -> u64 {
        self.calls += 1;
        let call = self.calls;
        self.see(What::Called {
            connection,
            call,
            request,
        });
        call
    }

    fn reply(&mut self, connection: u64, call: u64, zxid: i64, result: Result<Answer, i32>) -> &mut Scribe {
        self.see(What::Replied {
            connection,
            call,
            zxid,
            result,
        })
    }

    fn done(&mut self, connection: u64, request: Request, zxid: i64, result: Result<Answer, i32>) -> &mut Scribe {
        let call = self.call(connection, request);
        self.reply(connection, call, zxid, result)
    }

    fn create(&mut self, connection: u64, path: &str, value: &str, zxid: i64) -> &mut Scribe {
        let answer = Answer::Created(path.to_owned());
        self.done(connection, create(path, value, false), zxid, Ok(answer))
    }

    fn set(&mut self, connection: u64, path: &str, value: &str, zxid: i64, version: i32) -> &mut Scribe {
        let answer = Answer::Stat(stat(1, zxid, version, 0));
        self.done(connection, set(path, value), zxid, Ok(answer))
    }

    fn get(&mut self, connection: u64, path: &str, value: &str, zxid: i64, stat: Stat) -> &mut Scribe {
        let answer = Answer::Data(value.as_bytes().to_vec(), stat);
        self.done(connection, get(path, false), zxid, Ok(answer))
    }

    fn fire(&mut self, connection: u64, kind: Kind, path: &str, zxid: i64) -> &mut Scribe {
        self.see(What::Fired {
            connection,
            zxid,
            kind,
            path: path.to_owned(),
        })
    }

    #[track_caller]
    fn is_fine(&self) {
        assert_eq!(check(&self.events, self.expectations).map(drop), Ok(()));
    }

    #[track_caller]
    fn breaks(&self, promise: Promise) {
        let violations = check(&self.events, self.expectations).expect_err("nothing was found");
        // What follows the first one may be a consequence of it.
        assert_eq!(violations[0].promise, promise, "{violations:#?}");
    }
}

fn create(path: &str, value: &str, ephemeral: bool) -> Request {
    Request::Create {
        path: path.to_owned(),
        value: value.as_bytes().to_vec(),
        ephemeral,
        sequential: false,
    }
}

fn set(path: &str, value: &str) -> Request {
    Request::Set {
        path: path.to_owned(),
        value: value.as_bytes().to_vec(),
        version: -1,
    }
}

fn get(path: &str, watch: bool) -> Request {
    Request::Get {
        path: path.to_owned(),
        watch,
    }
}

fn stat(czxid: i64, mzxid: i64, version: i32, owner: i64) -> Stat {
    Stat {
        czxid,
        mzxid,
        version,
        owner,
    }
}

#[test]
fn a_history_as_it_should_be_is_fine() {
    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 1).set(A, "/a", "2", 2, 1);
    scribe.get(B, "/a", "1", 1, stat(1, 1, 0, 0));
    scribe.done(B, Request::Sync, 2, Ok(Answer::Done));
    scribe.get(B, "/a", "2", 2, stat(1, 2, 1, 0));
    scribe.done(A, create("/e", "3", true), 3, Ok(Answer::Created("/e".to_owned())));
    scribe.done(
        B,
        get("/e", true),
        3,
        Ok(Answer::Data(b"3".to_vec(), stat(3, 3, 0, SESSION_A))),
    );
    scribe.done(A, Request::Close, 4, Ok(Answer::Done));
    scribe.fire(B, Kind::Deleted, "/e", 4);
    scribe.done(B, get("/e", false), 4, Err(-101));
    scribe.is_fine();
}

#[test]
fn an_unanswered_write_may_have_happened_or_not_but_not_twice() {
    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 1);
    scribe.call(A, set("/a", "2"));
    scribe.get(B, "/a", "1", 1, stat(1, 1, 0, 0));
    scribe.is_fine();
    scribe.get(B, "/a", "2", 5, stat(1, 5, 1, 0));
    scribe.is_fine();
    scribe.get(B, "/a", "2", 6, stat(1, 6, 2, 0));
    scribe.breaks(Promise::NoReconnectOnFailover);
}

#[test]
fn a_lost_write_is_found() {
    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 1).set(A, "/a", "2", 2, 1);
    scribe.get(B, "/a", "1", 3, stat(1, 1, 0, 0));
    scribe.breaks(Promise::Durable);

    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 1);
    scribe.done(B, get("/a", false), 3, Err(-101));
    scribe.breaks(Promise::Durable);
}

#[test]
fn two_writes_of_one_zxid_are_found() {
    let mut scribe = Scribe::new();
    let first = scribe.call(A, create("/a", "1", false));
    let second = scribe.call(B, create("/b", "2", false));
    scribe.reply(A, first, 1, Ok(Answer::Created("/a".to_owned())));
    scribe.reply(B, second, 1, Ok(Answer::Created("/b".to_owned())));
    scribe.breaks(Promise::Durable);
}

#[test]
fn members_that_differ_are_found() {
    let mut scribe = Scribe::new();
    let digest = |server, digest| What::Digest {
        server,
        zxid: 7,
        digest,
    };
    scribe.see(digest(1, 5)).see(digest(2, 5)).is_fine();
    scribe.see(digest(3, 6)).breaks(Promise::TotalOrder);
}

#[test]
fn a_write_in_the_past_and_a_stale_sync_are_found() {
    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 5).create(B, "/b", "2", 3);
    scribe.breaks(Promise::Linear);

    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 5);
    scribe.done(B, Request::Sync, 4, Ok(Answer::Done));
    scribe.breaks(Promise::Linear);
}

#[test]
fn a_session_that_goes_back_is_found() {
    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 5);
    scribe.open(3, SESSION_A);
    scribe.done(3, get("/b", false), 4, Err(-101));
    scribe.breaks(Promise::SessionOrder);
}

#[test]
fn replies_out_of_order_are_found() {
    let mut scribe = Scribe::new();
    let first = scribe.call(A, get("/a", false));
    let second = scribe.call(A, get("/b", false));
    scribe.reply(A, second, 1, Err(-101)).reply(A, first, 1, Err(-101));
    scribe.breaks(Promise::SessionOrder);
}

#[test]
fn an_event_behind_its_data_is_found() {
    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 1);
    scribe.done(B, get("/a", true), 1, Ok(Answer::Data(b"1".to_vec(), stat(1, 1, 0, 0))));
    let late = scribe.call(B, Request::Ping);
    scribe.call(A, set("/a", "2"));
    scribe.reply(B, late, 2, Ok(Answer::Done));
    scribe.fire(B, Kind::DataChanged, "/a", 2);
    scribe.breaks(Promise::EventBeforeData);
}

#[test]
fn the_event_of_an_own_write_comes_before_its_reply() {
    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 1);
    scribe.done(A, get("/a", true), 1, Ok(Answer::Data(b"1".to_vec(), stat(1, 1, 0, 0))));
    let set = Request::Set {
        path: "/a".to_owned(),
        value: b"2".to_vec(),
        version: -1,
    };
    let call = scribe.call(A, set);
    scribe.fire(A, Kind::DataChanged, "/a", 2);
    scribe.reply(A, call, 2, Ok(Answer::Stat(stat(1, 2, 1, 0))));
    scribe.is_fine();
}

#[test]
fn a_watch_that_does_not_fire_or_fires_for_nothing_is_found() {
    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 1);
    scribe.done(B, get("/a", true), 1, Ok(Answer::Data(b"1".to_vec(), stat(1, 1, 0, 0))));
    scribe.set(A, "/a", "2", 2, 1);
    scribe.is_fine();
    let mut fires = Scribe {
        events: scribe.events.clone(),
        ..Scribe::default()
    };
    fires.calls = 100;
    scribe.done(B, Request::Sync, 2, Ok(Answer::Done));
    scribe.breaks(Promise::WatchComplete);

    fires.fire(B, Kind::DataChanged, "/a", 2).is_fine();
    fires.set(A, "/a", "3", 3, 2);
    fires.fire(B, Kind::DataChanged, "/a", 3);
    fires.breaks(Promise::WatchComplete);
}

#[test]
fn a_read_that_shows_less_than_was_known_is_found_where_reads_are_linearizable() {
    for linearizable_reads in [false, true] {
        let mut scribe = Scribe::new();
        scribe.expectations.linearizable_reads = linearizable_reads;
        scribe.create(A, "/a", "1", 1).set(A, "/a", "2", 2, 1);
        scribe.get(B, "/a", "1", 1, stat(1, 1, 0, 0));
        match linearizable_reads {
            true => scribe.breaks(Promise::Linear),
            false => scribe.is_fine(),
        }
    }
}

#[test]
fn a_parent_is_told_once_for_each_child_that_goes_at_a_time_and_not_more_often() {
    let mut scribe = Scribe::new();
    let watch = Request::AddWatch {
        path: "/".to_owned(),
        recursive: false,
    };
    scribe.done(B, watch, 0, Ok(Answer::Done));
    scribe.done(A, create("/e", "1", true), 1, Ok(Answer::Created("/e".to_owned())));
    scribe.fire(B, Kind::ChildrenChanged, "/", 1);
    let mut twice = Scribe {
        events: scribe.events.clone(),
        calls: 100,
        ..Scribe::default()
    };
    twice
        .fire(B, Kind::ChildrenChanged, "/", 1)
        .breaks(Promise::WatchComplete);

    // Nobody is told whether it has happened, nor at which zxid the session has ended.
    scribe.call(A, create("/f", "2", true));
    for _ in 0..2 {
        scribe.fire(B, Kind::ChildrenChanged, "/", 5).is_fine();
    }
    scribe
        .fire(B, Kind::ChildrenChanged, "/", 5)
        .breaks(Promise::WatchComplete);
}

#[test]
fn an_ephemeral_that_outlives_its_session_or_goes_before_it_is_found() {
    let mut scribe = Scribe::new();
    scribe.done(A, create("/e", "1", true), 1, Ok(Answer::Created("/e".to_owned())));
    let mut early = Scribe {
        events: scribe.events.clone(),
        calls: 100,
        ..Scribe::default()
    };
    scribe.done(A, Request::Close, 2, Ok(Answer::Done));
    scribe.get(B, "/e", "1", 3, stat(1, 1, 0, SESSION_A));
    scribe.breaks(Promise::EphemeralIffSession);

    early.done(B, get("/e", false), 2, Err(-101));
    early.is_fine();
    early.create(A, "/a", "2", 3);
    early.breaks(Promise::EphemeralIffSession);
}

#[test]
fn an_ephemeral_of_somebody_else_is_found() {
    for (ephemeral, owner) in [(true, SESSION_B), (true, 0), (false, SESSION_A)] {
        let mut scribe = Scribe::new();
        scribe.done(A, create("/e", "1", ephemeral), 1, Ok(Answer::Created("/e".to_owned())));
        scribe.get(B, "/e", "1", 1, stat(1, 1, 0, owner));
        scribe.breaks(Promise::EphemeralIffSession);
    }
}

#[test]
fn a_name_that_is_given_out_twice_is_found() {
    let next = |scribe: &mut Scribe, connection, value: &str, zxid, number| {
        let request = Request::Create {
            path: "/q/n-".to_owned(),
            value: value.as_bytes().to_vec(),
            ephemeral: false,
            sequential: true,
        };
        let path = format!("/q/n-{number:010}");
        scribe.done(connection, request, zxid, Ok(Answer::Created(path)));
    };
    let remove = |scribe: &mut Scribe, path: &str, zxid| {
        let path = path.to_owned();
        let request = Request::Delete { path, version: -1 };
        scribe.done(A, request, zxid, Ok(Answer::Done));
    };
    let mut twice = Scribe::new();
    twice.create(A, "/q", "1", 1);
    next(&mut twice, A, "2", 2, 0);
    let mut removed = Scribe {
        events: twice.events.clone(),
        calls: 100,
        ..Scribe::default()
    };
    next(&mut twice, B, "3", 3, 0);
    twice.breaks(Promise::Durable);

    remove(&mut removed, "/q/n-0000000000", 3);
    let mut anew = Scribe {
        events: removed.events.clone(),
        calls: 200,
        ..Scribe::default()
    };
    next(&mut removed, B, "3", 4, 1);
    removed.is_fine();
    next(&mut removed, B, "4", 5, 0);
    removed.breaks(Promise::Durable);

    remove(&mut anew, "/q", 4);
    anew.create(A, "/q", "5", 5);
    next(&mut anew, B, "6", 6, 0);
    anew.is_fine();
}

#[test]
fn a_session_that_is_resumed_long_after_its_timeout_is_found() {
    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 1);
    scribe.see(What::Overdue { session: SESSION_A }).is_fine();
    let mut gone = Scribe {
        events: scribe.events.clone(),
        ..Scribe::default()
    };
    // Silent for longer than its timeout.
    gone.events.last_mut().expect("an event").at_us += 1_000_000;
    let at_us = gone.events.last().expect("an event").at_us;
    let what = What::Expired { session: SESSION_A };
    gone.events.push(Event { at_us, what });
    gone.is_fine();
    scribe.open(3, SESSION_A).breaks(Promise::EphemeralIffSession);
}

#[test]
fn an_early_expiry_is_found() {
    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 1);
    scribe.see(What::Expired { session: SESSION_A });
    scribe.breaks(Promise::NoFalseExpiry);
}

#[test]
fn half_a_multi_is_found() {
    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 1).create(A, "/b", "2", 2);
    let multi = Request::Multi(vec![set("/a", "3"), set("/b", "4")]);
    let results = vec![Ok(Answer::Stat(stat(1, 3, 1, 0))), Ok(Answer::Stat(stat(2, 3, 1, 0)))];
    scribe.done(A, multi, 3, Ok(Answer::Multi(results)));
    scribe.get(B, "/a", "3", 3, stat(1, 3, 1, 0)).is_fine();
    scribe.get(B, "/b", "2", 3, stat(2, 2, 0, 0));
    scribe.breaks(Promise::Atomic);
}

#[test]
fn an_error_that_lies_is_found() {
    let mut scribe = Scribe::new();
    scribe.create(A, "/a", "1", 1);
    scribe.done(A, set("/a", "2"), 2, Err(-101));
    scribe.breaks(Promise::TruthfulError);
}

#[test]
fn a_connection_that_a_living_server_ends_is_found() {
    let mut scribe = Scribe::new();
    scribe.expectations.only_deaths = true;
    let ended = |connection| What::Ended {
        connection,
        by_client: false,
    };
    scribe.see(What::Down(A)).see(ended(A)).is_fine();
    scribe.see(ended(B)).breaks(Promise::NoReconnectOnFailover);
}
