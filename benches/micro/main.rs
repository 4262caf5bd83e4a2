//! Where a nanosecond goes inside the server: decoding, the log's entries, the state machine, the watch tables, the disk's
//! rooms.
//!
//! Each line is the time of one operation: the fastest and the median of many short batches. The fastest is the figure
//! to compare, because it is the one that nothing else on the machine has disturbed. Random znodes among a million, so
//! that the memory's latency is in it. Sockets and hand-offs between threads are not: `side_by_side` measures those.
//!
//! `cargo bench --bench micro [-- WORD]` runs all, or those whose name contains the word. `ZNODES` sets how many.
//! The lines of one way are added up at the end: `breakdown`.
#![allow(clippy::print_stdout, reason = "printing the figures is what this program is for")]

mod bench;
mod breakdown;
mod disk;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use menagerie::proto::multi::MultiRequest;
use menagerie::proto::request::{CreateRequest, PathWatch, Query, SetDataRequest, Write};
use menagerie::proto::{
    Acl, Decoder, EventKind, Identity, OpCode, ReplyHeader, RequestHeader, SessionId, Text, WatchEvent, Xid, Zxid,
    frame,
};
use menagerie::state_machine::command::SessionBody;
use menagerie::state_machine::{Batch, Change, Command, ConnectionId, Origin, ServerId, Stamp, State};
use menagerie::watch::{WatchKind, WatchLimits, WatcherId, Watches};

use crate::bench::{BATCH, Bench, Random, resident_bytes};

/// Commands in one batch of the log, as they come together at depth.
const GROUP: usize = 64;
/// Lines that the breakdown names too.
const READ_DECODE: &str = "wire: frame to getData";
const READ_QUERY: &str = "state: getData to reply frame";
const WRITE_DECODE: &str = "wire: frame to setData";
const PUBLISH: &str = "publish: setData, watches, reply to frame";
const DEFAULT_ZNODES: usize = 1_000_000;
const CHILDREN_PER_PARENT: usize = 1_000;
const FRAME_LIMIT_BYTES: usize = 1 << 20;
const SESSION: SessionId = SessionId(0x0100_0000_0000_0001);
const VALUE: &[u8] = &[b'v'; 100];

fn main() {
    // cargo passes --bench; whatever is not an option is the word.
    let word = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let znodes = std::env::var("ZNODES")
        .ok()
        .and_then(|znodes| znodes.parse().ok())
        .unwrap_or(DEFAULT_ZNODES);
    let bench = Bench::new(word.unwrap_or_default());
    println!("{:<58} {:>10} {:>10}", "ns per operation", "fastest", "median");
    wire(&bench);
    entries(&bench);
    // Before the znodes: what they leave free would hide what watches take.
    watches(&bench);
    state(&bench, znodes.max(CHILDREN_PER_PARENT));
    disk::run(&bench);
    breakdown::print(&bench);
}

/// From received bytes to a typed request, and an event to bytes.
fn wire(bench: &Bench) {
    let frames = [
        (READ_DECODE, OpCode::GetData, body(|out| get_data(1).encode(out))),
        (WRITE_DECODE, OpCode::SetData, body(|out| set_data(1).encode(out))),
        (
            "wire: frame to create",
            OpCode::Create,
            body(|out| create_at(path(1)).encode(out)),
        ),
        (
            "wire: frame to multi of 10 setData",
            OpCode::Multi,
            body(|out| multi(1).encode(out)),
        ),
    ];
    for (name, op, body) in frames {
        let mut received = BytesMut::new();
        for _ in 0..BATCH {
            received.extend_from_slice(&(body.len() as u32 + 8).to_be_bytes());
            RequestHeader {
                xid: Xid(1),
                op: op.to_wire(),
            }
            .encode(&mut received);
            received.extend_from_slice(&body);
        }
        bench.batches(name, BATCH, || {
            let mut received = received.clone();
            while let Ok(Some(frame)) = frame::split_frame(&mut received, FRAME_LIMIT_BYTES) {
                let mut decoder = Decoder::new(&frame);
                black_box(RequestHeader::decode(&mut decoder).is_ok());
                let query = Query::decode(op, &mut decoder).map(|query| query.is_ok());
                let good = query.or_else(|| Write::decode(op, &mut decoder).map(|write| write.is_ok()));
                assert_eq!(good, Some(true), "the frame was built by the same codec");
            }
        });
    }
    let event = WatchEvent {
        kind: EventKind::DataChanged,
        path: path(1),
    };
    bench.each("wire: event to frame", || {
        black_box(event.to_frame(Zxid(1)));
    });
}

/// Commands to a log entry and back.
fn entries(bench: &Bench) {
    for count in [1, GROUP] {
        let commands: Vec<_> = (0..count).map(set_data_command).collect();
        bench.batches(&entry_line("encode", count), BATCH * count, || {
            (0..BATCH).for_each(|_| drop(black_box(Batch::encode(STAMP, &commands))));
        });
        let entry = Batch::encode(STAMP, &commands);
        bench.batches(&entry_line("decode", count), BATCH * count, || {
            (0..BATCH).for_each(|_| drop(black_box(Batch::decode(&entry))));
        });
    }
}

fn entry_line(what: &str, count: usize) -> String {
    format!("log entry: {what}, {count} setData, each")
}

/// Applying and querying, on random znodes.
fn state(bench: &Bench, znodes: usize) {
    if !["state", "memory", "publish"]
        .iter()
        .any(|beginning| bench.wants_some_of(beginning))
    {
        return;
    }
    let resident_before = resident_bytes();
    let mut state = loaded_state(znodes);
    let per_znode = resident_bytes().saturating_sub(resident_before) / znodes;
    println!(
        "{:<58} {per_znode:>10}",
        format!("memory: bytes of RSS per znode of 100 bytes, {znodes} of them")
    );

    bench.prepared(
        "state: tree get (the Stat of a path)",
        BATCH,
        || random_paths(znodes),
        |paths| {
            for path in &paths {
                assert!(state.stat(path.as_str()).is_some(), "the znode is there");
            }
        },
    );
    let children = |number| Query::GetChildren(watch(parent(number)));
    query(bench, READ_QUERY, &state, znodes, &get_data);
    query(bench, "state: exists to reply frame", &state, znodes, &|number| {
        Query::Exists(watch(path(number)))
    });
    query(
        bench,
        "state: getChildren of 1000 to reply frame",
        &state,
        znodes,
        &children,
    );

    let mut random = Random(8);
    apply(bench, "state: apply setData", &mut state, 1, &mut || {
        set_data_command(random.below(znodes))
    });
    apply(bench, "state: apply multi of 10 setData", &mut state, 10, &mut || {
        let number = random.below(znodes);
        command(OpCode::Multi, body(|out| multi(number).encode(out)))
    });
    publish(bench, &mut state, znodes);
    let mut created = znodes;
    apply(bench, "state: apply create", &mut state, 1, &mut || {
        created += 1;
        let path = format!("{}/node-{created:08}", parent(created % znodes).as_str());
        command(OpCode::Create, body(|out| create_at(path.into()).encode(out)))
    });
    let before = Instant::now();
    let dirty = state.take_dirty().records.len().max(1);
    let each = before.elapsed().as_nanos() as usize / dirty;
    println!(
        "{:<58} {each:>10}",
        format!("state: take_dirty, each of {dirty} records")
    );
}

fn query(bench: &Bench, name: &str, state: &State, znodes: usize, make: &dyn Fn(usize) -> Query) {
    let caller = [Identity::anyone()];
    let mut random = Random(7);
    let mut out = BytesMut::with_capacity(1 << 20);
    let prepare = || (0..BATCH).map(|_| make(random.below(znodes))).collect::<Vec<_>>();
    bench.prepared(name, BATCH, prepare, |queries| {
        for query in &queries {
            out.clear();
            let header = ReplyHeader {
                xid: Xid(1),
                zxid: state.zxid(),
                error: None,
            };
            let shared = header.encode_frame(&mut out, |out| state.query(query, SESSION, &caller, false, out));
            assert!(
                shared.is_none() && out.len() > 4 + ReplyHeader::BYTES,
                "the znode is there"
            );
        }
    });
}

/// Commands are made anew for each batch, so that the znodes that they touch are as cold as a server's.
fn apply(bench: &Bench, name: &str, state: &mut State, writes: usize, make: &mut dyn FnMut() -> Command) {
    let count = BATCH / writes;
    let mut changes: Vec<Change> = Vec::new();
    let prepare = || (0..count).map(|_| make()).collect::<Vec<_>>();
    bench.prepared(name, count, prepare, |commands| {
        for command in &commands {
            changes.clear();
            let applied = state.apply(&STAMP, command, &mut changes);
            assert!(applied.result.is_ok(), "{:?}", applied.result);
        }
    });
}

/// What a publish step does for a group of a connection's commands, as far as it is public: tree, watches, reply. The lock
/// around it and the queue behind it are not in it.
fn publish(bench: &Bench, state: &mut State, znodes: usize) {
    let table = Watches::new(WatchLimits::default());
    for number in 0..10_000 {
        let elsewhere = format!("/elsewhere/node-{number}");
        table
            .add(WatcherId(number), &elsewhere, WatchKind::Data)
            .expect("there is no limit");
    }
    let mut random = Random(9);
    let mut changes: Vec<Change> = Vec::new();
    let mut heard = 0_u64;
    let mut out = BytesMut::with_capacity(1 << 20);
    let prepare = || {
        (0..GROUP)
            .map(|_| set_data_command(random.below(znodes)))
            .collect::<Vec<_>>()
    };
    bench.prepared(PUBLISH, GROUP, prepare, |commands| {
        out.clear();
        for command in &commands {
            changes.clear();
            let applied = state.apply(&STAMP, command, &mut changes);
            for change in &changes {
                if let Change::DataChanged { path, .. } = change {
                    table.fire_data_changed(path.as_str(), &mut |_, _, _| heard += 1);
                }
            }
            let header = ReplyHeader {
                xid: command.xid,
                zxid: applied.zxid,
                error: None,
            };
            let shared = header.encode_frame(&mut out, |out| {
                let encoded = applied.result.as_ref().map(|reply| reply.encode(out));
                encoded.map(|()| None).map_err(|error| *error)
            });
            black_box(shared);
        }
        black_box(&out);
    });
    black_box(heard);
}

fn random_paths(znodes: usize) -> Vec<Text> {
    let mut random = Random(6);
    (0..BATCH).map(|_| path(random.below(znodes))).collect()
}

/// A session, and `znodes` znodes of 100 bytes, under parents of a thousand each.
fn loaded_state(znodes: usize) -> State {
    let mut state = State::new();
    let mut changes = Vec::new();
    let session = SessionBody {
        timeout_ms: 30_000,
        password: [1; 16],
    }
    .to_bytes();
    let parents = (0..znodes).step_by(CHILDREN_PER_PARENT).map(parent);
    let paths = std::iter::once(Text::from("/bench"))
        .chain(parents)
        .chain((0..znodes).map(path));
    let creates = paths.map(|path| command(OpCode::Create, body(|out| create_at(path).encode(out))));
    for (number, command) in std::iter::once(command(OpCode::CreateSession, session))
        .chain(creates)
        .enumerate()
    {
        changes.clear();
        let applied = state.apply(&STAMP, &command, &mut changes);
        assert!(applied.result.is_ok(), "{command:?}: {:?}", applied.result);
        // As a server does behind the log, so that the set of dirty records stays as small as there.
        if number % 10_000 == 0 {
            drop(state.take_dirty());
        }
    }
    drop(state.take_dirty());
    state
}

fn watches(bench: &Bench) {
    const WATCHERS: usize = 10_000;
    let table = Watches::new(WatchLimits::default());
    let paths: Vec<_> = (0..BATCH).map(path).collect();
    let mut heard = 0_u64;
    bench.batches("watch: fire at a path that nobody watches", BATCH, || {
        for path in &paths {
            table.fire_data_changed(path.as_str(), &mut |_, _, _| heard += 1);
        }
    });
    bench.batches("watch: register a one-shot and fire it", BATCH, || {
        for path in &paths {
            table
                .add(WatcherId(1), path.as_str(), WatchKind::Data)
                .expect("there is no limit");
            table.fire_data_changed(path.as_str(), &mut |_, _, _| heard += 1);
        }
    });
    let register = || {
        for watcher in 0..WATCHERS as u64 {
            table
                .add(WatcherId(watcher), paths[0].as_str(), WatchKind::Data)
                .expect("there is no limit");
        }
    };
    bench.prepared(
        "watch: fire at 10,000 one-shot watchers, each",
        WATCHERS,
        register,
        |()| {
            table.fire_data_changed(paths[0].as_str(), &mut |_, _, _| heard += 1);
        },
    );
    black_box(heard);
    memory_of_watches(bench, "each on a path of its own, of 100 sessions", |number| {
        let (session, watch) = (number % 100, number / 100);
        (session, format!("/bench/watches/{session:04}/{watch:010}"))
    });
    memory_of_watches(bench, "of 1,000 sessions on the same 1,000 paths", |number| {
        (number / 1_000, format!("/bench/watches/0000/{:010}", number % 1_000))
    });
}

/// What a million watches take; `watch` gives session and path.
fn memory_of_watches(bench: &Bench, which: &str, watch: impl Fn(usize) -> (usize, String)) {
    const WATCHES: usize = 1_000_000;
    let name = format!("memory: bytes of RSS per one-shot watch, {which}");
    if !bench.wants(&name) {
        return;
    }
    let table = Watches::new(WatchLimits::default());
    let before = resident_bytes();
    for number in 0..WATCHES {
        let (session, path) = watch(number);
        table
            .add(WatcherId(session as u64), &path, WatchKind::Data)
            .expect("there is no limit");
    }
    assert_eq!(table.len(), WATCHES, "no two are the same");
    let each = resident_bytes().saturating_sub(before) as f64 / WATCHES as f64;
    println!("{name:<84} {each:>10.1}");
}

const STAMP: Stamp = Stamp {
    time_ms: 1,
    rules: menagerie::state_machine::Rules(0),
};

fn command(op: OpCode, body: Bytes) -> Command {
    // One list for all, as a connection has one for all its requests.
    static CALLER: std::sync::LazyLock<Arc<[Identity]>> =
        std::sync::LazyLock::new(|| [Identity::new("ip", "::1")].into());
    let origin = Origin {
        server: ServerId(1),
        connection: ConnectionId(1),
    };
    Command {
        origin,
        session: SESSION,
        xid: Xid(1),
        identities: CALLER.clone(),
        op,
        body,
    }
}

fn set_data_command(number: usize) -> Command {
    command(OpCode::SetData, body(|out| set_data(number).encode(out)))
}

fn body(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    write(&mut out);
    out.freeze()
}

fn parent(number: usize) -> Text {
    format!("/bench/p{:06}", number / CHILDREN_PER_PARENT).into()
}

fn path(number: usize) -> Text {
    format!("/bench/p{:06}/node-{number:08}", number / CHILDREN_PER_PARENT).into()
}

fn watch(path: Text) -> PathWatch {
    PathWatch { path, watch: false }
}

fn get_data(number: usize) -> Query {
    Query::GetData(watch(path(number)))
}

fn set_data(number: usize) -> Write {
    Write::SetData(SetDataRequest {
        path: path(number),
        data: Some(VALUE.into()),
        version: -1,
    })
}

fn create_at(path: Text) -> Write {
    let data = Some(VALUE.into());
    Write::Create(
        OpCode::Create,
        CreateRequest {
            path,
            data,
            acl: Some(vec![Acl::open()]),
            flags: 0,
            ttl_ms: None,
        },
    )
}

fn multi(number: usize) -> MultiRequest {
    // Ten znodes of one parent.
    let first = number - number % 10;
    MultiRequest {
        operations: (first..first + 10).map(set_data).collect(),
    }
}
