//! The texts of the four-letter words, from plain values: Apache's to the byte, because monitoring tools parse them.
//!
//! Source: Apache's `server/command/*`, `ServerStats`, `ServerCnxn.dumpConnectionInfo`, `ZooKeeperServer.dumpConf`.

use super::java;
use super::status::EnsembleStatus;
use super::status::ServerNumbers;
use crate::config::Config;
use crate::proto::OpCode;
use crate::server::{ConnectionView, EnsembleRole};
use std::fmt::Write as _;
use std::path::Path;

/// `srvr`; with `connections`, `stat`.
pub(super) fn server(version: &str, numbers: &ServerNumbers, connections: Option<&[ConnectionView]>) -> String {
    let mut text = format!("Zookeeper version: {version}\n");
    if numbers.role == EnsembleRole::ReadOnly {
        text.push_str("READ-ONLY mode; serving only read-only clients\n");
    }
    if let Some(connections) = connections {
        text.push_str("Clients:\n");
        for view in connections {
            connection(&mut text, view, true);
            text.push('\n');
        }
        text.push('\n');
    }
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "Latency min/avg/max: {}/{}/{}\nReceived: {}\nSent: {}\nConnections: {}\nOutstanding: {}\nZxid: 0x{:x}\n\
         Mode: {}\nNode count: {}\n",
        numbers.latency.min_us / 1000,
        java::double(numbers.average_latency()),
        numbers.latency.max_us / 1000,
        numbers.received,
        numbers.sent,
        numbers.connections,
        numbers.outstanding,
        numbers.zxid.0,
        numbers.role,
        numbers.znodes,
    );
    if numbers.role == EnsembleRole::Leader {
        let sizes = numbers.proposals;
        let _ = writeln!(
            text,
            "Proposal sizes last/min/max: {}/{}/{}",
            sizes.last, sizes.least, sizes.greatest
        );
    }
    text
}

/// `cons`.
pub(super) fn connections(views: &[ConnectionView]) -> String {
    let mut text = String::new();
    for view in views {
        connection(&mut text, view, false);
        text.push('\n');
    }
    text.push('\n');
    text
}

fn connection(text: &mut String, view: &ConnectionView, is_brief: bool) {
    let numbers = &view.numbers;
    // The 1 says that the socket is read, which it is but for moments.
    let _ = write!(
        text,
        " /{}[1](queued={},recved={},sent={}",
        java::socket_address(view.peer),
        view.outstanding,
        numbers.received,
        numbers.sent
    );
    if !is_brief && view.session.0 != 0 {
        let _ = write!(
            text,
            ",sid=0x{:x},lop={},est={},to={}",
            view.session.0,
            operation(numbers.last_op),
            view.established_ms,
            view.timeout_ms
        );
        if numbers.last_xid >= 0 {
            let _ = write!(text, ",lcxid=0x{:x}", numbers.last_xid);
        }
        let average_us = numbers.sum_latency_us.checked_div(numbers.answered).unwrap_or(0);
        let _ = write!(
            text,
            ",lzxid=0x{:x},lresp={},llat={},minlat={},avglat={},maxlat={}",
            numbers.last_zxid,
            numbers.last_reply_us / 1000,
            numbers.last_latency_us / 1000,
            numbers.min_latency_us / 1000,
            average_us / 1000,
            numbers.max_latency_us / 1000
        );
    }
    text.push(')');
}

/// An operation as `lop` names it.
pub(super) fn operation(code: Option<i32>) -> &'static str {
    match code.and_then(OpCode::from_wire) {
        None => "NA",
        Some(OpCode::CreateSession) => "SESS",
        Some(OpCode::CloseSession) => "CLOS",
        Some(OpCode::Create | OpCode::Create2 | OpCode::CreateTtl | OpCode::CreateContainer) => "CREA",
        Some(OpCode::Delete | OpCode::DeleteContainer) => "DELE",
        Some(OpCode::Exists) => "EXIS",
        Some(OpCode::GetData) => "GETD",
        Some(OpCode::SetData) => "SETD",
        Some(OpCode::GetAcl) => "GETA",
        Some(OpCode::SetAcl) => "SETA",
        Some(OpCode::GetChildren | OpCode::GetChildren2) => "GETC",
        Some(OpCode::GetAllChildrenNumber) => "GETACN",
        Some(OpCode::GetEphemerals) => "GETE",
        Some(OpCode::Sync) => "SYNC",
        Some(OpCode::Ping) => "PING",
        Some(OpCode::Check) => "CHEC",
        Some(OpCode::Multi) => "MULT",
        Some(OpCode::MultiRead) => "MLTR",
        Some(OpCode::Reconfig) => "RECO",
        Some(OpCode::SetWatches) => "SETW",
        Some(OpCode::SetWatches2) => "STW2",
        Some(OpCode::AddWatch) => "ADDW",
        Some(OpCode::CheckWatches) => "CHKW",
        Some(OpCode::RemoveWatches) => "REMW",
        Some(OpCode::WhoAmI) => "HOMI",
        // Apache answers these before it notes an operation.
        Some(_) => "NA",
    }
}

/// Where data is, and how much.
pub(super) struct Data<'a> {
    pub(super) tree: &'a Path,
    pub(super) tree_bytes: u64,
    pub(super) log: &'a Path,
    pub(super) log_bytes: u64,
}

/// `conf`.
pub(super) fn configuration(
    config: &Config,
    ensemble: Option<&EnsembleStatus>,
    server_id: u32,
    data: &Data<'_>,
) -> String {
    let port =
        |address: &Option<crate::config::Address>| address.as_ref().map_or(-1, |address| i64::from(address.port));
    let optional = |number: Option<std::num::NonZeroU32>, unset: i64| number.map_or(unset, |n| i64::from(n.get()));
    let mut text = format!(
        "clientPort={}\nsecureClientPort={}\ndataDir={}\ndataDirSize={}\ndataLogDir={}\ndataLogSize={}\ntickTime={}\n\
         maxClientCnxns={}\nminSessionTimeout={}\nmaxSessionTimeout={}\nclientPortListenBacklog={}\nserverId={}\n",
        port(&config.listeners.client),
        port(&config.listeners.secure_client),
        data.tree.display(),
        data.tree_bytes,
        data.log.display(),
        data.log_bytes,
        config.sessions.tick_ms,
        optional(config.limits.max_connections_per_address, 0),
        config.sessions.min_timeout_ms,
        config.sessions.max_timeout_ms,
        optional(config.listeners.backlog, -1),
        server_id,
    );
    if let Some(ensemble) = ensemble {
        membership(&mut text, config, ensemble);
    }
    text
}

fn membership(text: &mut String, config: &Config, ensemble: &EnsembleStatus) {
    let ports = |port: fn(&crate::config::PeerAddress) -> u16| {
        let addresses = ensemble.mine().map(|me| me.addresses.as_slice());
        let ports: Vec<String> = addresses
            .unwrap_or_default()
            .iter()
            .map(|a| port(a).to_string())
            .collect();
        ports.join("|")
    };
    let _ = write!(
        text,
        "initLimit={}\nsyncLimit={}\nelectionAlg=3\nelectionPort={}\nquorumPort={}\npeerType={}\nmembership: \n{}",
        config.cluster.init_limit_ticks,
        config.cluster.sync_limit_ticks,
        ports(|address| address.election_port),
        ports(|address| address.quorum_port),
        u8::from(ensemble.is_observer()),
        ensemble.members,
    );
}

/// `envi`.
pub(super) fn environment(variables: &[(&'static str, String)]) -> String {
    let mut text = String::from("Environment:\n");
    for (key, value) in variables {
        let _ = writeln!(text, "{key}={value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Base, Sources};
    use crate::membership::{Members, ServerId};
    use crate::proto::{SessionId, Zxid};
    use crate::server::{ConnectionNumbers, EnsembleView, Latency, ProposalSizes};
    use std::sync::Arc;

    fn numbers(role: EnsembleRole) -> ServerNumbers {
        ServerNumbers {
            latency: Latency {
                min_us: 900,
                mean_us: 1333.36,
                max_us: 12_345,
                count: 3,
            },
            received: 5,
            sent: 4,
            connections: 1,
            outstanding: 0,
            zxid: Zxid(0x1f),
            role,
            proposals: ProposalSizes {
                last: 48,
                least: 36,
                greatest: 317,
            },
            znodes: 5,
        }
    }

    fn view(session: i64) -> ConnectionView {
        ConnectionView {
            peer: "[::ffff:127.0.0.1]:59648".parse().unwrap(),
            secure: false,
            session: SessionId(session),
            timeout_ms: 30_000,
            outstanding: 0,
            established_ms: 1_700_000_000_000,
            numbers: ConnectionNumbers {
                received: 2,
                sent: 1,
                last_op: Some(11),
                last_xid: -2,
                last_zxid: 0x2a,
                last_reply_us: 5_000_999,
                last_latency_us: 1500,
                min_latency_us: 0,
                sum_latency_us: 9000,
                max_latency_us: 7999,
                answered: 4,
            },
        }
    }

    #[test]
    fn srvr_is_apaches() {
        assert_eq!(
            server("3.9.5-x, built on y", &numbers(EnsembleRole::Standalone), None),
            "Zookeeper version: 3.9.5-x, built on y\nLatency min/avg/max: 0/1.3334/12\nReceived: 5\nSent: 4\n\
             Connections: 1\nOutstanding: 0\nZxid: 0x1f\nMode: standalone\nNode count: 5\n"
        );
        let leader = server("v", &numbers(EnsembleRole::Leader), None);
        assert!(leader.ends_with("Mode: leader\nNode count: 5\nProposal sizes last/min/max: 48/36/317\n"));
        for (role, mode) in [
            (EnsembleRole::Follower, "follower"),
            (EnsembleRole::Observer, "observer"),
        ] {
            let text = server("v", &numbers(role), None);
            assert!(text.ends_with(&format!("Mode: {mode}\nNode count: 5\n")), "{text}");
        }
        let read_only = server("v", &numbers(EnsembleRole::ReadOnly), None);
        assert!(read_only.starts_with(
            "Zookeeper version: v\nREAD-ONLY mode; serving only read-only clients\nLatency min/avg/max: "
        ));
        assert!(read_only.contains("\nMode: read-only\n"));
    }

    #[test]
    fn stat_lists_the_clients_in_brief_before_the_numbers() {
        assert_eq!(
            server("v", &numbers(EnsembleRole::Standalone), Some(&[view(7)])),
            "Zookeeper version: v\nClients:\n /127.0.0.1:59648[1](queued=0,recved=2,sent=1)\n\n\
             Latency min/avg/max: 0/1.3334/12\nReceived: 5\nSent: 4\nConnections: 1\nOutstanding: 0\nZxid: 0x1f\n\
             Mode: standalone\nNode count: 5\n"
        );
    }

    #[test]
    fn cons_shows_more_of_connections_that_have_a_session() {
        assert_eq!(connections(&[]), "\n");
        assert_eq!(
            connections(&[view(0)]),
            " /127.0.0.1:59648[1](queued=0,recved=2,sent=1)\n\n"
        );
        let mut answered = view(-1);
        assert_eq!(
            connections(std::slice::from_ref(&answered)),
            " /127.0.0.1:59648[1](queued=0,recved=2,sent=1,sid=0xffffffffffffffff,lop=PING,est=1700000000000,to=30000,\
             lzxid=0x2a,lresp=5000,llat=1,minlat=0,avglat=2,maxlat=7)\n\n"
        );
        answered.numbers.last_xid = 17;
        answered.numbers.last_op = Some(1);
        let text = connections(&[answered]);
        assert!(
            text.contains(",lop=CREA,est=1700000000000,to=30000,lcxid=0x11,lzxid=0x2a,"),
            "{text}"
        );
    }

    fn config(text: &str) -> Config {
        let path = Path::new("/conf/zoo.cfg");
        let sources = Sources {
            base: Base::File { path, text },
            environment: &|_| None,
            overrides: &[],
            read: &|path| Ok(path.ends_with("myid").then(|| "1".to_owned())),
        };
        crate::config::load(&sources).unwrap().config
    }

    #[test]
    fn conf_is_apaches() {
        let data = Data {
            tree: Path::new("/d/t"),
            tree_bytes: 1,
            log: Path::new("/d/l"),
            log_bytes: 2,
        };
        let alone = config("dataDir=/d\nclientPort=2181\ntickTime=2000\n");
        let expected = "clientPort=2181\nsecureClientPort=-1\ndataDir=/d/t\ndataDirSize=1\ndataLogDir=/d/l\n\
                        dataLogSize=2\ntickTime=2000\nmaxClientCnxns=60\nminSessionTimeout=4000\n\
                        maxSessionTimeout=40000\nclientPortListenBacklog=-1\nserverId=0\n";
        assert_eq!(configuration(&alone, None, 0, &data), expected);
        let text = "server.1=a:2888:3888:participant;0.0.0.0:2181\nserver.2=b:2888:3888:observer\nversion=a0";
        let mut ensemble = EnsembleStatus {
            me: ServerId::FIRST,
            members: Members::parse(text).unwrap(),
            view: Arc::new(EnsembleView::default()),
        };
        for (me, peer_type) in [(1, 0), (2, 1)] {
            ensemble.me = ServerId::new(me).unwrap();
            assert_eq!(
                configuration(&alone, Some(&ensemble), 0, &data),
                format!(
                    "{expected}initLimit=10\nsyncLimit=5\nelectionAlg=3\nelectionPort=3888\nquorumPort=2888\n\
                     peerType={peer_type}\nmembership: \n{text}"
                )
            );
        }
    }

    #[test]
    fn every_operation_has_its_name() {
        assert_eq!(operation(None), "NA");
        assert_eq!(operation(Some(OpCode::CreateTtl as i32)), "CREA");
        assert_eq!(operation(Some(OpCode::CloseSession as i32)), "CLOS");
        assert_eq!(operation(Some(9999)), "NA");
    }
}
