//! A server with a large tree answers before it has read it: what it answers then is what was written, and what is written
//! then is not lost, though it is killed again before all was read.
//!
//! | promise | how it would show |
//! |---|---|
//! | Durable | a value, a creation or a deletion that was acknowledged before one of two kills is not there |
//! | Linear | a znode that is only not read yet is answered as one that does not exist; a listing is not whole |
//! | SessionOrder | of a read, a write and a read that are sent at once, the first sees the write, or the second does not |
//! | EphemeralIffSession | an ephemeral outlives its session, which was closed before the ephemeral was read; or goes with another's |

use super::client::{Connection, Handshake, Reader, Received, Writer, framed};
use super::random::Random;
use super::server::{Server, free_address};
use super::zoo_cfg;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const WORKERS: u64 = 4;
const GROUPS: u64 = 200;
const CHILDREN: u64 = 1000;
/// Creates in one multi.
const BATCH: u64 = 500;
/// Groups that hold nothing but ephemerals.
const HOLDING: u64 = 10;
/// What each worker does while the server still reads.
const OPERATIONS: u64 = 120;
/// All of the tree is read in a few seconds, or never.
const PATIENCE: Duration = Duration::from_secs(120);
const SESSION_TIMEOUT_MS: i32 = 600_000;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const GET_CHILDREN: i32 = 8;
const MULTI: i32 = 14;
const ALL_CHILDREN_NUMBER: i32 = 104;
const CLOSE: i32 = -11;

const NO_NODE: i32 = -101;
const NOT_EMPTY: i32 = -111;

/// A session, whichever connection it has.
pub(super) struct Client {
    address: SocketAddr,
    session: (i64, Vec<u8>),
    connection: Option<Connection>,
    xid: i32,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Client {
        let session = (0, Vec::new());
        Client {
            address,
            session,
            connection: None,
            xid: 0,
        }
    }

    /// Opens the session, or resumes it, which must be possible.
    pub(super) fn connect(&mut self) {
        let mut connection = Connection::open(self.address).expect("the server listens");
        let handshake = Handshake {
            last_zxid_seen: 0,
            timeout_ms: SESSION_TIMEOUT_MS,
            session_id: self.session.0,
            password: self.session.1.clone(),
            with_read_only_byte: true,
            behind: Vec::new(),
        };
        let welcome = connection.shake_hands(&handshake).expect("an answer").expect("no end");
        assert!(
            self.session.0 == 0 || self.session.0 == welcome.session_id,
            "EphemeralIffSession: a session is gone"
        );
        self.session = (welcome.session_id, welcome.password);
        self.connection = Some(connection);
    }

    pub(super) fn send(&mut self, op: i32, body: impl FnOnce(&mut Writer)) {
        self.xid += 1;
        let mut writer = Writer::default();
        writer.int(self.xid);
        writer.int(op);
        body(&mut writer);
        let connection = self.connection.as_mut().expect("connected");
        connection.send(&framed(&writer.bytes));
    }

    /// The next reply.
    pub(super) fn receive(&mut self) -> (i32, Vec<u8>) {
        let connection = self.connection.as_mut().expect("connected");
        let Received::Frame(frame) = connection.receive() else {
            panic!("a request got no reply")
        };
        let error = i32::from_be_bytes(frame[12..16].try_into().expect("a header"));
        (error, frame[16..].to_vec())
    }

    fn ask(&mut self, op: i32, body: impl FnOnce(&mut Writer)) -> (i32, Vec<u8>) {
        self.send(op, body);
        self.receive()
    }

    pub(super) fn send_read(&mut self, path: &str) {
        self.send(GET_DATA, |body| {
            body.string(Some(path));
            body.boolean(false);
        });
    }

    /// Data and version of the znode that was asked for.
    pub(super) fn receive_read(&mut self) -> Option<(String, i32)> {
        let (error, body) = self.receive();
        if error == NO_NODE {
            return None;
        }
        assert_eq!(error, 0);
        let mut reader = Reader::new(&body);
        let data = reader.buffer("data").expect("data").unwrap_or_default().to_vec();
        for field in ["czxid", "mzxid", "ctime", "mtime"] {
            reader.long(field).expect("a Stat");
        }
        let version = reader.int("version").expect("a Stat");
        Some((String::from_utf8(data).expect("our own"), version))
    }

    pub(super) fn read(&mut self, path: &str) -> Option<(String, i32)> {
        self.send_read(path);
        self.receive_read()
    }

    pub(super) fn send_set(&mut self, path: &str, value: &str) {
        self.send(SET_DATA, |body| {
            body.string(Some(path));
            body.buffer(Some(value.as_bytes()));
            body.int(-1);
        });
    }

    pub(super) fn create(&mut self, path: &str, value: &str, flags: i32) {
        let (error, _) = self.ask(CREATE, |body| put_create(body, path, value, flags));
        assert_eq!(error, 0, "creating {path}");
    }

    fn delete(&mut self, path: &str) -> i32 {
        let asked = |body: &mut Writer| {
            body.string(Some(path));
            body.int(-1);
        };
        self.ask(DELETE, asked).0
    }

    fn children(&mut self, path: &str) -> BTreeSet<String> {
        let (error, body) = self.ask(GET_CHILDREN, |body| {
            body.string(Some(path));
            body.boolean(false);
        });
        assert_eq!(error, 0, "listing {path}");
        let mut reader = Reader::new(&body);
        let count = reader.count("children").expect("children");
        let names = (0..count).map(|_| reader.string("child").expect("a name").expect("a name"));
        names.collect()
    }
}

pub(super) fn put_create(body: &mut Writer, path: &str, value: &str, flags: i32) {
    body.string(Some(path));
    body.buffer(Some(value.as_bytes()));
    body.int(1);
    body.int(31);
    body.string(Some("world"));
    body.string(Some("anyone"));
    body.int(flags);
}

fn group(number: u64) -> String {
    format!("/tree/group-{number:03}")
}

fn holding(number: u64) -> String {
    format!("/tree/holding-{number:03}")
}

/// One of several that each write to groups of their own, and know what must be there.
struct Worker {
    number: u64,
    random: Random,
    client: Client,
    /// Znodes that are not as they were filled in; `None`: deleted.
    changed: BTreeMap<String, Option<(String, i32)>>,
    created: u64,
}

impl Worker {
    fn expected(&self, path: &str) -> Option<(String, i32)> {
        let filled = || Some((path.to_owned(), 0));
        self.changed.get(path).cloned().unwrap_or_else(filled)
    }

    fn work(&mut self) {
        self.client.connect();
        for _ in 0..OPERATIONS {
            self.operate();
        }
    }

    fn operate(&mut self) {
        let parent = group(self.random.below(GROUPS / WORKERS) * WORKERS + self.number);
        let path = format!("{parent}/{}", self.random.below(CHILDREN));
        let expected = self.expected(&path);
        match self.random.below(8) {
            0 | 1 => assert_eq!(self.client.read(&path), expected, "Durable: {path}"),
            2 | 3 => self.read_write_read(path, expected),
            4 => {
                let path = format!("{parent}/new-{}", self.created);
                self.created += 1;
                assert_eq!(self.client.read(&path), None);
                self.client.create(&path, "new", 0);
                self.changed.insert(path, Some(("new".to_owned(), 0)));
            }
            5 => {
                let error = self.client.delete(&path);
                assert_eq!(error, if expected.is_some() { 0 } else { NO_NODE }, "deleting {path}");
                self.changed.insert(path, None);
            }
            6 => assert_eq!(self.client.delete(&parent), NOT_EMPTY, "Linear: {parent} has children"),
            _ => self.check_group(&parent),
        }
    }

    /// All three are on their way before the first is answered.
    fn read_write_read(&mut self, path: String, before: Option<(String, i32)>) {
        self.created += 1;
        let value = format!("value {}", self.created);
        self.client.send_read(&path);
        self.client.send_set(&path, &value);
        self.client.send_read(&path);
        assert_eq!(self.client.receive_read(), before, "SessionOrder: {path}");
        let error = self.client.receive().0;
        let after = before.map(|(_, version)| (value, version + 1));
        assert_eq!(error, if after.is_some() { 0 } else { NO_NODE });
        assert_eq!(self.client.receive_read(), after, "SessionOrder: {path}");
        self.changed.insert(path, after);
    }

    fn check_group(&mut self, parent: &str) {
        let mut expected: BTreeSet<String> = (0..CHILDREN).map(|number| number.to_string()).collect();
        let prefix = format!("{parent}/");
        for (path, value) in &self.changed {
            if let Some(name) = path.strip_prefix(&prefix) {
                match value {
                    Some(_) => _ = expected.insert(name.to_owned()),
                    None => _ = expected.remove(name),
                }
            }
        }
        assert!(
            self.client.children(parent) == expected,
            "Linear: a listing of {parent}"
        );
    }

    /// What was changed, and every listing.
    fn check_all(&mut self) {
        self.client.connect();
        for (path, expected) in self.changed.clone() {
            assert_eq!(self.client.read(&path), expected, "Durable: {path}");
        }
        for place in 0..GROUPS / WORKERS {
            self.check_group(&group(place * WORKERS + self.number));
        }
    }

    fn more_than_filled(&self) -> i64 {
        let created = self.changed.iter().filter(|(path, _)| path.contains("/new-")).count() as i64;
        let deleted = self.changed.values().filter(|value| value.is_none()).count() as i64;
        created - deleted
    }
}

/// Fills the tree, over one connection.
fn fill(client: &mut Client) {
    client.create("/tree", "", 0);
    (0..HOLDING).for_each(|number| client.create(&holding(number), "", 0));
    (0..GROUPS).for_each(|number| client.create(&group(number), "", 0));
    for number in 0..GROUPS {
        let parent = group(number);
        for first in (0..CHILDREN).step_by(usize::try_from(BATCH).expect("small")) {
            client.send(MULTI, |body| {
                for child in first..first + BATCH {
                    let path = format!("{parent}/{child}");
                    body.int(CREATE);
                    body.boolean(false);
                    body.int(-1);
                    put_create(body, &path, &path, 0);
                }
                body.int(-1);
                body.boolean(true);
                body.int(-1);
            });
        }
        for _ in 0..CHILDREN / BATCH {
            assert_eq!(client.receive().0, 0);
        }
    }
}

/// The last line of the server's log that says this.
fn last_line(directory: &Path, words: &str) -> Option<String> {
    let log = fs::read_to_string(directory.join("server.log")).expect("the log is readable");
    log.lines().rfind(|line| line.contains(words)).map(str::to_owned)
}

fn whole_trees(directory: &Path) -> usize {
    let log = fs::read_to_string(directory.join("server.log")).expect("the log is readable");
    log.matches("the whole tree is in memory").count()
}

#[test]
fn a_server_answers_truly_before_it_has_read_its_tree() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path();
    let address = free_address();
    fs::write(directory.join("zoo.cfg"), zoo_cfg(directory, address)).expect("the configuration is written");
    let mut server = Server::start(directory, address);
    let mut filler = Client::new(address);
    filler.connect();
    fill(&mut filler);
    let mut holders: Vec<Client> = (0..3).map(|_| Client::new(address)).collect();
    for (number, holder) in holders.iter_mut().enumerate() {
        holder.connect();
        (0..HOLDING).for_each(|at| holder.create(&format!("{}/{number}", holding(at)), "", 1));
    }
    let mut workers: Vec<Worker> = (0..WORKERS)
        .map(|number| Worker {
            number,
            random: Random::new(u64::from(std::process::id()) * WORKERS + number),
            client: Client::new(address),
            changed: BTreeMap::new(),
            created: 0,
        })
        .collect();
    workers.iter_mut().for_each(|worker| worker.client.connect());
    // What the log alone holds is replayed; most is in the tree on disk.
    server.kill();

    for (round, holder) in holders[..2].iter_mut().enumerate() {
        server = Server::start(directory, address);
        let before = whole_trees(directory);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                holder.connect();
                assert_eq!(holder.ask(CLOSE, |_| ()).0, 0);
            });
            for worker in &mut workers {
                scope.spawn(move || worker.work());
            }
        });
        let opened = last_line(directory, "the stored tree is open").expect("it was opened");
        let is_early = whole_trees(directory) == before;
        eprintln!("round {round}: done before all was read: {is_early}; {opened}");
        server.kill();
    }

    let mut server = Server::start(directory, address);
    for worker in &mut workers {
        worker.check_all();
    }
    holders[2].connect();
    for at in 0..HOLDING {
        let expected = BTreeSet::from(["2".to_owned()]);
        let found = holders[2].children(&holding(at));
        assert_eq!(found, expected, "EphemeralIffSession: what is left of three sessions");
    }
    // It is answered when all is there.
    let (error, body) = filler_again(&mut filler).ask(ALL_CHILDREN_NUMBER, |body| body.string(Some("/tree")));
    assert_eq!(error, 0);
    let changed: i64 = workers.iter().map(Worker::more_than_filled).sum();
    let expected = (GROUPS * (1 + CHILDREN) + HOLDING * 2).cast_signed() + changed;
    let found = Reader::new(&body).int("count").expect("a count");
    assert_eq!(i64::from(found), expected, "Linear: all znodes are counted");
    let started = Instant::now();
    while whole_trees(directory) == 0 {
        assert!(started.elapsed() < PATIENCE, "the tree is never read");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.terminate();
}

fn filler_again(filler: &mut Client) -> &mut Client {
    filler.connect();
    filler
}
