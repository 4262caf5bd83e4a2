//! A storm of watches: thousands of sessions watch one znode, it changes, and everybody must hear of it, while others
//! ping and read.
//!
//! The time runs from the write of the change to the driver's reading of the last event. One thread reads them all: that
//! costs it one or two microseconds for each watcher, on both sides alike.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::control::Control;
use crate::figure::{Reading, Spread, Target, short};
use crate::fleet::{open_sessions, poll_once};
use crate::load::Kind;
use crate::measure::{Sample, file_limit, raise_file_limit};
use crate::process::Contestant;
use crate::pulse::{Pulse, slowest_ms};
use crate::wire::{self, op};

const ZNODE: &[u8] = b"/bench/storm";
/// Until everybody has heard, armed or closed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between the last arming and the change, so that its housekeeping does not count.
const REST: Duration = Duration::from_millis(200);
const OTHERS_PER_S: u32 = 500;
/// Files that the servers and the driver have open besides the watchers' sockets.
const OTHER_FILES: u64 = 2_000;
const EVENTS_PER_POLL: usize = 1024;
const READ_BYTES: usize = 4096;
/// The xid of every event.
const EVENT_XID: i32 = -1;

/// As many watchers as a process may have sockets.
fn affordable(watchers: u32) -> u32 {
    raise_file_limit();
    let limit = file_limit().saturating_sub(OTHER_FILES);
    watchers.min(u32::try_from(limit).unwrap_or(u32::MAX))
}

pub(crate) fn title(watchers: u32) -> String {
    let afforded = affordable(watchers);
    let limited = if afforded < watchers {
        format!(
            " (for {}; a process may have {} files here)",
            short(f64::from(watchers)),
            file_limit()
        )
    } else {
        String::new()
    };
    format!("one change, {} watchers{limited}", short(f64::from(afforded)))
}

/// Changes the znode so many times, each time armed by everybody anew.
///
/// # Errors
/// The server's, and a watcher that hears nothing.
pub(crate) fn run(server: &Contestant, watchers: u32, changes: u32) -> Result<Vec<Reading>, String> {
    let addresses = server.addresses();
    let mut control = Control::open(addresses[0], PATIENCE).map_err(|error| error.to_string())?;
    let created = control.create_all(std::iter::once(ZNODE.to_vec()));
    created.map_err(|error| error.to_string())?;
    let mut crowd = Crowd::open(&addresses, affordable(watchers))?;
    let pulse = Pulse::start(&addresses, &[(Kind::Ping, OTHERS_PER_S), (Kind::Get, OTHERS_PER_S)])?;
    let pids = server.pids();
    let mut spans = Vec::new();
    let (mut server_s, mut driver_s) = (0.0, 0.0);
    let mut storm = |crowd: &mut Crowd, number: i32| -> Result<(), String> {
        crowd.ask_all(number, op::GET_DATA, |out| wire::read_body(out, ZNODE, true))?;
        std::thread::sleep(REST);
        let before = Sample::take(&pids);
        let changed = Instant::now();
        control.begin_set(ZNODE).map_err(|error| error.to_string())?;
        spans.push((changed, crowd.hear_all(EVENT_XID)?));
        let (server, driver, _) = Sample::take(&pids).seconds_since(&before);
        (server_s, driver_s) = (server_s + server, driver_s + driver);
        control.end_set().map_err(|error| error.to_string())
    };
    let stormed = (1..)
        .take(changes as usize)
        .try_for_each(|number| storm(&mut crowd, number));
    let beats = pulse.stop()?;
    stormed?;
    crowd.ask_all(i32::MAX, op::CLOSE_SESSION, |_| ())?;
    let times = spans.iter().map(|(from, to)| (*to - *from).as_secs_f64() * 1e3);
    let times = Spread::of(times.collect());
    let events = f64::from(affordable(watchers)) * f64::from(changes);
    let (half, delay) = ([Target::RatioAtMost(0.5)], [Target::AtMost(20.0)]);
    Ok(vec![
        Reading::new(format!("last event, p50 of {changes} changes, ms"), times.median, &half),
        Reading::new(
            format!("last event, slowest of {changes} changes, ms"),
            times.most,
            &half,
        ),
        Reading::new("server CPU for each event, µs", server_s * 1e6 / events, &[]),
        Reading::new("driver CPU for each event, µs", driver_s * 1e6 / events, &[]),
        Reading::new(
            "others' ping meanwhile, slowest ms",
            slowest_ms(&beats[0].within(&spans)),
            &delay,
        ),
        Reading::new(
            "others' getData meanwhile, slowest ms",
            slowest_ms(&beats[1].within(&spans)),
            &delay,
        ),
    ])
}

/// The watchers' connections.
struct Crowd {
    poll: Poll,
    watchers: Vec<Watcher>,
}

struct Watcher {
    stream: TcpStream,
    /// Bytes that no frame has been made of yet.
    received: Vec<u8>,
    has_heard: bool,
}

impl Crowd {
    fn open(addresses: &[SocketAddr], count: u32) -> Result<Self, String> {
        let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        let register = |(index, stream): (usize, std::net::TcpStream)| -> std::io::Result<Watcher> {
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry()
                .register(&mut stream, Token(index), Interest::READABLE)?;
            Ok(Watcher {
                stream,
                received: Vec::new(),
                has_heard: false,
            })
        };
        let streams = open_sessions(addresses, count)?.into_iter().enumerate();
        let watchers = streams.map(register).collect::<Result<_, _>>();
        let watchers = watchers.map_err(|error| format!("a watcher: {error}"))?;
        Ok(Self { poll, watchers })
    }

    /// Sends everybody's request, and waits until everybody has the reply.
    fn ask_all(&mut self, xid: i32, operation: i32, body: impl Fn(&mut Vec<u8>)) -> Result<(), String> {
        let mut request = Vec::new();
        wire::request(&mut request, xid, operation, body);
        for watcher in &mut self.watchers {
            // A request of a few dozen bytes fits into the buffer of a socket that has nothing else in it.
            watcher
                .stream
                .write_all(&request)
                .map_err(|error| format!("a watcher: {error}"))?;
        }
        self.hear_all(xid).map(|_| ())
    }

    /// Waits until everybody has read a frame with this xid; returns when the last did.
    fn hear_all(&mut self, xid: i32) -> Result<Instant, String> {
        self.watchers.iter_mut().for_each(|watcher| watcher.has_heard = false);
        let mut missing = self.watchers.len();
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        let started = Instant::now();
        while missing > 0 {
            poll_once(&mut self.poll, &mut events)?;
            for event in &events {
                let watcher = &mut self.watchers[event.token().0];
                if watcher.hear(xid)? && !watcher.has_heard {
                    watcher.has_heard = true;
                    missing -= 1;
                }
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("{missing} of {} watchers hear nothing", self.watchers.len()));
            }
        }
        Ok(Instant::now())
    }
}

impl Watcher {
    /// Reads what is there; returns whether a frame was among it, which must have this xid.
    fn hear(&mut self, xid: i32) -> Result<bool, String> {
        let mut bytes = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(format!("a watcher: {error}")),
            }
            if !self.received.len().is_multiple_of(READ_BYTES) {
                break;
            }
        }
        let Some(frame) = wire::first_frame(&self.received)? else {
            return Ok(false);
        };
        let (got, error) = (wire::i32_at(frame, 0), wire::i32_at(frame, 12));
        if got != Some(xid) || error != Some(0) {
            return Err(format!(
                "a watcher expected xid {xid}, got {got:?} with error {error:?}"
            ));
        }
        self.received.drain(..4 + frame.len());
        Ok(true)
    }
}
