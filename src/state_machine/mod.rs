//! The truth in memory: znode tree, sessions, ACLs, quotas.
//!
//! ```text
//!   Batch (one raft entry) ──▶ State::apply(stamp, command) ──▶ Applied { zxid, result } + Changes (events, sessions)
//!   Query                  ──▶ State::query(…)              ──▶ body of the reply, written into the caller's buffer
//! ```
//!
//! Invariants:
//! - [`State::apply`] is a function of the state, the stamp and the command alone: every member of an ensemble that
//!   applies the same commands holds the same state, whatever its clock, configuration or hash seeds are. What depends
//!   on configuration comes in with the entry, as the leader's [`Rules`].
//! - Every applied command takes one zxid, whether it succeeded or not.
//! - A failed command changes nothing but the zxid.
//! - An ephemeral exists exactly as long as its session.
//!
//! Left out on purpose: watches (local to a server, in `watch`), who is connected (in `server`), when a session expires
//! (in `replica`), and the disk (in `storage`): the state only remembers which records a checkpoint must write.

pub mod command;

pub use command::{Batch, Command, ConnectionId, Origin, Rules, ServerId, Stamp};
