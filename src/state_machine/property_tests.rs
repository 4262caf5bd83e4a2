//! The state machine against [`super::model`]: random commands, and after each of them everything must be equal. In
//! between, checkpoints are taken, and the state is thrown away and loaded from them.

use super::command::SessionBody;
use super::model::{Model, ModelSession};
use super::tests::told;
use super::*;
use crate::proto::multi::MultiRequest;
use crate::proto::request::{
    CreateRequest, PathVersion, PathWatch, Query, ReconfigRequest, SetAclRequest, SetDataRequest, Write,
};
use crate::proto::{Decoder, OpCode, SharedPart, Xid};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
enum Action {
    Open(SessionId),
    Attach(SessionId, ConnectionId, u8),
    Close(SessionId, ConnectionId),
    Write(SessionId, ConnectionId, usize, Write),
    Sweep(&'static str),
    Found(Option<u64>, &'static str),
    Wait(i64),
    Checkpoint,
    Restart,
}

/// The second looks like a TTL znode's owner.
const SESSIONS: [SessionId; 2] = [
    SessionId(0x0100_0000_0000_0001),
    SessionId(0xff00_0000_0000_0002_u64.cast_signed()),
];
/// Stands for the connection that has the session, whichever that is now.
const OWN: ConnectionId = ConnectionId(u64::MAX);
const PLAIN: &[&str] = &[
    "/a",
    "/b",
    "/a/a",
    "/a/b",
    "/b/a",
    "/a/a/a",
    "/a/b/n-",
    "/a/n-0000000001",
];
const ODD: &[&str] = &[
    "/",
    "",
    "a",
    "/a/",
    "//a",
    "/a//b",
    "/a/../b",
    "/a\0",
    "/zookeeper",
    "/zookeeper/config",
    "/zookeeper/quota",
    "/zookeeper/quota/a",
    "/zookeeper/quota/a/b",
    "/zookeeper/quota/zookeeper_stats",
];
const QUOTA: &[&str] = &[
    "/zookeeper/quota/a",
    "/zookeeper/quota/a/zookeeper_limits",
    "/zookeeper/quota/a/zookeeper_stats",
    "/zookeeper/quota/a/a",
    "/zookeeper/quota/a/a/zookeeper_limits",
    "/zookeeper/quota/a/a/zookeeper_stats",
];
const MEMBERSHIPS: &[&str] = &[
    "server.1=a:1:2:participant\nversion=0",
    "server.1=a:1:2:participant\nserver.2=b:1:2:participant;0.0.0.0:3\nversion=0",
    "server.1=a:1:2:participant\nserver.2=b:1:2:participant;0.0.0.0:3\nversion=14",
];
/// As they join or leave, or all that there shall be.
const SERVERS: &[&str] = &[
    "",
    "1",
    "2,3",
    "server.2=b:1:2;3",
    "server.3=c:1:2;3,server.4=d:1:2:observer;3",
    "server.1=z:1:2",
    "server.1=z:1:2,server.2=y:1:2",
];
const DATA: &[Option<&str>] = &[
    None,
    Some(""),
    Some("x"),
    Some("longer data"),
    Some("count=3,bytes=12=;byteHardLimit=12;countHardLimit=3"),
    Some("count=1,bytes=-1"),
];

fn callers() -> [Vec<Identity>; 4] {
    let ip = Identity::new("ip", "127.0.0.1");
    [
        vec![ip.clone()],
        vec![ip.clone(), Identity::new("digest", "alice:h")],
        vec![
            ip.clone(),
            Identity::new("digest", "bob:h"),
            Identity::new("digest", "alice:h"),
        ],
        vec![ip, Identity::new("super", "")],
    ]
}

fn acl_lists() -> Vec<Option<Vec<Acl>>> {
    let entry = |permissions: Permissions, scheme: &str, id: &str| Acl {
        permissions,
        identity: Identity::new(scheme, id),
    };
    vec![
        None,
        Some(vec![]),
        Some(vec![entry(Permissions::READ, "world", "anyone")]),
        Some(vec![
            entry(Permissions::ALL, "digest", "alice:h"),
            entry(Permissions::READ, "world", "anyone"),
        ]),
        Some(vec![
            entry(Permissions::ALL, "auth", ""),
            entry(Permissions::ALL, "auth", ""),
        ]),
        Some(vec![entry(
            Permissions::CREATE.or(Permissions::DELETE),
            "ip",
            "127.0.0.1",
        )]),
        Some(vec![entry(Permissions::ALL, "nobody", "knows")]),
    ]
}

fn path() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => select(&PLAIN[..4]), 8 => select(PLAIN), 1 => select(ODD), 4 => select(QUOTA)]
}

fn acl() -> impl Strategy<Value = Option<Vec<Acl>>> {
    prop_oneof![5 => Just(Some(vec![Acl::open()])), 1 => select(acl_lists())]
}

fn data() -> impl Strategy<Value = Option<Bytes>> {
    select(DATA).prop_map(|data| data.map(|data| Bytes::from_static(data.as_bytes())))
}

fn version() -> impl Strategy<Value = i32> {
    prop_oneof![3 => Just(-1), 2 => 0..3]
}

fn create(flags: impl Strategy<Value = i32>) -> impl Strategy<Value = Write> {
    let op = prop_oneof![
        6 => Just(OpCode::Create),
        2 => Just(OpCode::Create2),
        1 => Just(OpCode::CreateContainer),
        2 => Just(OpCode::CreateTtl),
    ];
    let ttl_ms = select(&[500_i64, 5_000, 0, -1, 1 << 40][..]);
    (op, path(), data(), acl(), flags, ttl_ms).prop_map(|(op, path, data, acl, flags, ttl_ms)| {
        let is_ttl = op == OpCode::CreateTtl;
        let request = CreateRequest {
            path: path.into(),
            data,
            acl,
            flags: if is_ttl && flags < 4 { 5 } else { flags },
            ttl_ms: is_ttl.then_some(ttl_ms),
        };
        Write::Create(op, request)
    })
}

fn flags() -> impl Strategy<Value = i32> {
    prop_oneof![6 => Just(0), 3 => 1..4_i32, 1 => 4..7_i32]
}

fn path_version() -> impl Strategy<Value = PathVersion> {
    (path(), version()).prop_map(|(path, version)| PathVersion {
        path: path.into(),
        version,
    })
}

fn set_data() -> impl Strategy<Value = Write> {
    (path(), data(), version()).prop_map(|(path, data, version)| {
        Write::SetData(SetDataRequest {
            path: path.into(),
            data,
            version,
        })
    })
}

fn set_acl() -> impl Strategy<Value = Write> {
    (path(), acl(), version()).prop_map(|(path, acl, version)| {
        Write::SetAcl(SetAclRequest {
            path: path.into(),
            acl,
            version,
        })
    })
}

/// What an operation becomes when it is read from a multi, if it may stand in one: its flags can make another create of
/// it.
fn as_read_in_a_multi(operation: Write) -> Option<Write> {
    let mut body = BytesMut::new();
    MultiRequest {
        operations: vec![operation],
    }
    .encode(&mut body);
    MultiRequest::decode(&mut Decoder::new(&body.freeze()))
        .ok()?
        .operations
        .pop()
}

fn reconfig() -> impl Strategy<Value = Write> {
    let servers = || prop::option::of(select(SERVERS).prop_map(Text::from_static));
    let members = prop::option::weighted(0.2, select(SERVERS).prop_map(Text::from_static));
    let version = prop_oneof![4 => Just(-1), 1 => 0..40_i64];
    (servers(), servers(), members, version).prop_map(|(joining, leaving, members, config_version)| {
        Write::Reconfig(ReconfigRequest {
            joining,
            leaving,
            members,
            config_version,
        })
    })
}

fn write() -> impl Strategy<Value = Write> {
    let operation = prop_oneof![
        5 => create(flags()),
        2 => path_version().prop_map(Write::Delete),
        3 => set_data(),
        1 => path_version().prop_map(Write::Check),
    ];
    let multi = prop::collection::vec(operation, 0..4).prop_map(|operations| {
        Write::Multi(MultiRequest {
            operations: operations.into_iter().filter_map(as_read_in_a_multi).collect(),
        })
    });
    prop_oneof![
        8 => create(prop_oneof![30 => flags(), 1 => Just(9)]),
        4 => path_version().prop_map(Write::Delete),
        4 => set_data(),
        2 => set_acl(),
        1 => path_version().prop_map(Write::Check),
        5 => multi,
        1 => reconfig(),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let session = || select(&SESSIONS[..]);
    let connection = || prop_oneof![30 => Just(OWN), 1 => (0..3_u64).prop_map(ConnectionId)];
    prop_oneof![
        40 => (session(), connection(), 0..4_usize, write()).prop_map(|(session, connection, caller, write)| {
            Action::Write(session, connection, caller, write)
        }),
        4 => session().prop_map(Action::Open),
        2 => (session(), connection(), 0..2_u8).prop_map(|(session, to, password)| Action::Attach(session, to, password)),
        1 => (session(), connection()).prop_map(|(session, from)| Action::Close(session, from)),
        3 => path().prop_map(Action::Sweep),
        1 => (prop::option::weighted(0.3, 0..40_u64), select(MEMBERSHIPS)).prop_map(|(replaces, text)| {
            Action::Found(replaces, text)
        }),
        1 => (0..6_000_i64).prop_map(Action::Wait),
        3 => Just(Action::Checkpoint),
        1 => Just(Action::Restart),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    let mostly = || prop::bool::weighted(0.9);
    let short = prop::bool::weighted(0.1);
    (prop::bool::weighted(0.1), any::<bool>(), mostly(), mostly(), short).prop_map(
        |(skip_acl, enforce, extended, reconfig, short)| {
            Rules::DIGEST_SCHEME
                .with(Rules::SKIP_ACL, skip_acl)
                .with(Rules::ENFORCE_QUOTA, enforce)
                .with(Rules::EXTENDED_TYPES, extended)
                .with(Rules::STANDALONE_ENABLED, true)
                .with(Rules::RECONFIG, reconfig)
                .with(Rules::NO_GROWTH, short)
        },
    )
}

fn origin(connection: ConnectionId) -> Origin {
    Origin {
        server: ServerId(1),
        connection,
    }
}

/// The action with [`OWN`] replaced by the connection that it stands for.
fn resolved(action: &Action, state: &State) -> Action {
    let own = |connection: ConnectionId, session: &SessionId| match state.session(*session) {
        _ if connection != OWN => connection,
        Some(session) => session.owner.connection,
        None => ConnectionId(1),
    };
    match action {
        Action::Attach(id, to, password) => Action::Attach(*id, own(*to, id), *password),
        Action::Close(id, from) => Action::Close(*id, own(*from, id)),
        Action::Write(id, from, caller, write) => Action::Write(*id, own(*from, id), *caller, write.clone()),
        other => other.clone(),
    }
}

/// The command of an action, if it is one.
fn command(action: &Action) -> Option<Command> {
    let mut body = BytesMut::new();
    let session_body = |timeout_ms: i32, password: u8| {
        let password = [password; 16];
        SessionBody { timeout_ms, password }.to_bytes()
    };
    let mut caller = Vec::new();
    let (connection, session, op, body) = match action {
        Action::Open(session) => (ConnectionId(1), *session, OpCode::CreateSession, session_body(4000, 1)),
        Action::Attach(session, to, password) => (*to, *session, OpCode::AttachSession, session_body(5000, *password)),
        Action::Close(session, from) => (*from, *session, OpCode::CloseSession, Bytes::new()),
        Action::Write(session, from, identities, write) => {
            write.encode(&mut body);
            caller = callers()[*identities].clone();
            (*from, *session, write.op(), body.freeze())
        }
        Action::Sweep(path) => {
            crate::proto::jute::Encode::write_text(&mut body, path);
            (ConnectionId(0), SessionId(0), OpCode::DeleteContainer, body.freeze())
        }
        Action::Found(replaces, text) => {
            let (replaces, members) = (*replaces, Members::parse(text).unwrap());
            let body = MembershipBody { replaces, members }.to_bytes();
            (ConnectionId(0), SessionId(0), OpCode::SetMembership, body)
        }
        Action::Wait(_) | Action::Checkpoint | Action::Restart => return None,
    };
    Some(Command {
        origin: origin(connection),
        session,
        xid: Xid(1),
        identities: caller.into(),
        op,
        body,
    })
}

fn expected(model: &mut Model, action: &Action) -> Result<Reply, ErrorCode> {
    let session = |timeout_ms: i32, password: u8, connection: ConnectionId| ModelSession {
        timeout_ms,
        password,
        owner: origin(connection),
    };
    match action {
        Action::Open(id) => model.open(*id, session(4000, 1, ConnectionId(1))),
        Action::Attach(id, to, password) => model.attach(*id, session(5000, *password, *to)),
        Action::Close(id, from) => model.close(*id, origin(*from)),
        Action::Write(id, from, caller, write) => {
            model.check_session(*id, origin(*from))?;
            model.write(*id, &callers()[*caller], write)
        }
        Action::Sweep(path) => model.sweep(path),
        Action::Found(replaces, text) => model.found(*replaces, Members::parse(text).unwrap()),
        Action::Wait(_) | Action::Checkpoint | Action::Restart => Ok(Reply::Empty),
    }
}

/// What checkpoints have written, as a store would keep it.
#[derive(Clone, Default)]
struct Store {
    nodes: BTreeMap<(Vec<u8>, Vec<u8>), NodeRecord>,
    sessions: BTreeMap<SessionId, Session>,
    acls: BTreeMap<AclId, AclRef>,
    ephemerals: BTreeSet<(SessionId, Text)>,
    zxid: Zxid,
    digest: u64,
    totals: Totals,
}

impl Store {
    fn write(&mut self, checkpoint: Checkpoint) {
        self.zxid = checkpoint.zxid;
        self.digest = checkpoint.digest;
        self.totals = checkpoint.totals;
        let key = |parent: &Text, name: &Text| (parent.bytes().to_vec(), name.bytes().to_vec());
        let mut keys = Vec::new();
        for record in checkpoint.records {
            if let Record::Node { parent, name, .. } | Record::NodeRemoved { parent, name } = &record {
                keys.push(key(parent, name));
            }
            match record {
                Record::Node {
                    parent,
                    name,
                    stat,
                    data,
                } => {
                    let key = key(&parent, &name);
                    let data = match data {
                        DataRecord::Set(data) => data,
                        DataRecord::Kept => self.nodes.get(&key).expect("data is kept that was stored").data.clone(),
                    };
                    self.nodes.insert(key, NodeRecord { stat, data });
                }
                Record::NodeRemoved { parent, name } => {
                    assert!(
                        self.nodes.remove(&key(&parent, &name)).is_some(),
                        "what is removed was stored"
                    );
                }
                Record::Session(session) => _ = self.sessions.insert(session.id, session),
                Record::SessionRemoved(id) => assert!(self.sessions.remove(&id).is_some()),
                Record::Ephemeral(session, path) => assert!(self.ephemerals.insert((session, path))),
                Record::EphemeralRemoved(session, path) => {
                    assert!(self.ephemerals.remove(&(session, path)), "what is removed was stored");
                }
                Record::Acl(id, list) => _ = self.acls.insert(id, list),
                Record::AclRemoved(id) => assert!(self.acls.remove(&id).is_some()),
            }
        }
        let records = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(
            keys.len(),
            records,
            "no two records of a checkpoint concern the same znode"
        );
    }

    /// A loader that has been told all but the znodes.
    fn loader(&self) -> Loader {
        let mut loader = State::loader();
        for (id, list) in &self.acls {
            loader.acl(*id, list.entries()).unwrap();
        }
        for session in self.sessions.values() {
            loader.session(*session).unwrap();
        }
        for (session, path) in &self.ephemerals {
            loader.ephemeral(*session, path.bytes());
        }
        loader
    }

    fn load(&self) -> State {
        let mut loader = self.loader();
        for ((parent, name), record) in &self.nodes {
            loader.node(parent, name, record.clone()).unwrap();
        }
        loader.finish(self.zxid, self.digest).unwrap()
    }

    /// A state that has only what a start reads before it serves.
    fn load_part(&self) -> State {
        let mut loader = self.loader();
        for ((parent, name), record) in &self.nodes {
            let is_quota = parent == b"/zookeeper" || parent.starts_with(b"/zookeeper/");
            if parent.is_empty() || parent == b"/" || is_quota {
                loader.node(parent, name, record.clone()).unwrap();
            }
        }
        loader.finish_part(self.zxid, self.digest, self.totals).unwrap()
    }

    fn children(&self, of: &[u8]) -> Vec<(Vec<u8>, NodeRecord)> {
        let records = self.nodes.iter().filter(|((parent, _), _)| parent == of);
        records
            .map(|((_, name), record)| (name.clone(), record.clone()))
            .collect()
    }

    /// Brings what is missing, whichever it is.
    fn bring(&self, state: &mut State, missing: &Missing) {
        if missing.is_everything() {
            self.bring_all(state);
        }
        for group in missing.groups() {
            state.bring(group, self.children(group), true).unwrap();
        }
    }

    fn bring_all(&self, state: &mut State) {
        let groups: BTreeSet<&[u8]> = self.nodes.keys().map(|(parent, _)| &**parent).collect();
        for group in groups.into_iter().filter(|group| !group.is_empty()) {
            // Large groups come in several goes.
            let mut children = self.children(group);
            let rest = children.split_off(children.len() / 2);
            state.bring(group, children, false).unwrap();
            state.bring(group, rest, true).unwrap();
        }
        while !state.finish_loading(2).unwrap() {}
    }
}

/// A group of the store that may be absent.
fn some_group(store: &Store, index: &prop::sample::Index) -> Missing {
    let paths: Vec<Vec<u8>> = store.nodes.keys().map(|(parent, _)| parent.clone()).collect();
    let mut missing = Missing::default();
    let state = store.load_part();
    let path: &Vec<u8> = index.get(&paths);
    state.missing_for_znode(path, &mut missing);
    missing
}

/// Reads all of a store behind what a start reads of it.
fn read_in_parts(store: &Store) -> Result<State, LoadError> {
    let mut state = store.load_part();
    let groups: BTreeSet<&Vec<u8>> = store.nodes.keys().map(|(parent, _)| parent).collect();
    for group in groups.into_iter().filter(|group| !group.is_empty()) {
        state.bring(group, store.children(group), true)?;
    }
    while !state.finish_loading(1)? {}
    Ok(state)
}

#[test]
fn what_is_missing_or_altered_is_found_when_all_is_read() {
    let mut state = State::new();
    let (mut store, mut changes) = (Store::default(), Vec::new());
    let create = |path: &str, flags| {
        let request = CreateRequest {
            path: path.into(),
            data: Some(Bytes::from_static(b"data")),
            acl: Some(vec![Acl::open()]),
            flags,
            ttl_ms: None,
        };
        Action::Write(SESSIONS[0], OWN, 0, Write::Create(OpCode::Create, request))
    };
    let mut actions = opened(vec![create("/a/a/e", 1), create("/a/a/x", 0), create("/b/y", 0)]);
    actions.push(Action::Checkpoint);
    for action in actions {
        if let Some(command) = command(&resolved(&action, &state)) {
            assert!(state.apply(&Stamp::default(), &command, &mut changes).result.is_ok());
        }
    }
    store.write(state.take_dirty());
    let whole = read_in_parts(&store).unwrap();
    assert_eq!((whole.digest(), whole.counts()), (state.digest(), state.counts()));

    let of_a = |name: &str| (b"/a/a".to_vec(), name.as_bytes().to_vec());
    let damaged = |damage: &dyn Fn(&mut Store)| {
        let mut store = store.clone();
        damage(&mut store);
        read_in_parts(&store).err()
    };
    let lost = damaged(&|store| _ = store.nodes.remove(&of_a("x")));
    assert!(matches!(lost, Some(LoadError::Digest { .. })), "{lost:?}");
    let altered = damaged(&|store| store.nodes.get_mut(&of_a("x")).unwrap().stat.version += 1);
    assert!(matches!(altered, Some(LoadError::Digest { .. })), "{altered:?}");
    let miscounted = damaged(&|store| store.totals.nodes += 1);
    assert!(
        matches!(miscounted, Some(LoadError::Totals { missing: 1, .. })),
        "{miscounted:?}"
    );
    let not_held = damaged(&|store| store.ephemerals.clear());
    assert!(matches!(not_held, Some(LoadError::NoSession { .. })), "{not_held:?}");
    let not_there = damaged(&|store| _ = store.ephemerals.insert((SESSIONS[1], "/b/z".into())));
    assert!(
        matches!(not_there, Some(LoadError::NoEphemeral { .. })),
        "{not_there:?}"
    );
}

#[test]
#[should_panic(expected = "Linear: the children of a znode are brought before")]
fn what_is_absent_is_never_taken_for_what_does_not_exist() {
    let (mut state, mut store) = (State::new(), Store::default());
    for action in opened(Vec::new()) {
        if let Some(command) = command(&resolved(&action, &state)) {
            state.apply(&Stamp::default(), &command, &mut Vec::new());
        }
    }
    store.write(state.take_dirty());
    let _ = store.load_part().stat("/a/nothing");
}

/// The body of a reply, with what it shares.
fn query_whole(state: &State, query: &Query, out: &mut BytesMut) {
    let shared = state.query(query, SessionId(0), &[], true, out).unwrap();
    if let Some(SharedPart { at, bytes }) = shared {
        let behind = out.split_off(at);
        out.extend_from_slice(&bytes);
        out.extend_from_slice(&behind);
    }
}

fn data_of(state: &State, path: &str) -> Option<Bytes> {
    let mut out = BytesMut::new();
    let query = Query::GetData(PathWatch {
        path: path.into(),
        watch: false,
    });
    query_whole(state, &query, &mut out);
    Decoder::new(&out.freeze()).buffer().unwrap()
}

fn listing(state: &State, path: &str) -> Vec<Text> {
    let mut out = BytesMut::new();
    let query = Query::GetChildren(PathWatch {
        path: path.into(),
        watch: false,
    });
    query_whole(state, &query, &mut out);
    Decoder::new(&out.freeze()).vector(4, Decoder::text).unwrap().unwrap()
}

fn compare(state: &State, model: &Model) {
    assert_eq!(state.zxid(), Zxid(model.zxid));
    assert_eq!(state.membership(), model.members.as_ref());
    for (path, node) in &model.nodes {
        assert_eq!(state.stat(path), model.stat(path), "{path}");
        assert_eq!(data_of(state, path).map(|data| data.to_vec()), node.data, "{path}");
        assert_eq!(state.acl_of(path).unwrap().entries(), node.acl, "{path}");
        let mut names: Vec<String> = listing(state, path)
            .iter()
            .map(|name| name.as_str().to_owned())
            .collect();
        names.sort_unstable();
        assert!(
            names.iter().map(String::as_str).eq(model.children(path)),
            "{path}: {names:?}"
        );
    }
    let counts = state.counts();
    assert_eq!(counts.znodes, model.nodes.len() + 1);
    assert_eq!(counts.sessions, model.sessions.len());
    let bytes = model
        .nodes
        .iter()
        .map(|(path, node)| path.len() + node.data.as_ref().map_or(0, Vec::len));
    assert_eq!(counts.approximate_data_bytes, bytes.sum::<usize>() as u64);
    assert_eq!(state.digest(), model.digest());
    let mut lists: Vec<String> = model.nodes.values().map(|node| format!("{:?}", node.acl)).collect();
    lists.push(format!("{:?}", [Acl::open()]));
    lists.sort_unstable();
    lists.dedup();
    assert_eq!(
        state.acls.len() + 1,
        lists.len(),
        "each list that a znode has is kept once: {lists:?}"
    );
    compare_sessions(state, model);
    for max_never_used_ms in [0, 2_000] {
        let mut removable = state.removable(model.now_ms, max_never_used_ms, usize::MAX);
        removable.sort_unstable();
        let expected = model.removable(model.now_ms, max_never_used_ms);
        assert!(
            removable
                .iter()
                .map(Text::as_str)
                .eq(expected.iter().map(String::as_str)),
            "{removable:?}"
        );
    }
}

fn compare_sessions(state: &State, model: &Model) {
    let sessions = state.sessions().map(|session| {
        let known = ModelSession {
            timeout_ms: session.timeout_ms,
            password: session.password[0],
            owner: session.owner,
        };
        (session.id, known)
    });
    assert_eq!(sessions.collect::<BTreeMap<_, _>>(), model.sessions);
    let ephemerals = state.ephemerals();
    let expected = model.sessions.keys().map(|id| (*id, model.ephemerals(*id)));
    let expected: Vec<(SessionId, Vec<String>)> = expected.filter(|(_, paths)| !paths.is_empty()).collect();
    assert_eq!(
        state.counts().ephemerals,
        expected.iter().map(|(_, paths)| paths.len()).sum::<usize>()
    );
    assert_eq!(format!("{ephemerals:?}"), format!("{expected:?}"));
}

fn run(rules: Rules, actions: &[Action]) {
    let (mut state, mut model, mut store) = (State::new(), Model::new(rules), Store::default());
    let mut now_ms = 0;
    for action in actions {
        now_ms += 100;
        match action {
            Action::Wait(ms) => now_ms += ms,
            Action::Checkpoint => store.write(state.take_dirty()),
            Action::Restart => {
                store.write(state.take_dirty());
                assert!(
                    state.take_dirty().records.is_empty(),
                    "a checkpoint leaves nothing to write"
                );
                state = store.load();
                assert!(
                    state.take_dirty().records.is_empty(),
                    "what was loaded need not be written"
                );
            }
            _ => {}
        }
        let action = &resolved(action, &state);
        if let Some(command) = command(action) {
            let stamp = Stamp { time_ms: now_ms, rules };
            let mut changes = Vec::new();
            let applied = state.apply(&stamp, &command, &mut changes);
            model.begin(now_ms);
            let result = expected(&mut model, action);
            assert_eq!(applied, model.applied(result), "{action:?}");
            assert_eq!(changes.iter().map(told).collect::<Vec<_>>(), model.told, "{action:?}");
        }
        compare(&state, &model);
    }
    store.write(state.take_dirty());
    compare(&store.load(), &model);
}

/// Both sessions are open at the start, and a few znodes exist: without them little happens.
fn opened(mut actions: Vec<Action>) -> Vec<Action> {
    let create = |(path, data): (&str, &'static str)| {
        let request = CreateRequest {
            path: path.into(),
            data: Some(Bytes::from_static(data.as_bytes())),
            acl: Some(vec![Acl::open()]),
            flags: 0,
            ttl_ms: None,
        };
        Action::Write(SESSIONS[0], OWN, 0, Write::Create(OpCode::Create, request))
    };
    let mut start: Vec<Action> = SESSIONS.map(Action::Open).into();
    let znodes = [
        ("/a", ""),
        ("/b", ""),
        ("/a/a", ""),
        ("/zookeeper/quota/a", ""),
        (
            "/zookeeper/quota/a/zookeeper_limits",
            "count=9,bytes=9=;byteHardLimit=20;countHardLimit=4",
        ),
        ("/zookeeper/quota/a/zookeeper_stats", ""),
    ];
    start.extend(znodes.map(create));
    start.append(&mut actions);
    start
}

/// What a query lacks, brought from the store.
fn put_back(state: &mut State, store: &Store, query: &Query) {
    let mut missing = Missing::default();
    state.note_away(query, &[], true, &mut missing);
    for (path, mzxid) in missing.values() {
        let (parent, name) = place_of(path);
        let record = &store.nodes[&(parent.to_vec(), name.to_vec())];
        let value = record.data.as_deref().expect("what is away is stored");
        let altered = Fetched::new(path, mzxid, &vec![b'?'; value.len()]);
        assert_eq!(state.put_back(path, mzxid, Some(altered)), PutBack::Damaged);
        assert_eq!(state.put_back(path, mzxid, None), PutBack::Damaged);
        let earlier = Fetched::new(path, Zxid(mzxid.0 - 1), value);
        assert_eq!(state.put_back(path, Zxid(mzxid.0 - 1), Some(earlier)), PutBack::Changed);
        let fetched = Fetched::new(path, record.stat.mzxid, value);
        assert_eq!(state.put_back(path, mzxid, Some(fetched)), PutBack::Done);
    }
    let mut missing = Missing::default();
    state.note_away(query, &[], true, &mut missing);
    assert!(missing.is_empty());
}

/// The same commands, with values that leave memory as soon as they are stored.
fn run_with_values_away(rules: Rules, actions: &[Action], nodes: usize) {
    let (mut plain, mut state) = (State::new(), State::new());
    let (mut plain_store, mut store) = (Store::default(), Store::default());
    state.set_values_may_leave(true);
    for (action, path) in actions.iter().zip(PLAIN.iter().cycle()) {
        if let Action::Checkpoint | Action::Restart = action {
            plain_store.write(plain.take_dirty());
            store.write(state.take_dirty());
            assert_eq!(store.nodes, plain_store.nodes);
        }
        if let Action::Restart = action {
            let mut loader = store.loader();
            loader.keep_values_within(5 * 144 + nodes as u64);
            for ((parent, name), record) in &store.nodes {
                loader.node(parent, name, record.clone()).unwrap();
            }
            state = loader.finish(store.zxid, store.digest).unwrap();
            state.set_values_may_leave(true);
        }
        let before = (state.values_away(), state.memory_bytes());
        let gone = state.let_values_go(store.zxid, nodes, u64::MAX);
        let after = (before.0 + gone.values.len() as u64, before.1 - gone.bytes);
        assert_eq!((state.values_away(), state.memory_bytes()), after);
        if let Some(command) = command(&resolved(action, &plain)) {
            let stamp = Stamp { time_ms: 7, rules };
            let (mut told, mut expected) = (Vec::new(), Vec::new());
            let applied = state.apply(&stamp, &command, &mut told);
            assert_eq!(applied, plain.apply(&stamp, &command, &mut expected), "{action:?}");
            assert_eq!(told, expected, "{action:?}");
        }
        assert_eq!((state.digest(), state.counts()), (plain.digest(), plain.counts()));
        assert_eq!(state.stat(path), plain.stat(path));
        if state.stat(path).is_some() {
            let query = Query::GetData(PathWatch {
                path: (*path).into(),
                watch: false,
            });
            put_back(&mut state, &store, &query);
            assert_eq!(data_of(&state, path), data_of(&plain, path), "{path}");
        }
    }
    store.write(state.take_dirty());
    plain_store.write(plain.take_dirty());
    assert_eq!(store.nodes, plain_store.nodes);
    let whole = store.load();
    assert_eq!(
        (whole.digest(), whole.memory_bytes()),
        (plain.digest(), plain.memory_bytes())
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_command_does_what_the_model_does(rules in rules(), actions in prop::collection::vec(action(), 1..150)) {
        run(rules, &opened(actions));
    }

    #[test]
    fn a_state_that_has_only_what_it_needs_does_what_the_whole_one_does(
        rules in rules(),
        actions in prop::collection::vec(action(), 1..60),
        more in prop::collection::vec((action(), any::<prop::sample::Index>()), 1..60),
    ) {
        let mut whole = State::new();
        let mut store = Store::default();
        let mut now_ms = 0;
        let mut changes = [Vec::new(), Vec::new()];
        let stamp = |now_ms: &mut i64| {
            *now_ms += 100;
            Stamp { time_ms: *now_ms, rules }
        };
        for action in opened(actions) {
            if let Some(command) = command(&resolved(&action, &whole)) {
                whole.apply(&stamp(&mut now_ms), &command, &mut changes[0]);
            }
        }
        store.write(whole.take_dirty());
        let mut part = store.load_part();
        let mut store_of_part = store.clone();
        changes[0].clear();
        for (action, index) in more {
            if matches!(action, Action::Checkpoint) {
                store_of_part.write(part.take_dirty());
                store.bring(&mut part, &some_group(&store, &index));
            }
            let Some(command) = command(&resolved(&action, &whole)) else { continue };
            loop {
                let mut missing = Missing::default();
                part.missing_for_command(&command, &mut missing);
                if missing.is_empty() {
                    break;
                }
                store.bring(&mut part, &missing);
            }
            let stamp = stamp(&mut now_ms);
            let [of_whole, of_part] = &mut changes;
            prop_assert_eq!(whole.apply(&stamp, &command, of_whole), part.apply(&stamp, &command, of_part));
            prop_assert_eq!(&changes[0], &changes[1]);
            prop_assert_eq!(whole.digest(), part.digest());
            prop_assert_eq!(whole.counts(), part.counts());
            prop_assert_eq!(whole.ephemerals(), part.ephemerals());
            prop_assert_eq!(whole.quota_totals(), part.quota_totals());
        }
        store_of_part.write(part.take_dirty());
        // What is on the disk is the whole, whatever was in memory.
        let mut loaded = store_of_part.load();
        store.bring_all(&mut part);
        prop_assert!(part.is_whole());
        store_of_part.write(part.take_dirty());
        for state in [&mut part, &mut loaded] {
            prop_assert_eq!(state.digest(), whole.digest());
            prop_assert_eq!(state.totals(), whole.totals());
            prop_assert_eq!(state.ephemerals(), whole.ephemerals());
            let lengths = [state.acls.len(), whole.acls.len()];
            prop_assert_eq!(lengths[0], lengths[1]);
            for path in PLAIN.iter().chain(ODD).chain(QUOTA) {
                prop_assert_eq!(state.stat(path), whole.stat(path));
                if whole.stat(path).is_some() {
                    prop_assert_eq!(data_of(state, path), data_of(&whole, path));
                    prop_assert_eq!(state.acl_of(path), whole.acl_of(path));
                    let names = [&*state, &whole].map(|state| listing(state, path).into_iter().collect::<BTreeSet<_>>());
                    prop_assert_eq!(&names[0], &names[1]);
                }
            }
            prop_assert_eq!(
                state.removable(now_ms, 2_000, usize::MAX).into_iter().collect::<BTreeSet<_>>(),
                whole.removable(now_ms, 2_000, usize::MAX).into_iter().collect::<BTreeSet<_>>()
            );
        }
    }

    #[test]
    fn values_that_leave_memory_and_come_back_change_nothing(
        rules in rules(),
        actions in prop::collection::vec(action(), 1..150),
        nodes in 1..30_usize,
    ) {
        run_with_values_away(rules, &opened(actions), nodes);
    }

    #[test]
    fn two_members_that_apply_the_same_commands_are_equal(
        rules in rules(),
        actions in prop::collection::vec(action(), 1..150),
    ) {
        let mut members = [State::new(), State::new()];
        let mut changes = [Vec::new(), Vec::new()];
        for action in opened(actions) {
            let Some(command) = command(&resolved(&action, &members[0])) else { continue };
            let stamp = Stamp { time_ms: 7, rules };
            let applied: Vec<Applied> = members
                .iter_mut()
                .zip(&mut changes)
                .map(|(member, changes)| member.apply(&stamp, &command, changes))
                .collect();
            prop_assert_eq!(&applied[0], &applied[1]);
        }
        prop_assert_eq!(&changes[0], &changes[1]);
        prop_assert_eq!(members[0].digest(), members[1].digest());
        for path in PLAIN.iter().filter(|path| members[0].stat(path).is_some()) {
            prop_assert_eq!(listing(&members[0], path), listing(&members[1], path));
        }
        let [one, other] = members.each_mut().map(State::take_dirty);
        prop_assert_eq!(one, other);
    }
}
