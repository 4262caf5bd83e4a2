//! One blocking session beside the fleet: prepares znodes, and asks whether a server serves.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::fleet::SESSION_TIMEOUT_MS;
use crate::load::VALUE;
use crate::wire::{self, NODE_EXISTS, op};

/// The flag of a create whose znode goes with its session.
const EPHEMERAL: i32 = 1;
/// Creates sent before their replies are read. Small enough that neither side's socket buffers fill up.
const PIPELINED_CREATES: usize = 100;
/// The same of their values.
const PIPELINED_BYTES: usize = 64 << 10;

/// An open session on a blocking connection.
#[derive(Debug)]
pub(crate) struct Control {
    stream: TcpStream,
    next_xid: i32,
}

impl Control {
    /// Opens a session.
    ///
    /// # Errors
    /// The connection's, and a refused handshake.
    pub(crate) fn open(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        let mut hello = Vec::new();
        wire::connect_request(&mut hello, SESSION_TIMEOUT_MS);
        stream.write_all(&hello)?;
        let answer = wire::read_frame(&mut stream)?;
        wire::granted_session(&answer).ok_or_else(|| io::Error::other("the session was refused"))?;
        Ok(Self { stream, next_xid: 1 })
    }

    /// Creates znodes that hold the rows' value; those that exist are left as they are.
    ///
    /// # Errors
    /// The connection's, and any error but that the znode exists.
    pub(crate) fn create_all(&mut self, paths: impl Iterator<Item = Vec<u8>>) -> io::Result<()> {
        self.create_holding(paths, VALUE)
    }

    /// The same with another value.
    ///
    /// # Errors
    /// As [`Control::create_all`].
    pub(crate) fn create_holding(&mut self, paths: impl Iterator<Item = Vec<u8>>, value: &[u8]) -> io::Result<()> {
        self.create_each(paths, value, 0, &[0, NODE_EXISTS])
    }

    /// Creates ephemerals that hold the rows' value.
    ///
    /// # Errors
    /// The connection's, and any error reply.
    pub(crate) fn create_ephemerals(&mut self, paths: impl Iterator<Item = Vec<u8>>) -> io::Result<()> {
        self.create_each(paths, VALUE, EPHEMERAL, &[0])
    }

    fn create_each(
        &mut self,
        paths: impl Iterator<Item = Vec<u8>>,
        value: &[u8],
        flags: i32,
        allowed: &[i32],
    ) -> io::Result<()> {
        let at_once = (PIPELINED_BYTES / value.len().max(1)).clamp(1, PIPELINED_CREATES);
        let mut paths = paths.peekable();
        while paths.peek().is_some() {
            let mut out = Vec::new();
            let first = self.next_xid;
            for path in paths.by_ref().take(at_once) {
                wire::request(&mut out, self.next_xid, op::CREATE, |out| {
                    wire::create_flagged(out, &path, value, flags)
                });
                self.next_xid += 1;
            }
            self.stream.write_all(&out)?;
            for xid in first..self.next_xid {
                self.read_reply(xid, allowed)?;
            }
        }
        Ok(())
    }

    /// Reads a znode's data.
    ///
    /// # Errors
    /// The connection's, and any error reply.
    pub(crate) fn get(&mut self, path: &[u8]) -> io::Result<Vec<u8>> {
        self.get_versioned(path).map(|(data, _)| data)
    }

    /// Reads a znode's data, and how often it was set.
    ///
    /// # Errors
    /// As [`Control::get`].
    pub(crate) fn get_versioned(&mut self, path: &[u8]) -> io::Result<(Vec<u8>, u32)> {
        let mut out = Vec::new();
        let xid = self.next_xid;
        self.next_xid += 1;
        wire::request(&mut out, xid, op::GET_DATA, |out| wire::read_body(out, path, false));
        self.stream.write_all(&out)?;
        let reply = self.read_reply(xid, &[0])?;
        // Null data, length -1, counts as empty here.
        let length = wire::i32_at(&reply, 16).map(|length| usize::try_from(length).unwrap_or(0));
        let data = length.and_then(|length| reply.get(20..20 + length));
        // The Stat has four longs before the version.
        let version = data.and_then(|data| wire::i32_at(&reply, 20 + data.len() + 32));
        let answer = data
            .zip(version)
            .map(|(data, version)| (data.to_vec(), version.cast_unsigned()));
        answer.ok_or_else(|| io::Error::other("a getData reply without data"))
    }

    /// Sends a setData of the rows' value, and does not wait.
    ///
    /// # Errors
    /// The connection's.
    pub(crate) fn begin_set(&mut self, path: &[u8]) -> io::Result<()> {
        let mut out = Vec::new();
        wire::request(&mut out, self.next_xid, op::SET_DATA, |out| {
            wire::set_data_body(out, path, VALUE)
        });
        self.next_xid += 1;
        self.stream.write_all(&out)
    }

    /// Waits for its reply.
    ///
    /// # Errors
    /// The connection's, and any error reply.
    pub(crate) fn end_set(&mut self) -> io::Result<()> {
        self.read_reply(self.next_xid - 1, &[0]).map(|_| ())
    }

    /// Waits until this member has applied whatever the leader has committed.
    ///
    /// # Errors
    /// The connection's, and any error reply.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        let xid = self.next_xid;
        self.next_xid += 1;
        wire::request(&mut out, xid, op::SYNC, |out| wire::buffer(out, b"/"));
        self.stream.write_all(&out)?;
        self.read_reply(xid, &[0]).map(|_| ())
    }

    /// Closes the session and waits for the answer.
    ///
    /// # Errors
    /// The connection's.
    pub(crate) fn close(mut self) -> io::Result<()> {
        let mut out = Vec::new();
        wire::request(&mut out, self.next_xid, op::CLOSE_SESSION, |_| ());
        self.stream.write_all(&out)?;
        self.read_reply(self.next_xid, &[0]).map(|_| ())
    }

    fn read_reply(&mut self, xid: i32, allowed: &[i32]) -> io::Result<Vec<u8>> {
        let reply = wire::read_frame(&mut self.stream)?;
        let (got, error) = (wire::i32_at(&reply, 0), wire::i32_at(&reply, 12));
        if got != Some(xid) || !error.is_some_and(|error| allowed.contains(&error)) {
            return Err(io::Error::other(format!(
                "expected a reply to xid {xid}, got xid {got:?} with error {error:?}"
            )));
        }
        Ok(reply)
    }
}

/// How long one attempt may wait for its reply before another is made beside it. Apache ZooKeeper loses handshakes that
/// arrive while it starts, and never answers them.
const ATTEMPT_ALONE: Duration = Duration::from_millis(50);
/// How long an attempt is waited for in all. With the interval above it bounds the attempts under way to 100.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);

/// Tries until a fresh session has read `path`; returns its data and when it came. `alive` ends the wait early when it
/// turns false.
///
/// # Errors
/// The last failure, when `patience` has passed or the server is no longer alive.
pub(crate) fn await_first_reply(
    address: SocketAddr,
    path: &[u8],
    patience: Duration,
    mut alive: impl FnMut() -> bool,
) -> Result<(Vec<u8>, Instant), String> {
    let started = Instant::now();
    let (report, reports) = mpsc::channel();
    loop {
        let (report, path) = (report.clone(), path.to_vec());
        std::thread::spawn(move || report.send(first_reply(address, &path)));
        let failure = match reports.recv_timeout(ATTEMPT_ALONE) {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "a handshake without an answer".to_owned(),
        };
        if !alive() {
            return Err(format!("the server ended while starting ({failure})"));
        }
        if started.elapsed() > patience {
            return Err(format!("no reply yet: {failure}"));
        }
        // Often enough to time a start of hundreds of milliseconds, rarely enough not to slow it down.
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn first_reply(address: SocketAddr, path: &[u8]) -> io::Result<(Vec<u8>, Instant)> {
    let mut control = Control::open(address, ATTEMPT_LIMIT)?;
    let reply = (control.get(path)?, Instant::now());
    control.close()?;
    Ok(reply)
}
