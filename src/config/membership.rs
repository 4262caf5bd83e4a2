//! Who belongs to the ensemble: the file of the membership, `myid`, and what has to hold among the `server.N` lines.

use super::cluster::{Ensemble, Membership, set_server};
use super::draft::{Draft, Given};
use super::load::ReadFile;
use super::notice::{Place, Problem, Severity};
use super::properties;
use crate::membership::{Address, PeerType, Server, ServerId};
use std::collections::BTreeMap;
use std::mem;
use std::path::Path;

/// The members with the lines that they come from.
type Members = BTreeMap<ServerId, (Server, Given)>;

/// Fills `cluster`, and the client address where this server's line has one.
pub(super) fn check_membership(draft: &mut Draft, read: ReadFile<'_>) {
    read_dynamic_file(draft, read);
    let members = mem::take(&mut draft.pending.servers);
    let distributed = check_members(draft, &members);
    let me = my_id(draft, &members, distributed, read);
    let mine = me.and_then(|me| members.get(&me));

    draft.config.cluster.server_id = me;
    if let Some((server, line)) = mine {
        adopt_client_address(draft, server.client.clone(), line);
    }
    settle_peer_type(draft, mine.map(|(server, _)| server.peer_type));
    check_tick_limits(draft, distributed);

    let file = draft.pending.dynamic_config_file.take();
    let version = file.as_deref().map_or(0, version_of_file_name);
    draft.config.cluster.dynamic_config_file = file;
    // Where `me` is missing or no member, `my_id` has said so: this configuration will not be used.
    if let (true, Some(me)) = (distributed, me) {
        let servers = members.into_iter().map(|(id, (server, _))| (id, server)).collect();
        draft.config.cluster.membership = Membership::Ensemble(Ensemble { me, servers, version });
    }
}

/// Reads the file of the membership, where there is one. Its lines replace those of zoo.cfg, which must have none.
fn read_dynamic_file(draft: &mut Draft, read: ReadFile<'_>) {
    let Some(path) = draft.pending.dynamic_config_file.clone() else {
        return;
    };
    draft.pending.servers.clear();
    let misplaced: Vec<Given> = draft
        .given
        .values()
        .filter(|given| is_membership_key(&given.key))
        .cloned()
        .collect();
    for given in misplaced {
        let message = format!(
            "must stand in {}, because dynamicConfigFile names that file",
            path.display()
        );
        draft.wrong_here(&given, message);
    }
    let key = "dynamicConfigFile";
    let text = match read(&path) {
        Ok(Some(text)) => text,
        Ok(None) => return draft.wrong(key, "there is no such file; expected one with server.N lines"),
        Err(error) => return draft.wrong(key, format!("the file cannot be read: {error}")),
    };
    let place = |line| Place::Line {
        file: path.display().to_string(),
        line,
    };
    match properties::parse(&text) {
        Ok(entries) => {
            for entry in entries {
                take_entry(
                    draft,
                    &Given {
                        place: place(entry.line),
                        key: entry.key,
                        text: entry.value,
                    },
                );
            }
        }
        Err(errors) => draft.problems.extend(errors.into_iter().map(|error| Problem {
            place: place(error.line),
            key: "syntax".to_owned(),
            value: None,
            message: error.what,
        })),
    }
}

fn take_entry(draft: &mut Draft, given: &Given) {
    match given.key.as_str() {
        "version" => draft.wrong_here(
            given,
            "expected no version in the file; it belongs into the file's name",
        ),
        key if key.starts_with("server.") => {
            if let Err(message) = set_server(draft, given) {
                draft.wrong_here(given, message);
            }
        }
        key if is_membership_key(key) => {
            draft.warn(
                given,
                "not available yet, ignored: a plain majority of the participants decides",
            );
        }
        _ => draft.wrong_here(
            given,
            "does not belong into a file of server.N lines; expected it in zoo.cfg",
        ),
    }
}

fn is_membership_key(key: &str) -> bool {
    key.starts_with("server.") || key.starts_with("group") || key.starts_with("weight")
}

/// The version is what follows the last dot of the name, in hexadecimal: `zoo.cfg.dynamic.100000000`.
fn version_of_file_name(path: &Path) -> u64 {
    let name = path.to_string_lossy();
    let version = name
        .rsplit_once('.')
        .and_then(|(_, version)| u64::from_str_radix(version, 16).ok());
    version.unwrap_or(0)
}

/// Whether the lines make an ensemble; reports it where they cannot.
fn check_members(draft: &mut Draft, members: &Members) -> bool {
    let lone = draft.config.cluster.standalone_enabled;
    let participants = members
        .values()
        .filter(|(server, _)| server.peer_type == PeerType::Participant)
        .count();
    let distributed = participants > 1 || (!lone && participants > 0);
    if draft
        .problems
        .iter()
        .any(|problem| problem.key.starts_with("server.") || problem.key == "dynamicConfigFile")
    {
        // A line was refused: what its absence seems to mean would only confuse.
        return distributed;
    }
    for (server, line) in members.values() {
        if server.addresses.len() > 1 && !draft.config.cluster.several_addresses {
            draft.wrong_here(line, "expected one address, or multiAddress.enabled=true for several");
        }
    }
    let Some((_, line)) = members.values().next() else {
        if !lone {
            draft.wrong(
                "standaloneEnabled",
                "no server.N line names a participant; expected at least one",
            );
        }
        return distributed;
    };
    let observers = members.len() - participants;
    match participants {
        0 => draft.wrong_here(line, "all servers are observers; expected at least one participant"),
        1 if lone && observers > 0 => {
            let right = "more participants, or standaloneEnabled=false for an ensemble with one";
            draft.wrong_here(line, format!("observers need an ensemble; expected {right}"));
        }
        1 if lone => {
            let message = "the only server: it stands alone (standaloneEnabled=false makes it an ensemble of one)";
            draft.warn(line, message);
        }
        1 | 2 => draft.warn(line, "no participant may fail: that takes at least 3 of them"),
        even if even.is_multiple_of(2) => {
            let message = format!("{even} participants bear no more failures than {}", even - 1);
            draft.warn(line, message);
        }
        _ => {}
    }
    distributed
}

/// This server's id: what `myid` says, or the only one there is. Reports it where an ensemble needs it and it is
/// missing, wrong or no member.
fn my_id(draft: &mut Draft, members: &Members, distributed: bool, read: ReadFile<'_>) -> Option<ServerId> {
    if draft.config.storage.data_dir.as_os_str().is_empty() {
        // The missing dataDir has been reported; nothing is known about what is below it.
        return None;
    }
    let path = draft.config.storage.data_dir.join("myid");
    let given = |text: &str| Given {
        key: "myid".to_owned(),
        text: text.to_owned(),
        place: Place::File(path.display().to_string()),
    };
    let text = match read(&path) {
        Ok(Some(text)) => text,
        Ok(None) if distributed => {
            let message = "the file is missing; expected the N of this server's server.N line in it";
            draft.problems.push(Problem {
                place: given("").place,
                key: "myid".into(),
                value: None,
                message: message.into(),
            });
            return None;
        }
        Ok(None) if members.len() == 1 => return members.keys().next().copied(),
        Ok(None) => return None,
        Err(error) => {
            draft.wrong_here(&given(""), format!("the file cannot be read: {error}"));
            return None;
        }
    };
    let written = given(text.lines().next().unwrap_or_default().trim());
    let Ok(number) = written.text.parse::<i64>() else {
        draft.wrong_here(&written, "expected a number from 1 to 254");
        return None;
    };
    let id = ServerId::new(number);
    match id {
        Some(id) if distributed && !members.contains_key(&id) => {
            let ids: Vec<String> = members.keys().map(|id| format!("server.{id}")).collect();
            draft.wrong_here(
                &written,
                format!("there is no line server.{id}; expected one of {}", ids.join(", ")),
            );
        }
        None if distributed => draft.wrong_here(&written, "expected a number from 1 to 254"),
        None => {
            let message = format!("{number} is not from 1 to 254; a server that stands alone does without");
            draft.notify(Severity::Warn, written.place, "myid", message);
        }
        Some(_) => {}
    }
    id
}

/// The client address of this server's line goes before the one of the static keys, which must agree with it.
fn adopt_client_address(draft: &mut Draft, from_line: Option<Address>, line: &Given) {
    let Some(from_line) = from_line else { return };
    if let Some(fixed) = &draft.config.listeners.client {
        let agree = fixed.port == from_line.port && (fixed.host.is_any() || fixed.host == from_line.host);
        if !agree {
            let other = format!("{from_line} in {} ({})", line.key, line.place);
            draft.wrong(
                "clientPort",
                format!("is {fixed} here and {other}; expected one of them, or the same twice"),
            );
        }
    }
    draft.config.listeners.client = Some(from_line);
}

fn settle_peer_type(draft: &mut Draft, from_line: Option<PeerType>) {
    let counts = from_line.unwrap_or(PeerType::Participant);
    let by_key = draft.pending.peer_type.take();
    if let Some(by_key) = by_key.filter(|by_key| *by_key != counts) {
        let reason = if from_line.is_some() {
            "its server.N line says so"
        } else {
            "no server.N line says otherwise"
        };
        draft.warn_about(
            "peerType",
            format!("is {by_key}, but this server is a {counts}: {reason}"),
        );
    }
    draft.config.cluster.peer_type = counts;
}

fn check_tick_limits(draft: &mut Draft, distributed: bool) {
    let limits = [
        ("initLimit", 10, draft.pending.init_limit_ticks),
        ("syncLimit", 5, draft.pending.sync_limit_ticks),
    ];
    for (key, sample, limit) in limits {
        if distributed && limit.is_none() && !draft.is_wrong(key) {
            draft.wrong(
                key,
                format!("is not set; expected a number of ticks in an ensemble, such as {sample}"),
            );
        }
    }
    let cluster = &mut draft.config.cluster;
    cluster.init_limit_ticks = draft.pending.init_limit_ticks.unwrap_or(cluster.init_limit_ticks);
    cluster.sync_limit_ticks = draft.pending.sync_limit_ticks.unwrap_or(cluster.sync_limit_ticks);
}
