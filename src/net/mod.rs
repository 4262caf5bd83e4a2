//! Sockets: listeners, TLS, the bytes of one client's connection, and the links between servers ([`peers`]). Bytes, not
//! meaning.
//!
//! ```text
//!   socket ──read──▶ received ──▶ Conversation::advance ──▶ output ──write──▶ socket
//!                                      ▲
//!                                 wake (replies and events that others have queued)
//! ```
//!
//! Invariants:
//! - One task per connection. All that has arrived is handed over at once, all that is to be sent leaves in one write.
//! - An idle connection holds no buffer: what is read lands in a scratch buffer of the thread, and only partial frames are
//!   kept.
//! - Reading stops when the conversation says so; then the peer's own buffers fill, and it waits.
//!
//! Left out on purpose: frames and their meaning, and who may connect (`server`).

mod conversation;
mod descriptors;
mod listener;
mod output;
pub mod peers;
mod plain;
pub mod tls;

pub use conversation::{Conversation, Flow, Stream, converse};
pub use descriptors::{Descriptors, raise_limit};
pub use listener::{ListenError, listen};
pub use output::Output;
#[cfg(test)]
pub(crate) use plain::SimulatedSocket;
pub use plain::{PlainStream, PromptWriter};
