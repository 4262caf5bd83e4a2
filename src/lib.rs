//! # Menagerie: a ZooKeeper-compatible coordination server
//!
//! One process that speaks Apache ZooKeeper's client protocol, keeps its tree in memory, checkpoints it into an LSM
//! keyspace (fjall) and replicates every change through Raft (raft-rs). A single server takes exactly the path that
//! an ensemble takes: it is an ensemble with one voter.
//!
//! ## The map of the house
//!
//! ```text
//!   sockets            bytes           meaning                truth                      disk
//!   ┌───────┐  frames ┌───────┐ reads ┌────────┐  query      ┌───────────────┐
//!   │ net/  │ ──────▶ │proto/ │ ────▶ │server/ │ ──────────▶ │state_machine/ │
//!   └───────┘         └───────┘       │pipeline│             └───────────────┘
//!                                     └───┬────┘                     ▲ apply, in one publish step: tree,
//!                                  writes │                          │ events (watch/), replies
//!                                     ┌───▼────┐ committed     ┌─────┴──┐ dirty records   ┌─────────────┐
//!                                     │replica/│ ────────────▶ │ applier│ ──────────────▶ │storage/tree │
//!                                     └───┬────┘               └────────┘                 └─────────────┘
//!                                         │ append, then promise                          ┌─────────────┐
//!                                         └─────────────────────────────────────────────▶ │storage/log  │
//!                                                                                         └─────────────┘
//! ```
//!
//! | room | what it owns | pure |
//! |---|---|---|
//! | [`proto`] | the wire: frames, jute, typed requests, replies, events, error codes | yes |
//! | [`membership`] | who belongs to an ensemble: the grammar of `server.N`, the text of `/zookeeper/config` | yes |
//! | [`state_machine`] | the truth in memory: znode tree, sessions, ACLs, quotas | yes |
//! | [`replica`] | one member without IO: raft-rs, proposals, session deadlines in ticks | yes |
//! | [`watch`] | the local watch tables | yes |
//! | [`storage`] | the disk: raft log segments, the tree's keyspace, identity of the data directory | no |
//! | [`net`] | sockets: listeners and frames; bytes, not meaning | no |
//! | [`server`] | assembly: driver, applier, one session pipeline per connection | partly |
//! | [`admin`] | four-letter words, metrics: reads a status handle, changes nothing | no |
//! | [`config`] | zoo.cfg, properties, environment → typed, checked configuration | yes |
//! | [`cli`] | the program: one file per subcommand | no |
//!
//! "Pure" means: no sockets, files, threads, clocks or randomness. Time and chance come in as arguments, work comes
//! out as values. `tidy.rs` keeps that fence, and which room may use which.

/// Whether a simulation has planted this defect, to see that it is found: `testing::mutant`. Never so in a production build,
/// from which the defect goes with it.
macro_rules! planted {
    ($mutant:ident) => {{
        #[cfg(test)]
        let is_planted = crate::testing::mutant::is(crate::testing::mutant::Mutant::$mutant);
        #[cfg(not(test))]
        let is_planted = false;
        is_planted
    }};
}

/// Where a test may let another thread go on: `testing::interleaving`. No lock is held there for which a thread would wait in
/// earnest. Nothing in a production build.
macro_rules! interleave {
    () => {
        #[cfg(test)]
        crate::testing::interleaving::point();
    };
}

/// Where a thread is about to wait until `condition` holds: such a test has the others go on until then.
macro_rules! interleave_until {
    ($condition:expr) => {
        #[cfg(test)]
        while crate::testing::interleaving::is_explored() && !$condition {
            crate::testing::interleaving::wait();
        }
    };
}

pub mod admin;
pub mod cli;
pub mod config;
pub mod membership;
pub mod net;
pub mod proto;
pub mod replica;
pub mod server;
pub mod state_machine;
pub mod storage;
pub mod watch;

#[cfg(test)]
pub mod testing;

#[cfg(test)]
mod tidy;
