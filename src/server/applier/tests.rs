use super::*;
use crate::net::Conversation;
use crate::net::Output;
use crate::proto::multi::MultiRequest;
use crate::proto::request::{CreateRequest, SetDataRequest, Write};
use crate::proto::{Acl, Identity, RequestHeader, Xid};
use crate::server::pipeline::Phase;
use crate::server::simulated::shared_alone;
use crate::state_machine::command::SessionBody;
use crate::state_machine::{Origin, Rules, ServerId};
use crate::watch::WatchKind;
use bytes::{Buf, BufMut, BytesMut};

const SESSION: SessionId = SessionId(0x0100_0000_0000_0001);
const STAMP: Stamp = Stamp {
    time_ms: 1,
    rules: Rules(0),
};
const PATHS: [&str; 3] = ["/a", "/b", "/c"];

/// An applier, and connections that watch all paths, persistently.
struct Stage {
    applier: Applier,
    watchers: Vec<Arc<Connection>>,
}

impl Stage {
    fn with_watchers(count: usize) -> Stage {
        let shared = shared_alone();
        let mut applier = Applier::new(shared.clone(), 0, 0, MembersAt::default());
        let mut commands = vec![open_session(None)];
        commands.extend(PATHS.map(|path| command(OpCode::Create, None, |out| create(path).encode(out))));
        applier.publish(&STAMP, &commands);
        let watchers = (0..count).map(|_| watcher(&shared)).collect();
        Stage { applier, watchers }
    }

    /// Applies a command up to the end of its hold; what is left over begins to be queued.
    fn hold(&mut self, command: &Command) {
        let shared = self.applier.shared.clone();
        let mut state = shared.state.write();
        self.applier.queued = 0;
        self.applier
            .publish_command(&mut state, &STAMP, command, &shared.surroundings());
        shared.storm.begin(std::mem::take(&mut self.applier.leftover));
    }

    /// Queues the rest.
    fn weather(&mut self) {
        let shared = self.applier.shared.clone();
        self.applier.weather(&shared.surroundings());
    }
}

fn watcher(shared: &Arc<Shared>) -> Arc<Connection> {
    let peer = "127.0.0.1:1".parse().unwrap();
    let connection = shared.admit(peer).unwrap();
    connection.with_pipeline(|pipeline| pipeline.phase = Phase::Open);
    for path in PATHS {
        let watcher = WatcherId(connection.id.0);
        shared.watches.add(watcher, path, WatchKind::Persistent).unwrap();
    }
    connection
}

fn create(path: &str) -> CreateRequest {
    CreateRequest {
        path: path.into(),
        data: None,
        acl: Some(vec![Acl::open()]),
        flags: 0,
        ttl_ms: None,
    }
}

fn set(path: &str) -> SetDataRequest {
    SetDataRequest {
        path: path.into(),
        data: None,
        version: -1,
    }
}

fn open_session(from: Option<&Connection>) -> Command {
    let session = SessionBody {
        timeout_ms: 30_000,
        password: [1; 16],
    };
    command(OpCode::CreateSession, from, |out| out.put_slice(&session.to_bytes()))
}

/// Of a connection of this server, with a session of its own, or of another server.
fn command(op: OpCode, from: Option<&Connection>, body: impl FnOnce(&mut BytesMut)) -> Command {
    let mut out = BytesMut::new();
    body(&mut out);
    Command {
        origin: Origin {
            server: ServerId(if from.is_some() { 1 } else { 2 }),
            connection: from.map_or(ConnectionId(1), |connection| connection.id),
        },
        session: SessionId(SESSION.0 + i64::from(from.is_some())),
        xid: Xid(1),
        identities: [Identity::anyone()].into(),
        op,
        body: out.freeze(),
    }
}

fn set_all() -> Command {
    let operations = PATHS.map(|path| Write::SetData(set(path))).into();
    command(OpCode::Multi, None, |out| MultiRequest { operations }.encode(out))
}

/// What its client gets now, in order: paths of events, and `reply`; after it has sent these bytes.
fn heard(connection: &Connection, sent: &[u8]) -> Vec<String> {
    let mut received = BytesMut::from(sent);
    let mut output = Output::new();
    connection.advance(&mut received, &mut output);
    let mut output = output.copy_to_bytes(output.remaining());
    let mut heard = Vec::new();
    while output.has_remaining() {
        let mut frame = output.split_to(4);
        let mut frame = output.split_to(frame.get_u32() as usize);
        heard.push(if frame.get_i32() == Xid::EVENT.0 {
            // zxid, error, kind, state and the path's length.
            String::from_utf8(frame[8 + 4 * 4..].to_vec()).unwrap()
        } else {
            "reply".to_owned()
        });
    }
    heard
}

/// A request's frame.
fn request(op: OpCode, body: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_u32(8 + body.len() as u32);
    RequestHeader {
        xid: Xid(1),
        op: op.to_wire(),
    }
    .encode(&mut frame);
    frame.put_slice(body);
    frame.to_vec()
}

fn ping() -> Vec<u8> {
    request(OpCode::Ping, &[])
}

#[test]
fn who_answers_in_a_storm_gets_his_events_first_and_once() {
    let mut stage = Stage::with_watchers(2 * EVENTS_PER_HOLD + 1);
    stage.hold(&set_all());
    let told = [PATHS.as_slice(), &["reply"]].concat();
    let (last, others) = stage.watchers.split_last().unwrap();
    assert_eq!(heard(last, &ping()), told);
    assert_eq!(heard(last, &ping()), ["reply"]);
    // Whether or not the first hold has reached it.
    assert_eq!(heard(&others[0], &ping()), told);
    stage.weather();
    let (last, others) = stage.watchers.split_last().unwrap();
    assert_eq!((heard(last, &[]).len(), heard(&others[0], &[]).len()), (0, 0));
    for other in &others[1..] {
        assert_eq!(heard(other, &[]), PATHS);
    }
}

#[test]
fn who_changes_something_gets_his_event_before_his_reply_in_a_storm_too() {
    let mut stage = Stage::with_watchers(2 * EVENTS_PER_HOLD);
    let writer = stage.watchers.pop().unwrap();
    writer.with_pipeline(|pipeline| pipeline.phase = Phase::Handshake);
    stage.applier.publish(&STAMP, &[open_session(Some(&writer))]);
    writer.with_pipeline(|pipeline| pipeline.phase = Phase::Open);
    let set = command(OpCode::SetData, Some(&writer), |out| set("/b").encode(out));
    assert_eq!(heard(&writer, &request(OpCode::SetData, &set.body)).len(), 0);
    stage.hold(&set);
    assert_eq!(heard(&writer, &[]), ["/b", "reply"]);
    stage.weather();
    assert_eq!(heard(&writer, &[]).len(), 0);
}

#[test]
fn a_connection_that_ends_in_a_storm_is_passed_over() {
    let mut stage = Stage::with_watchers(2 * EVENTS_PER_HOLD + 1);
    stage.hold(&set_all());
    let gone = stage.watchers.pop().unwrap();
    gone.ended();
    stage.weather();
    assert!(stage.watchers.iter().all(|watcher| heard(watcher, &[]) == PATHS));
    assert_eq!(heard(&gone, &[]).len(), 0);
}

#[test]
fn storms_follow_each_other_in_order() {
    let mut stage = Stage::with_watchers(2 * EVENTS_PER_HOLD);
    let sets = PATHS.map(|path| command(OpCode::SetData, None, |out| set(path).encode(out)));
    stage.applier.publish(&STAMP, &sets);
    assert!(stage.watchers.iter().all(|watcher| heard(watcher, &[]) == PATHS));
}
