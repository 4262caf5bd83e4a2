//! The fault test: three servers under a recorded load, and one fault after the other; then the history is checked.
//!
//! | promise | how it would show |
//! |---|---|
//! | Durable | a version that was acknowledged or read, or an acknowledged sequential znode, is missing at the end |
//! | TotalOrder | a version with two values, a zxid with two writes, members that differ at the end |
//! | Linear | a write or a read behind a sync that lies before what was known when it was sent; a client that is told that the ensemble has not come as far as it |
//! | exactly once | a value with two versions; versions that nobody can have written |
//! | SessionOrder | replies out of order; a zxid or a register that goes back, across reconnects and servers |
//! | EventBeforeData, WatchComplete | data that is newer than an armed watch without its event; an event without a watch |
//! | EphemeralIffSession | an ephemeral without its session, or the other way round |
//! | NoFalseExpiry | a session that is gone before its timeout has passed |
//! | Atomic | the two znodes that only multis set, together, differ |
//! | NoReconnectOnFailover | a client of a member that nothing was done to loses its connection |
//!
//! ```text
//! FAULTS=200 FAULTS_SEED=7 cargo test --test faults                # more of them; both are printed
//! FAULTS_ONLY=kill-leader,wipe cargo test --test faults            # these kinds alone
//! FAULTS_TARGET=apache cargo test --test faults                    # the test itself, on Apache ZooKeeper 3.9.5
//! ```
//! A failed run leaves the servers' directories with their logs, and says where.

#![allow(unreachable_pub, reason = "the modules of a test program are all its own")]

mod ahead;
#[cfg(target_os = "linux")]
mod behind;
#[allow(
    dead_code,
    reason = "the simulator's checker, which knows more than is asked for here"
)]
#[path = "../../src/testing/checker/mod.rs"]
mod checker;
#[allow(
    dead_code,
    reason = "the client is shared with the differential test, which uses more of it"
)]
#[path = "../differential/client.rs"]
mod client;
mod ensemble;
#[cfg(target_os = "linux")]
mod frozen;
#[cfg(target_os = "linux")]
mod held;
mod history;
mod members;
mod nemesis;
mod proxy;
#[allow(dead_code, reason = "likewise")]
#[path = "../differential/random.rs"]
mod random;
mod stage;
mod wire;
mod worker;

use ensemble::{Ensemble, Flavour, Visit};
use history::{Fate, Final, History};
use nemesis::{Fault, Nemesis, Span};
use random::Random;
use stage::Stage;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use worker::{REGISTERS, Worker, register_path};

const MEMBERS: usize = 3;
const WORKERS: usize = 9;
/// All sessions' timeouts, and time for a busy machine.
const EXPIRY_PATIENCE: Duration = Duration::from_secs(90);
/// So many broken promises are printed; the first ones tell the most.
const SHOWN: usize = 25;

#[test]
fn an_ensemble_keeps_its_promises_under_faults() {
    let seed = from_environment("FAULTS_SEED", u64::from(std::process::id()));
    let count = from_environment("FAULTS", 50);
    let flavour = match std::env::var("FAULTS_TARGET").unwrap_or_default().as_str() {
        "" | "menagerie" => Flavour::Ours,
        "apache" => Flavour::Apache,
        other => panic!("FAULTS_TARGET={other}: menagerie or apache"),
    };
    let kinds = Fault::chosen(flavour, &std::env::var("FAULTS_ONLY").unwrap_or_default());
    eprintln!("FAULTS={count} FAULTS_SEED={seed}");
    let directory = tempfile::tempdir().expect("a directory");
    let broken = run(seed, count, flavour, &kinds, directory.path());
    if broken.is_empty() {
        return;
    }
    let kept = directory.keep();
    let shown = broken[..broken.len().min(SHOWN)].join("\n");
    panic!(
        "{} broken promises, FAULTS={count} FAULTS_SEED={seed}, the servers' logs are below {}:\n{shown}",
        broken.len(),
        kept.display()
    );
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| {
        value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number"))
    })
}

/// One run; returns what is broken.
fn run(seed: u64, count: u64, flavour: Flavour, kinds: &[(u64, Fault)], directory: &std::path::Path) -> Vec<String> {
    let mut ensemble = Ensemble::new(flavour, MEMBERS, directory);
    (0..MEMBERS).for_each(|member| ensemble.start(member));
    if let Err(reason) = ensemble.await_all().and_then(|()| prepare(ensemble.clients()[0])) {
        return vec![reason];
    }
    let stage = Stage::new(ensemble.clients().to_vec());
    let started = Instant::now();
    let (mut history, outcome) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| {
                let worker = Worker::new(number, seed, &stage);
                scope.spawn(|| worker.work())
            })
            .collect();
        let mut nemesis = Nemesis::new(&mut ensemble, &stage, Random::new(seed));
        let outcome = nemesis.torment(count, kinds);
        stage.stop();
        let mut history = History::default();
        for worker in workers {
            history.merge(worker.join().expect("a worker reports, it does not panic"));
        }
        (history, outcome)
    });
    let (spans, failure) = outcome;
    tell(&history, &spans, started.elapsed());
    if let Some(reason) = failure {
        let mut broken = history.violations;
        broken.insert(0, reason);
        return broken;
    }
    let mut broken = match last_look(ensemble.clients()) {
        Ok((end, differences)) => [differences, history.check(&end)].concat(),
        Err(reason) => vec![format!("the last look: {reason}{}", ensemble.logs())],
    };
    match flavour {
        Flavour::Ours => {
            broken.extend(nemesis::unexplained(&history, &spans));
            broken.extend(history.check_trace());
            broken.extend(ensemble.untruths());
        }
        // Its sync asks no quorum: a leader that was frozen, and does not know of its successor yet, answers it.
        Flavour::Apache => broken.retain(|broken| !broken.contains(history::BEHIND_SYNC)),
    }
    if history.answered < count * 100 {
        broken.push(format!(
            "only {} requests were answered: nothing was tested",
            history.answered
        ));
    }
    broken
}

fn prepare(address: SocketAddr) -> Result<(), String> {
    let mut visit = Visit::open(address)?;
    for path in ["/faults", "/faults/queue", "/faults/ephemerals"] {
        visit.create(path)?;
    }
    for register in 0..REGISTERS {
        visit.create(&register_path(register))?;
    }
    visit.close()
}

/// What the run was made of.
fn tell(history: &History, spans: &[Span], elapsed: Duration) {
    let unknown = history
        .writes
        .iter()
        .filter(|write| write.fate == Fate::Unknown)
        .count();
    eprintln!(
        "{} faults in {} s: {} requests answered, {} writes of which {unknown} with an unknown outcome, {} events, \
         {} sessions, {} moves, {} connections lost",
        spans.len(),
        elapsed.as_secs(),
        history.answered,
        history.writes.len(),
        history.events,
        history.sessions,
        history.moves,
        history.disconnects.len()
    );
    let mut by_kind: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut acknowledged: Vec<u64> = history
        .writes
        .iter()
        .filter_map(|write| match write.fate {
            Fate::Done { returned, .. } => Some(returned),
            _ => None,
        })
        .collect();
    acknowledged.sort_unstable();
    for span in spans {
        let first = acknowledged.partition_point(|at| *at < span.began);
        let last = acknowledged.partition_point(|at| *at < span.ended);
        let moments = [&[span.began], &acknowledged[first..last], &[span.ended]].concat();
        let gap = moments.windows(2).map(|pair| pair[1] - pair[0]).max();
        by_kind
            .entry(span.fault.name())
            .or_default()
            .push(gap.unwrap_or_default() / 1_000_000);
    }
    for (kind, mut gaps) in by_kind {
        gaps.sort_unstable();
        eprintln!(
            "  {kind:<18} {:>3} times, longest gap in acknowledged writes: median {} ms, worst {} ms",
            gaps.len(),
            gaps[gaps.len() / 2],
            gaps[gaps.len() - 1]
        );
    }
}

/// What all members show when everything is over, and where they differ.
fn last_look(members: &[SocketAddr]) -> Result<(Final, Vec<String>), String> {
    let mut ends = Vec::new();
    for address in members {
        ends.push(look(*address)?);
    }
    let mut end = ends[0].clone();
    let differences = ends
        .iter()
        .enumerate()
        .filter(|(_, other)| **other != end)
        .map(|(member, _)| format!("TotalOrder: server {} ends with other data than server 1", member + 1))
        .collect();
    // The workers' sessions are left alone now, and expire.
    let started = Instant::now();
    for address in members {
        loop {
            let mut visit = Visit::open(*address)?;
            visit.sync()?;
            end.left = visit.children("/faults/ephemerals")?.into_iter().collect();
            visit.close()?;
            if end.left.is_empty() || started.elapsed() > EXPIRY_PATIENCE {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        if !end.left.is_empty() {
            break;
        }
    }
    Ok((end, differences))
}

fn look(address: SocketAddr) -> Result<Final, String> {
    let mut visit = Visit::open(address)?;
    visit.sync()?;
    let mut registers = Vec::new();
    for register in 0..REGISTERS {
        let path = register_path(register);
        let (data, stat) = visit.data(&path)?.ok_or_else(|| format!("Durable: {path} is gone"))?;
        let value = std::str::from_utf8(&data).ok().and_then(|text| text.parse().ok());
        registers.push((value, stat.version));
    }
    let queue = visit.children("/faults/queue")?.into_iter().collect();
    let mut ephemerals = BTreeMap::new();
    for name in visit.children("/faults/ephemerals")? {
        let path = format!("/faults/ephemerals/{name}");
        if let Some((_, stat)) = visit.data(&path)? {
            ephemerals.insert(path, stat.owner);
        }
    }
    visit.close()?;
    Ok(Final {
        registers,
        queue,
        ephemerals,
        left: BTreeSet::new(),
    })
}
