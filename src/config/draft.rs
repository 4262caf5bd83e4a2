//! A configuration while it is being read: the fields that are final already, and what the cross checks still need.

use super::Config;
use super::auth::AuthProvider;
use super::notice::{Notice, Place, Problem, Severity};
use super::tls::{StoreKind, TlsVersion};
use super::value::Secret;
use crate::membership::{Host, PeerType, Server, ServerId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A setting as it was written, after overrides: what a setter sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// The key, without the `zookeeper.` of a property.
    pub(super) key: String,
    /// The value, trimmed.
    pub(super) text: String,
    /// Where it was written.
    pub(super) place: Place,
}

impl Given {
    /// What follows `prefix` in the key: the `1` of `authProvider.1`.
    pub(super) fn suffix<'a>(&'a self, prefix: &str) -> &'a str {
        self.key.strip_prefix(prefix).unwrap_or_default()
    }
}

/// Values that become fields of [`Config`] only together with others.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) client_port: Option<u16>,
    pub(super) client_host: Option<Host>,
    pub(super) secure_port: Option<u16>,
    pub(super) secure_host: Option<Host>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) data_log_dir: Option<PathBuf>,
    pub(super) min_session_timeout_ms: Option<u32>,
    pub(super) max_session_timeout_ms: Option<u32>,
    pub(super) four_letter_words: Option<BTreeSet<String>>,
    pub(super) auth_providers: BTreeMap<String, AuthProvider>,
    pub(super) enforce_auth: bool,
    pub(super) enforced_schemes: Vec<String>,
    pub(super) require_sasl: bool,
    pub(super) sasl_super_password: Option<Secret>,
    pub(super) init_limit_ticks: Option<u32>,
    pub(super) sync_limit_ticks: Option<u32>,
    pub(super) peer_type: Option<PeerType>,
    pub(super) dynamic_config_file: Option<PathBuf>,
    /// Nobody wrote the data directory down: it is the embedded default.
    pub(super) built_in: bool,
    pub(super) servers: BTreeMap<ServerId, (Server, Given)>,
    pub(super) client_tls: PendingTls,
    pub(super) quorum_tls: PendingTls,
}

/// The parts of the stores and versions of one kind of TLS connection.
#[derive(Debug, Default)]
pub(super) struct PendingTls {
    pub(super) key_store: PendingStore,
    pub(super) trust_store: PendingStore,
    pub(super) protocol: Option<TlsVersion>,
    pub(super) enabled_protocols: BTreeSet<TlsVersion>,
}

/// The parts of one key or trust store.
#[derive(Debug, Default)]
pub(super) struct PendingStore {
    pub(super) location: Option<PathBuf>,
    pub(super) kind: Option<StoreKind>,
    pub(super) password: Option<Secret>,
    pub(super) password_path: Option<PathBuf>,
}

/// Everything that is known while the keys are applied one by one.
pub(super) struct Draft {
    /// The fields that a single key decides.
    pub(super) config: Config,
    /// The rest.
    pub(super) pending: Pending,
    /// What the log has to say.
    pub(super) notices: Vec<Notice>,
    /// What keeps the server from starting.
    pub(super) problems: Vec<Problem>,
    /// Every setting that is in force, by key.
    pub(super) given: BTreeMap<String, Given>,
    /// Where something is missing that nobody wrote.
    pub(super) whole: Place,
}

impl Draft {
    pub(super) fn new(config: Config, whole: Place) -> Self {
        Self {
            config,
            pending: Pending::default(),
            notices: Vec::new(),
            problems: Vec::new(),
            given: BTreeMap::new(),
            whole,
        }
    }

    pub(super) fn info(&mut self, given: &Given, message: impl Into<String>) {
        self.notify(Severity::Info, given.place.clone(), &given.key, message);
    }

    pub(super) fn warn(&mut self, given: &Given, message: impl Into<String>) {
        self.notify(Severity::Warn, given.place.clone(), &given.key, message);
    }

    /// Warns about `key`, wherever it was given.
    pub(super) fn warn_about(&mut self, key: &str, message: impl Into<String>) {
        let place = self.place_of(key);
        self.notify(Severity::Warn, place, key, message);
    }

    pub(super) fn notify(&mut self, severity: Severity, place: Place, key: &str, message: impl Into<String>) {
        self.notices.push(Notice {
            severity,
            place,
            key: key.to_owned(),
            message: message.into(),
        });
    }

    /// Reports that `key` is wrong in the light of the others. The value is shown if the key was given.
    pub(super) fn wrong(&mut self, key: &str, message: impl Into<String>) {
        let place = self.place_of(key);
        let value = self.given.get(key).map(|given| given.text.clone());
        self.problems.push(Problem {
            place,
            key: key.to_owned(),
            value,
            message: message.into(),
        });
    }

    /// Reports that `given` is wrong in the light of others.
    pub(super) fn wrong_here(&mut self, given: &Given, message: impl Into<String>) {
        self.problems.push(Problem {
            place: given.place.clone(),
            key: given.key.clone(),
            value: Some(given.text.clone()),
            message: message.into(),
        });
    }

    /// Like [`Self::wrong`], without showing the value.
    pub(super) fn wrong_secret(&mut self, key: &str, message: impl Into<String>) {
        let place = self.place_of(key);
        self.problems.push(Problem {
            place,
            key: key.to_owned(),
            value: None,
            message: message.into(),
        });
    }

    /// Whether `key` has been found wrong already, so that nothing should be concluded from its absence.
    pub(super) fn is_wrong(&self, key: &str) -> bool {
        self.problems.iter().any(|problem| problem.key == key)
    }

    /// Whether anybody set `key`.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    fn place_of(&self, key: &str) -> Place {
        self.given
            .get(key)
            .map_or_else(|| self.whole.clone(), |given| given.place.clone())
    }
}
