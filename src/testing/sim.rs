//! The tests of whole ensembles.

use super::checker::{self, Summary, Violation, What};
use super::faults::Weather;
use super::mutant::{self, Mutant};
use super::world::{Outcome, Scenario, World};
use std::collections::HashSet;

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
    let with_observers = Scenario {
        voters: 3,
        observers: 2,
        weather: Weather::Storm,
        ..Scenario::of_seed(4)
    };
    for scenario in (1..=3).map(Scenario::of_seed).chain([with_observers]) {
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

/// The longest time without an acknowledged write while all observers are away, µs: without them, nothing is elected.
const LONGEST_PAUSE_US: u64 = 300_000;

#[test]
fn the_death_of_all_observers_stops_no_write() {
    let mut judged = 0;
    for seed in 1..=8 {
        let scenario = Scenario {
            voters: 3,
            // If they counted, those who are left were no majority.
            observers: 3 + usize::try_from(seed % 2).unwrap_or(0),
            weather: Weather::NoObservers,
            ..Scenario::of_seed(seed)
        };
        let (outcome, _) = keeps_promises(scenario);
        let first_observer = scenario.voters as u64 + 1;
        let (mut away, mut writes, mut last_us) = (0, HashSet::new(), 0);
        let mut judge = |at_us: u64, last_us| {
            let pause_us = at_us - last_us;
            assert!(pause_us < LONGEST_PAUSE_US, "no write for {pause_us} µs: {scenario:?}");
            judged += 1;
        };
        for event in &outcome.history {
            match &event.what {
                What::Down(server) if *server >= first_observer => away += 1,
                What::Up(server) if *server >= first_observer && away > 0 => {
                    judge(event.at_us, last_us);
                    break;
                }
                What::Called { call, request, .. } if request.is_write() => drop(writes.insert(*call)),
                What::Replied {
                    call, result: Ok(_), ..
                } if writes.contains(call) => {
                    if away == scenario.observers {
                        judge(event.at_us, last_us);
                    }
                    last_us = event.at_us;
                }
                _ => {}
            }
        }
    }
    assert!(judged > 500, "only {judged} writes were seen while observers were away");
}

#[test]
fn what_others_than_its_task_send_to_a_client_is_all_that_waits_for_it_or_the_task_sends_the_rest() {
    let prompt_bytes = |seed| keeps_promises(Scenario::of_seed(seed)).0.prompt_bytes;
    let sent: u64 = (1..=12).map(prompt_bytes).sum();
    assert!(sent > 100_000, "only {sent} bytes were sent by others");
}

#[test]
fn a_member_that_is_behind_takes_no_entries_and_all_goes_on() {
    let mut refused = 0;
    for seed in 1..=12 {
        let scenario = Scenario {
            // Any command that waits to be applied.
            backlog_bytes: 1,
            ..Scenario::of_seed(seed)
        };
        refused += keeps_promises(scenario).0.appends_refused;
    }
    assert!(refused > 50, "only {refused} messages with entries were not taken");
}

#[test]
fn a_client_that_has_seen_more_than_is_applied_waits_until_it_is() {
    let clients_ahead = |seed| keeps_promises(Scenario::of_seed(seed)).0.clients_ahead;
    let ahead: u64 = (1..=12).map(clients_ahead).sum();
    assert!(ahead > 5, "only {ahead} clients had to wait");
}

/// Runs seeds and adds up what was judged.
fn run_seeds(seeds: impl Iterator<Item = u64>) {
    let started = std::time::Instant::now();
    let (mut count, mut simulated_us, mut total) = (0, 0, Summary::default());
    for seed in seeds {
        let mut scenario = Scenario::of_seed(seed);
        let members = |name| number(name).and_then(|count| usize::try_from(count).ok());
        if let Some(voters) = members("SIM_VOTERS") {
            scenario.voters = voters;
            scenario.observers = members("SIM_OBSERVERS").unwrap_or(0);
            scenario.weather = Weather::Storm;
        }
        let (outcome, summary) = keeps_promises(scenario);
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

/// `SIM_FROM=1 SIM_SEEDS=10000 cargo sim`; `SIM_VOTERS=3 SIM_OBSERVERS=2` for storms of such;
/// `SIM_TELL=1` tells what befalls the ensemble, `SIM_SHOWN=100000` all events.
#[test]
#[ignore = "as many seeds as one asks for"]
fn many_seeds() {
    let from = number("SIM_FROM").unwrap_or(1);
    let seeds = number("SIM_SEEDS").unwrap_or(1000);
    // No thread without a seed: it would complain that it has judged nothing.
    let threads = std::thread::available_parallelism()
        .map_or(1, |count| count.get() as u64)
        .min(seeds);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let step = usize::try_from(threads).unwrap_or(1);
            scope.spawn(move || run_seeds((from + thread..from + seeds).step_by(step)));
        }
    });
}

/// A planted bug, how rough it must be for it to show, and what is said of it: the promise that it breaks, or the words of
/// an assertion that finds it first.
struct Case {
    mutant: Mutant,
    voters: usize,
    weather: Weather,
    found_by: &'static [&'static str],
}

/// Seeds in which each planted bug must be found.
const HUNT_SEEDS: u64 = 120;

/// What a member says that finds its log shorter than what it has acknowledged (Durable).
const FORGOTTEN: &str = "it has acknowledged entries up to";
/// What the simulation says where a leader has counted what is not there (Durable).
const COUNTED_ABSENT: &str = "as acknowledged by server";
/// What a member says whose state differs from the leader's (TotalOrder).
const DIVERGED: &str = "differs from that of server";
/// What a member says whose tree has ephemerals without a session (EphemeralIffSession).
const UNSTORED: &str = "which is not stored";
/// What a member says that has more of its commands applied than it has submitted (NoReconnectOnFailover).
const COUNTED: &str = "were submitted";

/// What the simulation says where a server has lost what a client has seen, or has not asked whether the others have it (Durable).
const SENT_AWAY: &str = "has only seen what is said here";

macro_rules! is_found {
    ($($name:ident: $mutant:expr, $voters:literal, $weather:expr, [$($found_by:expr),*];)*) => {
        $(
            #[test]
            fn $name() {
                hunt(&Case {
                    mutant: $mutant,
                    voters: $voters,
                    weather: $weather,
                    found_by: &[$($found_by),*],
                });
            }
        )*
    };
}

is_found! {
    ack_before_fsync: Mutant::AckBeforeFsync, 1, Weather::Storm, ["Durable", SENT_AWAY];
    ack_before_write: Mutant::AckBeforeWrite, 3, Weather::Storm, ["Durable", FORGOTTEN, COUNTED_ABSENT];
    commit_alone: Mutant::CommitAlone, 3, Weather::Storm, ["Durable", FORGOTTEN, COUNTED_ABSENT];
    vote_after_wipe: Mutant::VoteAfterWipe, 3, Weather::Amnesia, ["Durable", SENT_AWAY];
    last_entry_lost: Mutant::LastEntryLost, 1, Weather::Storm, ["Durable"];
    own_clock: Mutant::OwnClock, 3, Weather::Calm, ["TotalOrder", DIVERGED];
    sync_alone: Mutant::SyncAlone, 3, Weather::Storm, ["Linear", SENT_AWAY];
    read_overtakes: Mutant::ReadOvertakes, 3, Weather::Calm, ["SessionOrder"];
    event_after_reply: Mutant::EventAfterReply, 3, Weather::Calm, ["EventBeforeData"];
    event_forgotten: Mutant::EventForgotten, 3, Weather::Calm, ["WatchComplete"];
    ephemeral_forgotten: Mutant::EphemeralForgotten, 3, Weather::Calm, ["EphemeralIffSession"];
    deadlines_go_on: Mutant::DeadlinesGoOn, 3, Weather::Deaths, ["NoFalseExpiry"];
    touches_dropped: Mutant::TouchesDropped, 3, Weather::Calm, ["NoFalseExpiry"];
    sessions_not_stored: Mutant::SessionsNotStored, 1, Weather::Storm, ["NoFalseExpiry", UNSTORED];
    sent_away_at_once: Mutant::SentAwayAtOnce, 3, Weather::Storm, [SENT_AWAY];
    half_multi: Mutant::HalfMulti, 3, Weather::Calm, ["Atomic"];
    taken_twice: Mutant::TakenTwice, 3, Weather::Storm, ["NoReconnectOnFailover", COUNTED];
    forwarded_early: Mutant::ForwardedEarly, 3, Weather::Deaths, ["NoReconnectOnFailover", COUNTED];
}

/// Runs seeds until the bug is found.
fn hunt(case: &Case) {
    for seed in 1..=HUNT_SEEDS {
        let drawn = Scenario::of_seed(seed);
        let scenario = Scenario {
            voters: case.voters,
            observers: if case.voters == 3 { drawn.observers } else { 0 },
            weather: case.weather,
            // None of the bugs is about values, and some are rare enough.
            values_leave: false,
            ..drawn
        };
        let outcome = std::panic::catch_unwind(|| mutant::with(case.mutant, || run(scenario).1));
        let said: Vec<String> = match outcome {
            Ok(Ok(_)) => continue,
            Ok(Err(violations)) => violations.iter().map(ToString::to_string).collect(),
            Err(panic) => vec![panic.downcast_ref::<String>().cloned().unwrap_or_default()],
        };
        let fits = |said: &&String| case.found_by.iter().any(|words| said.contains(words));
        match said.iter().find(fits) {
            Some(said) => return println!("{:?}: seed {seed}: {said}", case.mutant),
            None => println!("{:?}: seed {seed}: something else: {:?}", case.mutant, said.first()),
        }
    }
    panic!("nobody has noticed {:?} in {HUNT_SEEDS} seeds", case.mutant);
}

pub(super) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
