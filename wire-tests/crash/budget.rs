//! A server whose values are several times larger than its `memoryBudget`: every one of them is read back as it was written,
//! before and after restarts, and memory stays within bounds.
//!
//! | promise | how it would show |
//! |---|---|
//! | Durable, Linear | a value that has left memory comes back as another one, or as that of an earlier write |
//! | SessionOrder | of a read, a write and a read that are sent at once, the first sees the write, or the second does not |
//! | Bounded | the server's memory grows with the values |

use super::client::Writer;
use super::early::{Client, put_create};
use super::random::Random;
use super::server::{Server, free_address};
use super::zoo_cfg;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const BUDGET_MIB: u64 = 32;
const ZNODES: u64 = 8000;
/// 470 MiB in all.
const VALUE_BYTES: usize = 60 << 10;
/// What the server takes besides: a debug build's program, memtables, caches, the log in memory, buffers, and what the
/// allocator keeps in the arenas of its threads, which is the most of it.
const BESIDES_MIB: u64 = 340;
const LARGE_VALUES: u64 = 60;
const LARGE_VALUE_BYTES: usize = 1_000_000;
const CREATE: i32 = 1;
const READERS: u64 = 4;
const READS: u64 = 150;
/// Requests on their way at once.
const WINDOW: u64 = 16;

fn path(number: u64) -> String {
    format!("/values/{number}")
}

/// What the znode `number` holds after so many writes.
fn value(number: u64, version: i32) -> String {
    let line = format!("znode {number} version {version}, ");
    let mut value = line.repeat(VALUE_BYTES / line.len() + 1);
    value.truncate(VALUE_BYTES);
    value
}

fn fill(client: &mut Client) {
    client.create("/values", "", 0);
    for number in 0..ZNODES {
        let asked = |body: &mut Writer| put_create(body, &path(number), &value(number, 0), 0);
        client.send(CREATE, asked);
        if number >= WINDOW {
            assert_eq!(client.receive().0, 0);
        }
    }
    (0..WINDOW).for_each(|_| assert_eq!(client.receive().0, 0));
}

fn check(client: &mut Client, number: u64, versions: &[i32]) {
    let version = versions[usize::try_from(number).expect("small")];
    let found = client.read(&path(number));
    assert!(
        found == Some((value(number, version), version)),
        "Durable: znode {number} is not as written"
    );
}

/// Random reads on several connections at once, most of them of values that are away.
fn read_at_random(address: SocketAddr, versions: &[i32]) {
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            scope.spawn(move || {
                let mut random = Random::new(u64::from(std::process::id()) * READERS + reader);
                let mut client = Client::new(address);
                client.connect();
                (0..READS).for_each(|_| check(&mut client, random.below(ZNODES), versions));
            });
        }
    });
}

/// All three are on their way before the first is answered, of several znodes at once.
fn read_write_read(client: &mut Client, versions: &mut [i32]) {
    for first in (0..ZNODES).step_by(100) {
        for number in first..first + 4 {
            client.send_read(&path(number));
            client.send_set(&path(number), &value(number, 1));
            client.send_read(&path(number));
        }
        for number in first..first + 4 {
            let before = client.receive_read().map(|(_, version)| version);
            assert_eq!(before, Some(0), "SessionOrder: the read before the write");
            assert_eq!(client.receive().0, 0);
            let after = client.receive_read();
            assert!(
                after == Some((value(number, 1), 1)),
                "SessionOrder: the read behind the write"
            );
            versions[usize::try_from(number).expect("small")] = 1;
        }
    }
}

/// One of the numbers that the server tells of itself.
pub(super) fn number_of(address: SocketAddr, name: &str) -> u64 {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.write_all(b"mntr").expect("a word");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let line = answer.lines().find_map(|line| line.strip_prefix(name));
    line.expect("it is told").trim().parse().expect("a number")
}

#[test]
fn values_beyond_the_memory_budget_are_served_from_the_disk() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path();
    let address = free_address();
    let config = zoo_cfg(directory, address) + &format!("memoryBudget={BUDGET_MIB}MiB\n4lw.commands.whitelist=mntr\n");
    fs::write(directory.join("zoo.cfg"), config).expect("the configuration is written");
    let mut server = Server::start(directory, address);
    let mut versions = vec![0; usize::try_from(ZNODES).expect("small")];
    let mut client = Client::new(address);
    client.connect();
    fill(&mut client);
    read_at_random(address, &versions);
    read_write_read(&mut client, &mut versions);
    assert!(number_of(address, "zk_values_away") > ZNODES / 2);
    assert!(number_of(address, "zk_values_fetched") > READS);
    let peak_mib = server.memory_kib("VmHWM:") >> 10;
    eprintln!(
        "{peak_mib} MiB at most, {} MiB of values",
        (ZNODES as usize * VALUE_BYTES) >> 20
    );
    assert!(peak_mib <= BUDGET_MIB + BESIDES_MIB, "Bounded: {peak_mib} MiB");

    for is_killed in [false, true] {
        if is_killed {
            server.kill();
        } else {
            server.terminate();
        }
        server = Server::start(directory, address);
        client.connect();
        (0..ZNODES)
            .step_by(10)
            .for_each(|number| check(&mut client, number, &versions));
        read_at_random(address, &versions);
        let peak_mib = server.memory_kib("VmHWM:") >> 10;
        eprintln!("{peak_mib} MiB at most after a restart");
        assert!(peak_mib <= BUDGET_MIB + BESIDES_MIB, "Bounded: {peak_mib} MiB");
    }
    server.terminate();
}

/// How long a client on its own takes to create so many znodes, one after the other.
fn time_large_values(budget: &str) -> Duration {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path();
    let address = free_address();
    fs::write(directory.join("zoo.cfg"), zoo_cfg(directory, address) + budget).expect("the configuration is written");
    let mut server = Server::start(directory, address);
    let mut client = Client::new(address);
    client.connect();
    let value = "v".repeat(LARGE_VALUE_BYTES);
    let started = Instant::now();
    for number in 0..LARGE_VALUES {
        client.create(&format!("/{number}"), &value, 0);
    }
    let took = started.elapsed();
    server.terminate();
    took
}

/// Large values wait in line while the store is behind. Somebody must see to it that it catches up: for whoever is alone each
/// third one used to take five seconds, until the next checkpoint was due anyway.
#[test]
fn large_values_with_a_small_budget_wait_for_no_interval() {
    let (ample, small) = (time_large_values(""), time_large_values("memoryBudget=32MiB\n"));
    eprintln!("{ample:?}, {small:?} with a small budget");
    assert!(
        small < Duration::from_secs(45) + 20 * ample,
        "{small:?}, {ample:?} without"
    );
}
