//! TLS between servers, with certificates made on the spot.

use super::*;
use crate::net::tls::tests::{Authority, Owner, authority, file, issued_for};
use crate::net::tls::{ClientCertificate, TlsOptions};
use std::path::Path;

/// Stores that are PEM files.
fn tls_options(directory: &Path, owner: &Owner, trusted: &str) -> TlsOptions {
    // Each server's files have names of their own.
    let name = |what: &str| format!("{}-{what}.pem", crc32c::crc32c(owner.pem().as_bytes()));
    TlsOptions {
        prefix: "ssl.quorum.",
        key_store: file(directory, &name("key"), owner.pem().as_bytes()),
        trust_store: Some(file(directory, &name("trust"), trusted.as_bytes())),
        client_certificate: ClientCertificate::Needed,
        tls12: true,
        tls13: true,
    }
}

fn encrypted(tls: &TlsOptions, check_names: bool) -> LinkOptions {
    LinkOptions {
        encryption: LinkEncryption {
            connector: Some(Arc::new(TlsConnector::new(tls, check_names).unwrap())),
            acceptor: Some(Arc::new(TlsAcceptor::new(tls).unwrap())),
            plain_callers: false,
            check_callers: check_names,
        },
        ..quick()
    }
}

/// A server with a certificate of `authority` for `host`, which trusts the same authority.
fn start_encrypted(directory: &Path, authority: &Authority, server: u64, host: &str, check_names: bool) -> Server {
    let owner = issued_for(authority, &format!("server {server}"), host);
    let tls = tls_options(directory, &owner, &authority.pem());
    start_with(hello_of(server), any_port(), &[], encrypted(&tls, check_names))
}

/// What the server that calls is told by its own side.
async fn dialled(caller: &Server, server: u64) -> Result<Hello, HelloError> {
    match within(caller.links.connect_snapshot(server)).await {
        Ok(dialled) => Ok(dialled.peer),
        Err(DialError::Hello(_, error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn encrypted_links_carry_messages_and_snapshots() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority("ensemble");
    let owner = |server: u64| issued_for(&authority, &format!("server {server}"), "localhost");
    for version in [12, 13] {
        let start = |server| {
            let mut tls = tls_options(directory.path(), &owner(server), &authority.pem());
            (tls.tls12, tls.tls13) = (version == 12, version == 13);
            start_with(hello_of(server), any_port(), &[], encrypted(&tls, false))
        };
        let (mut one, mut two) = (start(1), start(2));
        one.call(&[(2, two.address)]);
        one.linked(2).await;
        let body = |length: usize| Bytes::from(vec![length as u8; length]);
        let lengths = [1, 20_000, 5 << 20, 3, 70_000, 16 << 10];
        for length in lengths {
            one.send(2, body(length)).unwrap();
        }
        for length in lengths {
            assert!(two.message().await == (1, body(length)));
        }
        let mut dialled = within(one.links.connect_snapshot(2)).await.unwrap();
        let Told::Snapshot(_, mut stream) = two.next().await else {
            panic!("no snapshot");
        };
        dialled.stream.write_all(b"chunk").await.unwrap();
        dialled.stream.shutdown().await.unwrap();
        let mut received = Vec::new();
        within(stream.read_to_end(&mut received)).await.unwrap();
        assert_eq!(received, b"chunk");
        // A stop says so to the other side, through TLS as well.
        two.links.shutdown().await;
        one.unlinked(2).await;
    }
}

#[tokio::test]
async fn certificates_that_sign_themselves_do_where_they_are_trusted() {
    let directory = tempfile::tempdir().unwrap();
    // What `keytool -genkeypair` makes, each of them imported into everybody's trust store.
    let own = [authority("one"), authority("two")];
    let trusted = own[0].pem() + &own[1].pem();
    let start = |server: u64, own: &Authority| {
        let owner = Owner::of(own);
        let tls = tls_options(directory.path(), &owner, &trusted);
        start_with(hello_of(server), any_port(), &[], encrypted(&tls, false))
    };
    let (one, two) = (start(1, &own[0]), start(2, &own[1]));
    one.call(&[(2, two.address)]);
    assert_eq!(dialled(&one, 2).await.unwrap(), hello_of(2));
}

#[tokio::test]
async fn a_server_without_the_right_certificate_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, other) = (authority("ours"), authority("other"));
    let mut server = start_encrypted(directory.path(), &ours, 1, "localhost", false);
    // A stranger who trusts our authority, and one who trusts his own alone.
    let stranger = |trusted: &Authority| {
        let owner = issued_for(&other, "stranger", "localhost");
        let tls = tls_options(directory.path(), &owner, &trusted.pem());
        start_with(hello_of(2), any_port(), &[], encrypted(&tls, false))
    };
    for trusted in [&ours, &other] {
        let stranger = stranger(trusted);
        stranger.call(&[(1, server.address)]);
        let error = dialled(&stranger, 1).await.unwrap_err();
        assert!(matches!(error, HelloError::Tls(_)), "{error}");
        server.call(&[(2, stranger.address)]);
        let error = dialled(&server, 2).await.unwrap_err();
        assert!(matches!(error, HelloError::Tls(_)), "{error}");
    }
    server.call(&[]);
    // Nothing of all that has reached the room.
    let friend = start_encrypted(directory.path(), &ours, 3, "localhost", false);
    friend.call(&[(1, server.address)]);
    friend.send_when_linked(1, "hello").await;
    assert_eq!(server.message().await, (3, "hello".into()));
}

#[tokio::test]
async fn who_shows_no_certificate_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority("ensemble");
    let server = start_encrypted(directory.path(), &authority, 1, "localhost", false);
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    let config = tokio_rustls::rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let refused = async {
        let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
        stream.read_u8().await
    };
    assert!(
        within(refused)
            .await
            .unwrap_err()
            .to_string()
            .contains("CertificateRequired")
    );
}

#[tokio::test]
async fn plain_and_encrypted_servers_come_together_only_where_that_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority("ensemble");
    let with_tls = start_encrypted(directory.path(), &authority, 1, "localhost", false);
    let plain = start(2);
    plain.call(&[(1, with_tls.address)]);
    with_tls.call(&[(2, plain.address)]);
    dialled(&plain, 1).await.unwrap_err();
    let error = dialled(&with_tls, 2).await.unwrap_err();
    assert!(error.to_string().contains("sslQuorum"), "{error}");

    let owner = issued_for(&authority, "server 3", "localhost");
    let mut options = encrypted(&tls_options(directory.path(), &owner, &authority.pem()), false);
    options.encryption.plain_callers = true;
    let both = start_with(hello_of(3), any_port(), &[], options);
    plain.call(&[(3, both.address)]);
    with_tls.call(&[(3, both.address)]);
    assert_eq!(dialled(&plain, 3).await.unwrap(), hello_of(3));
    assert_eq!(dialled(&with_tls, 3).await.unwrap(), hello_of(3));
}

#[tokio::test]
async fn the_one_who_is_called_must_show_the_name_by_which_he_is_called() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority("ensemble");
    let one = start_encrypted(directory.path(), &authority, 1, "localhost", true);
    let two = start_encrypted(directory.path(), &authority, 2, "localhost", true);
    let three = start_encrypted(directory.path(), &authority, 3, "127.0.0.1", true);
    // Servers 2 and 3 know where server 1 is: what is looked at here is the other side.
    two.call_hosts([(1, "localhost", one.address.port())]);
    three.call_hosts([(1, "localhost", one.address.port())]);
    one.call_hosts([
        (2, "localhost", two.address.port()),
        (3, "127.0.0.1", three.address.port()),
    ]);
    assert_eq!(dialled(&one, 2).await.unwrap(), hello_of(2));
    assert_eq!(dialled(&one, 3).await.unwrap(), hello_of(3));
    one.call_hosts([
        (2, "127.0.0.1", two.address.port()),
        (3, "localhost", three.address.port()),
    ]);
    for server in [2, 3] {
        let error = dialled(&one, server).await.unwrap_err();
        assert!(matches!(error, HelloError::Tls(_)), "{error}");
    }
}

#[tokio::test]
async fn a_caller_must_show_the_name_of_the_server_that_he_says_he_is() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority("ensemble");
    let one = start_encrypted(directory.path(), &authority, 1, "localhost", true);
    let two = start_encrypted(directory.path(), &authority, 2, "two.example", true);
    two.call_hosts([(1, "localhost", one.address.port())]);
    let refused = async || match dialled(&two, 1).await {
        Err(HelloError::RefusedByPeer(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(refused().await.code, RefusalCode::Certificate, "no address is known");
    one.call_hosts([(2, "three.example", 1), (3, "two.example", 1)]);
    let refusal = refused().await;
    assert_eq!(refusal.code, RefusalCode::Certificate);
    assert!(refusal.text.contains("[three.example]"), "{refusal}");
    one.call_hosts([(2, "TWO.example", 1)]);
    assert_eq!(dialled(&two, 1).await.unwrap(), hello_of(1));
}
