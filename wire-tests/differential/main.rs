//! The differential test: the same random sequences against Apache ZooKeeper and against ours, and no difference.
//!
//! ```text
//! cargo test --test differential                                    # 20,000 operations, fixed seeds, Apache and ours
//! DIFFERENTIAL_OPERATIONS=1000000 DIFFERENTIAL_SEED=77 cargo test --test differential
//! DIFFERENTIAL_TARGETS=apache,apache cargo test --test differential # proves the test itself: nothing may differ
//! DIFFERENTIAL_TARGETS=127.0.0.1:2181,menagerie …                   # a server that runs already
//! ```
//!
//! A failure prints the shortest sequence that shows it, both servers' answers, and the seed. `DIFFERENTIAL_FAILURES`
//! (1) is how many are collected before the test gives up; `DIFFERENTIAL_LENGTH` (200) the requests in one sequence;
//! with `DIFFERENTIAL_SHOW=1` the first server's answers are printed as well (run with `-- --nocapture`).
//!
//! ```text
//!  generator ── steps ──▶ player ──▶ Apache ──▶ replies, events ──▶ view ─┐
//!      ▲           │                                                      ├─ equal, line by line? ── no ──▶ shrink
//!     seed         └────▶ player ──▶ ours   ──▶ replies, events ──▶ view ─┘
//! ```
//!
//! What is compared: every reply (error code, body, Stat, the order of zxids), every event (kind, path, zxid, order),
//! closed connections, handshakes, and at the end of each sequence the whole tree with data, Stats and access control
//! lists. What is not compared stands where it is left out: `view.rs` (absolute zxids and times), `reply.rs` (orders
//! of hash tables), `generator.rs` (requests that Apache answers by chance, or dies of), `player.rs` (the owner of a
//! session is not thrown off by a wrong password here).

#![allow(
    missing_docs,
    reason = "a test binary has no readers of its documentation but those of its source"
)]
#![allow(unreachable_pub, reason = "the modules of a test binary are all private")]

mod arguments;
mod client;
mod generator;
mod operation;
mod player;
mod random;
mod reply;
mod session;
mod shrink;
mod target;
mod view;

use std::env;
use std::fmt::Write;
use std::time::{Duration, Instant};

use operation::{Action, Step};
use player::{StepView, fresh_tree, play};
use target::Target;

/// Which servers are compared unless the environment says otherwise.
const TARGETS: &str = "apache,menagerie";
/// How many operations a run has unless the environment says otherwise.
const OPERATIONS: usize = 20_000;
/// The first seed; each further sequence takes the next.
const SEED: u64 = 1;
/// Requests in a sequence: long enough to build a tree, short enough to be shrunk soon.
const LENGTH: usize = 200;
/// How long one failure is shrunk before the shortest sequence so far is good enough.
const SHRINKING_TIME: Duration = Duration::from_secs(90);

#[test]
fn both_servers_answer_every_sequence_alike() {
    let operations = number("DIFFERENTIAL_OPERATIONS", OPERATIONS as u64) as usize;
    let first_seed = number("DIFFERENTIAL_SEED", SEED);
    let length = number("DIFFERENTIAL_LENGTH", LENGTH as u64) as usize;
    let wanted_failures = number("DIFFERENTIAL_FAILURES", 1) as usize;
    let kinds = env::var("DIFFERENTIAL_TARGETS").unwrap_or_else(|_| TARGETS.to_owned());

    let directory = tempfile::tempdir().expect("a directory for the servers' files");
    let mut pair = Pair::start(&kinds, directory.path());
    pair.assert_equal_when_fresh();
    let started = Instant::now();
    let mut played = 0;
    let mut seeds = 0;
    let mut failures = Vec::new();
    while played < operations && failures.len() < wanted_failures {
        let seed = first_seed + seeds;
        let steps = generator::sequence(seed, length.min(operations - played));
        played += steps.iter().map(requests).sum::<usize>();
        seeds += 1;
        if let Some(difference) = pair.difference(&steps) {
            let (report, signature) = pair.report(seed, steps, &difference);
            if failures.contains(&signature) {
                eprintln!("seed {seed}: as an earlier one");
            } else {
                eprintln!("{report}");
                failures.push(signature);
            }
        }
    }
    eprintln!(
        "{kinds}: {played} operations, seeds {first_seed} to {}, in {:.1?}",
        first_seed + seeds - 1,
        started.elapsed()
    );
    if !failures.is_empty() {
        // What the servers themselves have to say: the logs stay behind.
        eprintln!("the servers' logs are below {}", directory.keep().display());
    }
    assert!(
        failures.is_empty(),
        "{} sequences are answered differently, see above",
        failures.len()
    );
}

fn number(name: &str, otherwise: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text:?} is not a number")),
        Err(_) => otherwise,
    }
}

fn requests(step: &Step) -> usize {
    match &step.action {
        Action::Send(requests) => requests.len(),
        Action::Open { behind, .. } => 1 + behind.len(),
        _ => 1,
    }
}

/// The two servers.
struct Pair {
    left: Target,
    right: Target,
    runs: u64,
    show: bool,
}

/// Where two runs part.
struct Difference {
    /// The step, or the number of steps for the final tree.
    step: usize,
    left: StepView,
    right: StepView,
}

impl Pair {
    fn start(kinds: &str, directory: &std::path::Path) -> Self {
        let kinds: Vec<&str> = kinds.split(',').collect();
        let [left, right] = kinds[..] else {
            panic!("DIFFERENTIAL_TARGETS names two servers, like apache,menagerie")
        };
        let started = |kind: &str, side: &str| {
            Target::start(kind, format!("{side}-{}", kind.replace(':', "-")), directory)
                .unwrap_or_else(|problem| panic!("{problem}"))
        };
        Self {
            left: started(left, "left"),
            right: started(right, "right"),
            runs: 0,
            show: env::var_os("DIFFERENTIAL_SHOW").is_some(),
        }
    }

    fn assert_equal_when_fresh(&mut self) {
        if self.left.is_fresh() && self.right.is_fresh() {
            let tree = |target| fresh_tree(target).unwrap_or_else(|problem| panic!("{problem}"));
            assert_eq!(tree(&mut self.left), tree(&mut self.right), "the tree of a new server");
        }
    }

    /// Plays the steps against both, side by side.
    fn difference(&mut self, steps: &[Step]) -> Option<Difference> {
        self.runs += 1;
        let run = self.runs;
        let (left, right) = std::thread::scope(|scope| {
            let left = scope.spawn(|| play(&mut self.left, run, steps));
            let right = play(&mut self.right, run, steps);
            (left.join().expect("the player does not panic"), right)
        });
        if self.show {
            show(steps, &left);
        }
        let lost = |problem: String| vec![vec![format!("no comparison: {problem}")]];
        first_difference(left.unwrap_or_else(lost), right.unwrap_or_else(lost))
    }

    /// The shortest sequence and what both servers say to it; and what is left of that when numbers are taken out, to
    /// tell one defect from another.
    fn report(&mut self, seed: u64, steps: Vec<Step>, first: &Difference) -> (String, String) {
        let deadline = Instant::now() + SHRINKING_TIME;
        let short = shrink::shortest(steps.clone(), &mut |candidate| {
            (Instant::now() < deadline).then(|| self.difference(candidate).is_some())
        });
        let mut report = format!("seed {seed}: {} steps shrink to {}\n", steps.len(), short.len());
        let repeated = self.difference(&short);
        let shown = repeated.as_ref().unwrap_or(first);
        if repeated.is_some() {
            self.describe(&short, shown, &mut report);
        } else {
            report.push_str("  which pass when repeated: one server is not deterministic. The first time:\n");
            self.describe(&steps, shown, &mut report);
        }
        let mut signature: String = shown.left.iter().chain(&shown.right).map(String::as_str).collect();
        signature.retain(|letter| !letter.is_ascii_digit());
        (report, signature)
    }

    fn describe(&self, steps: &[Step], difference: &Difference, report: &mut String) {
        for (index, step) in steps.iter().enumerate().take(difference.step + 1) {
            writeln!(report, "  #{index} {step}").expect("a string takes all");
        }
        if difference.step >= steps.len() {
            report.push_str("  then, the tree that is left\n");
        }
        for (name, view) in [
            (&self.left.name, &difference.left),
            (&self.right.name, &difference.right),
        ] {
            writeln!(report, "  {name}:").expect("a string takes all");
            for line in view {
                writeln!(report, "    {line}").expect("a string takes all");
            }
        }
    }
}

fn show(steps: &[Step], views: &Result<Vec<StepView>, String>) {
    match views {
        Ok(views) => {
            for (index, view) in views.iter().enumerate() {
                eprintln!(
                    "#{index} {}",
                    steps
                        .get(index)
                        .map_or_else(|| "the end".to_owned(), ToString::to_string)
                );
                view.iter().for_each(|line| eprintln!("    {line}"));
            }
        }
        Err(problem) => eprintln!("no comparison: {problem}"),
    }
}

fn first_difference(left: Vec<StepView>, right: Vec<StepView>) -> Option<Difference> {
    let count = left.len().max(right.len());
    let mut left = left.into_iter();
    let mut right = right.into_iter();
    for step in 0..count {
        let missing = || vec!["the sequence was given up before this".to_owned()];
        let (left, right) = (
            left.next().unwrap_or_else(missing),
            right.next().unwrap_or_else(missing),
        );
        if left != right {
            return Some(only_what_differs(step, left, right));
        }
    }
    None
}

/// Leaves out the lines that both sides have, unless only the order differs.
fn only_what_differs(step: usize, left: StepView, right: StepView) -> Difference {
    let without = |of: &StepView, other: &StepView| -> StepView {
        of.iter().filter(|line| !other.contains(line)).cloned().collect()
    };
    let (left_only, right_only) = (without(&left, &right), without(&right, &left));
    if left_only.is_empty() && right_only.is_empty() {
        return Difference { step, left, right };
    }
    Difference {
        step,
        left: left_only,
        right: right_only,
    }
}
