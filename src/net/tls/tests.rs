//! Handshakes in memory, with certificates made on the spot.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::io::Write as _;
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const LIMIT: Duration = Duration::from_secs(60);
const PASSWORD: &str = "apassword";

pub(in crate::net) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(in crate::net) struct Owner {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Owner {
    /// An authority that shows its own certificate, as `openssl req -x509` makes it.
    pub(in crate::net) fn of(authority: &Authority) -> Owner {
        Owner {
            certificate: authority.der().clone(),
            key: KeyPair::try_from(authority.key().serialize_der()).unwrap(),
        }
    }

    pub(in crate::net) fn pem(&self) -> String {
        let pem = |label: &str, bytes: &[u8]| {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
        };
        pem("CERTIFICATE", &self.certificate) + &pem("PRIVATE KEY", &self.key.serialize_der())
    }
}

pub(in crate::net) fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub(in crate::net) fn issued(authority: &Authority, name: &str) -> Owner {
    issued_for(authority, name, "localhost")
}

/// A certificate for the host `host`, a name or an IP address.
pub(in crate::net) fn issued_for(authority: &Authority, name: &str, host: &str) -> Owner {
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::OrganizationName, "Zoo");
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    Owner {
        certificate: certificate.der().clone(),
        key,
    }
}

pub(in crate::net) fn file(directory: &Path, name: &str, bytes: &[u8]) -> Store {
    let location = directory.join(name);
    std::fs::File::create(&location).unwrap().write_all(bytes).unwrap();
    Store {
        location,
        password: PASSWORD.to_owned(),
    }
}

/// Stores that are PEM files.
fn options(directory: &Path, authority: &Authority, client_certificate: ClientCertificate) -> TlsOptions {
    TlsOptions {
        prefix: "ssl.",
        key_store: file(directory, "server.pem", issued(authority, "server").pem().as_bytes()),
        trust_store: Some(file(directory, "trusted.pem", authority.pem().as_bytes())),
        client_certificate,
        tls12: true,
        tls13: true,
    }
}

fn server(directory: &Path, authority: &Authority, client_certificate: ClientCertificate) -> TlsAcceptor {
    TlsAcceptor::new(&options(directory, authority, client_certificate)).unwrap()
}

fn connector(
    trusted: &Authority,
    owner: Option<&Owner>,
    version: &'static SupportedProtocolVersion,
) -> tokio_rustls::TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match owner {
        Some(owner) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(owner.key.serialize_der()));
            builder
                .with_client_auth_cert(vec![owner.certificate.clone()], key)
                .unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    Arc::new(config).into()
}

/// Lets a client connect; gives what the server makes of it.
async fn meet(server: &TlsAcceptor, client: tokio_rustls::TlsConnector) -> Result<Peer, HandshakeError> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let client = tokio::spawn(async move {
        let name = "localhost".try_into().unwrap();
        let mut stream = client.connect(name, theirs).await?;
        stream.write_all(b"ruok").await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    });
    let (mut stream, peer) = server.accept(ours, LIMIT).await?;
    let mut word = [0; 4];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"ruok");
    stream.write_all(b"imok").await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(&client.await.unwrap().unwrap(), b"imok");
    Ok(peer)
}

#[tokio::test]
async fn a_client_is_known_by_the_subject_of_its_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority("ours");
    let server = server(directory.path(), &authority, ClientCertificate::Needed);
    let client = issued(&authority, "client");
    for version in [&TLS12, &TLS13] {
        let peer = meet(&server, connector(&authority, Some(&client), version))
            .await
            .unwrap();
        assert!(peer.subject.unwrap().contains("O=Zoo"));
    }
}

#[tokio::test]
async fn a_certificate_that_is_trusted_itself_needs_no_authority() {
    let directory = tempfile::tempdir().unwrap();
    let ours = authority("ours");
    let mut server_options = options(directory.path(), &ours, ClientCertificate::Needed);
    let alone = authority("alone");
    server_options.trust_store = Some(file(directory.path(), "alone.pem", alone.pem().as_bytes()));
    let server = TlsAcceptor::new(&server_options).unwrap();
    let owner = Owner::of(&alone);
    for version in [&TLS12, &TLS13] {
        let peer = meet(&server, connector(&ours, Some(&owner), version)).await.unwrap();
        assert!(peer.subject.unwrap().starts_with("CN=alone"));
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, other) = (authority("ours"), authority("other"));
    let stranger = issued(&other, "stranger");
    for client_certificate in [ClientCertificate::Needed, ClientCertificate::Wanted] {
        let server = server(directory.path(), &ours, client_certificate);
        for version in [&TLS12, &TLS13] {
            let refused = meet(&server, connector(&ours, Some(&stranger), version)).await;
            assert!(matches!(refused, Err(HandshakeError::Failed(_))), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn who_shows_no_certificate_is_let_in_unless_one_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority("ours");
    for (client_certificate, let_in) in [
        (ClientCertificate::Needed, false),
        (ClientCertificate::Wanted, true),
        (ClientCertificate::Ignored, true),
    ] {
        let server = server(directory.path(), &authority, client_certificate);
        let peer = meet(&server, connector(&authority, None, &TLS13)).await;
        match peer {
            Ok(peer) => assert!(let_in && peer.subject.is_none()),
            Err(error) => assert!(!let_in, "{error}"),
        }
    }
}

#[tokio::test]
async fn a_silent_client_is_given_up_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority("ours");
    let server = server(directory.path(), &authority, ClientCertificate::Needed);
    let (ours, _theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(1024);
    assert!(matches!(
        server.accept(ours, Duration::from_millis(10)).await,
        Err(HandshakeError::TooLate)
    ));
}

#[tokio::test]
async fn keys_and_authorities_are_read_from_jks_and_pkcs12() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority("ours");
    let owner = issued(&authority, "server");
    let key = owner.key.serialize_der();
    let jks = jks::tests::write(authority.der(), Some((&key, &owner.certificate)), PASSWORD);
    let mut pkcs12 = p12_keystore::KeyStore::new();
    let certificate = |der: &[u8]| p12_keystore::Certificate::from_der(der).unwrap();
    let chain = p12_keystore::PrivateKeyChain::new(
        "server",
        p12_keystore::PrivateKey::from_der(&key).unwrap(),
        [certificate(&owner.certificate)],
    );
    pkcs12.add_entry("server", p12_keystore::KeyStoreEntry::PrivateKeyChain(chain));
    pkcs12.add_entry(
        "authority",
        p12_keystore::KeyStoreEntry::Certificate(certificate(authority.der())),
    );
    let pkcs12 = pkcs12
        .writer(PASSWORD)
        .encryption_iterations(2)
        .mac_iterations(2)
        .write()
        .unwrap();
    for (name, bytes) in [("both.jks", &jks), ("both.p12", &pkcs12), ("pkcs12.jks", &pkcs12)] {
        let store = file(directory.path(), name, bytes);
        let server = TlsAcceptor::new(&TlsOptions {
            prefix: "ssl.",
            key_store: store.clone(),
            trust_store: Some(store),
            client_certificate: ClientCertificate::Needed,
            tls12: false,
            tls13: true,
        })
        .unwrap();
        let client = issued(&authority, "client");
        meet(&server, connector(&authority, Some(&client), &TLS13))
            .await
            .unwrap();
    }
}

#[test]
fn stores_that_cannot_be_used_are_told_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority("ours");
    let owner = issued(&authority, "server");
    let good = file(directory.path(), "good.pem", owner.pem().as_bytes());
    let with = |key_store: &Store, trust_store: Option<&Store>| {
        TlsAcceptor::new(&TlsOptions {
            prefix: "ssl.",
            key_store: key_store.clone(),
            trust_store: trust_store.cloned(),
            client_certificate: ClientCertificate::Needed,
            tls12: true,
            tls13: true,
        })
        .err()
        .map(|error| error.to_string())
        .unwrap()
    };
    let text = |name: &str, text: &str| file(directory.path(), name, text.as_bytes());
    let gone = Store {
        location: directory.path().join("gone.jks"),
        password: String::new(),
    };
    let other = issued(&authority, "other");
    let mismatch = owner.pem().replace(
        owner.pem().split_once("-----BEGIN PRIVATE").unwrap().1,
        other.pem().split_once("-----BEGIN PRIVATE").unwrap().1,
    );
    for (error, part) in [
        (with(&gone, Some(&good)), "it cannot be read"),
        (
            with(&text("x.bcfks", "0\u{1}\u{2}"), Some(&good)),
            "BCFKS is not available",
        ),
        (
            with(&text("no-key.pem", &authority.pem()), Some(&good)),
            "no private key",
        ),
        (with(&text("mismatch.pem", &mismatch), Some(&good)), "private key"),
        (
            with(&good, Some(&text("empty.pem", "-----BEGIN X-----\n-----END X-----\n"))),
            "no trusted",
        ),
        (with(&good, None), "set ssl.trustStore.location"),
    ] {
        assert!(error.contains(part), "{error}");
    }
}
