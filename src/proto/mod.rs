//! The wire: frames, jute, typed requests, replies, events and error codes of ZooKeeper's client protocol.
//!
//! ```text
//!   client → server   frame { xid, op code, body }          the first frame is a ConnectRequest instead
//!   server → client   frame { xid, zxid, error, [body] }    the first frame is a ConnectResponse instead
//! ```
//!
//! Invariants:
//! - Bytes from the network never panic and never make us allocate more than the frame that holds them: every length
//!   and count is checked against the bytes that remain.
//! - Payloads are [`bytes::Bytes`] slices of the frame that they arrived in; nothing is copied to be understood.
//! - Whatever decodes encodes to the same bytes again, unless the decoder had to be lenient where Java is (it says so:
//!   [`jute::Decoder::is_canonical`]).
//!
//! Left out on purpose: sockets (in `net`), meaning (in `state_machine`), and the peers' protocol (in `replica`).
//!
//! Source for layouts and codes: Apache ZooKeeper 3.9.5, `zookeeper.jute`, `ZooDefs`, `KeeperException`.

pub mod connect;
pub mod error;
pub mod event;
pub mod frame;
mod host_address;
pub mod ids;
pub mod jute;
pub mod multi;
pub mod records;
pub mod reply;
pub mod request;

pub use connect::{ConnectRequest, ConnectResponse};
pub use error::ErrorCode;
pub use event::{EventKind, WatchEvent};
pub use host_address::host_address;
pub use ids::{SessionId, Xid, Zxid};
pub use jute::{Decoder, Malformed, Text};
pub use records::{Acl, Identity, Permissions, Stat};
pub use reply::{Reply, ReplyHeader, SharedPart};
pub use request::{OpCode, RequestHeader};

#[cfg(test)]
mod property_tests;
