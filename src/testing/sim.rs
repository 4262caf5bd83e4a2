//! The tests of whole ensembles.

use super::checker::{self, Summary, Violation};
use super::world::{Outcome, Scenario, World};

/// How many of the last events are shown when a promise was not kept.
const SHOWN_EVENTS: usize = 60;

/// Says which seed it was, should a member panic.
struct Telltale(Scenario);

impl Drop for Telltale {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was {:?}", self.0);
        }
    }
}

fn run(scenario: Scenario) -> (Outcome, Result<Summary, Vec<Violation>>) {
    let _telltale = Telltale(scenario);
    let outcome = World::new(scenario).run();
    let verdict = checker::check(&outcome.history, scenario.expectations());
    (outcome, verdict)
}

/// Runs a scenario that must keep every promise.
fn keeps_promises(scenario: Scenario) -> (Outcome, Summary) {
    let (outcome, verdict) = run(scenario);
    match verdict {
        Ok(summary) => (outcome, summary),
        Err(violations) => {
            let shown = number("SIM_SHOWN")
                .and_then(|shown| usize::try_from(shown).ok())
                .unwrap_or(SHOWN_EVENTS);
            let from = outcome.history.len().saturating_sub(shown);
            for event in &outcome.history[from..] {
                eprintln!("{event:?}");
            }
            for violation in violations.iter().take(10) {
                eprintln!("{violation}");
            }
            panic!("{}: {scenario:?}", violations[0]);
        }
    }
}

#[test]
fn a_seed_gives_the_same_bytes_every_time() {
    for seed in [1, 2, 3] {
        let scenario = Scenario::of_seed(seed);
        let (first, second) = (World::new(scenario).run(), World::new(scenario).run());
        let differing = first
            .history
            .iter()
            .zip(&second.history)
            .find(|(one, other)| one != other);
        assert_eq!(differing, None, "{scenario:?}");
        assert_eq!(first.fingerprint, second.fingerprint, "{scenario:?}");
    }
}

/// Runs seeds and adds up what was judged.
fn run_seeds(seeds: impl Iterator<Item = u64>) {
    let started = std::time::Instant::now();
    let (mut count, mut simulated_us, mut total) = (0, 0, Summary::default());
    for seed in seeds {
        let (outcome, summary) = keeps_promises(Scenario::of_seed(seed));
        count += 1;
        simulated_us += outcome.simulated_us;
        total.add(&summary);
    }
    eprintln!(
        "{count} seeds, {} simulated s in {:.1} s: {total:?}",
        simulated_us / 1_000_000,
        started.elapsed().as_secs_f32()
    );
    assert!(total.acknowledged > 0, "nothing was judged");
}

/// What `cargo test` runs: split, so that the machine's cores share it.
const SEEDS: u64 = 210;

#[test]
fn ensembles_keep_their_promises_first_third() {
    run_seeds((1..=SEEDS).step_by(3));
}

#[test]
fn ensembles_keep_their_promises_second_third() {
    run_seeds((2..=SEEDS).step_by(3));
}

#[test]
fn ensembles_keep_their_promises_last_third() {
    run_seeds((3..=SEEDS).step_by(3));
}

/// `SIM_FROM=1 SIM_SEEDS=10000 cargo sim`; `SIM_TELL=1` tells what befalls the ensemble, `SIM_SHOWN=100000` all events.
#[test]
#[ignore = "as many seeds as one asks for"]
fn many_seeds() {
    let from = number("SIM_FROM").unwrap_or(1);
    let seeds = number("SIM_SEEDS").unwrap_or(1000);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let step = usize::try_from(threads).unwrap_or(1);
            scope.spawn(move || run_seeds((from + thread..from + seeds).step_by(step)));
        }
    });
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
