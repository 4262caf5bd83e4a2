//! What operators and their tools look at: four-letter words, HTTP admin server, metrics.
//!
//! ```text
//!   first bytes of a connection ─▶ words ──┐
//!   HTTP, admin.serverPort ─────▶ commands ┼─▶ Status ─▶ server's shared parts, configuration
//!   HTTP, metricsProvider port ─▶ metrics ─┘
//! ```
//!
//! Invariants:
//! - Nothing is changed but statistics (`crst`, `srst`) and the trace mask, which has no effect.
//! - Texts are Apache's to the byte where tools parse them; numbers that have no meaning here are 0 or -1, not absent.
//! - What can be asked for is bounded: listings are cut at [`LISTING_BYTES`](listing::LISTING_BYTES), and the HTTP servers
//!   take a few connections at a time.
//!
//! Left out on purpose: the log (it is the operating system's to keep), JMX, and everything that changes the ensemble.

mod commands;
mod http;
mod java;
mod json;
mod listing;
mod members;
mod metrics;
mod process;
mod rights;
mod status;
mod text;
mod words;

pub use http::{serve_commands, serve_metrics};
pub use metrics::Registry;
pub use status::{Directories, Status};
pub use words::FourLetterAnswers;
