//! A server process, and clients that say and hear what the tests want.

use super::client::{Connection, Handshake, Reader, Received, Writer, framed};
use super::{Numbers, PATIENCE};
use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const DATA_CHANGED: i32 = 3;
pub const PERSISTENT: i32 = 0;
pub const EPHEMERAL: i32 = 1;
const EVENT_XID: i32 = -1;
const PING_XID: i32 = -2;
/// Longer than a test takes: no session is to end by itself.
const SESSION_TIMEOUT_MS: i32 = 600_000;
const POLL: Duration = Duration::from_millis(20);
/// A port is chosen before the server binds it; somebody else may be quicker. So often another one is tried.
const START_ATTEMPTS: usize = 4;

/// Numbers of operations.
pub mod op {
    pub const CREATE: i32 = 1;
    pub const EXISTS: i32 = 3;
    pub const GET_DATA: i32 = 4;
    pub const SET_DATA: i32 = 5;
    pub const PING: i32 = 11;
    pub const ADD_WATCH: i32 = 106;
}

/// A server process; killed when dropped.
pub struct Server {
    process: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Server {
    /// One with these lines in its zoo.cfg, and an empty data directory.
    pub fn start(settings: &str) -> Server {
        for _ in 1..START_ATTEMPTS {
            if let Some(server) = Server::try_start(settings) {
                return server;
            }
        }
        Server::try_start(settings).expect("the server starts")
    }

    fn try_start(settings: &str) -> Option<Server> {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        drop(listener);
        let config = format!(
            "dataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\nmaxSessionTimeout=1000000\nmaxClientCnxns=0\n\
             admin.enableServer=false\n4lw.commands.whitelist=*\n{settings}",
            directory.path().join("data").display(),
            address.port()
        );
        fs::write(directory.path().join("zoo.cfg"), config).expect("the configuration is written");
        let log = fs::File::create(directory.path().join("server.log")).expect("a log file");
        let mut process = Command::new(env!("CARGO_BIN_EXE_menagerie"))
            .arg("serve")
            .arg(directory.path().join("zoo.cfg"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program runs");
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if process.try_wait().expect("the process can be asked").is_some() {
                eprintln!("the server ended: {}", log_tail(directory.path()));
                return None;
            }
            assert!(started.elapsed() < PATIENCE, "{}", log_tail(directory.path()));
            std::thread::sleep(POLL);
        }
        Some(Server {
            process,
            address,
            directory,
        })
    }

    /// A new session that lasts.
    pub fn session(&self) -> Session {
        self.session_of(SESSION_TIMEOUT_MS)
    }

    /// A new session that ends after so long a silence.
    pub fn session_of(&self, timeout_ms: i32) -> Session {
        let mut connection = Connection::open(self.address).expect("the server listens");
        let handshake = Handshake {
            last_zxid_seen: 0,
            timeout_ms,
            session_id: 0,
            password: vec![0; 16],
            with_read_only_byte: true,
            behind: Vec::new(),
        };
        let welcome = connection.shake_hands(&handshake).expect("an answer");
        assert!(
            welcome.is_some_and(|welcome| welcome.session_id != 0),
            "no session: {}",
            log_tail(self.directory.path())
        );
        Session {
            connection,
            asked: 0,
            unanswered: VecDeque::new(),
        }
    }

    /// What `mntr` says.
    pub fn monitor(&self) -> Numbers {
        let mut stream = TcpStream::connect(self.address).expect("the server listens");
        stream.write_all(b"mntr").expect("it takes a word");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        lines
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Numbers) -> bool) {
        let started = Instant::now();
        while !is_so(&self.monitor()) {
            assert!(started.elapsed() < PATIENCE, "never: {what}");
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn log_tail(directory: &Path) -> String {
    let log = fs::read_to_string(directory.join("server.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// What a session hears.
#[derive(Debug)]
pub enum Frame {
    Reply(Reply),
    Event { zxid: i64, kind: i32, path: String },
}

#[derive(Debug)]
pub struct Reply {
    pub zxid: i64,
    pub error: i32,
    body: Vec<u8>,
}

impl Reply {
    /// Of a getData that has succeeded: the data, and what follows it.
    pub fn data(&self) -> (&[u8], usize) {
        assert_eq!(self.error, 0, "the znode is there");
        let mut reader = Reader::new(&self.body);
        let data = reader.buffer("data").expect("a buffer").unwrap_or_default();
        (data, reader.remaining())
    }
}

/// A client with a session, which numbers its requests and checks that they are answered in order.
pub struct Session {
    connection: Connection,
    asked: i32,
    /// The numbers that the next replies must have.
    unanswered: VecDeque<i32>,
}

impl Session {
    fn send(&mut self, op: i32, body: impl FnOnce(&mut Writer)) {
        self.asked += 1;
        // A ping is answered with a number of its own.
        let answered_as = if op == op::PING { PING_XID } else { self.asked };
        self.unanswered.push_back(answered_as);
        let mut writer = Writer::default();
        writer.int(self.asked);
        writer.int(op);
        body(&mut writer);
        self.connection.send(&framed(&writer.bytes));
    }

    pub fn send_get(&mut self, path: &str, watch: bool) {
        self.send(op::GET_DATA, |body| {
            body.string(Some(path));
            body.boolean(watch);
        });
    }

    pub fn send_exists(&mut self, path: &str, watch: bool) {
        self.send(op::EXISTS, |body| {
            body.string(Some(path));
            body.boolean(watch);
        });
    }

    pub fn send_set(&mut self, path: &str, data: &[u8]) {
        self.send(op::SET_DATA, |body| body.set(path, data, -1));
    }

    pub fn send_create(&mut self, path: &str, data: &[u8], flags: i32) {
        self.send(op::CREATE, |body| body.create(path, data, flags));
    }

    pub fn send_add_watch(&mut self, path: &str, mode: i32) {
        self.send(op::ADD_WATCH, |body| {
            body.string(Some(path));
            body.int(mode);
        });
    }

    /// A request that touches nothing.
    pub fn send_ping(&mut self) {
        self.send(op::PING, |_| {});
    }

    /// Creates a persistent znode.
    pub fn create(&mut self, path: &str, data: &[u8]) {
        self.send_create(path, data, 0);
        assert_eq!(self.reply().error, 0, "{path} is created");
    }

    /// What comes next.
    pub fn frame(&mut self) -> Frame {
        let bytes = match self.connection.receive() {
            Received::Frame(bytes) => bytes,
            other => panic!("{other:?} where a frame was due"),
        };
        let mut reader = Reader::new(&bytes);
        let header =
            (|| Ok::<_, super::client::Malformed>((reader.int("xid")?, reader.long("zxid")?, reader.int("err")?)))();
        let (xid, zxid, error) = header.expect("a header");
        if xid == EVENT_XID {
            let kind = reader.int("type").expect("a type");
            reader.int("state").expect("a state");
            let path = reader.string("path").expect("a path").unwrap_or_default();
            return Frame::Event { zxid, kind, path };
        }
        assert_eq!(
            Some(xid),
            self.unanswered.pop_front(),
            "SessionOrder: replies come in the order of the requests"
        );
        let body = bytes[bytes.len() - reader.remaining()..].to_vec();
        Frame::Reply(Reply { zxid, error, body })
    }

    /// The reply that must come next.
    pub fn reply(&mut self) -> Reply {
        match self.frame() {
            Frame::Reply(reply) => reply,
            event @ Frame::Event { .. } => panic!("{event:?} where a reply was due"),
        }
    }

    /// Nothing else was sent to it.
    pub fn is_quiet(&mut self) {
        self.send_ping();
        self.reply();
    }

    /// Sooner or later the server closes the connection.
    pub fn is_sent_away(&mut self) {
        loop {
            match self.connection.receive() {
                Received::Frame(_) => {}
                Received::Closed => return,
                Received::Silence => panic!("the connection is still open"),
            }
        }
    }
}
