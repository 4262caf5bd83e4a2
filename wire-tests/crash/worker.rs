//! One client of the crash test: it knows what it sent, what was acknowledged, and so what must be there.

use super::client::{Connection, Handshake, Reader, Received, Writer, framed};
use super::random::Random;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// Requests that are sent before the first reply is read.
const BURST: u64 = 12;
/// Long enough for a slow machine to start a server in: no session may be lost in this test.
const SESSION_TIMEOUT_MS: i32 = 600_000;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const GET_CHILDREN: i32 = 8;
const MULTI: i32 = 14;
const CLOSE: i32 = -11;

const NO_NODE: i32 = -101;
const NODE_EXISTS: i32 = -110;

/// What a request was, so that its reply can be held against what must be.
enum Asked {
    /// The register was set to this.
    Set(i32),
    /// Both halves of the pair were set to this.
    Pair(i32),
    /// A sequential znode with this payload was created.
    Sequential(String),
    /// The ephemeral was created or deleted.
    Ephemeral { create: bool },
    /// The register was read.
    Read,
}

/// A client, and all it knows. It outlives its connections.
pub(super) struct Worker {
    number: usize,
    random: Random,
    address: SocketAddr,
    session: (i64, Vec<u8>),
    last_zxid: i64,
    xid: i32,
    /// The register: values were set in order, so what is there lies between these two.
    acknowledged: i32,
    sent: i32,
    pair_acknowledged: i32,
    pair_sent: i32,
    payloads: u64,
    /// Sequential znodes that were acknowledged: payload → path.
    pub(super) sequential: BTreeMap<String, String>,
    /// `None`: the last request about it was not answered.
    ephemeral: Option<bool>,
    /// Requests answered, for the summary.
    pub(super) answered: u64,
}

/// The connection ended: the server was killed.
pub(super) struct Ended;

impl Worker {
    pub(super) fn new(number: usize, seed: u64, address: SocketAddr) -> Worker {
        Worker {
            number,
            random: Random::new(seed.wrapping_mul(1000) + number as u64),
            address,
            session: (0, Vec::new()),
            last_zxid: 0,
            xid: 0,
            acknowledged: 0,
            sent: 0,
            pair_acknowledged: 0,
            pair_sent: 0,
            payloads: 0,
            sequential: BTreeMap::new(),
            ephemeral: Some(false),
            answered: 0,
        }
    }

    fn register(&self) -> String {
        format!("/crash/register-{}", self.number)
    }

    fn half(&self, half: &str) -> String {
        format!("/crash/pair-{}-{half}", self.number)
    }

    fn ephemeral_path(&self) -> String {
        format!("/crash/ephemeral-{}", self.number)
    }

    /// Connects, checks what must be there, and works until the server is gone.
    pub(super) fn work(&mut self) {
        // Every end of the connection is expected here; whatever is wrong panics where it is seen.
        let _: Result<(), Ended> = self.try_work();
    }

    fn try_work(&mut self) -> Result<(), Ended> {
        let mut connection = self.connect()?;
        self.check(&mut connection)?;
        loop {
            self.burst(&mut connection)?;
        }
    }

    /// Connects and checks, and does no more.
    pub(super) fn connect_and_check(&mut self) -> Result<(), Ended> {
        let mut connection = self.connect()?;
        self.check(&mut connection)
    }

    /// Opens the session, or resumes it: it must still be there.
    fn connect(&mut self) -> Result<Connection, Ended> {
        let mut connection = Connection::open(self.address).map_err(|_| Ended)?;
        let handshake = Handshake {
            last_zxid_seen: self.last_zxid,
            timeout_ms: SESSION_TIMEOUT_MS,
            session_id: self.session.0,
            password: self.session.1.clone(),
            with_read_only_byte: true,
            behind: Vec::new(),
        };
        let welcome = connection
            .shake_hands(&handshake)
            .expect("a handshake has an answer or an end")
            .ok_or(Ended)?;
        if self.session.0 != 0 {
            assert_eq!(
                welcome.session_id, self.session.0,
                "EphemeralIffSession: session {:#x} is gone",
                self.session.0
            );
        }
        self.session = (welcome.session_id, welcome.password);
        Ok(connection)
    }

    fn send(&mut self, connection: &mut Connection, op: i32, body: impl FnOnce(&mut Writer)) -> i32 {
        self.xid += 1;
        let mut writer = Writer::default();
        writer.int(self.xid);
        writer.int(op);
        body(&mut writer);
        connection.send(&framed(&writer.bytes));
        self.xid
    }

    /// The next reply: its error code and body. Replies come in request order, and zxids never go back.
    fn receive(&mut self, connection: &mut Connection, xid: i32) -> Result<(i32, Vec<u8>), Ended> {
        let frame = match connection.receive() {
            Received::Frame(frame) => frame,
            Received::Closed => return Err(Ended),
            Received::Silence => panic!("request {xid} of worker {} got no answer and no end", self.number),
        };
        let mut reader = Reader::new(&frame);
        let header =
            (|| Ok::<_, super::client::Malformed>((reader.int("xid")?, reader.long("zxid")?, reader.int("err")?)))();
        let (got, zxid, error) = header.expect("a reply has a header");
        assert_eq!(got, xid, "SessionOrder: a reply out of order");
        assert!(
            zxid >= self.last_zxid,
            "SessionOrder: zxid {zxid:#x} after {:#x}",
            self.last_zxid
        );
        self.last_zxid = zxid;
        self.answered += 1;
        Ok((error, frame[16..].to_vec()))
    }

    fn ask(
        &mut self,
        connection: &mut Connection,
        op: i32,
        body: impl FnOnce(&mut Writer),
    ) -> Result<(i32, Vec<u8>), Ended> {
        let xid = self.send(connection, op, body);
        self.receive(connection, xid)
    }

    /// Data and version of a znode; `None` if there is none.
    fn read(&mut self, connection: &mut Connection, path: &str) -> Result<Option<(String, i32, i64)>, Ended> {
        let (error, body) = self.ask(connection, GET_DATA, |body| {
            body.string(Some(path));
            body.boolean(false);
        })?;
        if error == NO_NODE {
            return Ok(None);
        }
        assert_eq!(error, 0, "reading {path}");
        let mut reader = Reader::new(&body);
        let data = reader.buffer("data").expect("data").unwrap_or_default().to_vec();
        for field in ["czxid", "mzxid", "ctime", "mtime"] {
            reader.long(field).expect("a Stat");
        }
        let version = reader.int("version").expect("a Stat");
        for field in ["cversion", "aversion"] {
            reader.int(field).expect("a Stat");
        }
        let owner = reader.long("ephemeralOwner").expect("a Stat");
        Ok(Some((
            String::from_utf8(data).expect("our own payload"),
            version,
            owner,
        )))
    }

    fn make_sure(&mut self, connection: &mut Connection, path: &str) -> Result<(), Ended> {
        let (error, _) = self.ask(connection, CREATE, |body| create(body, path, "0", 0))?;
        assert!(error == 0 || error == NODE_EXISTS, "creating {path}: {error}");
        Ok(())
    }

    /// What is there must be what was acknowledged, or something that was sent after it.
    fn check(&mut self, connection: &mut Connection) -> Result<(), Ended> {
        for path in [
            "/crash".to_owned(),
            "/crash/queue".to_owned(),
            self.register(),
            self.half("a"),
            self.half("b"),
        ] {
            self.make_sure(connection, &path)?;
        }
        let path = self.register();
        let (value, version, _) = self.read(connection, &path)?.expect("Durable: the register is gone");
        let value: i32 = value.parse().expect("our own payload");
        let (acknowledged, sent) = (self.acknowledged, self.sent);
        assert!(
            (acknowledged..=sent).contains(&value),
            "Durable: {value} where {acknowledged} to {sent} must be"
        );
        assert_eq!(version, value, "Stat: each set counts the version once, none twice");
        (self.acknowledged, self.sent) = (value, value);
        self.check_pair(connection)?;
        self.check_ephemeral(connection)
    }

    fn check_pair(&mut self, connection: &mut Connection) -> Result<(), Ended> {
        let (a, b) = (self.half("a"), self.half("b"));
        let a = self.read(connection, &a)?.expect("Durable: half of the pair is gone");
        let b = self.read(connection, &b)?.expect("Durable: half of the pair is gone");
        assert_eq!(a, b, "Atomic: the halves of a multi differ");
        let value: i32 = a.0.parse().expect("our own payload");
        let (acknowledged, sent) = (self.pair_acknowledged, self.pair_sent);
        assert!(
            (acknowledged..=sent).contains(&value),
            "Durable: {value} where {acknowledged} to {sent} must be"
        );
        (self.pair_acknowledged, self.pair_sent) = (value, value);
        Ok(())
    }

    fn check_ephemeral(&mut self, connection: &mut Connection) -> Result<(), Ended> {
        let path = self.ephemeral_path();
        let found = self.read(connection, &path)?;
        if let Some(known) = self.ephemeral {
            assert_eq!(
                found.is_some(),
                known,
                "EphemeralIffSession: an ephemeral of a living session"
            );
        }
        if let Some((_, _, owner)) = &found {
            assert_eq!(*owner, self.session.0, "Stat: the ephemeral's owner");
        }
        self.ephemeral = Some(found.is_some());
        Ok(())
    }

    /// Sends some requests at once, then reads their replies.
    fn burst(&mut self, connection: &mut Connection) -> Result<(), Ended> {
        let mut asked = VecDeque::new();
        for _ in 0..=self.random.below(BURST) {
            let entry = self.send_one(connection);
            asked.push_back(entry);
        }
        while let Some((xid, entry)) = asked.pop_front() {
            let (error, body) = self.receive(connection, xid)?;
            self.learn(entry, error, &body);
        }
        Ok(())
    }

    fn send_one(&mut self, connection: &mut Connection) -> (i32, Asked) {
        match self.random.below(10) {
            0..=3 => {
                self.sent += 1;
                let (path, value) = (self.register(), self.sent);
                (
                    self.send(connection, SET_DATA, |body| set(body, &path, value)),
                    Asked::Set(value),
                )
            }
            4 | 5 => {
                self.pair_sent += 1;
                let (a, b, value) = (self.half("a"), self.half("b"), self.pair_sent);
                let xid = self.send(connection, MULTI, |body| {
                    for path in [&a, &b] {
                        multi_header(body, SET_DATA, false);
                        set(body, path, value);
                    }
                    multi_header(body, -1, true);
                });
                (xid, Asked::Pair(value))
            }
            6 | 7 => {
                self.payloads += 1;
                let payload = format!("{}:{}", self.number, self.payloads);
                let xid = self.send(connection, CREATE, |body| {
                    create(body, "/crash/queue/item-", &payload, 2)
                });
                (xid, Asked::Sequential(payload))
            }
            8 if self.ephemeral.is_some() => {
                let create_it = self.ephemeral == Some(false);
                // Not known before the reply; no second request about it in the same burst.
                self.ephemeral = None;
                let path = self.ephemeral_path();
                let xid = if create_it {
                    self.send(connection, CREATE, |body| create(body, &path, "e", 1))
                } else {
                    self.send(connection, DELETE, |body| {
                        body.string(Some(&path));
                        body.int(-1);
                    })
                };
                (xid, Asked::Ephemeral { create: create_it })
            }
            _ => {
                let path = self.register();
                let xid = self.send(connection, GET_DATA, |body| {
                    body.string(Some(&path));
                    body.boolean(false);
                });
                (xid, Asked::Read)
            }
        }
    }

    fn learn(&mut self, asked: Asked, error: i32, body: &[u8]) {
        assert_eq!(error, 0, "worker {} got an error", self.number);
        match asked {
            Asked::Set(value) => self.acknowledged = value,
            Asked::Pair(value) => self.pair_acknowledged = value,
            Asked::Ephemeral { create } => self.ephemeral = Some(create),
            Asked::Sequential(payload) => {
                let path = Reader::new(body).string("path").expect("a path").expect("a path");
                self.sequential.insert(payload, path);
            }
            Asked::Read => {
                let data = Reader::new(body)
                    .buffer("data")
                    .expect("data")
                    .unwrap_or_default()
                    .to_vec();
                let value: i32 = String::from_utf8(data)
                    .expect("our payload")
                    .parse()
                    .expect("our payload");
                assert!(
                    value >= self.acknowledged,
                    "SessionOrder: read {value} after {} was set",
                    self.acknowledged
                );
                // What was read must not be lost either.
                self.acknowledged = value;
            }
        }
    }

    /// All sequential znodes: path → payload.
    pub(super) fn queue(&mut self) -> Result<BTreeMap<String, String>, Ended> {
        let mut connection = self.connect()?;
        let (error, body) = self.ask(&mut connection, GET_CHILDREN, |body| {
            body.string(Some("/crash/queue"));
            body.boolean(false);
        })?;
        assert_eq!(error, 0);
        let mut reader = Reader::new(&body);
        let count = reader.count("children").expect("children");
        let mut queue = BTreeMap::new();
        for _ in 0..count {
            let name = reader.string("child").expect("a name").expect("a name");
            let path = format!("/crash/queue/{name}");
            let (payload, _, _) = self.read(&mut connection, &path)?.expect("a listed child is there");
            queue.insert(path, payload);
        }
        Ok(queue)
    }

    /// Closes the session: its ephemeral goes with it.
    pub(super) fn close(&mut self) -> Result<String, Ended> {
        let mut connection = self.connect()?;
        let (error, _) = self.ask(&mut connection, CLOSE, |_| ())?;
        assert_eq!(error, 0);
        Ok(self.ephemeral_path())
    }

    /// Whether a znode is there.
    pub(super) fn exists(&mut self, path: &str) -> Result<bool, Ended> {
        let mut connection = self.connect()?;
        Ok(self.read(&mut connection, path)?.is_some())
    }
}

fn create(body: &mut Writer, path: &str, payload: &str, flags: i32) {
    body.string(Some(path));
    body.buffer(Some(payload.as_bytes()));
    body.int(1);
    body.int(31);
    body.string(Some("world"));
    body.string(Some("anyone"));
    body.int(flags);
}

fn set(body: &mut Writer, path: &str, value: i32) {
    body.string(Some(path));
    body.buffer(Some(value.to_string().as_bytes()));
    body.int(-1);
}

fn multi_header(body: &mut Writer, op: i32, done: bool) {
    body.int(op);
    body.boolean(done);
    body.int(-1);
}
