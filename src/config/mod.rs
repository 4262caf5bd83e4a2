//! zoo.cfg, properties and command line → one typed, checked configuration; each default with its reason.
//!
//! ```text
//!   zoo.cfg ── properties ─┐
//!   JVMFLAGS (-D) ─────────┼─ merge ── one setting ── table row: ── pending ── cross ──▶ Config
//!   command line (-D) ─────┘  (load)   per key        form, field   values     checks    + notices
//!                                                     (key, table)  (draft)    (check)
//! ```
//!
//! A key of zoo.cfg named `x` and the property `zookeeper.x` are the same setting, wherever ZooKeeper takes it from. One
//! table (`table.rs`) names every key of ZooKeeper 3.9 and ours, with its form, default and what becomes of it; loading
//! and the printed reference both go through it. A wrong value is an error that names file, line, key and what would be
//! right; nothing that was written is dropped in silence.
//!
//! Left out on purpose: reading files and the environment (they come in as arguments), resolving host names, looking
//! whether a directory exists or a certificate is good, and the variables of the container images.

mod absent;
mod auth;
mod check;
mod cluster;
mod draft;
mod jaas;
mod key;
mod load;
mod membership;
mod notice;
mod operating;
pub mod properties;
mod rewrite;
mod serving;
mod storing;
mod table;
mod tls;
mod value;

#[cfg(test)]
mod samples_tests;
#[cfg(test)]
mod tests;

pub use crate::membership::{Address, Host, PeerAddress, PeerType, Server, ServerId};
pub use auth::{Auth, AuthProvider, DigestAlgorithm, Sasl};
pub use cluster::{Cluster, Ensemble, Membership};
pub use key::Support;
pub use load::{Base, Loaded, ReadFile, Sources, load};
pub use notice::{ConfigError, Notice, Place, Problem, Severity};
pub use operating::{
    Admin, Audit, ConnectionThrottle, FOUR_LETTER_WORDS, FourLetterWords, Metrics, MetricsProvider, Throttle,
};
pub use rewrite::{DYNAMIC_CONFIG_FILE, point_to_dynamic_file};
pub use serving::{Limits, Listeners, MOST_REQUEST_BYTES, MemoryBudget, Reads, Sessions};
pub use storing::{Purge, Storage, Tree};
pub use table::{SettingReference, reference, render_reference};
pub use tls::{ClientAuth, Store, StoreKind, Tls, TlsEndpoint, TlsVersion};
pub use value::Secret;

use std::path::PathBuf;

/// Everything that can be set. The fields of a value from [`load`] fit together; one that is put together by hand starts
/// from [`Config::embedded_default`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// What it was read from.
    pub origin: Origin,
    /// Where clients connect.
    pub listeners: Listeners,
    /// Ticks and session timeouts.
    pub sessions: Sessions,
    /// How reads are served.
    pub reads: Reads,
    /// What clients may make the server hold.
    pub limits: Limits,
    /// The disk.
    pub storage: Storage,
    /// The rules of the tree.
    pub tree: Tree,
    /// Rights and identities.
    pub auth: Auth,
    /// TLS.
    pub tls: Tls,
    /// The ensemble.
    pub cluster: Cluster,
    /// The four-letter words that are answered.
    pub four_letter_words: FourLetterWords,
    /// The HTTP admin server.
    pub admin: Admin,
    /// Metrics.
    pub metrics: Metrics,
    /// The audit log.
    pub audit: Audit,
    /// Switches that shed load.
    pub throttle: Throttle,
}

/// What a configuration was read from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The zoo.cfg; `None` for the embedded default and the form `port dataDir`.
    pub file: Option<PathBuf>,
    /// Its text, which the admin command `icfg` shows. It may hold passwords.
    pub text: String,
}
