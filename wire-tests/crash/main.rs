//! The crash test: a server is killed with SIGKILL at random moments under the load of many sessions, started again on
//! the same directory, and held to its promises.
//!
//! | promise | how it would show |
//! |---|---|
//! | Durable | a value older than the last one that was acknowledged or read; a sequential znode that is missing |
//! | Atomic | two znodes that are only ever set together differ |
//! | SessionOrder | a reply out of order, or a zxid below one that this session has seen, restarts included |
//! | EphemeralIffSession | a session that cannot be resumed; an ephemeral without its session, or the other way round |
//! | sequential names | a payload twice, or under another name than was acknowledged |
//! | Stat | a register's version is not the number of times that it was set |
//!
//! Beside it, `early`: a server that is asked, and killed again, before it has read its tree; and `budget`: one whose values
//! are larger than its memory; and `rest`: one that nobody writes to any more.
//!
//! `CRASH_ROUNDS` (default 12) says how often it is killed, `CRASH_SEED` which random numbers are drawn; both are printed.

#![allow(unreachable_pub, reason = "the modules of a test program are all its own")]

mod budget;
#[allow(
    dead_code,
    reason = "the client is shared with the differential test, which uses more of it"
)]
#[path = "../differential/client.rs"]
mod client;
mod early;
#[allow(dead_code, reason = "likewise")]
#[path = "../differential/random.rs"]
mod random;
mod rest;
mod server;
mod worker;

use random::Random;
use server::{Server, free_address, from_environment};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use worker::Worker;

const WORKERS: usize = 8;

#[test]
fn a_killed_server_keeps_its_promises() {
    let rounds = from_environment("CRASH_ROUNDS", 12);
    let seed = from_environment("CRASH_SEED", u64::from(std::process::id()));
    eprintln!("CRASH_ROUNDS={rounds} CRASH_SEED={seed}");
    let directory = tempfile::tempdir().expect("a directory");
    let address = free_address();
    let config = zoo_cfg(directory.path(), address);
    fs::write(directory.path().join("zoo.cfg"), config).expect("the configuration is written");

    let mut random = Random::new(seed);
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::new(number, seed, address)).collect();
    for round in 0..rounds {
        let mut server = Server::start(directory.path(), address);
        std::thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(|| worker.work());
            }
            std::thread::sleep(Duration::from_millis(100 + random.below(900)));
            server.kill();
        });
        let answered: u64 = workers.iter().map(|worker| worker.answered).sum();
        eprintln!("round {round}: {answered} requests answered so far");
    }

    let mut server = Server::start(directory.path(), address);
    check_everything(&mut workers);
    server.terminate();
    let _server = Server::start(directory.path(), address);
    check_everything(&mut workers);
    check_closing(&mut workers);
    let answered: u64 = workers.iter().map(|worker| worker.answered).sum();
    assert!(
        answered > rounds * 100,
        "only {answered} requests were answered: the test has tested nothing"
    );
}

fn zoo_cfg(directory: &Path, address: SocketAddr) -> String {
    format!(
        "tickTime=2000\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\nmaxSessionTimeout=1000000\n\
         admin.enableServer=false\nmaxClientCnxns=0\n",
        directory.join("data").display(),
        address.port()
    )
}

/// Every worker finds what it must find, and the queue is what all of them know.
fn check_everything(workers: &mut [Worker]) {
    for worker in workers.iter_mut() {
        assert!(
            worker.connect_and_check().is_ok(),
            "the connection ended without a crash"
        );
    }
    let Ok(queue) = workers[0].queue() else {
        panic!("the connection ended without a crash")
    };
    let mut by_payload = BTreeMap::new();
    for (path, payload) in &queue {
        let twice = by_payload.insert(payload, path);
        assert!(
            twice.is_none(),
            "sequential names: {payload} is at {path} and at {twice:?}"
        );
    }
    for (payload, path) in workers.iter().flat_map(|worker| &worker.sequential) {
        assert_eq!(
            by_payload.get(payload),
            Some(&path),
            "Durable: {path} with {payload} was acknowledged"
        );
    }
}

/// A session that is closed takes its ephemeral along, and no other's.
fn check_closing(workers: &mut [Worker]) {
    let (first, others) = workers.split_at_mut(1);
    let Ok(path) = first[0].close() else {
        panic!("the connection ended without a crash")
    };
    for worker in others {
        let Ok(exists) = worker.exists(&path) else {
            panic!("the connection ended without a crash")
        };
        assert!(!exists, "EphemeralIffSession: {path} has outlived its session");
        assert!(
            worker.connect_and_check().is_ok(),
            "the connection ended without a crash"
        );
    }
}
