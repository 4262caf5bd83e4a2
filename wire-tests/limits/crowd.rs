//! A server, crowds of sessions and sockets, and a bystander who notes how long he is kept waiting.

use super::client::{Connection, Reader, Received, Writer};
use super::server::{Server, free_address};
use super::{BYSTANDER, GET_DATA, PATIENCE, SET_DATA};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Sessions that are opened together, so that a crowd is no storm where none is wanted.
const TOGETHER: usize = 200;
/// Requests that are sent before the first reply is read.
const BURST: usize = 500;

/// Bodies of requests, and the frames around them.
pub(crate) mod request {
    use super::super::client::{self, Writer};
    use super::Identity;

    /// A read that registers no watch.
    pub(crate) fn path(body: &mut Writer, path: &str) {
        body.string(Some(path));
        body.boolean(false);
    }

    pub(crate) fn framed(xid: i32, op: i32, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.int(xid);
        writer.int(op);
        body(&mut writer);
        client::framed(&writer.bytes)
    }

    pub(crate) fn handshake(timeout_ms: i32, identity: &Identity) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.int(0);
        writer.long(0);
        writer.int(timeout_ms);
        writer.long(identity.session);
        writer.buffer(Some(&identity.password));
        writer.boolean(false);
        client::framed(&writer.bytes)
    }
}

/// What a session is resumed with.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) session: i64,
    password: [u8; 16],
}

impl Identity {
    /// For a new session.
    pub(crate) const NONE: Identity = Identity {
        session: 0,
        password: [0; 16],
    };
}

/// A server with its directory.
pub(crate) struct Stage {
    directory: tempfile::TempDir,
    address: SocketAddr,
    pub(crate) server: Server,
}

impl Stage {
    /// A fresh server; `settings` are lines of its zoo.cfg.
    pub(crate) fn open(settings: &str) -> Stage {
        Stage::prepare(settings, Server::start)
    }

    pub(crate) fn open_with_descriptors(descriptors: u64, settings: &str) -> Stage {
        Stage::prepare(settings, |directory, address| {
            Server::start_with_descriptors(descriptors, directory, address)
        })
    }

    fn prepare(settings: &str, start: impl FnOnce(&std::path::Path, SocketAddr) -> Server) -> Stage {
        let directory = tempfile::tempdir().expect("a directory");
        let address = free_address();
        let config = format!(
            "tickTime=2000\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\nmaxSessionTimeout=600000\n\
             admin.enableServer=false\nmaxClientCnxns=0\n4lw.commands.whitelist=*\n{settings}",
            directory.path().join("data").display(),
            address.port()
        );
        fs::write(directory.path().join("zoo.cfg"), config).expect("the configuration is written");
        let server = start(directory.path(), address);
        Stage {
            directory,
            address,
            server,
        }
    }

    pub(crate) fn start_again(&mut self) {
        self.server = Server::start(self.directory.path(), self.address);
    }

    pub(crate) fn socket(&self) -> TcpStream {
        connect(self.address)
    }

    pub(crate) fn guest(&self, timeout_ms: i32) -> Guest {
        self.hasty_guest(timeout_ms, &[])
    }

    /// One that sends these requests together with its handshake.
    pub(crate) fn hasty_guest(&self, timeout_ms: i32, requests: &[u8]) -> Guest {
        let mut guest = Guest::knock(self.address, timeout_ms, &Identity::NONE, requests);
        guest.enter();
        guest
    }

    /// So many sessions.
    pub(crate) fn crowd(&self, count: usize, timeout_ms: i32) -> Vec<Guest> {
        let mut guests = Vec::with_capacity(count);
        while guests.len() < count {
            let more = TOGETHER.min(count - guests.len());
            guests.extend(self.all_at_once(&vec![Identity::NONE; more], timeout_ms));
        }
        guests
    }

    /// All of them resume their sessions at the same time.
    pub(crate) fn come_back(&self, identities: &[Identity], timeout_ms: i32) -> Vec<Guest> {
        self.all_at_once(identities, timeout_ms)
    }

    fn all_at_once(&self, identities: &[Identity], timeout_ms: i32) -> Vec<Guest> {
        let knocking = identities
            .iter()
            .map(|identity| Guest::knock(self.address, timeout_ms, identity, &[]));
        let mut guests: Vec<Guest> = knocking.collect();
        guests.iter_mut().for_each(Guest::enter);
        guests
    }

    /// A number of `mntr`.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        self.try_metric(name).unwrap_or_else(|| panic!("mntr has no {name}"))
    }

    /// `None` where the question is not let in, too.
    pub(crate) fn try_metric(&self, name: &str) -> Option<u64> {
        let mut socket = self.socket();
        send(&mut socket, b"mntr");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let value = answer
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'))?;
        value.parse().ok()
    }

    /// Does `work` while somebody else sets and gets `path`, and gives the longest time that a request of his took.
    pub(crate) fn beside_a_bystander<T>(&self, path: &str, work: impl FnOnce(&Stage) -> T) -> (T, Duration) {
        let is_over = AtomicBool::new(false);
        let mut bystander = self.guest(30_000);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let mut worst = Duration::ZERO;
                let mut rounds = 0;
                while !is_over.load(Relaxed) || rounds == 0 {
                    let started = Instant::now();
                    assert_eq!(bystander.ask(SET_DATA, |body| body.set(path, b"0", -1)).0, 0);
                    assert_eq!(bystander.ask(GET_DATA, |body| request::path(body, path)).0, 0);
                    worst = worst.max(started.elapsed());
                    rounds += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                worst
            });
            let ends = EndsWith(&is_over);
            let done = work(self);
            drop(ends);
            let worst = waiting.join().expect("the bystander is served");
            assert!(worst < BYSTANDER, "Bounded: a bystander waited for {worst:?}");
            (done, worst)
        })
    }
}

/// Says that it is over, even if what is done beside fails.
struct EndsWith<'a>(&'a AtomicBool);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A session of a crowd.
pub(crate) struct Guest {
    connection: Connection,
    identity: Identity,
    xid: i32,
}

impl Guest {
    /// Connects and sends the handshake, and these requests behind it.
    fn knock(address: SocketAddr, timeout_ms: i32, identity: &Identity, requests: &[u8]) -> Guest {
        let started = Instant::now();
        let mut connection = loop {
            match Connection::open(address) {
                Ok(connection) => break connection,
                Err(error) => assert!(started.elapsed() < PATIENCE, "nobody listens: {error}"),
            }
        };
        connection.send(&[&request::handshake(timeout_ms, identity)[..], requests].concat());
        Guest {
            connection,
            identity: identity.clone(),
            xid: 0,
        }
    }

    /// Reads the answer to the handshake.
    fn enter(&mut self) {
        let Received::Frame(frame) = self.connection.receive() else {
            panic!("no answer to a handshake")
        };
        let mut reader = Reader::new(&frame);
        for field in ["version", "timeout"] {
            reader.int(field).expect("a ConnectResponse");
        }
        let session = reader.long("session").expect("a ConnectResponse");
        let password = reader
            .buffer("password")
            .expect("a ConnectResponse")
            .unwrap_or_default();
        self.identity = Identity {
            session,
            password: password.try_into().unwrap_or_default(),
        };
    }

    pub(crate) fn session(&self) -> i64 {
        self.identity.session
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity.clone()
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.connection.send(bytes);
    }

    pub(crate) fn send(&mut self, op: i32, body: impl FnOnce(&mut Writer)) {
        self.xid += 1;
        let frame = request::framed(self.xid, op, body);
        self.connection.send(&frame);
    }

    /// Error and body of the next reply.
    pub(crate) fn receive(&mut self) -> (i32, Vec<u8>) {
        let Received::Frame(frame) = self.connection.receive() else {
            panic!("session {:#x} got no answer", self.identity.session)
        };
        let error = Reader::new(&frame[12..]).int("err").expect("a reply has a header");
        (error, frame[16..].to_vec())
    }

    pub(crate) fn ask(&mut self, op: i32, body: impl FnOnce(&mut Writer)) -> (i32, Vec<u8>) {
        self.send(op, body);
        self.receive()
    }

    pub(crate) fn create(&mut self, path: &str, data: &[u8], flags: i32) {
        let (error, _) = self.ask(super::CREATE, |body| body.create(path, data, flags));
        assert_eq!(error, 0, "creating {path}");
    }

    pub(crate) fn create_many(&mut self, count: usize, path: impl Fn(usize) -> String, flags: i32) {
        for first in (0..count).step_by(BURST) {
            let burst = first..count.min(first + BURST);
            for number in burst.clone() {
                self.send(super::CREATE, |body| body.create(&path(number), b"", flags));
            }
            burst.for_each(|_| assert_eq!(self.receive().0, 0));
        }
    }

    /// How many children there are.
    pub(crate) fn children(&mut self, path: &str) -> usize {
        let (error, body) = self.ask(super::GET_CHILDREN, |body| request::path(body, path));
        assert_eq!(error, 0, "listing {path}");
        Reader::new(&body).count("children").expect("children")
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("the kernel takes it");
    socket.set_nodelay(true).expect("an open socket");
    socket
}

/// Sends bytes. A connection that the server has closed swallows them.
pub(crate) fn send(socket: &mut TcpStream, bytes: &[u8]) {
    let _ = socket.write_all(bytes);
}

/// Whether the server closes this connection within `patience`. What it says before does not matter.
pub(crate) fn is_closed(socket: &mut TcpStream, patience: Duration) -> bool {
    socket.set_read_timeout(Some(patience)).expect("an open socket");
    let mut said = [0; 1024];
    loop {
        match socket.read(&mut said) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// Waits for what must come.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}: never");
        std::thread::sleep(Duration::from_millis(50));
    }
}
