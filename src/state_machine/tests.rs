//! Behaviour of the whole room, told as scripts.

use super::command::SessionBody;
use super::*;
use crate::proto::multi::{MultiReadRequest, MultiRequest, ReadOperation};
use crate::proto::reply::MultiResult;
use crate::proto::request::{
    CreateRequest, PathOnly, PathVersion, PathWatch, Query, ReconfigRequest, SetAclRequest, SetDataRequest, Write,
};
use crate::proto::{Decoder, OpCode, Xid};
use bytes::BytesMut;

const RULES: Rules = Rules(Rules::EXTENDED_TYPES.0 | Rules::DIGEST_SCHEME.0);
const ALICE: SessionId = SessionId(0x0100_0000_0000_000a);
const BOB: SessionId = SessionId(0x0100_0000_0000_000b);

/// A state, and somebody who sends it commands: the clock moves a second with each.
struct Bench {
    state: State,
    now_ms: i64,
    rules: Rules,
    changes: Vec<Change>,
    caller: Vec<Identity>,
}

fn origin(session: SessionId) -> Origin {
    Origin {
        server: ServerId(1),
        connection: ConnectionId((session.0 & 0xff).cast_unsigned()),
    }
}

impl Bench {
    fn new() -> Bench {
        let mut bench = Bench {
            state: State::new(),
            now_ms: 0,
            rules: RULES,
            changes: Vec::new(),
            caller: vec![Identity::new("ip", "127.0.0.1")],
        };
        for session in [ALICE, BOB] {
            assert_eq!(bench.open(session), Ok(Reply::Empty));
        }
        bench
    }

    fn raw(&mut self, origin: Origin, session: SessionId, op: OpCode, body: Bytes) -> Result<Reply, ErrorCode> {
        self.now_ms += 1000;
        let command = Command {
            origin,
            session,
            xid: Xid(1),
            identities: self.caller.clone().into(),
            op,
            body,
        };
        let stamp = Stamp {
            time_ms: self.now_ms,
            rules: self.rules,
        };
        self.changes.clear();
        self.state.apply(&stamp, &command, &mut self.changes).result
    }

    fn open(&mut self, session: SessionId) -> Result<Reply, ErrorCode> {
        self.raw(origin(session), session, OpCode::CreateSession, session_body(4000, 7))
    }

    fn close(&mut self, session: SessionId) -> Result<Reply, ErrorCode> {
        self.raw(origin(session), session, OpCode::CloseSession, Bytes::new())
    }

    fn write(&mut self, session: SessionId, write: &Write) -> Result<Reply, ErrorCode> {
        let mut body = BytesMut::new();
        write.encode(&mut body);
        self.raw(origin(session), session, write.op(), body.freeze())
    }

    fn create(&mut self, path: &str) -> Result<Reply, ErrorCode> {
        self.write(ALICE, &create(path, 0))
    }

    fn made(&mut self, path: &str, flags: i32) -> String {
        match self.write(ALICE, &create(path, flags)) {
            Ok(Reply::Path(path)) => path.as_str().to_owned(),
            other => panic!("{path} is created, but: {other:?}"),
        }
    }

    fn set(&mut self, path: &str, data: &str) -> Result<Reply, ErrorCode> {
        self.write(ALICE, &set(path, data, -1))
    }

    fn delete(&mut self, path: &str, version: i32) -> Result<Reply, ErrorCode> {
        self.write(ALICE, &delete(path, version))
    }

    fn sweep(&mut self, path: &str) -> Result<Reply, ErrorCode> {
        let mut body = BytesMut::new();
        crate::proto::jute::Encode::write_text(&mut body, path);
        self.raw(Origin::default(), SessionId(0), OpCode::DeleteContainer, body.freeze())
    }

    fn multi(&mut self, operations: Vec<Write>) -> Vec<MultiResult> {
        match self.write(ALICE, &Write::Multi(MultiRequest { operations })) {
            Ok(Reply::Multi(results)) => results,
            other => panic!("a multi answers with results, but: {other:?}"),
        }
    }

    fn stat(&self, path: &str) -> Stat {
        self.state.stat(path).unwrap_or_else(|| panic!("{path} exists"))
    }

    fn query(&self, query: &Query) -> Result<Bytes, ErrorCode> {
        let mut out = BytesMut::new();
        self.state.query(query, ALICE, &self.caller, false, &mut out)?;
        Ok(out.freeze())
    }

    fn data(&self, path: &str) -> Option<String> {
        let body = self.query(&Query::GetData(read(path))).expect("the znode exists");
        let data = Decoder::new(&body).buffer().expect("a body of getData");
        data.map(|data| String::from_utf8(data.to_vec()).expect("the data is text"))
    }

    fn children(&self, path: &str) -> Vec<String> {
        let body = self.query(&Query::GetChildren(read(path))).expect("the znode exists");
        let names = Decoder::new(&body)
            .vector(4, Decoder::text)
            .expect("a body of getChildren");
        let mut names: Vec<String> = names
            .into_iter()
            .flatten()
            .map(|name| name.as_str().to_owned())
            .collect();
        names.sort();
        names
    }
}

fn session_body(timeout_ms: i32, password: u8) -> Bytes {
    SessionBody {
        timeout_ms,
        password: [password; 16],
    }
    .to_bytes()
}

fn create_as(op: OpCode, path: &str, flags: i32, acl: Vec<Acl>, ttl_ms: Option<i64>) -> Write {
    Write::Create(
        op,
        CreateRequest {
            path: path.into(),
            data: Some(Bytes::from_static(b"data")),
            acl: Some(acl),
            flags,
            ttl_ms,
        },
    )
}

fn create(path: &str, flags: i32) -> Write {
    create_as(OpCode::Create, path, flags, vec![Acl::open()], None)
}

fn set(path: &str, data: &str, version: i32) -> Write {
    Write::SetData(SetDataRequest {
        path: path.into(),
        data: Some(Bytes::copy_from_slice(data.as_bytes())),
        version,
    })
}

fn path_version(path: &str, version: i32) -> PathVersion {
    PathVersion {
        path: path.into(),
        version,
    }
}

fn delete(path: &str, version: i32) -> Write {
    Write::Delete(path_version(path, version))
}

fn check(path: &str, version: i32) -> Write {
    Write::Check(path_version(path, version))
}

fn read(path: &str) -> PathWatch {
    PathWatch {
        path: path.into(),
        watch: false,
    }
}

fn entry(permissions: Permissions, scheme: &str, id: &str) -> Acl {
    Acl {
        permissions,
        identity: Identity::new(scheme, id),
    }
}

#[test]
fn a_fresh_server_has_what_apaches_has() {
    let state = State::new();
    let counts = state.counts();
    assert_eq!((counts.znodes, counts.approximate_data_bytes), (5, 44));
    let visible = |path: &str| {
        let stat = state.stat(path).unwrap();
        (
            stat.cversion,
            stat.num_children,
            stat.version,
            stat.aversion,
            stat.data_length,
        )
    };
    assert_eq!(visible("/"), (-1, 1, 0, 0, 0));
    assert_eq!(visible("/zookeeper"), (-2, 2, 0, 0, 0));
    assert_eq!(visible("/zookeeper/config"), (0, 0, 0, -1, 0));
    assert!(
        !state
            .acl_of("/zookeeper/config")
            .unwrap()
            .permits(Permissions::WRITE, &[])
    );
}

#[test]
fn stats_move_as_in_apache() {
    let mut bench = Bench::new();
    bench.create("/a").unwrap(); // zxid 3, at 3 s
    bench.create("/a/b").unwrap(); // 4
    bench.set("/a", "xy").unwrap(); // 5
    let stat = bench.stat("/a");
    let expected = Stat {
        czxid: Zxid(3),
        mzxid: Zxid(5),
        ctime: 3000,
        mtime: 5000,
        version: 1,
        cversion: 1,
        aversion: 0,
        ephemeral_owner: SessionId(0),
        data_length: 2,
        num_children: 1,
        pzxid: Zxid(4),
    };
    assert_eq!(stat, expected);
    assert_eq!(bench.delete("/a/b", 7), Err(ErrorCode::BadVersion)); // 6: a failure takes a zxid
    bench.delete("/a/b", 0).unwrap(); // 7
    let stat = bench.stat("/a");
    assert_eq!((stat.cversion, stat.num_children, stat.pzxid), (2, 0, Zxid(7)));
    assert_eq!(bench.state.zxid(), Zxid(7));
}

#[test]
fn sequential_numbers_are_the_parents_count_of_creations() {
    let mut bench = Bench::new();
    bench.create("/q").unwrap();
    assert_eq!(bench.made("/q/a-", 2), "/q/a-0000000000");
    assert_eq!(bench.made("/q/plain", 0), "/q/plain");
    assert_eq!(bench.made("/q/", 3), "/q/0000000002");
    bench.delete("/q/plain", -1).unwrap();
    assert_eq!(bench.create("/q/a-0000000000"), Err(ErrorCode::NodeExists));
    assert_eq!(bench.made("/q/b-", 2), "/q/b-0000000003");
}

#[test]
fn a_multi_is_whole_or_nothing() {
    let mut bench = Bench::new();
    bench.create("/q").unwrap();
    bench.create("/q/old").unwrap();
    let before = (bench.stat("/q"), bench.state.digest(), bench.children("/q"));
    let results = bench.multi(vec![
        create("/q/n-", 2),
        set("/q/old", "new", 0),
        delete("/q/old", 1),
        create("/q/old", 0),
        delete("/q/nothing", -1),
        check("/q", -1),
    ]);
    let expected = [
        None,
        None,
        None,
        None,
        Some(ErrorCode::NoNode),
        Some(ErrorCode::RuntimeInconsistency),
    ];
    assert_eq!(results, expected.map(MultiResult::Failed).to_vec());
    assert_eq!((bench.stat("/q"), bench.state.digest(), bench.children("/q")), before);
    assert_eq!(bench.data("/q/old").as_deref(), Some("data"));
    assert!(bench.changes.is_empty());

    let results = bench.multi(vec![
        create("/q/n-", 2),
        create("/q/n-", 2),
        set("/q/n-0000000001", "x", 0),
    ]);
    assert!(
        matches!(&results[1], MultiResult::Create(path) if path.as_str() == "/q/n-0000000002"),
        "{results:?}"
    );
}

#[test]
fn closing_a_session_removes_its_ephemerals_in_one_step() {
    let mut bench = Bench::new();
    for name in ["/c", "/a", "/b"] {
        assert_eq!(bench.made(name, 1), name);
    }
    assert_eq!(bench.state.counts().ephemerals, 3);
    assert_eq!(bench.create("/a/child"), Err(ErrorCode::NoChildrenForEphemerals));
    let zxid = bench.state.zxid();
    assert_eq!(bench.close(ALICE), Ok(Reply::Empty));
    let told: Vec<String> = bench.changes.iter().map(told).collect();
    assert_eq!(
        told,
        ["deleted /a", "deleted /b", "deleted /c", "closed 0x10000000000000a"]
    );
    assert_eq!(bench.state.zxid(), zxid.next());
    assert_eq!(bench.state.stat("/a"), None);
    assert_eq!(bench.create("/x"), Err(ErrorCode::SessionExpired));
    assert_eq!(bench.close(ALICE), Err(ErrorCode::SessionExpired));
}

pub(super) fn told(change: &Change) -> String {
    match change {
        Change::Created { path, .. } => format!("created {path}"),
        Change::Deleted { path, .. } => format!("deleted {path}"),
        Change::DataChanged { path, .. } => format!("changed {path}"),
        Change::SessionOpened { session } => format!("opened {session}"),
        Change::SessionAttached { session } => format!("attached {session}"),
        Change::SessionClosed { session } => format!("closed {session}"),
    }
}
