//! The disk.
//!
//! ```text
//!   log thread ──▶ log/       raft entries and hard state: zero-filled segments, one write and one fdatasync per group
//!   store writer ─▶ tree/      checkpoints of the tree in fjall, always behind the log
//!   start-up ─────▶ directory  who this data belongs to, the lock, and what may not be started upon
//!                   file       the few file operations all of it is made of, so that tests can lose power
//! ```
//!
//! Invariants of the room:
//! - Nothing counts as stored before an fsync that covered it has returned, and an fsync that failed is never repeated:
//!   the object that saw it answers with the same error for ever, and its owner stops the server (Durable).
//! - The log is cut only below the tree's durable point, so that one of the two always has everything.
//! - Bytes that are read back are checked before they are believed; what does not check is an error with a name, a
//!   place and an advice, never a panic and never a silent repair, the torn end of an interrupted write excepted.
//!
//! Left out on purpose: threads (the callers own them; only the log keeps one to fill its next file, and loading has
//! one while it lasts), clocks, chance
//! (salts and identities come in as arguments) and any idea of what the stored bytes mean.

pub(crate) mod behind;
pub mod directory;
pub mod file;
pub mod generations;
pub mod log;
pub mod reconcile;
mod sealed;
pub mod space;
pub mod tree;
mod trouble;
