//! Where a microsecond goes: the lines that lie on the way of a read and of a write, added up, for `benches/README.md`.
//!
//! `GET_US` and `SET_US`, the server's processor time for each operation in the rows `get:100x16` and `set:100x16` of
//! `side_by_side`, tell what is left for all that has no line here: system calls, wake-ups, locks, hand-offs.

use crate::bench::Bench;
use crate::{GROUP, PUBLISH, READ_DECODE, READ_QUERY, WRITE_DECODE, disk, entry_line};

/// Prints both ways; a line that was not run is a dash.
pub(crate) fn print(bench: &Bench) {
    let read = [
        ("frame to typed request", READ_DECODE.to_owned()),
        ("look up, reply to frame", READ_QUERY.to_owned()),
    ];
    let write = [
        ("frame to typed request", WRITE_DECODE.to_owned()),
        ("batch of 64 to log entry", entry_line("encode", GROUP)),
        ("append to the log, without fdatasync", disk::APPEND.to_owned()),
        ("log entry to commands", entry_line("decode", GROUP)),
        ("publish step: apply, watches, reply to frame", PUBLISH.to_owned()),
        ("checkpoint, behind it", disk::STORE.to_owned()),
    ];
    way(bench, "read: getData", &read, "GET_US");
    way(bench, "write: setData", &write, "SET_US");
}

fn way(bench: &Bench, title: &str, steps: &[(&str, String)], whole: &str) {
    let times: Vec<Option<f64>> = steps.iter().map(|(_, line)| bench.fastest_ns(line)).collect();
    if times.iter().all(Option::is_none) {
        return;
    }
    println!("\n| {title} | ns |\n|---|--:|");
    for ((step, _), time) in steps.iter().zip(&times) {
        println!("| {step} | {} |", figure(*time));
    }
    let sum = times.iter().copied().sum::<Option<f64>>();
    println!("| sum | {} |", figure(sum));
    let whole = std::env::var(whole).ok().and_then(|text| text.parse::<f64>().ok());
    let rest = whole.zip(sum).map(|(whole_us, sum)| whole_us * 1e3 - sum);
    println!(
        "| system calls, wake-ups, locks, hand-offs: the rest of the server's CPU per operation | {} |",
        figure(rest)
    );
}

fn figure(time: Option<f64>) -> String {
    time.map_or_else(|| "–".to_owned(), |time| format!("{time:.0}"))
}
