//! What the admin commands tell of an ensemble's members.

use super::json::{Json, Members};
use super::status::EnsembleStatus;
use crate::config::Cluster;
use crate::membership::{Host, PeerAddress, PeerType, Server};
use crate::proto::Zxid;
use crate::server::EnsembleRole;

fn with_port(address: &PeerAddress, port: u16) -> Json {
    Json::Text(format!("{}:{port}", address.host))
}

/// The fields that `configuration` has in an ensemble alone.
pub(super) fn configuration(cluster: &Cluster, ensemble: &EnsembleStatus) -> Members {
    let mine = ensemble.mine().and_then(|server| server.addresses.first());
    let port = |port: Option<u16>| Json::Whole(port.map_or(-1, i64::from));
    [
        ("init_limit", Json::Whole(cluster.init_limit_ticks.into())),
        ("sync_limit", Json::Whole(cluster.sync_limit_ticks.into())),
        ("election_alg", Json::Whole(3)),
        ("election_port", port(mine.map(|address| address.election_port))),
        ("quorum_port", port(mine.map(|address| address.quorum_port))),
        ("peer_type", Json::Whole(i64::from(ensemble.is_observer()))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The participants; of a server that stands alone there are none.
pub(super) fn voting_view(ensemble: Option<&EnsembleStatus>) -> Json {
    let voters = ensemble
        .into_iter()
        .flat_map(|ensemble| ensemble.members.participants());
    let view = voters.map(|(id, server)| {
        let list = |port: fn(&PeerAddress) -> u16| {
            let addresses = server.addresses.iter();
            Json::List(addresses.map(|address| with_port(address, port(address))).collect())
        };
        let client = server.client.as_ref().map(ToString::to_string).unwrap_or_default();
        let fields = Json::object([
            ("server_addresses", list(|address| address.quorum_port)),
            ("election_addresses", list(|address| address.election_port)),
            ("client_address", Json::Text(client)),
            ("learner_type", Json::Text(server.peer_type.to_string())),
        ]);
        (id.to_string(), fields)
    });
    Json::Object(view.collect())
}

/// The observers that a leader is in contact with; nobody else is.
pub(super) fn observers(ensemble: Option<&EnsembleStatus>) -> Members {
    let leading = ensemble.filter(|ensemble| ensemble.view.role == EnsembleRole::Leader);
    let peers = leading
        .map(|ensemble| ensemble.view.peers.as_slice())
        .unwrap_or_default();
    let (mut synced, mut list) = (0, Vec::new());
    for peer in peers.iter().filter(|peer| peer.in_contact && !peer.voter) {
        let line = leading.and_then(|ensemble| ensemble.members.servers.get(&peer.server.member()?));
        let Some(line) = line.filter(|line| line.peer_type == PeerType::Observer) else {
            continue;
        };
        synced += i64::from(peer.synced);
        let address = line
            .addresses
            .first()
            .map(|address| with_port(address, address.quorum_port));
        list.push(Json::object([
            ("remote_socket_address", address.unwrap_or(Json::Null)),
            ("sid", peer.server.0.into()),
            ("synced", Json::Bool(peer.synced)),
        ]));
    }
    [
        ("synced_observers", Json::Whole(synced)),
        ("observers", Json::List(list)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Who leads; `None`: nobody, as far as is known.
pub(super) fn leader(ensemble: &EnsembleStatus) -> Option<Members> {
    let (leader, line) = ensemble.leader()?;
    let address = line.and_then(|line| line.addresses.first());
    let fields = [
        ("is_leader", Json::Bool(leader == ensemble.me)),
        ("leader_id", Json::Whole(leader.get().into())),
        (
            "leader_ip",
            Json::Text(address.map(|address| address.host.to_string()).unwrap_or_default()),
        ),
    ];
    Some(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

pub(super) fn zab_state(ensemble: &EnsembleStatus, zxid: Zxid) -> Members {
    let mine = ensemble.mine();
    let client = mine.and_then(|server| server.client.as_ref());
    let voting = mine.is_some_and(|server| server.peer_type == PeerType::Participant);
    [
        ("myid", Json::Whole(ensemble.me.get().into())),
        ("is_leader", Json::Bool(ensemble.view.role == EnsembleRole::Leader)),
        ("quorum_address", bean(mine, |address| address.quorum_port)),
        ("election_address", bean(mine, |address| address.election_port)),
        (
            "client_address",
            client.map_or(Json::Null, |address| Json::Text(address.to_string())),
        ),
        ("voting", Json::Bool(voting)),
        ("last_zxid", Json::Text(format!("0x{:x}", zxid.0))),
        ("zab_epoch", Json::Whole(zxid.0 >> 32)),
        ("zab_counter", Json::Whole(zxid.0 & 0xffff_ffff)),
        ("zabstate", ensemble.zab_state().into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// A set of addresses with all that ZooKeeper's class for it has getters for. All count as reachable: they are our own.
fn bean(server: Option<&Server>, port: fn(&PeerAddress) -> u16) -> Json {
    let addresses = server.map(|server| server.addresses.as_slice()).unwrap_or_default();
    let all = Json::List(
        addresses
            .iter()
            .map(|address| with_port(address, port(address)))
            .collect(),
    );
    let one = addresses
        .first()
        .map_or(Json::Null, |address| with_port(address, port(address)));
    let wildcard = |address: &PeerAddress| with_port(&any(address), port(address));
    let hosts = addresses.iter().map(|address| Json::Text(address.host.to_string()));
    let ports = addresses.iter().map(|address| Json::Whole(port(address).into()));
    Json::object([
        ("empty", Json::Bool(addresses.is_empty())),
        ("all_addresses", all.clone()),
        ("all_reachable_addresses", all.clone()),
        ("one", one.clone()),
        ("reachable_address", one.clone()),
        (
            "wildcard_addresses",
            Json::List(addresses.iter().map(wildcard).collect()),
        ),
        ("all_ports", Json::List(ports.collect())),
        ("all_host_strings", Json::List(hosts.collect())),
        ("all_reachable_addresses_or_all", all),
        ("reachable_or_one", one),
    ])
}

fn any(address: &PeerAddress) -> PeerAddress {
    PeerAddress {
        host: Host::Any,
        ..address.clone()
    }
}
