//! reconfig and setMembership, told as scripts. What the lists of servers mean is tested in `membership`; the answers are
//! those of an ensemble of three of Apache ZooKeeper 3.9.5.

use super::command::{LeaderKnowledge, MembershipBody};
use super::tests::{ALICE, Bench, RULES, origin};
use super::*;
use crate::proto::request::{PathVersion, ReconfigRequest, SetAclRequest, Write};
use crate::proto::{OpCode, Xid};
use bytes::{Bytes, BytesMut};

const PATH: &str = "/zookeeper/config";
const TWO: &str = "server.1=a:2888:3888:participant;0.0.0.0:2181\nserver.2=b:2888:3888:participant;0.0.0.0:2181";
const THIRD: &str = "server.3=c:2888:3888;2181";

fn request(joining: Option<&str>, leaving: Option<&str>, members: Option<&str>, version: i64) -> ReconfigRequest {
    ReconfigRequest {
        joining: joining.map(Text::from),
        leaving: leaving.map(Text::from),
        members: members.map(Text::from),
        config_version: version,
    }
}

fn membership(replaces: Option<u64>, text: &str) -> Bytes {
    let members = Members::parse(text).unwrap();
    MembershipBody { replaces, members }.to_bytes()
}

fn encoded(request: ReconfigRequest) -> Bytes {
    let mut body = BytesMut::new();
    Write::Reconfig(request).encode(&mut body);
    body.freeze()
}

/// An ensemble of two that an administrator talks to.
fn ensemble() -> Bench {
    let mut bench = Bench::new();
    bench.rules = RULES.with(Rules::RECONFIG, true).with(Rules::STANDALONE_ENABLED, true);
    bench.caller.push(Identity::new("super", ""));
    assert_eq!(
        bench.found(membership(None, &format!("{TWO}\nversion=0"))),
        Ok(Reply::Empty)
    );
    bench
}

impl Bench {
    fn found(&mut self, body: Bytes) -> Result<Reply, ErrorCode> {
        self.raw(Origin::default(), SessionId(0), OpCode::SetMembership, body)
    }

    fn reconfig(&mut self, request: ReconfigRequest) -> Result<Reply, ErrorCode> {
        self.write(ALICE, &Write::Reconfig(request))
    }

    fn reconfig_of_leader(&mut self, body: Bytes, in_contact: &[u64]) -> Result<Reply, ErrorCode> {
        let command = Command {
            origin: origin(ALICE),
            session: ALICE,
            xid: Xid(1),
            identities: self.caller.clone().into(),
            op: OpCode::Reconfig,
            body,
        };
        let knowledge = LeaderKnowledge {
            in_contact: in_contact.iter().copied().map(ServerId).collect(),
        };
        self.command(&command.with_leader_knowledge(&knowledge))
    }

    fn config(&self) -> String {
        self.state.membership().map(ToString::to_string).unwrap_or_default()
    }
}

#[test]
fn a_server_that_is_alone_has_nothing_to_reconfigure() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.reconfig(request(None, None, None, -1)),
        Err(ErrorCode::ReconfigDisabled)
    );
    bench.rules = RULES.with(Rules::RECONFIG, true);
    assert_eq!(
        bench.reconfig(request(None, None, None, -1)),
        Err(ErrorCode::Unimplemented)
    );
    assert_eq!(bench.state.membership(), None);

    let mut bench = ensemble();
    bench.rules = bench.rules.with(Rules::STANDALONE, true);
    assert_eq!(
        bench.reconfig(request(None, None, None, -1)),
        Err(ErrorCode::Unimplemented),
        "a member that is alone by now"
    );
}

#[test]
fn the_first_membership_is_the_leaders_and_has_its_zxid_as_version() {
    let bench = ensemble();
    assert_eq!(bench.config(), format!("{TWO}\nversion=3"));
    let stat = bench.stat(PATH);
    assert_eq!(
        (stat.czxid, stat.mzxid, stat.version, stat.aversion, stat.data_length),
        (Zxid(0), Zxid(3), -1, -1, bench.config().len() as i32)
    );
    assert_eq!((stat.ctime, stat.mtime), (0, 3000));
    assert!(matches!(&bench.changes[..], [Change::DataChanged { path, .. }] if path.as_str() == PATH));
}

#[test]
fn a_membership_that_was_imported_keeps_its_version() {
    let mut bench = Bench::new();
    let body = membership(None, &format!("{TWO}\nversion=100000000"));
    assert_eq!(bench.found(body), Ok(Reply::Empty));
    assert_eq!(bench.config(), format!("{TWO}\nversion=100000000"));
    assert_eq!(bench.stat(PATH).mzxid, Zxid(3));
}

#[test]
fn a_membership_takes_the_place_of_the_one_that_it_was_made_for_alone() {
    let mut bench = ensemble();
    let one = "server.9=z:1:2:participant\nversion=0";
    for replaces in [None, Some(2), Some(4)] {
        assert_eq!(bench.found(membership(replaces, one)), Err(ErrorCode::BadVersion));
    }
    assert_eq!(bench.found(membership(Some(3), one)), Ok(Reply::Empty));
    assert_eq!(bench.config(), "server.9=z:1:2:participant\nversion=7");
    assert_eq!(
        bench.found(Bytes::from_static(&[0; 8])),
        Err(ErrorCode::MarshallingError)
    );
}

#[test]
fn no_client_writes_the_membership_by_the_leaders_command() {
    let mut bench = ensemble();
    let body = membership(Some(3), "server.9=z:1:2:participant\nversion=0");
    let result = bench.raw(origin(ALICE), ALICE, OpCode::SetMembership, body);
    assert_eq!(result, Err(ErrorCode::Unimplemented));
    assert_eq!(bench.config(), format!("{TWO}\nversion=3"));
}

#[test]
fn servers_join_and_leave() {
    let mut bench = ensemble();
    let expected = format!("{TWO}\nserver.3=c:2888:3888:participant;0.0.0.0:2181\nversion=4");
    match bench.reconfig(request(Some(THIRD), None, None, 3)) {
        Ok(Reply::DataStat(config, stat)) => {
            assert_eq!(config, expected.as_bytes());
            assert_eq!(stat, bench.stat(PATH));
            assert_eq!((stat.mzxid, stat.version, stat.mtime), (Zxid(4), -1, 4000));
        }
        other => panic!("the new configuration, but: {other:?}"),
    }
    assert_eq!(bench.config(), expected);
    assert!(matches!(&bench.changes[..], [Change::DataChanged { path, .. }] if path.as_str() == PATH));
    assert!(bench.reconfig(request(None, Some("3"), None, -1)).is_ok());
    assert_eq!(bench.config(), format!("{TWO}\nversion=5"));
    let whole = format!("server.2=b:2888:3888,{THIRD}");
    assert!(bench.reconfig(request(None, Some("9"), Some(&whole), -1)).is_ok());
    assert_eq!(
        bench.config(),
        "server.2=b:2888:3888:participant\nserver.3=c:2888:3888:participant;0.0.0.0:2181\nversion=6"
    );
}

#[test]
fn every_refusal_has_its_code_and_comes_in_zookeepers_order() {
    let mut bench = ensemble();
    bench.caller.pop();
    let bad = || encoded(request(None, Some("1,2"), None, 77));
    let refused = || encoded(request(None, Some("1,2"), None, 3));
    let good = || encoded(request(Some(THIRD), None, None, 3));
    let no_number = || encoded(request(Some("server.999=c:2888:3888:observer;2181"), None, None, 3));
    let cases = [
        (bad(), &[][..], ErrorCode::BadVersion),
        (refused(), &[], ErrorCode::BadArguments),
        (
            encoded(request(None, Some("x"), None, 3)),
            &[],
            ErrorCode::MarshallingError,
        ),
        (good(), &[1], ErrorCode::NewConfigNoQuorum),
        (good(), &[1, 9], ErrorCode::NewConfigNoQuorum),
        (good(), &[1, 3], ErrorCode::NoAuth),
        // ZooKeeper takes any number, and so asks for the right before anybody could say that this is none for us.
        (no_number(), &[], ErrorCode::NoAuth),
        (Bytes::from_static(&[0, 0]), &[], ErrorCode::MarshallingError),
    ];
    for (body, in_contact, expected) in cases {
        let result = bench.reconfig_of_leader(body.clone(), in_contact);
        assert_eq!(result, Err(expected), "{body:?}, {in_contact:?}");
        assert!(bench.changes.is_empty());
    }
    bench.rules = bench.rules.with(Rules::SKIP_ACL, true);
    let result = bench.reconfig_of_leader(no_number(), &[1, 2]);
    assert_eq!(result, Err(ErrorCode::BadArguments));
    assert!(bench.reconfig_of_leader(good(), &[1, 2]).is_ok());
}

#[test]
fn what_a_client_writes_behind_its_request_is_not_taken_for_the_leaders_word() {
    let mut bench = ensemble();
    let request = encoded(request(Some(THIRD), None, None, -1));
    let claim = LeaderKnowledge {
        in_contact: vec![ServerId(1), ServerId(2), ServerId(3)],
    };
    let boasting = Command {
        origin: origin(ALICE),
        session: ALICE,
        xid: Xid(1),
        identities: [].into(),
        op: OpCode::Reconfig,
        body: request,
    };
    let boasting = boasting.with_leader_knowledge(&claim).body;
    assert_eq!(
        bench.reconfig_of_leader(boasting, &[1]),
        Err(ErrorCode::NewConfigNoQuorum)
    );
}

#[test]
fn other_commands_pass_the_leader_as_they_are() {
    let command = Command {
        origin: origin(ALICE),
        session: ALICE,
        xid: Xid(1),
        identities: [].into(),
        op: OpCode::SetData,
        body: encoded(request(None, None, None, -1)),
    };
    assert_eq!(
        command.clone().with_leader_knowledge(&LeaderKnowledge::default()),
        command
    );
}

#[test]
fn who_may_write_the_configuration_may_reconfigure() {
    let mut bench = ensemble();
    let everybody = Write::SetAcl(SetAclRequest {
        path: PATH.into(),
        acl: Some(vec![Acl::open()]),
        version: -1,
    });
    assert!(bench.write(ALICE, &everybody).is_ok());
    bench.caller.pop();
    assert!(bench.reconfig(request(Some(THIRD), None, None, -1)).is_ok());
    assert_eq!(bench.stat(PATH).aversion, 0);
}

#[test]
fn the_membership_changes_by_reconfig_alone() {
    let mut bench = ensemble();
    assert_eq!(bench.set(PATH, "server.9=z:1:2"), Err(ErrorCode::BadArguments));
    let delete = Write::Delete(PathVersion {
        path: PATH.into(),
        version: -1,
    });
    assert_eq!(bench.write(ALICE, &delete), Err(ErrorCode::BadArguments));
    bench.caller.pop();
    assert_eq!(
        bench.set(PATH, "x"),
        Err(ErrorCode::NoAuth),
        "the right is asked for first"
    );
    assert_eq!(bench.config(), format!("{TWO}\nversion=3"));

    let mut alone = Bench::new();
    alone.caller.push(Identity::new("super", ""));
    assert!(alone.set(PATH, "server.9=z:1:2").is_ok(), "as ZooKeeper has it");
    assert_eq!(alone.state.membership(), None);
    assert_eq!(reloaded(&mut alone).membership(), None);
}

/// The state after a checkpoint and a start.
fn reloaded(bench: &mut Bench) -> State {
    let (mut loader, checkpoint) = (State::loader(), bench.state.take_dirty());
    for record in &checkpoint.records {
        match record {
            Record::Session(session) => loader.session(*session).unwrap(),
            Record::Acl(id, list) => loader.acl(*id, list.entries()).unwrap(),
            _ => {}
        }
    }
    let mut nodes: Vec<_> = checkpoint.records.iter().filter_map(node).collect();
    nodes.sort_by(|one, other| one.0.cmp(&other.0));
    for ((parent, name), record) in nodes {
        loader.node(parent.bytes(), name.bytes(), record).unwrap();
    }
    loader.finish(checkpoint.zxid, checkpoint.digest).unwrap()
}

fn node(record: &Record) -> Option<((Text, Text), NodeRecord)> {
    match record {
        Record::Node {
            parent,
            name,
            stat,
            data: DataRecord::Set(data),
        } => {
            let (stat, data) = (*stat, data.clone());
            Some(((parent.clone(), name.clone()), NodeRecord { stat, data }))
        }
        _ => None,
    }
}

#[test]
fn the_membership_outlives_a_restart() {
    let mut bench = ensemble();
    assert!(bench.reconfig(request(Some(THIRD), None, None, -1)).is_ok());
    let before = bench.state.membership().cloned();
    assert!(before.is_some());
    assert_eq!(reloaded(&mut bench).membership(), before.as_ref());
}

#[test]
fn a_membership_that_cannot_be_read_is_no_state_to_start_from() {
    let mut loader = State::loader();
    let node = |data: &'static str, version: i32| NodeRecord {
        stat: StoredStat {
            version,
            ..StoredStat::default()
        },
        data: Some(Value::from(data.as_bytes())),
    };
    loader.node(b"", b"", node("", 0)).unwrap();
    loader.node(b"/", b"zookeeper", node("", 0)).unwrap();
    loader
        .node(b"/zookeeper", b"config", node("server.1=elsewhere", -1))
        .unwrap();
    let digest = loader.digest();
    let error = loader.finish(Zxid(7), digest).err().map(|error| error.to_string());
    assert_eq!(
        error.as_deref(),
        Some(
            "the data of /zookeeper/config is no membership: line 1 of the membership, \"server.1=elsewhere\": \
             \"elsewhere\" does not have the form host:port:port[:participant|observer][;[host:]clientPort], several \
             addresses of one server joined by |"
        )
    );
}
