//! The checks that need more than one key, in ZooKeeper's order, and the fields that come out of them.

use super::Config;
use super::auth::{self, AuthProvider};
use super::cluster::Membership;
use super::draft::{Draft, PendingStore, PendingTls};
use super::load::ReadFile;
use super::membership::check_membership;
use super::operating::FourLetterWords;
use super::serving::MOST_REQUEST_BYTES;
use super::tls::{ClientAuth, Store, StoreKind, TlsEndpoint, TlsVersion};
use super::value::{JAVA_INT_MAX, Secret};
use crate::membership::{Address, Host};
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
    auth::check_sasl(draft, read);
    check_membership(draft, read);
    check_quorum_tls(draft);
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
        && client.port != 0
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
        ((port, None), (address, Some(_))) if !draft.is_wrong(port) => {
            draft.wrong(address, format!("is set but {port} is not; set both or neither"));
            None
        }
        _ => None,
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
        let (key, other) = match min {
            Some(_) => ("minSessionTimeout", format!("at most {max_ms}")),
            None => ("maxSessionTimeout", format!("at least {min_ms}")),
        };
        let message = "the shortest session timeout would be longer than the longest; expected";
        draft.wrong(
            key,
            format!("{message} {other} (where not set, they are 2 and 20 ticks)"),
        );
    }
}

fn check_limits(draft: &mut Draft) {
    let limits = &mut draft.config.limits;
    if limits.max_frame_bytes > MOST_REQUEST_BYTES {
        limits.max_frame_bytes = MOST_REQUEST_BYTES;
        // It is no error: clients read the same setting as a limit for replies, which may be longer.
        draft.warn_about(
            "jute.maxbuffer",
            format!(
                "requests above {MOST_REQUEST_BYTES} bytes are refused nevertheless, for the log holds no larger one; \
                 expected at most that here, while clients may have more, for replies"
            ),
        );
    }
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

/// What TLS between servers needs. A server that stands alone may have the settings of an ensemble in its file.
fn check_quorum_tls(draft: &mut Draft) {
    let Config { tls, cluster, .. } = &draft.config;
    let key = match (tls.quorum_enabled, tls.quorum_port_unification) {
        _ if cluster.membership == Membership::Standalone => return,
        (true, _) => "sslQuorum",
        (false, true) => "portUnification",
        (false, false) => return,
    };
    let endpoint = &tls.quorum;
    let checks_callers = endpoint.client_auth != ClientAuth::None;
    let needed = [
        (
            "ssl.quorum.keyStore.location",
            "a certificate",
            endpoint.key_store.is_none(),
        ),
        (
            "ssl.quorum.trustStore.location",
            "certificates to check the others' against",
            endpoint.trust_store.is_none() && (tls.quorum_enabled || checks_callers),
        ),
    ];
    let is_told = tls.quorum_enabled && !draft.is_given("ssl.quorum.hostnameVerification");
    for (location, what, _) in needed.into_iter().filter(|(_, _, is_missing)| *is_missing) {
        // A store that is wrong has been told of.
        if !draft.is_given(location) {
            draft.wrong(key, format!("needs {what}; set {location}"));
        }
    }
    if is_told && let Some(given) = draft.given.get(key).cloned() {
        draft.info(
            &given,
            "any certificate of the trust store's authorities may be any server; ssl.quorum.hostnameVerification=true has \
             each name its server's host",
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
        let endings = ".jks, .pem, .p12 or .bcfks";
        draft.wrong(
            &key,
            format!("its ending does not tell its form; expected {endings}, or {prefix}type"),
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
    let serves_tls = draft.config.listeners.secure_client.is_some() || draft.config.tls.client_port_unification;
    if serves_tls && scheme == AuthProvider::X509.scheme() {
        providers.insert(AuthProvider::X509);
    }
    let known = |scheme: &str| providers.iter().any(|provider| provider.scheme() == scheme);
    if serves_tls && !known(&scheme) {
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
