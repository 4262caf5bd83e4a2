//! Behaviour of the whole room, told as scripts.

use super::command::SessionBody;
use super::*;
use crate::proto::multi::{MultiReadRequest, MultiRequest, ReadOperation};
use crate::proto::reply::MultiResult;
use crate::proto::request::{
    CreateRequest, PathOnly, PathVersion, PathWatch, Prefix, Query, SetAclRequest, SetDataRequest, Write,
};
use crate::proto::{Decoder, OpCode, SharedPart, Xid};
use bytes::{Bytes, BytesMut};

pub(super) const RULES: Rules = Rules(Rules::EXTENDED_TYPES.0 | Rules::DIGEST_SCHEME.0);
pub(super) const ALICE: SessionId = SessionId(0x0100_0000_0000_000a);
const BOB: SessionId = SessionId(0x0100_0000_0000_000b);

/// A state, and somebody who sends it commands: the clock moves a second with each.
pub(super) struct Bench {
    pub(super) state: State,
    pub(super) now_ms: i64,
    pub(super) rules: Rules,
    pub(super) changes: Vec<Change>,
    pub(super) caller: Vec<Identity>,
}

pub(super) fn origin(session: SessionId) -> Origin {
    Origin {
        server: ServerId(1),
        connection: ConnectionId((session.0 & 0xff).cast_unsigned()),
    }
}

impl Bench {
    pub(super) fn new() -> Bench {
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

    pub(super) fn raw(
        &mut self,
        origin: Origin,
        session: SessionId,
        op: OpCode,
        body: Bytes,
    ) -> Result<Reply, ErrorCode> {
        self.command(&Command {
            origin,
            session,
            xid: Xid(1),
            identities: self.caller.clone().into(),
            op,
            body,
        })
    }

    pub(super) fn command(&mut self, command: &Command) -> Result<Reply, ErrorCode> {
        self.now_ms += 1000;
        let stamp = Stamp {
            time_ms: self.now_ms,
            rules: self.rules,
        };
        self.changes.clear();
        self.state.apply(&stamp, command, &mut self.changes).result
    }

    fn open(&mut self, session: SessionId) -> Result<Reply, ErrorCode> {
        self.raw(origin(session), session, OpCode::CreateSession, session_body(4000, 7))
    }

    fn close(&mut self, session: SessionId) -> Result<Reply, ErrorCode> {
        self.raw(origin(session), session, OpCode::CloseSession, Bytes::new())
    }

    pub(super) fn write(&mut self, session: SessionId, write: &Write) -> Result<Reply, ErrorCode> {
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

    pub(super) fn set(&mut self, path: &str, data: &str) -> Result<Reply, ErrorCode> {
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

    pub(super) fn stat(&self, path: &str) -> Stat {
        self.state.stat(path).unwrap_or_else(|| panic!("{path} exists"))
    }

    fn query(&self, query: &Query) -> Result<Bytes, ErrorCode> {
        let mut out = BytesMut::new();
        let shared = self.state.query(query, ALICE, &self.caller, false, &mut out)?;
        if let Some(SharedPart { at, bytes }) = shared {
            let behind = out.split_off(at);
            out.extend_from_slice(&bytes);
            out.extend_from_slice(&behind);
        }
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

#[test]
fn errors_come_in_apaches_order() {
    // Traps 26, 27, 28: which of several errors a client sees.
    let mut bench = Bench::new();
    let closed = vec![entry(Permissions::READ, "world", "anyone")];
    let locked = create_as(OpCode::Create, "/locked", 0, closed, None);
    bench.write(ALICE, &locked).unwrap();
    bench.made("/ephemeral", 1);
    bench.made("/parent", 0);
    bench.made("/parent/child", 0);
    let bad_list = || vec![entry(Permissions::ALL, "nobody", "knows")];
    let table: Vec<(Write, Result<(), ErrorCode>)> = vec![
        (create("no-slash", 9), Err(ErrorCode::BadArguments)),
        (
            create_as(OpCode::Create, "no-slash", 0, bad_list(), None),
            Err(ErrorCode::BadArguments),
        ),
        (
            create_as(OpCode::Create, "/no/parent", 0, bad_list(), None),
            Err(ErrorCode::InvalidAcl),
        ),
        (create("/no/parent//", 0), Err(ErrorCode::NoNode)),
        (create("/locked/..", 0), Err(ErrorCode::NoAuth)),
        (create("/parent/..", 0), Err(ErrorCode::BadArguments)),
        (create("/", 0), Err(ErrorCode::NodeExists)),
        (create("", 0), Err(ErrorCode::BadArguments)),
        (create("//a", 0), Err(ErrorCode::BadArguments)),
        (create("/parent/\u{fffd}", 0), Err(ErrorCode::BadArguments)),
        (create("/ephemeral/a", 0), Err(ErrorCode::NoChildrenForEphemerals)),
        (create("/parent/child", 0), Err(ErrorCode::NodeExists)),
        (delete("no-slash", -1), Err(ErrorCode::BadArguments)),
        (delete("/", -1), Err(ErrorCode::BadArguments)),
        (delete("/zookeeper/config", -1), Err(ErrorCode::BadArguments)),
        (delete("/no/parent", -1), Err(ErrorCode::NoNode)),
        (delete("/locked/nothing", -1), Err(ErrorCode::NoAuth)),
        (delete("/parent", 5), Err(ErrorCode::BadVersion)),
        (delete("/parent", 0), Err(ErrorCode::NotEmpty)),
        (delete("/parent/", 0), Err(ErrorCode::NoNode)),
        (set("/parent/", "", -1), Err(ErrorCode::BadArguments)),
        (set("/nothing", "", -1), Err(ErrorCode::NoNode)),
        (set("/locked", "", 5), Err(ErrorCode::NoAuth)),
        (set("/parent", "", 5), Err(ErrorCode::BadVersion)),
        (set("", "", -1), Err(ErrorCode::BadArguments)),
        (check("/parent", -1), Err(ErrorCode::Unimplemented)),
        (delete("/locked", -1), Ok(())),
    ];
    for (write, expected) in table {
        let result = bench.write(ALICE, &write).map(|_| ());
        assert_eq!(result, expected, "{write:?}");
    }
}

#[test]
fn null_data_is_not_empty_data() {
    // Trap 29.
    let mut bench = Bench::new();
    bench.create("/a").unwrap();
    let null = Write::SetData(SetDataRequest {
        path: "/a".into(),
        data: None,
        version: -1,
    });
    bench.write(ALICE, &null).unwrap();
    assert_eq!((bench.data("/a"), bench.stat("/a").data_length), (None, 0));
    bench.set("/a", "").unwrap();
    assert_eq!(bench.data("/a").as_deref(), Some(""));
}

#[test]
fn a_session_is_its_owners_until_who_has_the_password_takes_it() {
    // Trap 12.
    let mut bench = Bench::new();
    assert_eq!(bench.open(ALICE), Err(ErrorCode::SystemError));
    let elsewhere = Origin {
        server: ServerId(2),
        connection: ConnectionId(77),
    };
    let attach = |bench: &mut Bench, password: u8| {
        bench.raw(elsewhere, ALICE, OpCode::AttachSession, session_body(9000, password))
    };
    assert_eq!(attach(&mut bench, 8), Err(ErrorCode::SessionExpired));
    assert_eq!(bench.state.session(ALICE).unwrap().timeout_ms, 4000);
    assert_eq!(attach(&mut bench, 7), Ok(Reply::Empty));
    assert_eq!(
        bench.changes.iter().map(told).collect::<Vec<_>>(),
        [format!("attached {ALICE}")]
    );
    assert_eq!(bench.state.session(ALICE).unwrap().timeout_ms, 9000);
    assert_eq!(bench.create("/a"), Err(ErrorCode::SessionMoved));
    assert_eq!(bench.close(ALICE), Err(ErrorCode::SessionMoved));
    // The leader closes whosever session it is.
    assert_eq!(
        bench.raw(Origin::default(), ALICE, OpCode::CloseSession, Bytes::new()),
        Ok(Reply::Empty)
    );
    assert_eq!(attach(&mut bench, 7), Err(ErrorCode::SessionExpired));
}

#[test]
fn containers_and_ttl_znodes_are_removed_when_their_time_has_come() {
    // Traps 42 and 43.
    let mut bench = Bench::new();
    let container = create_as(OpCode::CreateContainer, "/c", 4, vec![Acl::open()], None);
    bench.write(ALICE, &container).unwrap();
    let ttl = create_as(OpCode::CreateTtl, "/t", 5, vec![Acl::open()], Some(2_500));
    bench.write(ALICE, &ttl).unwrap();
    for path in ["/c", "/t"] {
        assert_eq!(bench.stat(path).ephemeral_owner, SessionId(0));
    }
    let removable = |bench: &Bench, max_never_used_ms: i64| {
        let paths = bench.state.removable(bench.now_ms, max_never_used_ms, 10);
        paths.iter().map(|path| path.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(removable(&bench, 0), [""; 0]);
    assert_eq!(removable(&bench, 999), ["/c"]);
    bench.create("/c/child").unwrap();
    assert_eq!(bench.sweep("/c"), Err(ErrorCode::NotEmpty));
    bench.delete("/c/child", -1).unwrap();
    assert_eq!(removable(&bench, 0), ["/c", "/t"]);
    bench.set("/t", "again").unwrap();
    assert_eq!(removable(&bench, 0), ["/c"]);
    assert_eq!(bench.sweep("/t"), Err(ErrorCode::BadVersion));
    assert_eq!(bench.sweep("/c"), Ok(Reply::Empty));
    assert_eq!(bench.sweep("/c"), Err(ErrorCode::NoNode));
    assert_eq!(bench.sweep("/t"), Ok(Reply::Empty));
    bench.create("/plain").unwrap();
    assert_eq!(bench.sweep("/plain"), Err(ErrorCode::BadArguments));
    let mut body = BytesMut::new();
    crate::proto::jute::Encode::write_text(&mut body, "/plain");
    let from_client = bench.raw(origin(ALICE), ALICE, OpCode::DeleteContainer, body.freeze());
    assert_eq!(from_client, Err(ErrorCode::Unimplemented));
}

#[test]
fn ttls_need_their_own_op_code_a_right_length_and_to_be_enabled() {
    let mut bench = Bench::new();
    let mut result = |op: OpCode, flags: i32, ttl_ms: Option<i64>| {
        let write = create_as(op, "/t", flags, vec![Acl::open()], ttl_ms);
        bench.write(ALICE, &write).map(|_| ())
    };
    for (op, flags, ttl_ms) in [
        (OpCode::Create, 5, None),
        (OpCode::CreateTtl, 0, Some(1000)),
        (OpCode::CreateTtl, 0, Some(-1)),
        (OpCode::CreateTtl, 5, Some(0)),
        (OpCode::CreateTtl, 5, Some(-1)),
        (OpCode::CreateTtl, 6, Some(0x100_0000_0000)),
    ] {
        assert_eq!(
            result(op, flags, ttl_ms),
            Err(ErrorCode::BadArguments),
            "{op:?} {flags} {ttl_ms:?}"
        );
    }
    assert_eq!(result(OpCode::CreateTtl, 6, Some(0xff_ffff_ffff)), Ok(()));
    bench.rules = Rules(0);
    let ttl = create_as(OpCode::CreateTtl, "no-slash", 5, vec![], Some(0));
    assert_eq!(bench.write(ALICE, &ttl), Err(ErrorCode::Unimplemented));
}

#[test]
fn the_digest_is_recorded_at_every_128th_zxid_and_the_newest_1024_are_kept() {
    let mut bench = Bench::new();
    bench.create("/a").unwrap();
    while bench.state.zxid() < Zxid(128 * 1025) {
        bench.set("/a", "data").unwrap();
    }
    let recorded: Vec<_> = bench.state.recorded_digests().collect();
    assert_eq!(recorded.len(), 1024);
    assert_eq!(recorded[0].0, Zxid(256));
    assert_eq!(recorded[1023], (Zxid(128 * 1025), bench.state.digest()));
}

#[test]
fn quotas_count_what_is_below_and_hard_ones_refuse() {
    let mut bench = Bench::new();
    bench.rules = RULES.with(Rules::ENFORCE_QUOTA, true);
    for path in ["/q", "/q/a", "/zookeeper/quota/q"] {
        bench.create(path).unwrap();
    }
    let limits = "/zookeeper/quota/q/zookeeper_limits";
    let stats = "/zookeeper/quota/q/zookeeper_stats";
    bench.create(limits).unwrap();
    bench.create(stats).unwrap();
    assert_eq!(bench.data(stats).as_deref(), Some("count=2,bytes=8"));
    let stat_before = bench.stat(stats);
    bench
        .set(limits, "count=-1,bytes=-1=;byteHardLimit=13;countHardLimit=3")
        .unwrap();
    bench.create("/q/b").unwrap();
    assert_eq!(bench.changes.iter().map(told).collect::<Vec<_>>(), ["created /q/b"]);
    assert_eq!(bench.data(stats).as_deref(), Some("count=3,bytes=12"));
    assert_eq!(
        (stat_before.version, stat_before.mzxid),
        (bench.stat(stats).version, bench.stat(stats).mzxid)
    );
    assert_eq!(bench.create("/q/c"), Err(ErrorCode::QuotaExceeded));
    // The quota is looked at before the version.
    assert_eq!(
        bench.write(ALICE, &set("/q/b", "longer", 7)),
        Err(ErrorCode::QuotaExceeded)
    );
    bench.set("/q/b", "12345").unwrap();
    bench.delete("/q/a", -1).unwrap();
    assert_eq!(bench.data(stats).as_deref(), Some("count=2,bytes=9"));
    let totals = QuotaTotals {
        count_limit: 3,
        bytes_limit: 13,
        count: 2,
        bytes: 9,
    };
    assert_eq!(bench.state.quota_totals(), [("q".to_owned(), totals)].into());
    bench.rules = RULES;
    bench.create("/q/c").unwrap();
    bench.set("/q/c", "far beyond the limit").unwrap();
    bench.delete(limits, -1).unwrap();
    bench.create("/q/d").unwrap();
    assert_eq!(bench.data(stats).as_deref(), Some("count=3,bytes=29"));
}

#[test]
fn hashes_are_masked_for_those_who_may_not_administer() {
    // Trap 31.
    let mut bench = Bench::new();
    let list = vec![
        entry(Permissions::ALL, "digest", "alice:hash"),
        entry(Permissions::READ, "world", "anyone"),
    ];
    bench
        .write(ALICE, &create_as(OpCode::Create, "/a", 0, list.clone(), None))
        .unwrap();
    let query = Query::GetAcl(PathOnly { path: "/a".into() });
    let seen = |bench: &Bench| {
        let body = bench.query(&query).unwrap();
        Acl::decode_list(&mut Decoder::new(&body)).unwrap().unwrap()
    };
    let masked = vec![entry(Permissions::ALL, "digest", "alice:x"), list[1].clone()];
    assert_eq!(seen(&bench), masked);
    bench.caller.push(Identity::new("digest", "alice:hash"));
    assert_eq!(seen(&bench), list);
    let take = Write::SetAcl(SetAclRequest {
        path: "/a".into(),
        acl: Some(vec![entry(Permissions::ADMIN, "auth", "")]),
        version: 0,
    });
    assert!(matches!(bench.write(ALICE, &take), Ok(Reply::Stat(stat)) if stat.aversion == 1));
    assert_eq!(bench.write(ALICE, &take), Err(ErrorCode::BadVersion));
    assert_eq!(bench.query(&Query::GetData(read("/a"))), Err(ErrorCode::NoAuth));
    bench.caller.clear();
    assert_eq!(bench.query(&query), Err(ErrorCode::NoAuth));
    assert_eq!(bench.query(&Query::Exists(read("/a"))), Err(ErrorCode::NoAuth));
}

#[test]
fn reads_take_paths_as_they_come() {
    let mut bench = Bench::new();
    bench.create("/a").unwrap();
    bench.create("/a/b").unwrap();
    bench.made("/e", 1);
    let numbers = |bench: &Bench, path: &str| {
        let query = Query::GetAllChildrenNumber(PathOnly { path: path.into() });
        bench.query(&query).map(|body| Decoder::new(&body).int().unwrap())
    };
    // Trap 33: descendants, not children.
    assert_eq!(numbers(&bench, "/"), Ok(6));
    assert_eq!(numbers(&bench, "/a"), Ok(1));
    assert_eq!(numbers(&bench, "/nothing"), Err(ErrorCode::NoNode));
    assert_eq!(
        bench.query(&Query::GetData(read(""))),
        bench.query(&Query::GetData(read("/")))
    );
    assert_eq!(bench.query(&Query::GetData(read("/a/"))), Err(ErrorCode::NoNode));
    assert_eq!(bench.query(&Query::GetData(read("/a\0"))), Err(ErrorCode::NoNode));
    assert_eq!(bench.query(&Query::Exists(read("/a\0"))), Err(ErrorCode::BadArguments));
    assert_eq!(bench.children("/"), ["a", "e", "zookeeper"]);
    // Trap 32: a prefix is the beginning of a string.
    for (prefix, found) in [("", 1), ("/", 1), (" ", 1), ("/e", 1), ("/ex", 0), ("e", 0)] {
        let query = Query::GetEphemerals(Prefix { path: prefix.into() });
        let body = bench.query(&query).unwrap();
        assert_eq!(Decoder::new(&body).int(), Ok(found), "{prefix:?}");
    }
}

#[test]
fn each_read_of_a_multi_read_is_answered_for_itself() {
    let mut bench = Bench::new();
    bench.create("/a").unwrap();
    let query = Query::MultiRead(MultiReadRequest {
        operations: vec![
            ReadOperation::GetData(read("/a")),
            ReadOperation::GetData(read("/nothing")),
            ReadOperation::GetChildren(read("/a")),
        ],
    });
    let body = bench.query(&query).unwrap();
    let mut decoder = Decoder::new(&body);
    let mut header = || {
        let header = crate::proto::multi::MultiHeader::decode(&mut decoder).unwrap();
        let rest = match header.op {
            4 => {
                decoder.buffer().unwrap();
                Stat::decode(&mut decoder).unwrap().data_length
            }
            8 => decoder.int().unwrap(),
            _ if header.done => 0,
            _ => decoder.int().unwrap(),
        };
        (header.op, header.done, header.error, rest)
    };
    assert_eq!(header(), (4, false, 0, 4));
    assert_eq!(header(), (-1, false, -101, -101));
    assert_eq!(header(), (8, false, 0, 0));
    assert_eq!(header(), (-1, true, -1, 0));
}

#[test]
fn a_body_that_cannot_be_read_takes_a_zxid_and_nothing_else() {
    let mut bench = Bench::new();
    let zxid = bench.state.zxid();
    let digest = bench.state.digest();
    let result = bench.raw(
        origin(ALICE),
        ALICE,
        OpCode::Create,
        Bytes::from_static(&[0, 0, 0, 9, b'/']),
    );
    assert_eq!(result, Err(ErrorCode::MarshallingError));
    assert_eq!((bench.state.zxid(), bench.state.digest()), (zxid.next(), digest));
    assert_eq!(
        bench.raw(origin(ALICE), ALICE, OpCode::Ping, Bytes::new()),
        Err(ErrorCode::Unimplemented)
    );
}

#[test]
fn a_checkpoint_holds_each_change_once() {
    let mut bench = Bench::new();
    bench.create("/a").unwrap();
    _ = bench.state.take_dirty();
    for number in 0..100 {
        bench.set("/a", &number.to_string()).unwrap();
        bench.create("/a/b").unwrap();
        bench.delete("/a/b", -1).unwrap();
    }
    let records = bench.state.take_dirty().records;
    let [Record::Node { name, data, .. }] = &records[..] else {
        panic!("one record: {records:?}")
    };
    assert_eq!(
        (name.as_str(), data),
        ("a", &DataRecord::Set(Some(Value::from(&b"99"[..]))))
    );
    bench.create("/a/b").unwrap();
    let records = bench.state.take_dirty().records;
    let kept = |record: &&Record| {
        matches!(
            record,
            Record::Node {
                data: DataRecord::Kept,
                ..
            }
        )
    };
    assert_eq!(
        (records.len(), records.iter().filter(kept).count()),
        (2, 1),
        "{records:?}"
    );
    bench.delete("/a/b", -1).unwrap();
    bench.close(BOB).unwrap();
    let records = bench.state.take_dirty().records;
    assert!(
        matches!(&records[0], Record::NodeRemoved { parent, name } if parent.as_str() == "/a" && name.as_str() == "b")
    );
    assert!(records.contains(&Record::SessionRemoved(BOB)));
    assert_eq!((bench.state.dirty_len(), bench.state.dirty_bytes()), (0, 0));
}

#[test]
fn lists_of_rights_are_counted_as_memory_and_as_what_is_to_be_stored() {
    const LIST_BYTES: u64 = 1 << 20;
    let mut bench = Bench::new();
    _ = bench.state.take_dirty();
    let before = (bench.state.memory_bytes(), bench.state.dirty_bytes());
    let grown = |bench: &Bench| {
        (
            (bench.state.memory_bytes() - before.0) / LIST_BYTES,
            (bench.state.dirty_bytes() - before.1) / LIST_BYTES,
        )
    };
    let list = |number: u64| {
        let user = format!("{number}:{}", "x".repeat(LIST_BYTES as usize));
        vec![Acl {
            permissions: Permissions::ALL,
            identity: Identity::new("digest", &user),
        }]
    };
    let create = |bench: &mut Bench, path: &str, number| {
        let made = bench.write(ALICE, &create_as(OpCode::Create, path, 0, list(number), None));
        assert!(made.is_ok(), "{path}: {made:?}");
    };
    for number in 0..10 {
        create(&mut bench, &format!("/{number}"), number);
    }
    // Kept once, however many have it.
    create(&mut bench, "/again", 3);
    assert_eq!(grown(&bench), (10, 10));
    let checkpoint = bench.state.take_dirty();
    assert_eq!(checkpoint.bytes() / LIST_BYTES, 10);
    assert_eq!(grown(&bench), (10, 0));
    // One that is stored, and one that never will be.
    bench.delete("/0", -1).unwrap();
    create(&mut bench, "/new", 10);
    assert_eq!(grown(&bench), (10, 1));
    bench.delete("/new", -1).unwrap();
    assert_eq!(grown(&bench), (9, 0));
    bench.delete("/3", -1).unwrap();
    assert_eq!(grown(&bench), (9, 0));
    for number in [1, 2, 4, 5, 6, 7, 8, 9] {
        bench.delete(&format!("/{number}"), -1).unwrap();
    }
    bench.delete("/again", -1).unwrap();
    _ = bench.state.take_dirty();
    assert_eq!((bench.state.memory_bytes(), bench.state.dirty_bytes()), before);
}

#[test]
fn a_checkpoint_in_steps_is_the_same_as_at_once() {
    let changed = || {
        let mut bench = Bench::new();
        bench.create("/gone").unwrap();
        _ = bench.state.take_dirty();
        bench.create("/a").unwrap();
        for number in 0..10 {
            bench.create(&format!("/a/{number}")).unwrap();
        }
        bench.delete("/a/7", -1).unwrap();
        bench.delete("/gone", -1).unwrap();
        bench.state
    };
    let whole = changed().take_dirty();
    let mut state = changed();
    let mut draft = state.begin_checkpoint();
    let mut steps = 1;
    while state.draft_nodes(&mut draft, 3) {
        steps += 1;
    }
    assert!(steps > 3, "three of a dozen znodes at a time: {steps}");
    assert_eq!(state.finish_checkpoint(draft), whole);
    assert_eq!(state.take_dirty().records, []);
}

#[test]
fn records_that_do_not_fit_together_are_refused() {
    let record = |acl: u32, owner: i64| NodeRecord {
        stat: StoredStat {
            acl: AclId(acl),
            owner,
            ..StoredStat::default()
        },
        data: None,
    };
    let rooted = || {
        let mut loader = State::loader();
        loader.node(b"", b"", record(0, 0)).unwrap();
        loader
    };
    assert_eq!(State::loader().finish(Zxid(1), 0).err(), Some(LoadError::NoRoot));
    assert!(matches!(
        State::loader().node(b"/", b"a", record(0, 0)),
        Err(LoadError::NoParent(_))
    ));
    assert!(matches!(
        rooted().node(b"/no", b"a", record(0, 0)),
        Err(LoadError::NoParent(_))
    ));
    assert!(matches!(
        rooted().node(b"/", b"a", record(3, 0)),
        Err(LoadError::NoAcl { .. })
    ));
    assert!(matches!(
        rooted().node(b"/", b"a", record(0, 5)),
        Err(LoadError::NoSession { .. })
    ));
    assert!(matches!(
        rooted().node(b"/", b"", record(0, 0)),
        Err(LoadError::BadName(_))
    ));
    assert!(matches!(rooted().finish(Zxid(1), 7), Err(LoadError::Digest { .. })));
    let mut loader = rooted();
    loader.node(b"/", b"a", record(0, 0)).unwrap();
    assert!(matches!(
        loader.node(b"/", b"a", record(0, 0)),
        Err(LoadError::BadName(_))
    ));
}

#[test]
fn the_digest_is_apaches() {
    // The expected numbers are what Apache's own DataTree (3.9.5) computed for the same changes, zxids and times.
    assert_eq!(State::new().digest(), 1_371_985_504);
    let mut bench = Bench::new();
    bench.create("/a").unwrap();
    assert_eq!(bench.state.digest(), 6_795_177_884);
    bench.made("/a/b", 1);
    assert_eq!(bench.state.digest(), 7_901_347_686);
    bench.set("/a", "xy").unwrap();
    assert_eq!(bench.state.digest(), 11_385_395_782);
    let set_acl = Write::SetAcl(SetAclRequest {
        path: "/a".into(),
        acl: Some(vec![Acl::open()]),
        version: -1,
    });
    bench.write(ALICE, &set_acl).unwrap();
    assert_eq!(bench.state.digest(), 11_160_274_439);
    bench.delete("/a/b", -1).unwrap();
    assert_eq!(bench.state.digest(), 6_593_639_699);
}

#[test]
fn ids_that_mark_other_znodes_are_no_sessions() {
    let mut bench = Bench::new();
    for id in [SessionId(0), SessionId(i64::MIN)] {
        assert_eq!(bench.open(id), Err(ErrorCode::SystemError));
    }
}

#[test]
fn while_the_disk_is_short_what_grows_is_refused_and_the_rest_goes_on() {
    let mut bench = Bench::new();
    for path in ["/a", "/b", "/c"] {
        bench.create(path).unwrap();
    }
    bench.made("/ephemeral", 1);
    let refused = Err(ErrorCode::SystemError);
    bench.rules = RULES.with(Rules::NO_GROWTH, true);
    let digest = bench.state.digest();
    assert_eq!(bench.create("/d"), refused);
    assert_eq!(bench.write(ALICE, &create("/e", 1)), refused);
    assert_eq!(bench.set("/a", "longer data"), refused);
    let wider = vec![Acl::open(), entry(Permissions::READ, "ip", "10.0.0.1")];
    let set_acl = |acl| {
        Write::SetAcl(SetAclRequest {
            path: "/a".into(),
            acl: Some(acl),
            version: -1,
        })
    };
    assert_eq!(bench.write(ALICE, &set_acl(wider)), refused);
    let results = bench.multi(vec![delete("/b", -1), create("/d", 0)]);
    assert_eq!(results[1], MultiResult::Failed(Some(ErrorCode::SystemError)));
    assert_eq!(bench.state.digest(), digest);
    // Other reasons come first: they would be given with room as well.
    assert_eq!(bench.create("/a"), Err(ErrorCode::NodeExists));
    assert_eq!(bench.create("/x/y"), Err(ErrorCode::NoNode));
    assert_eq!(
        bench.write(ALICE, &set("/a", "longer data", 7)),
        Err(ErrorCode::BadVersion)
    );

    bench.set("/a", "atad").unwrap();
    bench.set("/a", "").unwrap();
    assert_eq!(
        bench.write(ALICE, &set_acl(vec![entry(Permissions::ALL, "ip", "10.10.10.10")])),
        refused
    );
    bench
        .write(ALICE, &set_acl(vec![entry(Permissions::ALL, "ip", "0.0.0.0/0")]))
        .unwrap();
    bench.delete("/b", -1).unwrap();
    bench.multi(vec![delete("/c", -1)]);
    let carol = SessionId(0x0100_0000_0000_000c);
    assert_eq!(bench.open(carol), Ok(Reply::Empty));
    bench.close(carol).unwrap();
    bench.close(ALICE).unwrap();
    assert!(bench.state.stat("/ephemeral").is_none() && bench.state.stat("/b").is_none());
    bench.rules = RULES;
    bench.write(BOB, &create("/d", 0)).unwrap();
}
