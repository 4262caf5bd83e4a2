//! The threads of a lone server, in any order: those of its parts, and the tasks of its sockets. Whoever brings a part something
//! may run it, and whoever makes a reply may send it; so who is woken when, and by whom, hangs on the order in which they look.
//!
//! ```text
//!   client ── bytes ──▶ line ──▶ converse, Connection::advance ── commands ─▶ ┐
//!     ▲                  ▲              ▲ wake                                ├ driver, log's writer, applier:
//!     └──── replies ─────┴──────────────┴── Connection::send_promptly ◀────── ┘ crew, a thread each, and who lends a hand
//! ```
//!
//! Real: all of it but the sockets, the files and the clocks, which stand still. Who goes on is drawn by lot wherever a thread
//! writes to a socket, or has come to an `interleave!`: the end of a turn, before it looks whether more has come, before it
//! sleeps. Nobody holds a lock there for which others wait in earnest, since they would not go on.
//!
//! What is looked for is the client that waits for ever: a reply that nobody sends, a request that nobody takes in. No tick
//! brings it on its way here, and no next request: the clients wait for all that they are owed. A write that is answered and not
//! on the disk. And in a storm, which is queued while clients read, an event that comes behind a reply that shows its change, or
//! that comes twice.
//!
//! Left out on purpose: what `sim` sees, the other promises above all; links to other servers ([`links`]); reads from the disk.
//!
//! [`links`]: super::links

use super::checker::{Answer, Request};
use super::mutant::{self, Mutant};
use super::sim::number;
use super::wire::{self, Frame};
use crate::membership::Members;
use crate::net::{self, PromptWriter, SimulatedSocket, converse};
use crate::replica::Registry;
use crate::server::simulated::{CrewedMember, LargeValues, MemberPlan, Part, SimulatedDisk, SimulatedMember};
use crate::state_machine::ServerId;
use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use raft::prelude::ConfState;
use shuttle::rand::{Rng as _, RngCore as _, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::atomic::{AtomicBool, Ordering::SeqCst};
use shuttle::{Config, MaxSteps, Runner, future, thread};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::panic;
use std::pin::Pin;
use std::slice;
use std::sync::{Arc, Once};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Where chance begins.
pub(super) const SEED: u64 = 1;
/// Orders that are tried.
const ORDERS: usize = 3000;
/// The same of storms, which take longer.
const STORM_ORDERS: usize = 400;
/// Steps after which a client waits for ever: what it waits for takes some hundred.
const PATIENCE_STEPS: usize = 100_000;
/// What a client asks for, one request or several at once.
const ROUNDS: usize = 6;
const MOST_AT_ONCE: usize = 3;
/// A storm's watchers, more than are told at once, and the last value, at which they stop.
const WATCHERS: u16 = 4;
const LAST_VALUE: u8 = 4;
/// Changes of mind in one order.
const CHANGES: usize = 4;
const STACK_BYTES: usize = 1 << 20;
const SESSION_MS: i32 = 60_000;
const ZNODE: &str = "/watched";
/// The xid of events.
const EVENT: i32 = -1;

thread_local! {
    static IS_EXPLORED: Cell<bool> = const { Cell::new(false) };
}

/// Whether threads go on in an order that is drawn by lot.
pub fn is_explored() -> bool {
    IS_EXPLORED.get()
}

pub(super) fn set_explored(is_explored: bool) {
    IS_EXPLORED.set(is_explored);
}

/// Lets another thread go on, if that is what is being tried.
pub fn point() {
    if IS_EXPLORED.get() {
        AtomicBool::new(false).load(SeqCst);
    }
}

/// Waits: others go on before this thread looks again.
pub fn wait() {
    thread::yield_now();
}

/// What connects a client with its connection's task.
struct Line {
    to_server: Mutex<ToServer>,
    to_client: Arc<SimulatedSocket>,
}

#[derive(Default)]
struct ToServer {
    bytes: BytesMut,
    has_ended: bool,
    waker: Option<Waker>,
}

/// The task's side of it.
struct Stream(Arc<Line>);

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut to_server = self.0.to_server.lock();
        if to_server.bytes.is_empty() && !to_server.has_ended {
            to_server.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let length = to_server.bytes.len().min(buffer.remaining());
        buffer.put_slice(&to_server.bytes.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        point();
        self.0.to_client.take_all(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl net::Stream for Stream {}

/// A client that waits for what it has asked for.
struct Client {
    line: Arc<Line>,
    /// The server's.
    disk: Arc<SimulatedDisk>,
    received: BytesMut,
    next_xid: i32,
    /// The replies that it is owed, and what is on the disk by then.
    owed: VecDeque<(i32, Vec<u8>)>,
    events: usize,
}

impl Client {
    fn say(&self, bytes: &[u8]) {
        let mut to_server = self.line.to_server.lock();
        to_server.bytes.extend_from_slice(bytes);
        let waker = to_server.waker.take();
        drop(to_server);
        waker.into_iter().for_each(Waker::wake);
    }

    fn hang_up(&self) {
        self.line.to_server.lock().has_ended = true;
        self.say(&[]);
    }

    fn ask(&mut self, requests: &[Request]) {
        let mut bytes = BytesMut::new();
        for request in requests {
            let xid = wire::xid_of(request, self.next_xid);
            self.next_xid += 1;
            let stored = match request {
                Request::Set { value, .. } => value.clone(),
                _ => Vec::new(),
            };
            self.owed.push_back((xid, stored));
            bytes.extend_from_slice(&wire::encode(request, xid));
        }
        self.say(&bytes);
    }

    /// Waits for a whole frame.
    fn await_frame(&mut self) -> bytes::Bytes {
        loop {
            self.received.extend_from_slice(&self.line.to_client.sent());
            if self.received.len() >= 4 {
                let length =
                    u32::from_be_bytes([self.received[0], self.received[1], self.received[2], self.received[3]]);
                let length = length as usize;
                if self.received.len() >= 4 + length {
                    self.received.advance(4);
                    return self.received.split_to(length).freeze();
                }
            }
            wait();
        }
    }

    /// The znode's value, as read now.
    fn read(&mut self, watch: bool) -> u8 {
        let request = get(watch);
        self.ask(slice::from_ref(&request));
        let Some(Ok(Answer::Data(value, _))) = self.await_all(0).pop().map(|frame| answer(&request, &frame)) else {
            panic!("the znode is there");
        };
        value.first().copied().unwrap_or_default()
    }

    /// Waits for the replies to all that it has asked for, in their order, and for so many events in all; gives the
    /// replies.
    fn await_all(&mut self, events: usize) -> Vec<Frame> {
        let mut replies = Vec::new();
        while !self.owed.is_empty() || self.events < events {
            let frame = wire::frame(&self.await_frame()).expect("a frame");
            if frame.xid == EVENT {
                self.events += 1;
            } else {
                let (xid, stored) = self.owed.pop_front().expect("a reply that is owed");
                assert_eq!((frame.xid, frame.error), (xid, 0), "the next reply");
                assert!(
                    stored.is_empty() || self.disk.has_stored(&stored),
                    "answered before it is stored"
                );
                replies.push(frame);
            }
        }
        replies
    }
}

/// A lone member that serves, and its disk.
fn lone_member(seed: u64, outstanding_limit: usize) -> (SimulatedMember, SimulatedDisk) {
    let conf_state = ConfState {
        voters: vec![1],
        ..ConfState::default()
    };
    let plan = MemberPlan {
        server: ServerId(1),
        members: Members::parse("server.1=host1:2888:3888\nversion=0").expect("a member"),
        slot: 0,
        seed,
        log_budget_bytes: 0,
        leaderless_ms: 4_000,
        linearizable_reads: false,
        values_leave: false,
        backlog_bytes: u64::MAX,
        outstanding_limit,
    };
    let mut disk = SimulatedDisk::founded(1, &conf_state, &Registry::new([(ServerId(1), 1)]));
    let mut member = SimulatedMember::start(&mut disk, &plan, 1_000).expect("it starts");
    while !member.is_serving() || member.is_busy(Part::Loader) {
        for part in Part::ALL
            .into_iter()
            .filter(|part| member.is_busy(*part))
            .collect::<Vec<_>>()
        {
            member.turn(part, &mut disk).expect("nothing fails here");
        }
    }
    (member, disk)
}

/// A client, and the thread of its connection's task.
fn connect(server: &Server, number: u16) -> (Client, thread::JoinHandle<()>) {
    let line = Arc::new(Line {
        to_server: Mutex::default(),
        to_client: Arc::new(SimulatedSocket::new(thread_rng().next_u64())),
    });
    let address = SocketAddr::from(([10, 0, 0, 1], number));
    let writer = PromptWriter::simulated(line.to_client.clone());
    let connection = server.member.admit(address, Some(writer)).expect("it is let in");
    let stream = Stream(line.clone());
    let task = thread::spawn(move || {
        future::block_on(converse(stream, &*connection)).expect("the line does not fail");
        SimulatedMember::ended(&connection);
    });
    let client = Client {
        line,
        disk: server.disk.clone(),
        received: BytesMut::new(),
        next_xid: 1,
        owed: VecDeque::new(),
        events: 0,
    };
    (client, task)
}

/// The value has a mark, by which it is found on the disk.
fn set(value: u8) -> Request {
    let mark = thread_rng().next_u64().to_be_bytes();
    Request::Set {
        path: ZNODE.to_owned(),
        value: [&[value][..], &mark].concat(),
        version: -1,
    }
}

fn get(watch: bool) -> Request {
    Request::Get {
        path: ZNODE.to_owned(),
        watch,
    }
}

fn answer(request: &Request, frame: &Frame) -> Result<Answer, i32> {
    wire::answer(request, frame).expect("a reply")
}

/// A lone server with its threads; the log's is the first.
struct Server {
    member: CrewedMember,
    disk: Arc<SimulatedDisk>,
    threads: VecDeque<thread::JoinHandle<()>>,
}

impl Server {
    fn start() -> Server {
        set_explored(false);
        let outstanding_limit = thread_rng().gen_range(1..=3);
        let (member, disk) = lone_member(thread_rng().next_u64(), outstanding_limit);
        set_explored(true);
        let (member, works) = member.with_crew(future::block_on);
        let threads = works.into_iter().map(thread::spawn).collect();
        Server {
            member,
            disk: Arc::new(disk),
            threads,
        }
    }

    fn stop(mut self) {
        let log = self.threads.pop_front().expect("the log's thread");
        self.member.stop();
        for thread in self.threads {
            thread.join().expect("it ends in order");
        }
        self.member.stop_log();
        log.join().expect("it ends in order");
        set_explored(false);
    }
}

/// Two clients: one writes and reads, the other watches and hears of it.
fn converse_in_some_order() {
    let server = Server::start();
    let member = &server.member;
    let (mut writer, writer_task) = connect(&server, 1);
    let (mut watcher, watcher_task) = connect(&server, 2);
    // Both may take themselves for the only one.
    if thread_rng().gen_bool(0.5) {
        member.be_quiet();
    }
    for client in [&mut writer, &mut watcher] {
        client.say(&wire::encode_connect(0, SESSION_MS, 0, &[0; 16]));
    }
    // Right behind the handshake.
    writer.ask(&[Request::Create {
        path: ZNODE.to_owned(),
        value: Vec::new(),
        ephemeral: false,
        sequential: false,
    }]);
    for client in [&mut writer, &mut watcher] {
        wire::connected(&client.await_frame()).expect("a session");
    }
    writer.await_all(0);
    for round in 1..=ROUNDS {
        watcher.ask(&[get(true)]);
        watcher.await_all(round - 1);
        // The first is a write, of which the watcher hears.
        let mut requests = vec![set(0)];
        let more = thread_rng().gen_range(0..MOST_AT_ONCE);
        if thread_rng().gen_bool(0.5) {
            member.be_quiet();
        }
        requests.extend((0..more).map(|_| match thread_rng().gen_range(0..3) {
            0 => set(1),
            1 => get(false),
            _ => Request::Ping,
        }));
        if thread_rng().gen_bool(0.5) {
            writer.ask(&requests);
        } else {
            for request in requests {
                writer.ask(&[request]);
                point();
            }
        }
        writer.await_all(0);
        watcher.await_all(round);
    }
    for (mut client, task) in [(writer, writer_task), (watcher, watcher_task)] {
        if thread_rng().gen_bool(0.5) {
            client.ask(&[Request::Close]);
            client.await_all(0);
        } else {
            client.hang_up();
        }
        task.join().expect("the task ends");
    }
    server.stop();
}

/// One client writes; the others watch and read as they like: each change is a storm, and queued in slices while they do.
fn weather_storms_in_some_order() {
    let server = Server::start();
    let member = &server.member;
    let (mut writer, writer_task) = open(&server, 0);
    writer.ask(&[Request::Create {
        path: ZNODE.to_owned(),
        value: Vec::new(),
        ephemeral: false,
        sequential: false,
    }]);
    writer.await_all(0);
    let watchers: Vec<_> = (1..=WATCHERS).map(|number| open(&server, number)).collect();
    let watching: Vec<_> = watchers
        .into_iter()
        .map(|(mut client, task)| {
            thread::spawn(move || {
                watch_to_the_end(&mut client);
                client.hang_up();
                task.join().expect("the task ends");
            })
        })
        .collect();
    for value in 1..=LAST_VALUE {
        if thread_rng().gen_bool(0.5) {
            member.be_quiet();
        }
        writer.ask(&[set(value)]);
        writer.await_all(0);
    }
    for watcher in watching {
        watcher.join().expect("it has seen the last value");
    }
    writer.hang_up();
    writer_task.join().expect("the task ends");
    server.stop();
}

/// A small write and a large value behind it, which has to wait in line until another one's is written.
fn write_small_and_large_in_some_order() {
    set_explored(false);
    let values = Arc::new(LargeValues::begin());
    set_explored(true);
    let other = thread::spawn({
        let values = values.clone();
        move || values.end_one()
    });
    let handed_on = values.hand_on_two();
    other.join().expect("it ends in order");
    set_explored(false);
    assert_eq!(
        values.submitted(),
        handed_on,
        "a large value has overtaken what stands before it"
    );
}

/// A client with its session.
fn open(server: &Server, number: u16) -> (Client, thread::JoinHandle<()>) {
    let (mut client, task) = connect(server, number);
    client.say(&wire::encode_connect(0, SESSION_MS, 0, &[0; 16]));
    wire::connected(&client.await_frame()).expect("a session");
    (client, task)
}

/// Registers a watch, reads without one until it hears of a change, and begins anew.
fn watch_to_the_end(client: &mut Client) {
    let mut watched = client.read(true);
    while watched != LAST_VALUE {
        let heard = client.events;
        while client.events == heard && thread_rng().gen_bool(0.7) {
            let seen = client.read(false);
            assert!(client.events > heard || seen == watched, "{seen} before the event");
        }
        client.await_all(heard + 1);
        let next = client.read(true);
        assert!(
            next > watched && client.events == heard + 1,
            "an event without a change"
        );
        watched = next;
    }
}

/// The explorer tells of every panic in this process as if it were its own; of ours alone, from here on.
fn keep_to_ourselves() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let original = Arc::new(panic::take_hook());
        let for_explorer = original.clone();
        panic::set_hook(Box::new(move |info| for_explorer(info)));
        shuttle::check_random(|| (), 1);
        let explorers = panic::take_hook();
        panic::set_hook(Box::new(move |info| match is_explored() {
            true => explorers(info),
            false => original(info),
        }));
    });
}

/// Runs a scenario in so many orders.
pub(super) fn explore(scenario: fn(), seed: u64, orders: usize) {
    keep_to_ourselves();
    let config = || {
        let mut config = Config::new();
        config.max_steps = MaxSteps::FailAfter(PATIENCE_STEPS);
        config.stack_size = STACK_BYTES;
        config
    };
    // Whoever is drawn goes on; and one goes on for long, which few changes of mind interrupt.
    Runner::new(RandomScheduler::new_from_seed(seed, orders / 2), config()).run(scenario);
    Runner::new(PctScheduler::new_from_seed(seed, CHANGES, orders / 2), config()).run(scenario);
}

#[test]
fn no_client_waits_for_ever() {
    explore(converse_in_some_order, SEED, ORDERS);
}

#[test]
fn in_a_storm_every_event_comes_once_and_before_its_change() {
    explore(weather_storms_in_some_order, SEED, STORM_ORDERS);
}

#[test]
fn a_large_value_does_not_overtake_what_stands_before_it() {
    explore(write_small_and_large_in_some_order, SEED, STORM_ORDERS);
}

/// `SIM_FROM=2 SIM_ORDERS=100000 cargo test --lib many_orders -- --ignored`.
#[test]
#[ignore = "as many orders as one asks for"]
fn many_orders() {
    let orders = number("SIM_ORDERS").unwrap_or(30_000);
    let orders = usize::try_from(orders).expect("a number of orders");
    let seed = number("SIM_FROM").unwrap_or(SEED + 1);
    explore(converse_in_some_order, seed, orders);
    explore(weather_storms_in_some_order, seed, orders / 10);
}

/// Whether somebody notices when this bug is planted, who says so.
pub(super) fn is_found(mutant: Mutant, scenario: fn(), orders: usize, says: &str) {
    let outcome = panic::catch_unwind(|| mutant::with(mutant, || explore(scenario, SEED, orders)));
    set_explored(false);
    let panic = outcome.expect_err("nobody has noticed");
    let formatted = panic.downcast_ref::<String>().map(String::as_str);
    let said = formatted
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    assert!(said.contains(says), "something else has happened: {said}");
}

macro_rules! found {
    ($($name:ident: $mutant:ident in $scenario:ident, $orders:ident: $says:literal;)*) => {
        $(
            #[test]
            fn $name() {
                is_found(Mutant::$mutant, $scenario, $orders, $says);
            }
        )*
    };
}

found! {
    found_task_looks_unseen: TaskLooksUnseen in converse_in_some_order, ORDERS: "max_steps";
    found_task_says_idle: TaskSaysIdle in converse_in_some_order, ORDERS: "max_steps";
    found_rest_forgotten: RestForgotten in converse_in_some_order, ORDERS: "max_steps";
    found_asked_before_the_line: AskedBeforeTheLine in converse_in_some_order, ORDERS: "max_steps";
    found_ack_before_fsync: AckBeforeFsync in converse_in_some_order, ORDERS: "before it is stored";
    found_sent_for_stored: SentForStored in converse_in_some_order, ORDERS: "before it is stored";
    found_part_looks_once: PartLooksOnce in converse_in_some_order, ORDERS: "max_steps";
    found_not_caught_up: NotCaughtUp in weather_storms_in_some_order, STORM_ORDERS: "before the event";
    found_waits_on: WaitsOn in weather_storms_in_some_order, STORM_ORDERS: "max_steps";
}
