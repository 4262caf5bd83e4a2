//! Tests of whole ensembles: many members, clients and faults in one thread, from one seed. Test builds only.
//!
//! ```text
//!   seed ─▶ Scenario ─▶ World ─▶ history ─▶ checker ─▶ which promise was not kept, or how much was judged
//!                        │ members: server::simulated, the production parts on files in memory
//!                        │ clients: real bytes, a workload each
//!                        └ events in the order of (time, number): nothing happens at the same moment
//! ```
//!
//! - `checker` judges what clients have seen, promise by promise.
//! - `world` is the network, the clocks and the calendar; `faults` is what befalls it.
//! - `client`, `workload`, `wire`: who speaks with the members, about what, and in which bytes.
//! - `interleaving` lets the threads of a lone server go on in any order; `links` those that send to another server.
//! - `mutant` plants defects into the production code, to see that somebody notices.
//! - `sim` holds the tests: `cargo test --lib testing::sim`, and `SIM_SEEDS=1000 cargo sim` for more.
//!
//! Invariant: the same scenario gives the same bytes. Nothing here looks at a clock, at addresses in memory, or at the order
//! of a map that has none.

pub mod checker;
mod client;
mod faults;
pub mod interleaving;
mod links;
pub mod mutant;
mod sim;
mod wire;
mod workload;
mod world;

use checker::{Event, What};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher as _;

/// Chance, from a seed.
#[derive(Debug)]
struct Lots(StdRng);

impl Lots {
    fn new(seed: u64) -> Lots {
        Lots(StdRng::seed_from_u64(seed))
    }

    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0.random_range(0..bound)
    }

    /// A number from `low` to below `high`.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..high)
    }

    /// True so many times in a thousand.
    fn per_mille(&mut self, chance: u64) -> bool {
        self.between(0, 1000) < chance
    }

    fn seed(&mut self) -> u64 {
        self.0.random()
    }
}

/// Writes down what is seen, and a fingerprint of all bytes that flow.
struct Recorder {
    now_us: u64,
    calls: u64,
    history: Vec<Event>,
    fingerprint: DefaultHasher,
}

impl Recorder {
    fn new() -> Recorder {
        Recorder {
            now_us: 0,
            calls: 0,
            history: Vec::new(),
            fingerprint: DefaultHasher::new(),
        }
    }

    fn now_us(&self) -> u64 {
        self.now_us
    }

    fn next_call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    fn see(&mut self, what: What) {
        self.history.push(Event {
            at_us: self.now_us,
            what,
        });
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.fingerprint.write_u64(self.now_us);
        self.fingerprint.write(bytes);
    }
}
