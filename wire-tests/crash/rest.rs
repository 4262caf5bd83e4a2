//! A server that is left alone keeps little in memory besides its tree: what the disk engine has gathered there stands in tables
//! soon, though nothing comes that would fill it up; and it is still there after a kill.

use super::budget::number_of;
use super::client::Writer;
use super::early::{Client, put_create};
use super::random::Random;
use super::server::{Server, free_address};
use super::zoo_cfg;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// 3 MB in all: less than what makes the disk engine write a table.
const ZNODES: u64 = 750;
const VALUE_BYTES: usize = 4000;
const HELD_AT_REST_BYTES: u64 = 1 << 20;
const CREATE: i32 = 1;
/// Requests on their way at once.
const WINDOW: u64 = 16;
const PATIENCE: Duration = Duration::from_secs(120);

/// Which does not compress to less than half.
fn value(number: u64) -> String {
    let mut random = Random::new(number);
    let mut value = String::new();
    while value.len() < VALUE_BYTES {
        value += &format!("{:016x}", random.below(u64::MAX));
    }
    value
}

/// Of all files in directories of that name, compressed.
fn tables_bytes(directory: &Path) -> u64 {
    let (mut waiting, mut sum) = (vec![directory.to_path_buf()], 0);
    while let Some(directory) = waiting.pop() {
        // What is there now may be gone when it is looked at.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => waiting.push(entry.path()),
                Ok(metadata) if directory.ends_with("tables") => sum += metadata.len(),
                _ => {}
            }
        }
    }
    sum
}

#[test]
fn what_was_written_stands_in_tables_once_nobody_writes() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path();
    let address = free_address();
    let config = zoo_cfg(directory, address) + "4lw.commands.whitelist=mntr\n";
    fs::write(directory.join("zoo.cfg"), config).expect("the configuration is written");
    let mut server = Server::start(directory, address);
    let mut client = Client::new(address);
    client.connect();
    let path = |number| format!("/{number}");
    for number in 0..ZNODES {
        client.send(CREATE, |body: &mut Writer| {
            put_create(body, &path(number), &value(number), 0);
        });
        if number >= WINDOW {
            assert_eq!(client.receive().0, 0);
        }
    }
    (0..WINDOW).for_each(|_| assert_eq!(client.receive().0, 0));

    let started = Instant::now();
    loop {
        let (held, tables) = (number_of(address, "zk_memtable_bytes"), tables_bytes(directory));
        if held <= HELD_AT_REST_BYTES && tables > 1_000_000 {
            break;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "{held} bytes are still held in memory, {tables} stand in tables"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    server.kill();
    let mut server = Server::start(directory, address);
    client.connect();
    for number in 0..ZNODES {
        assert_eq!(client.read(&path(number)), Some((value(number), 0)), "Durable");
    }
    server.terminate();
}
