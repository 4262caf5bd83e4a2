//! The test of limits: clients that want more than there is, or take nothing, and others beside them that must not suffer.
//!
//! | limit | what is done to it |
//! |---|---|
//! | how fast a session opens | requests stand right behind the handshake: they are answered as soon as there is a session |
//! | handshakes in work | every session of a server comes back at once after SIGKILL: none is lost, nor is an ephemeral |
//! | memory of an idle session | many are opened, and the server's memory is looked at |
//! | time to open a session | sockets that say nothing, or half a handshake, or a byte now and then, with TLS too |
//! | descriptors | more connections than the server may have files |
//! | the outbound queue | listings are asked for, again and again, and none is read |
//! | all outbound queues together | the same by many, each within its own limit |
//! | one step of the state | a session with ten thousand ephemerals is closed |
//! | large values in work | large values are written by many while others write small ones |
//! | identities of a connection | one says that it is this user, and that, with names of a megabyte |
//! | one answer | a short multiRead asks for a large value again and again |
//! | reads in front of a write | more of them than may be queued, by one who takes every answer |
//!
//! `LIMITS_SCALE` (default 1) multiplies the crowds; `LIMITS_TIMEOUT_MS` (default 30000) is the timeout of the sessions that
//! come back: by hand 4000, on a machine that is fast enough. Nothing is measured against a clock but with bounds that a
//! slow machine keeps.

#![allow(unreachable_pub, reason = "the modules of a test program are all its own")]

#[allow(
    dead_code,
    reason = "the client is shared with the differential test, which uses more of it"
)]
#[path = "../differential/client.rs"]
mod client;
mod crowd;
#[allow(
    dead_code,
    reason = "the server is shared with the crash test, which does more to it"
)]
#[path = "../crash/server.rs"]
mod server;

use client::Reader;
use crowd::{Guest, Stage, request};
use std::time::{Duration, Instant};

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const GET_CHILDREN: i32 = 8;
const MULTI_READ: i32 = 22;
const AUTH: i32 = 100;
const CLOSE: i32 = -11;
const BAD_ARGUMENTS: i32 = -8;
const NO_NODE: i32 = -101;
const AUTH_FAILED: i32 = -115;

/// What is waited for happens within this time on any machine, or never.
const PATIENCE: Duration = Duration::from_secs(120);
/// No request of a bystander takes so long, however slow the machine is.
const BYSTANDER: Duration = Duration::from_secs(20);

fn scaled(count: u64) -> usize {
    usize::try_from(count * server::from_environment("LIMITS_SCALE", 1)).expect("a number of sockets")
}

#[test]
fn after_a_restart_every_session_comes_back_with_its_ephemeral() {
    let timeout_ms = i32::try_from(server::from_environment("LIMITS_TIMEOUT_MS", 30_000)).expect("a timeout");
    let mut stage = Stage::open("");
    let mut root = stage.guest(30_000);
    root.create("/storm", b"", 0);
    root.create("/calm", b"0", 0);
    let count = scaled(2000);
    let mut guests = stage.crowd(count, timeout_ms);
    for (number, guest) in guests.iter_mut().enumerate() {
        guest.send(CREATE, |body| body.create(&format!("/storm/{number}"), b"", 1));
    }
    guests.iter_mut().for_each(|guest| assert_eq!(guest.receive().0, 0));
    let identities: Vec<_> = guests.iter().map(Guest::identity).collect();
    drop(root);

    stage.server.kill();
    drop(guests);
    stage.start_again();
    let started = Instant::now();
    let (returned, worst) = stage.beside_a_bystander("/calm", |stage| stage.come_back(&identities, timeout_ms));
    eprintln!(
        "{count} sessions came back in {:?}; a bystander waited for {worst:?} at most",
        started.elapsed()
    );
    let lost = returned
        .iter()
        .zip(&identities)
        .filter(|(guest, identity)| guest.session() != identity.session);
    assert_eq!(lost.count(), 0, "NoFalseExpiry: sessions are gone");
    let mut root = stage.guest(30_000);
    assert_eq!(root.children("/storm"), count, "EphemeralIffSession");
    assert!(stage.metric("zk_connection_revalidate_count") >= count as u64);
    assert_eq!(stage.metric("zk_handshakes_waiting"), 0);
}

#[test]
fn requests_right_behind_a_handshake_are_answered_however_fast_the_session_opens() {
    let stage = Stage::open("");
    let delete = |xid| {
        request::framed(xid, DELETE, |body| {
            body.string(Some("/nobody"));
            body.int(-1);
        })
    };
    let requests = [delete(1), delete(2)].concat();
    for _ in 0..3000 {
        let mut guest = stage.hasty_guest(30_000, &requests);
        let errors = [guest.receive().0, guest.receive().0];
        assert_eq!(errors, [NO_NODE; 2]);
    }
}

#[test]
fn an_idle_session_costs_little_memory() {
    let stage = Stage::open("");
    // The first ones pay for what all share.
    let first = stage.crowd(200, 30_000);
    let before_kib = stage.server.memory_kib("VmRSS:");
    let count = scaled(1500);
    let guests = stage.crowd(count, 30_000);
    let grown = stage.server.memory_kib("VmRSS:").saturating_sub(before_kib) * 1024;
    let each = grown / count as u64;
    eprintln!("{each} bytes for each of {count} idle sessions");
    // 2.6 KiB in a release build.
    assert!(each <= 8 << 10, "Bounded: {each} bytes for an idle session");
    drop((first, guests));
}

#[test]
fn who_opens_no_session_in_time_is_sent_away() {
    let stage = Stage::open("nio.sessionlessCnxnTimeout=4000\n");
    let mut root = stage.guest(30_000);
    root.create("/calm", b"0", 0);
    let before_kib = stage.server.memory_kib("VmRSS:");
    let handshake = request::handshake(30_000, &crowd::Identity::NONE);
    let mut silent: Vec<_> = (0..scaled(1000)).map(|_| stage.socket()).collect();
    let mut halves: Vec<_> = (0..scaled(500)).map(|_| stage.socket()).collect();
    let mut dawdling: Vec<_> = (0..scaled(200)).map(|_| stage.socket()).collect();
    halves
        .iter_mut()
        .for_each(|socket| crowd::send(socket, &handshake[..20]));
    let (grown_kib, worst) = stage.beside_a_bystander("/calm", |stage| {
        // A byte now and then; the last one that is missing never comes.
        let mut grown_kib = 0;
        for byte in &handshake[..handshake.len() - 1] {
            dawdling.iter_mut().for_each(|socket| crowd::send(socket, &[*byte]));
            grown_kib = grown_kib.max(stage.server.memory_kib("VmRSS:").saturating_sub(before_kib));
            std::thread::sleep(Duration::from_millis(100));
        }
        let sockets = silent.iter_mut().chain(&mut halves).chain(&mut dawdling);
        sockets.for_each(|socket| assert!(crowd::is_closed(socket, PATIENCE), "a silent connection stays"));
        grown_kib
    });
    let count = silent.len() + halves.len() + dawdling.len();
    let each = grown_kib * 1024 / count as u64;
    eprintln!("{each} bytes for each of {count} connections; a bystander waited for {worst:?} at most");
    assert!(
        each <= 8 << 10,
        "Bounded: {each} bytes for a connection without a session"
    );
    assert!(stage.metric("zk_sessionless_connections_expired") >= count as u64);
}

#[test]
fn slow_tls_handshakes_end_in_time_and_keep_nobody_out() {
    let secure = server::free_address();
    let folder = tempfile::tempdir().expect("a directory");
    let key_store = folder.path().join("server.pem");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&key_store, made.cert.pem() + &made.signing_key.serialize_pem()).expect("a key store");
    let stage = Stage::open(&format!(
        "nio.sessionlessCnxnTimeout=4000\nsecureClientPort={}\nsecureClientPortAddress=127.0.0.1\nssl.clientAuth=none\n\
         ssl.keyStore.location={}\nssl.keyStore.type=PEM\n",
        secure.port(),
        key_store.display()
    ));
    let mut root = stage.guest(30_000);
    root.create("/calm", b"0", 0);
    // The head of a record that holds a ClientHello of 512 bytes, and then a byte of it now and then.
    let mut dawdling: Vec<_> = (0..scaled(600)).map(|_| crowd::connect(secure)).collect();
    dawdling
        .iter_mut()
        .for_each(|socket| crowd::send(socket, &[0x16, 3, 1, 2, 0, 1, 0, 1, 252]));
    crowd::until("handshakes are under way", || {
        stage.metric("zk_outstanding_tls_handshake") > 0
    });
    let ((), _) = stage.beside_a_bystander("/calm", |_| {
        for _ in 0..10 {
            dawdling.iter_mut().for_each(|socket| crowd::send(socket, &[0]));
            std::thread::sleep(Duration::from_millis(100));
        }
        dawdling
            .iter_mut()
            .for_each(|socket| assert!(crowd::is_closed(socket, PATIENCE), "a slow handshake stays"));
    });
    crowd::until("all of them are counted", || {
        // On a slow machine, the first byte of some comes too late to begin one.
        let expired = stage.metric("zk_sessionless_connections_expired");
        stage.metric("zk_unsuccessful_handshake") + expired >= dawdling.len() as u64
    });
    assert!(stage.metric("zk_unsuccessful_handshake") > 0);
    crowd::until("all handshakes are over", || {
        stage.metric("zk_outstanding_tls_handshake") == 0
    });
}

#[test]
fn clients_never_get_the_last_descriptors() {
    const DESCRIPTORS: u64 = 200;
    let stage = Stage::open_with_descriptors(DESCRIPTORS, "");
    let mut root = stage.guest(30_000);
    root.create("/calm", b"0", 0);
    let limit = stage.metric("zk_client_connection_limit");
    assert_eq!(limit, DESCRIPTORS - DESCRIPTORS / 4);
    let ((), worst) = stage.beside_a_bystander("/calm", |stage| {
        let mut crowd: Vec<_> = (0..2 * DESCRIPTORS).map(|_| stage.socket()).collect();
        let turned_away = |crowd: &mut [std::net::TcpStream]| {
            let mut gone = 0;
            for socket in crowd {
                gone += u64::from(crowd::is_closed(socket, Duration::from_millis(1)));
            }
            gone
        };
        // The bystander and the first guest are in, and a few more questions may be under way.
        crowd::until("connections are turned away", || {
            turned_away(&mut crowd) >= 2 * DESCRIPTORS - limit
        });
    });
    eprintln!("a bystander waited for {worst:?} at most");
    crowd::until("there is room again", || {
        stage
            .try_metric("zk_connection_rejected")
            .is_some_and(|count| count > 0)
    });
    // The server lives, and writes.
    assert_eq!(root.ask(SET_DATA, |body| body.set("/calm", b"1", -1)).0, 0);
    stage.guest(30_000).create("/after", b"", 0);
}

#[test]
fn who_lists_and_does_not_read_waits_for_himself() {
    let stage = Stage::open("outboundQueue.stallTimeoutMs=3000\n");
    let mut root = stage.guest(30_000);
    root.create("/calm", b"0", 0);
    root.create("/many", b"", 0);
    let children = scaled(10_000);
    root.create_many(
        children,
        |number| format!("/many/{}-{number}", "a-child-with-a-long-name".repeat(3)),
        0,
    );
    let (mut body, requests) = (Vec::new(), 1000);
    for xid in 1..=requests {
        body.extend(request::framed(xid, GET_CHILDREN, |body| request::path(body, "/many")));
    }
    let before_kib = stage.server.memory_kib("VmRSS:");
    let (peak_kib, worst) = stage.beside_a_bystander("/calm", |stage| {
        let mut deaf = stage.guest(30_000);
        deaf.send_bytes(&body);
        crowd::until("it is given up", || stage.metric("zk_slow_clients_closed") > 0);
        stage.server.memory_kib("VmHWM:")
    });
    let grown = peak_kib.saturating_sub(before_kib) >> 10;
    eprintln!("{grown} MiB at most; a bystander waited for {worst:?} at most");
    // All listings together would be 800 MiB: the queue's limit, what the socket has, and what freeing leaves behind.
    assert!(grown < 64, "Bounded: {grown} MiB for a client that does not read");
    assert!(stage.metric("zk_request_throttle_wait_count") > 0);
    assert_eq!(root.children("/many"), children);
}

#[test]
fn many_who_do_not_read_are_closed_when_all_of_them_are_too_much() {
    // Nobody is closed for being slow, but by what all together may have waiting: 64 MiB of so small a budget.
    let stage = Stage::open("memoryBudget=300MB\noutboundQueue.stallTimeoutMs=600000\n");
    let limit = 64 << 20;
    let mut root = stage.guest(60_000);
    root.create("/calm", b"0", 0);
    root.create("/many", b"", 0);
    let children = 10_000;
    root.create_many(
        children,
        |number| format!("/many/{}-{number}", "a-child-with-a-long-name".repeat(3)),
        0,
    );
    let mut body = Vec::new();
    for xid in 1..=20 {
        body.extend(request::framed(xid, GET_CHILDREN, |body| request::path(body, "/many")));
    }
    let deaf_count = scaled(150);
    let before_kib = stage.server.memory_kib("VmRSS:");
    let (peak_kib, worst) = stage.beside_a_bystander("/calm", |stage| {
        let mut deaf = stage.crowd(deaf_count, 60_000);
        deaf.iter_mut().for_each(|guest| guest.send_bytes(&body));
        crowd::until("some are closed, and the rest is little enough", || {
            stage.metric("zk_slow_clients_closed") > 0 && stage.metric("zk_client_queued_bytes") <= limit
        });
        stage.server.memory_kib("VmHWM:")
    });
    let grown = peak_kib.saturating_sub(before_kib) >> 10;
    let closed = stage.metric("zk_slow_clients_closed");
    eprintln!("{closed} of {deaf_count} closed; {grown} MiB at most; a bystander waited for {worst:?} at most");
    // Each within its own limit they would be 700 MiB: so much as all may have, one listing more each, and what freeing leaves.
    let bound = 100 + 2 * deaf_count as u64;
    assert!(grown < bound, "Bounded: {grown} MiB for clients that do not read");
    assert!(closed < deaf_count as u64, "no more are closed than needed");
    assert_eq!(root.children("/many"), children, "who reads is served");
}

#[test]
fn a_session_takes_ten_thousand_ephemerals_along() {
    let stage = Stage::open("");
    let mut root = stage.guest(30_000);
    root.create("/calm", b"0", 0);
    root.create("/many", b"", 0);
    let mut owner = stage.guest(30_000);
    let count = scaled(10_000);
    owner.create_many(count, |number| format!("/many/{number}"), 1);
    assert_eq!(root.children("/many"), count);
    let (took, worst) = stage.beside_a_bystander("/calm", |_| {
        let started = Instant::now();
        assert_eq!(owner.ask(CLOSE, |_| ()).0, 0);
        started.elapsed()
    });
    eprintln!("{count} ephemerals went in {took:?}; a bystander waited for {worst:?} at most");
    assert_eq!(root.children("/many"), 0, "EphemeralIffSession");
}

#[test]
fn small_requests_pass_beside_large_values() {
    let stage = Stage::open("");
    let mut root = stage.guest(30_000);
    root.create("/calm", b"0", 0);
    let value = vec![7; 1_000_000];
    let writers = scaled(40);
    let mut guests = stage.crowd(writers, 30_000);
    for number in 0..writers {
        root.create(&format!("/large-{number}"), b"", 0);
    }
    let (took, worst) = stage.beside_a_bystander("/calm", |_| {
        let started = Instant::now();
        for _ in 0..5 {
            for (number, guest) in guests.iter_mut().enumerate() {
                guest.send(SET_DATA, |body| body.set(&format!("/large-{number}"), &value, -1));
            }
            guests.iter_mut().for_each(|guest| assert_eq!(guest.receive().0, 0));
        }
        started.elapsed()
    });
    let peak_mib = stage.server.memory_kib("VmHWM:") >> 10;
    eprintln!(
        "{} values of a megabyte in {took:?}, {peak_mib} MiB at most; a bystander waited for {worst:?}",
        5 * writers
    );
    let (error, reply) = root.ask(GET_DATA, |body| request::path(body, "/large-0"));
    assert_eq!(error, 0);
    assert_eq!(Reader::new(&reply).buffer("data").expect("data"), Some(&value[..]));
}

#[test]
fn who_claims_to_be_everybody_is_sent_away() {
    let stage = Stage::open("");
    let mut root = stage.guest(30_000);
    root.create("/calm", b"0", 0);
    let ((), worst) = stage.beside_a_bystander("/calm", |stage| {
        let mut claiming = stage.guest(30_000);
        // What is no UTF-8 becomes three bytes: with six of them, no write would fit into the log.
        for user in 0..6 {
            claiming.send(AUTH, |body| {
                body.int(0);
                body.string(Some("digest"));
                body.buffer(Some(&[&[user], &[0xff; 1_000_000][..]].concat()));
            });
        }
        claiming.send(DELETE, |body| {
            body.string(Some("/nobody"));
            body.int(-1);
        });
        assert_eq!(claiming.receive().0, AUTH_FAILED);
    });
    eprintln!("a bystander waited for {worst:?} at most");
    // Many users with short names are as many as one connection may be.
    let mut many = stage.guest(30_000);
    let errors = (0..1000).map(|user| {
        let auth = |body: &mut client::Writer| {
            body.int(0);
            body.string(Some("digest"));
            body.buffer(Some(format!("{user}:secret").as_bytes()));
        };
        many.ask(AUTH, auth).0
    });
    assert_eq!(
        errors.skip_while(|error| *error == 0).take(1).collect::<Vec<_>>(),
        [AUTH_FAILED]
    );
    assert!(stage.metric("zk_auth_failed_count") >= 2);
}

#[test]
fn a_multi_read_whose_answer_would_be_huge_is_refused() {
    let stage = Stage::open("");
    let mut root = stage.guest(30_000);
    root.create("/calm", b"0", 0);
    root.create("/large", &vec![7; 1_000_000], 0);
    let many = |count: usize| {
        move |body: &mut client::Writer| {
            for _ in 0..count {
                body.int(GET_DATA);
                body.boolean(false);
                body.int(-1);
                request::path(body, "/large");
            }
            body.int(-1);
            body.boolean(true);
            body.int(-1);
        }
    };
    let (error, reply) = root.ask(MULTI_READ, many(10));
    assert!(
        (error, reply.len() > 10_000_000) == (0, true),
        "what is much, but not too much"
    );
    let before_kib = stage.server.memory_kib("VmHWM:");
    let (peak_kib, worst) = stage.beside_a_bystander("/calm", |stage| {
        // The whole answer would have 3 GB: more than a frame can have.
        assert_eq!(root.ask(MULTI_READ, many(3000)).0, BAD_ARGUMENTS);
        stage.server.memory_kib("VmHWM:")
    });
    let grown = peak_kib.saturating_sub(before_kib) >> 10;
    eprintln!("{grown} MiB more at most; a bystander waited for {worst:?} at most");
    assert!(grown < 64, "Bounded: {grown} MiB for one answer");
}

#[test]
fn who_takes_every_answer_may_ask_for_much_and_then_write() {
    let stage = Stage::open("");
    let mut root = stage.guest(30_000);
    root.create("/large", &vec![7; 1_000_000], 0);
    let reads = 60;
    let get = |xid| request::framed(xid, GET_DATA, |body| request::path(body, "/large"));
    let mut requests: Vec<u8> = (0..reads).flat_map(get).collect();
    requests.extend(request::framed(reads, SET_DATA, |body| body.set("/large", b"new", -1)));
    requests.extend(get(reads + 1));
    root.send_bytes(&requests);
    for read in 0..reads {
        let (error, reply) = root.receive();
        assert!((error, reply.len() > 1_000_000) == (0, true), "read {read}");
    }
    assert_eq!(root.receive().0, 0);
    let (error, reply) = root.receive();
    assert_eq!((error, reply.len() < 1000), (0, true), "the read behind the write");
    assert_eq!(stage.metric("zk_slow_clients_closed"), 0);
}
