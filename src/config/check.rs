//! The checks that need more than one key, in ZooKeeper's order, and the fields that come out of them.

use super::auth::AuthProvider;
use super::cluster::{Ensemble, Membership, PeerType, set_server};
use super::draft::{Draft, Given, PendingStore, PendingTls};
use super::load::ReadFile;
use super::notice::{Place, Problem, Severity};
use super::operating::FourLetterWords;
use super::properties;
use super::tls::{Store, StoreKind, TlsEndpoint, TlsVersion};
use super::value::{Address, Host, JAVA_INT_MAX, Secret, ServerId};
use std::collections::BTreeSet;
use std::mem;
use std::path::Path;

/// Turns what the single keys left pending into fields, and collects everything that does not fit together.
pub(super) fn check(draft: &mut Draft, read: ReadFile<'_>) {
    check_storage(draft);
    check_listeners(draft);
    check_sessions(draft);
    check_limits(draft);
    check_operating(draft);
    check_tls(draft, read);
    check_auth(draft);
    read_dynamic_file(draft, read);
    check_cluster(draft, read);
    if draft.config.listeners.client.is_none() && draft.config.listeners.secure_client.is_none() {
        draft.warn_about(
            "clientPort",
            "neither clientPort nor secureClientPort is set: no client can connect",
        );
    }
}

fn check_storage(draft: &mut Draft) {
    let Some(data_dir) = draft.pending.data_dir.take() else {
        if !draft.is_given("dataDir") {
            draft.wrong(
                "dataDir",
                "is not set; expected the directory of the data, such as dataDir=/var/lib/menagerie",
            );
        }
        return;
    };
    for (key, path) in [
        ("dataDir", Some(&data_dir)),
        ("dataLogDir", draft.pending.data_log_dir.clone().as_ref()),
    ] {
        let surprising = path.is_some_and(|path| path.is_relative() && !path.starts_with("."));
        if surprising && draft.is_given(key) && !draft.pending.built_in {
            draft.warn_about(
                key,
                "is relative to the working directory; write ./ before it if that is what you mean",
            );
        }
    }
    draft.config.storage.data_log_dir = draft.pending.data_log_dir.take().unwrap_or_else(|| data_dir.clone());
    draft.config.storage.data_dir = data_dir;
}

fn check_listeners(draft: &mut Draft) {
    let (port, host) = (draft.pending.client_port, draft.pending.client_host.take());
    draft.config.listeners.client = listener(draft, ("clientPort", port), ("clientPortAddress", host));
    let (port, host) = (draft.pending.secure_port, draft.pending.secure_host.take());
    draft.config.listeners.secure_client =
        listener(draft, ("secureClientPort", port), ("secureClientPortAddress", host));
    let (client, secure) = (&draft.config.listeners.client, &draft.config.listeners.secure_client);
    if let (Some(client), Some(secure)) = (client, secure)
        && client.port == secure.port
        && (client.host == secure.host || client.host.is_any() || secure.host.is_any())
    {
        draft.wrong("secureClientPort", "is clientPort too; expected another port");
    }
}

fn listener(draft: &mut Draft, port: (&str, Option<u16>), host: (&str, Option<Host>)) -> Option<Address> {
    match (port, host) {
        ((_, Some(port)), (_, host)) => Some(Address {
            host: host.unwrap_or(Host::Any),
            port,
        }),
        ((port, None), (address, Some(_))) => {
            draft.wrong(address, format!("is set but {port} is not; set both or neither"));
            None
        }
        ((_, None), (_, None)) => None,
    }
}

fn check_sessions(draft: &mut Draft) {
    let (min, max) = (
        draft.pending.min_session_timeout_ms,
        draft.pending.max_session_timeout_ms,
    );
    let sessions = &mut draft.config.sessions;
    let ticks = |count: u32| sessions.tick_ms.saturating_mul(count).min(JAVA_INT_MAX);
    let (min_ms, max_ms) = (min.unwrap_or_else(|| ticks(2)), max.unwrap_or_else(|| ticks(20)));
    (sessions.min_timeout_ms, sessions.max_timeout_ms) = (min_ms, max_ms);
    if min_ms > max_ms {
        let key = if min.is_some() {
            "minSessionTimeout"
        } else {
            "maxSessionTimeout"
        };
        draft.wrong(
            key,
            format!("the shortest session timeout ({min_ms} ms) is longer than the longest ({max_ms} ms); where they are not set they are 2 and 20 ticks"),
        );
    }
}

fn check_limits(draft: &mut Draft) {
    let limits = &mut draft.config.limits;
    limits.extra_frame_bytes = draft.pending.extra_frame_bytes.unwrap_or(limits.max_frame_bytes);
}

fn check_operating(draft: &mut Draft) {
    let words = draft.pending.four_letter_words.take().unwrap_or_default();
    draft.config.four_letter_words = FourLetterWords::new(words, draft.config.reads.read_only_mode);
}

fn check_tls(draft: &mut Draft, read: ReadFile<'_>) {
    let client = mem::take(&mut draft.pending.client_tls);
    let mut endpoint = mem::take(&mut draft.config.tls.client);
    finish_endpoint(draft, "ssl.", client, &mut endpoint, read);
    draft.config.tls.client = endpoint;
    let quorum = mem::take(&mut draft.pending.quorum_tls);
    let mut endpoint = mem::take(&mut draft.config.tls.quorum);
    finish_endpoint(draft, "ssl.quorum.", quorum, &mut endpoint, read);
    draft.config.tls.quorum = endpoint;

    let tls = &draft.config.tls;
    let serves_tls = draft.config.listeners.secure_client.is_some() || tls.client_port_unification;
    if serves_tls && tls.client.key_store.is_none() && !draft.is_given("ssl.keyStore.location") {
        let key = if tls.client_port_unification {
            "client.portUnification"
        } else {
            "secureClientPort"
        };
        draft.warn_about(
            key,
            "no TLS handshake can succeed without a certificate; set ssl.keyStore.location",
        );
    }
}

fn finish_endpoint(
    draft: &mut Draft,
    prefix: &str,
    pending: PendingTls,
    endpoint: &mut TlsEndpoint,
    read: ReadFile<'_>,
) {
    endpoint.key_store = finish_store(draft, &format!("{prefix}keyStore."), pending.key_store, read);
    endpoint.trust_store = finish_store(draft, &format!("{prefix}trustStore."), pending.trust_store, read);
    endpoint.protocols = match pending.protocol {
        _ if !pending.enabled_protocols.is_empty() => pending.enabled_protocols,
        Some(version) => BTreeSet::from([version]),
        None => BTreeSet::from([TlsVersion::Tls12, TlsVersion::Tls13]),
    };
}

fn finish_store(draft: &mut Draft, prefix: &str, pending: PendingStore, read: ReadFile<'_>) -> Option<Store> {
    let key = format!("{prefix}location");
    let Some(location) = pending.location else {
        for part in ["password", "passwordPath", "type"] {
            if draft.is_given(&format!("{prefix}{part}")) && !draft.is_given(&key) {
                draft.warn_about(&format!("{prefix}{part}"), format!("has no effect without {key}"));
            }
        }
        return None;
    };
    let password = match pending.password_path {
        Some(path) => read_password(draft, &format!("{prefix}passwordPath"), &path, read),
        None => pending.password.unwrap_or_else(|| Secret::new("")),
    };
    let kind = pending.kind.or_else(|| StoreKind::of_file(&location.to_string_lossy()));
    let Some(kind) = kind else {
        draft.wrong(
            &key,
            format!("its form is not told by its ending; expected .jks, .pem, .p12 or .bcfks, or {prefix}type"),
        );
        return None;
    };
    Some(Store {
        location,
        kind,
        password,
    })
}

fn read_password(draft: &mut Draft, key: &str, path: &Path, read: ReadFile<'_>) -> Secret {
    match read(path) {
        Ok(Some(text)) => return Secret::new(text.trim_end_matches(['\r', '\n'])),
        Ok(None) => draft.wrong(key, "there is no such file; expected a file that holds the password"),
        Err(error) => draft.wrong(key, format!("the file cannot be read: {error}")),
    }
    Secret::new("")
}

fn check_auth(draft: &mut Draft) {
    let mut providers = mem::take(&mut draft.config.auth.providers);
    let configured = mem::take(&mut draft.pending.auth_providers);
    providers.extend(configured.into_values());
    let scheme = draft.config.tls.client.auth_scheme.clone();
    if draft.config.listeners.secure_client.is_some() && scheme == AuthProvider::X509.scheme() {
        providers.insert(AuthProvider::X509);
    }
    let known = |scheme: &str| providers.iter().any(|provider| provider.scheme() == scheme);
    if draft.config.listeners.secure_client.is_some() && !known(&scheme) {
        draft.wrong(
            "ssl.authProvider",
            format!("no provider for {scheme:?} is configured; expected x509"),
        );
    }

    let schemes = if draft.pending.require_sasl {
        Some(BTreeSet::from([AuthProvider::Sasl.scheme().to_owned()]))
    } else if draft.pending.enforce_auth {
        Some(draft.pending.enforced_schemes.iter().cloned().collect())
    } else {
        None
    };
    let key = if draft.pending.require_sasl {
        "sessionRequireClientSASLAuth"
    } else {
        "enforce.auth.schemes"
    };
    if schemes.as_ref().is_some_and(BTreeSet::is_empty) {
        draft.wrong(
            key,
            "enforce.auth.enabled needs it; expected schemes such as digest,sasl",
        );
    }
    for scheme in schemes.iter().flatten().filter(|scheme| !known(scheme)) {
        let available: Vec<&str> = providers.iter().map(|provider| provider.scheme()).collect();
        let available = available.join(", ");
        draft.wrong(
            key,
            format!("the scheme {scheme:?} is not available; available are {available} (authProvider.N adds others)"),
        );
    }
    draft.config.auth.enforced_schemes = schemes;
    draft.config.auth.providers = providers;
}

/// Reads the file of the membership, where there is one.
fn read_dynamic_file(draft: &mut Draft, read: ReadFile<'_>) {
    let Some(path) = draft.pending.dynamic_config_file.clone() else {
        return;
    };
    let misplaced: Vec<Given> = draft
        .given
        .values()
        .filter(|given| is_membership_key(&given.key))
        .cloned()
        .collect();
    for given in misplaced {
        draft.wrong(
            &given.key,
            format!(
                "must stand in {}, because dynamicConfigFile names that file",
                path.display()
            ),
        );
    }
    draft.pending.servers.clear();
    let text = match read(&path) {
        Ok(Some(text)) => text,
        Ok(None) => {
            return draft.wrong(
                "dynamicConfigFile",
                "there is no such file; expected one with server.N lines",
            );
        }
        Err(error) => return draft.wrong("dynamicConfigFile", format!("the file cannot be read: {error}")),
    };
    let file = path.display().to_string();
    let problem = |line, key: &str, value, message| Problem {
        place: Place::Line {
            file: file.clone(),
            line,
        },
        key: key.to_owned(),
        value,
        message,
    };
    let entries = match properties::parse(&text) {
        Ok(entries) => entries,
        Err(errors) => {
            let problems = errors
                .into_iter()
                .map(|error| problem(error.line, "syntax", None, error.what));
            return draft.problems.extend(problems);
        }
    };
    for entry in entries {
        let place = Place::Line {
            file: file.clone(),
            line: entry.line,
        };
        let given = Given {
            key: entry.key,
            text: entry.value,
            place,
        };
        let outcome = match given.key.as_str() {
            "version" => Err("the version belongs into the file's name, not into the file".to_owned()),
            key if key.starts_with("server.") => set_server(draft, &given),
            key if is_membership_key(key) => {
                draft.warn(
                    &given,
                    "not available yet: a plain majority of the participants decides",
                );
                Ok(())
            }
            _ => Err("does not belong into a file of server.N lines; move it to zoo.cfg".to_owned()),
        };
        if let Err(message) = outcome {
            draft
                .problems
                .push(problem(entry.line, &given.key, Some(given.text.clone()), message));
        }
    }
}

fn is_membership_key(key: &str) -> bool {
    key.starts_with("server.") || key.starts_with("group") || key.starts_with("weight")
}

/// The version is what follows the last dot of the name, in hexadecimal: `zoo.cfg.dynamic.100000000`.
fn version_of_file_name(path: &Path) -> u64 {
    let name = path.to_string_lossy();
    name.rsplit_once('.')
        .and_then(|(_, version)| u64::from_str_radix(version, 16).ok())
        .unwrap_or(0)
}

fn check_cluster(draft: &mut Draft, read: ReadFile<'_>) {
    let servers = mem::take(&mut draft.pending.servers);
    let distributed = check_membership(draft, &servers);
    let written_id = read_my_id(draft, distributed, read);
    let only_id = if servers.len() == 1 {
        servers.keys().next().copied()
    } else {
        None
    };
    let me = written_id.or(if distributed { None } else { only_id });

    draft.config.cluster.server_id = me;
    draft.config.cluster.dynamic_config_file = draft.pending.dynamic_config_file.clone();
    let mine = me.and_then(|me| servers.get(&me));
    if let Some((server, line)) = mine {
        adopt_client_address(draft, server.client.clone(), line);
    }
    settle_peer_type(draft, mine.map(|(server, _)| server.peer_type), !servers.is_empty());
    check_tick_limits(draft, distributed);
    if !distributed {
        draft.config.cluster.membership = Membership::Standalone;
        return;
    }
    let version = draft
        .pending
        .dynamic_config_file
        .as_deref()
        .map_or(0, version_of_file_name);
    let is_member = me.is_some_and(|me| servers.contains_key(&me));
    match me {
        Some(me) if is_member => {
            let servers = servers.into_iter().map(|(id, (server, _))| (id, server)).collect();
            draft.config.cluster.membership = Membership::Ensemble(Ensemble { me, servers, version });
        }
        Some(me) => {
            let ids: Vec<String> = servers.keys().map(|id| format!("server.{id}")).collect();
            let message = format!(
                "is {me}, but there is no line server.{me}; there are {}",
                ids.join(", ")
            );
            draft.wrong("myid", message);
        }
        // `read_my_id` has said what is wrong.
        None => {}
    }
}

type Servers = std::collections::BTreeMap<ServerId, (super::cluster::Server, Given)>;

/// Whether the server lines make an ensemble, and whether they can.
fn check_membership(draft: &mut Draft, servers: &Servers) -> bool {
    let standalone_enabled = draft.pending.standalone_enabled;
    let participants = servers
        .values()
        .filter(|(server, _)| server.peer_type == PeerType::Participant)
        .count();
    let observers = servers.len() - participants;
    for (server, line) in servers.values() {
        if server.addresses.len() > 1 && !draft.pending.multi_address {
            let message = "names several addresses; set multiAddress.enabled=true for that, or leave one".to_owned();
            draft.problems.push(Problem {
                place: line.place.clone(),
                key: line.key.clone(),
                value: Some(line.text.clone()),
                message,
            });
        }
    }
    match participants {
        0 if observers > 0 => draft.wrong(
            "server.N",
            "all servers are observers; expected at least one participant",
        ),
        // Where a line was refused, the refusal is what has to be told.
        0 if !standalone_enabled && draft.problems.is_empty() => {
            draft.wrong(
                "standaloneEnabled",
                "needs server.N lines; expected at least one participant",
            );
        }
        1 if standalone_enabled && observers > 0 => draft.wrong(
            "server.N",
            "observers need an ensemble; expected more participants, or standaloneEnabled=false for an ensemble of one",
        ),
        1 if standalone_enabled => draft.warn_about(
            "server.N",
            "only one server is named: it stands alone (standaloneEnabled=false makes it an ensemble of one)",
        ),
        1 | 2 => draft.warn_about("server.N", "no server may fail: that takes at least 3 participants"),
        count if count > 0 && count.is_multiple_of(2) => draft.warn_about(
            "server.N",
            format!(
                "{count} participants bear no more failures than {}; an odd number is better",
                count - 1
            ),
        ),
        _ => {}
    }
    participants > 1 || (!standalone_enabled && participants > 0)
}

fn read_my_id(draft: &mut Draft, required: bool, read: ReadFile<'_>) -> Option<ServerId> {
    if draft.config.storage.data_dir.as_os_str().is_empty() {
        return None;
    }
    let path = draft.config.storage.data_dir.join("myid");
    let place = Place::File(path.display().to_string());
    let mut problem = |value: Option<&str>, message: String| {
        let value = value.map(str::to_owned);
        draft.problems.push(Problem {
            place: place.clone(),
            key: "myid".to_owned(),
            value,
            message,
        });
        None
    };
    let text = match read(&path) {
        Ok(Some(text)) => text,
        Ok(None) if required => {
            return problem(
                None,
                "the file is missing; expected one with the N of this server's server.N line".into(),
            );
        }
        Ok(None) => return None,
        Err(error) => return problem(None, format!("the file cannot be read: {error}")),
    };
    let first_line = text.lines().next().unwrap_or_default().trim();
    let Ok(number) = first_line.parse::<i64>() else {
        return problem(Some(first_line), "is not a number; expected 1 to 254".into());
    };
    match ServerId::new(number) {
        Some(id) => Some(id),
        None if required => problem(Some(first_line), "is out of range; expected 1 to 254".into()),
        None => {
            let message = format!("{number} is not from 1 to 254; a server that stands alone does without");
            draft.notify(Severity::Warn, place, "myid", message);
            None
        }
    }
}

/// The client address of this server's line goes before the one of the static keys, which must agree with it.
fn adopt_client_address(draft: &mut Draft, from_line: Option<Address>, line: &Given) {
    let Some(from_line) = from_line else { return };
    if let Some(fixed) = &draft.config.listeners.client {
        let agree = fixed.port == from_line.port && (fixed.host.is_any() || fixed.host == from_line.host);
        if !agree {
            let message = format!(
                "is {fixed} here and {from_line} in {} ({}); leave one or make them equal",
                line.key, line.place
            );
            draft.wrong("clientPort", message);
        }
    }
    draft.config.listeners.client = Some(from_line);
}

fn settle_peer_type(draft: &mut Draft, from_line: Option<PeerType>, have_lines: bool) {
    let by_lines = from_line.unwrap_or(PeerType::Participant);
    let by_key = draft.pending.peer_type.unwrap_or(PeerType::Participant);
    if by_lines != by_key && (draft.pending.peer_type.is_some() || have_lines) {
        draft.warn_about(
            "peerType",
            format!("is {by_key}, but this server is {by_lines} by its server.N line, which counts"),
        );
    }
    draft.config.cluster.peer_type = by_lines;
}

fn check_tick_limits(draft: &mut Draft, distributed: bool) {
    for (key, sample) in [("initLimit", 10), ("syncLimit", 5)] {
        if distributed && !draft.is_given(key) {
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
