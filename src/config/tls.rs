//! TLS: key and trust stores, versions, what is asked of the other side.

use super::draft::{Draft, Given, PendingStore};
use super::key::{Key, Setter};
use super::value::Secret;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// TLS on the client port (`ssl.*`) and between servers (`ssl.quorum.*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Connections of clients.
    pub client: TlsEndpoint,
    /// Connections between servers.
    pub quorum: TlsEndpoint,
    /// `clientPort` takes plain and TLS connections, told apart by their first byte (`client.portUnification`). Default
    /// off, as in ZooKeeper.
    pub client_port_unification: bool,
    /// Servers speak TLS with each other (`sslQuorum`). Default off, as in ZooKeeper.
    pub quorum_enabled: bool,
    /// Other servers may call in plain or with TLS, told apart by their first byte, while an ensemble changes to TLS
    /// (`portUnification`). Default off, as in ZooKeeper.
    pub quorum_port_unification: bool,
    /// The certificate of a server that is called must name its host (`ssl.quorum.hostnameVerification`). Default off:
    /// ZooKeeper's default is on, but its `fips-mode`, on by default, puts it out of force between servers, so that
    /// ensembles run whose certificates name no host.
    pub quorum_host_names: bool,
    /// So must the certificate of a server that calls (`ssl.quorum.clientHostnameVerification`), where that of one that is
    /// called must. Default on, as in ZooKeeper.
    pub quorum_caller_host_names: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            client: TlsEndpoint::default(),
            quorum: TlsEndpoint::default(),
            client_port_unification: false,
            quorum_enabled: false,
            quorum_port_unification: false,
            quorum_host_names: false,
            quorum_caller_host_names: true,
        }
    }
}

/// One kind of TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsEndpoint {
    /// Our certificate and its key (`keyStore.*`). Default none: no handshake can succeed.
    pub key_store: Option<Store>,
    /// The authorities that we trust (`trustStore.*`). Default none: no certificate of the other side is trusted.
    pub trust_store: Option<Store>,
    /// The versions that we speak, never empty (`enabledProtocols`; where only `protocol` is given, that one). Default
    /// 1.2 and 1.3: clients on old Java know 1.2 alone.
    pub protocols: BTreeSet<TlsVersion>,
    /// Whether the other side has to show a certificate (`clientAuth`). Default that it needs to, as in ZooKeeper.
    pub client_auth: ClientAuth,
    /// The scheme of the identity that a certificate proves (`ssl.authProvider`). Default `x509`, as in ZooKeeper.
    pub auth_scheme: String,
}

impl Default for TlsEndpoint {
    fn default() -> Self {
        Self {
            key_store: None,
            trust_store: None,
            protocols: BTreeSet::from([TlsVersion::Tls12, TlsVersion::Tls13]),
            client_auth: ClientAuth::Need,
            auth_scheme: "x509".to_owned(),
        }
    }
}

/// A key or trust store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The file.
    pub location: PathBuf,
    /// Its form.
    pub kind: StoreKind,
    /// What opens it; empty where none was given.
    pub password: Secret,
}

/// The form of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// Java's own (`.jks`).
    Jks,
    /// Text (`.pem`).
    Pem,
    /// PKCS#12 (`.p12`).
    Pkcs12,
    /// Bouncy Castle's (`.bcfks`).
    Bcfks,
}

impl StoreKind {
    /// ZooKeeper goes by these endings alone, letter by letter.
    pub(super) fn of_file(location: &str) -> Option<Self> {
        let endings = [
            (".jks", Self::Jks),
            (".pem", Self::Pem),
            (".p12", Self::Pkcs12),
            (".bcfks", Self::Bcfks),
        ];
        endings
            .into_iter()
            .find_map(|(ending, kind)| location.ends_with(ending).then_some(kind))
    }

    fn of_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "JKS" => Some(Self::Jks),
            "PEM" => Some(Self::Pem),
            "PKCS12" => Some(Self::Pkcs12),
            "BCFKS" => Some(Self::Bcfks),
            _ => None,
        }
    }
}

/// A version of TLS. The older ones are not spoken: they are broken, and forbidden by RFC 8996.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    fn of_name(name: &str) -> Option<Self> {
        match name {
            "TLSv1.2" => Some(Self::Tls12),
            "TLSv1.3" => Some(Self::Tls13),
            _ => None,
        }
    }
}

/// What is asked of the one who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nothing.
    None,
    /// A certificate is checked where there is one.
    Want,
    /// No certificate, no connection.
    Need,
}

/// Java's names for "the best that both sides know", and for versions that are not spoken any more.
const GENERIC_PROTOCOLS: [&str; 2] = ["TLS", "SSL"];
const OLD_PROTOCOLS: [&str; 6] = ["SSLv2", "SSLv2Hello", "SSLv3", "TLSv1", "TLSv1.0", "TLSv1.1"];

const STORE_KINDS: &str = "JKS, PEM, PKCS12 or BCFKS";
const CLIENT_AUTH: &str = "need, want or none";
const PROTOCOL: &str = "TLSv1.2 or TLSv1.3";
const PROTOCOLS: &str = "TLSv1.2, TLSv1.3 or both, separated by a comma";

/// The rows of one store. The setters are plain functions, so each row needs its field spelt out: hence the macro.
macro_rules! store_keys {
    ($keys:ident, $prefix:literal, $endpoint:ident, $store:ident, $what:literal) => {
        const $keys: [Key; 4] = [
            Key::honoured(
                concat!($prefix, "location"),
                "",
                Setter::Text(|draft, path| draft.pending.$endpoint.$store.location = Some(PathBuf::from(path))),
                concat!("the file of the ", $what),
            ),
            Key::honoured(
                concat!($prefix, "password"),
                "",
                Setter::Secret(|draft, text| draft.pending.$endpoint.$store.password = Some(Secret::new(text))),
                concat!("the password of the ", $what),
            ),
            Key::honoured(
                concat!($prefix, "passwordPath"),
                "",
                Setter::Text(|draft, path| draft.pending.$endpoint.$store.password_path = Some(PathBuf::from(path))),
                concat!(
                    "a file with the password of the ",
                    $what,
                    "; it goes before the password itself"
                ),
            ),
            Key::honoured(
                concat!($prefix, "type"),
                "",
                Setter::Parsed {
                    form: STORE_KINDS,
                    set: |draft, given| set_store_kind(&mut draft.pending.$endpoint.$store, given),
                },
                concat!(
                    "the form of the ",
                    $what,
                    "; what the file holds decides, this or its ending must only be given"
                ),
            ),
        ];
    };
}

/// The rows of one kind of connection beside its stores.
macro_rules! endpoint_keys {
    ($keys:ident, $prefix:literal, $endpoint:ident, $pending:ident) => {
        const $keys: [Key; 3] = [
            Key::honoured(
                concat!($prefix, "protocol"),
                "",
                Setter::Parsed {
                    form: PROTOCOL,
                    set: |draft, given| {
                        draft.pending.$pending.protocol = parse_protocol(draft, given)?;
                        Ok(())
                    },
                },
                "the only version that is spoken, unless enabledProtocols names more",
            ),
            Key::honoured(
                concat!($prefix, "enabledProtocols"),
                "TLSv1.2,TLSv1.3",
                Setter::Parsed {
                    form: PROTOCOLS,
                    set: |draft, given| {
                        draft.pending.$pending.enabled_protocols = parse_protocols(draft, given)?;
                        Ok(())
                    },
                },
                "the versions that are spoken",
            ),
            Key::honoured(
                concat!($prefix, "clientAuth"),
                "need",
                Setter::Parsed {
                    form: CLIENT_AUTH,
                    set: |draft, given| {
                        draft.config.tls.$endpoint.client_auth = parse_client_auth(given)?;
                        Ok(())
                    },
                },
                "whether the other side has to show a certificate",
            ),
        ];
    };
}

store_keys!(CLIENT_KEY_STORE, "ssl.keyStore.", client_tls, key_store, "key store");
store_keys!(
    CLIENT_TRUST_STORE,
    "ssl.trustStore.",
    client_tls,
    trust_store,
    "trust store"
);
store_keys!(
    QUORUM_KEY_STORE,
    "ssl.quorum.keyStore.",
    quorum_tls,
    key_store,
    "key store"
);
store_keys!(
    QUORUM_TRUST_STORE,
    "ssl.quorum.trustStore.",
    quorum_tls,
    trust_store,
    "trust store"
);
endpoint_keys!(CLIENT_ENDPOINT, "ssl.", client, client_tls);
endpoint_keys!(QUORUM_ENDPOINT, "ssl.quorum.", quorum, quorum_tls);

const SHARED: [Key; 6] = [
    Key::honoured(
        "ssl.authProvider",
        "x509",
        Setter::Text(|draft, scheme| draft.config.tls.client.auth_scheme = scheme.to_owned()),
        "the scheme of the identity that a client's certificate proves",
    ),
    Key::honoured(
        "client.portUnification",
        "false",
        Setter::Lenient(|draft, on| draft.config.tls.client_port_unification = on),
        "clientPort takes plain and TLS connections",
    ),
    Key::honoured(
        "sslQuorum",
        "false",
        Setter::Strict(|draft, on| draft.config.tls.quorum_enabled = on),
        "servers speak TLS with each other",
    ),
    Key::honoured(
        "portUnification",
        "false",
        Setter::Strict(|draft, on| draft.config.tls.quorum_port_unification = on),
        "other servers may call in plain or with TLS, while an ensemble changes to sslQuorum=true",
    ),
    Key::honoured(
        "ssl.quorum.hostnameVerification",
        "false",
        Setter::Lenient(|draft, on| draft.config.tls.quorum_host_names = on),
        "certificates of servers must name their host; off, as ZooKeeper's own fips-mode leaves it by default",
    ),
    Key::honoured(
        "ssl.quorum.clientHostnameVerification",
        "true",
        Setter::Lenient(|draft, on| draft.config.tls.quorum_caller_host_names = on),
        "with ssl.quorum.hostnameVerification, those of servers that call must, too: a host of their server.N line",
    ),
];

pub(super) const KEYS: &[&[Key]] = &[
    &CLIENT_KEY_STORE,
    &CLIENT_TRUST_STORE,
    &CLIENT_ENDPOINT,
    &QUORUM_KEY_STORE,
    &QUORUM_TRUST_STORE,
    &QUORUM_ENDPOINT,
    &SHARED,
];

fn set_store_kind(store: &mut PendingStore, given: &Given) -> Result<(), String> {
    store.kind = Some(StoreKind::of_name(&given.text).ok_or_else(|| format!("expected {STORE_KINDS}"))?);
    Ok(())
}

fn parse_client_auth(given: &Given) -> Result<ClientAuth, String> {
    match given.text.to_ascii_lowercase().as_str() {
        "need" => Ok(ClientAuth::Need),
        "want" => Ok(ClientAuth::Want),
        "none" => Ok(ClientAuth::None),
        _ => Err(format!("expected {CLIENT_AUTH}")),
    }
}

fn parse_protocol(draft: &mut Draft, given: &Given) -> Result<Option<TlsVersion>, String> {
    let name = given.text.as_str();
    if OLD_PROTOCOLS.contains(&name) {
        draft.warn(
            given,
            format!("{name} is broken and not spoken here; {PROTOCOL} is used"),
        );
        return Ok(None);
    }
    if GENERIC_PROTOCOLS.contains(&name) {
        return Ok(None);
    }
    TlsVersion::of_name(name)
        .map(Some)
        .ok_or_else(|| format!("expected {PROTOCOL}"))
}

fn parse_protocols(draft: &mut Draft, given: &Given) -> Result<BTreeSet<TlsVersion>, String> {
    let mut versions = BTreeSet::new();
    for name in given.text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match TlsVersion::of_name(name) {
            Some(version) => _ = versions.insert(version),
            None if OLD_PROTOCOLS.contains(&name) => draft.warn(given, format!("{name} is broken and not spoken here")),
            None => return Err(format!("{name:?} is no version; expected {PROTOCOLS}")),
        }
    }
    if versions.is_empty() {
        Err(format!("expected {PROTOCOLS}"))
    } else {
        Ok(versions)
    }
}
