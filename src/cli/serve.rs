//! `menagerie serve`: one server, from its configuration to its end.

use super::doors::{self, DoorError};
use super::dynamic_file::DynamicFile;
use super::{machine, peers};
use crate::admin::{self, Directories, FourLetterAnswers, Registry, Status};
use crate::config::{
    self, Base, Config, Membership, MemoryBudget, MetricsProvider, Notice, Severity, Sources, properties,
};
use crate::membership::Members;
use crate::net::{self, Descriptors};
use crate::server::authentication::DigestAlgorithm;
use crate::server::{
    CheckpointSchedule, ContainerSchedule, EnsembleOptions, Failure, Options, Patience, RecoveryOptions, SaslUsers,
    Server, Settings, Syncing, Words,
};
use crate::state_machine::{Rules, ServerId};
use crate::storage::directory::{Identity, Layout};
use crate::storage::log::LogOptions;
use crate::storage::tree::TreeOptions;
use crate::watch::WatchLimits;
use clap::Args;
use std::num::{NonZero, NonZeroU32};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Read-only mode begins a tick after the leader is lost, and not before so many ms, as in ZooKeeper: an election is over
/// by then.
const READ_ONLY_AFTER_MS: u64 = 2000;

/// Sockets that a worker looks at in one go: what they wake fits into its queue of 256 tasks. What did not would stand in the
/// queue of all workers, which is looked at once in 61 tasks: a thousand clients at full speed, and some wait thirty times as
/// long as others.
const IO_EVENTS: usize = 128;
/// The same while it has tasks to run. Fewer than the 61 that it runs before it looks again, so that its queue does not grow.
const BUSY_IO_EVENTS: usize = 48;

/// Threads that serve clients, however few cores there are: one may wait for the log's disk.
const LEAST_WORKERS: usize = 2;

/// Bytes that may wait for all clients together, however small the memory's budget.
const LEAST_OUTBOUND_TOTAL_BYTES: usize = 64 << 20;

/// Exit codes, as ZooKeeper's server has them.
const UNEXPECTED: u8 = 1;
const INVALID_INVOCATION: u8 = 2;
const UNUSABLE_DIRECTORY: u8 = 3;
const NO_ADMIN_SERVER: u8 = 4;

/// Arguments of `menagerie serve`.
#[derive(Args)]
pub(super) struct ServeArguments {
    /// A zoo.cfg; or ZooKeeper's other form: PORT DATADIR [TICKTIME] [MAXCLIENTCNXNS]. Nothing: port 2181 and
    /// ./menagerie-data.
    #[arg(value_name = "ZOO.CFG", num_args = 0..=4)]
    base: Vec<String>,
    /// Override a setting: -Dzookeeper.KEY=VALUE or -DKEY=VALUE. Wins over the file.
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("cannot read {0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    #[error("the configuration has errors ({0}, told above); the server does not start before they are gone")]
    Config(usize),
    #[error(
        "the HTTP admin server cannot start: {0} Choose another admin.serverPort, or set admin.enableServer=false."
    )]
    Admin(#[source] DoorError),
    #[error(transparent)]
    Doors(#[from] DoorError),
    #[error("the directory {0} does not exist, and datadir.autocreate=false forbids to create it")]
    NoDirectory(PathBuf),
    #[error(transparent)]
    Failure(#[from] Failure),
    #[error("this server cannot start itself again ({0}): start it, and it joins its ensemble")]
    Again(std::io::Error),
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
}

impl ServeError {
    fn exit_code(&self) -> u8 {
        match self {
            ServeError::Unreadable(..)
            | ServeError::Config(_)
            | ServeError::Doors(DoorError::NoPort | DoorError::NoKeyStore | DoorError::Tls(_)) => INVALID_INVOCATION,
            ServeError::Failure(Failure::Directory(_)) | ServeError::NoDirectory(_) => UNUSABLE_DIRECTORY,
            ServeError::Admin(_) => NO_ADMIN_SERVER,
            _ => UNEXPECTED,
        }
    }
}

/// Runs a server until it is told to stop.
pub(super) fn run(arguments: &ServeArguments) -> ExitCode {
    init_logging();
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Log lines go to standard error; RUST_LOG chooses which.
fn init_logging() {
    use std::io::IsTerminal as _;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,fjall=warn,lsm_tree=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

fn serve(arguments: &ServeArguments) -> Result<(), ServeError> {
    let started = Instant::now();
    let config = load_config(arguments)?;
    check_directories(&config)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(LEAST_WORKERS))
        .enable_all()
        .max_io_events_per_tick(IO_EVENTS)
        .max_io_events_per_busy_tick(BUSY_IO_EVENTS)
        .build()
        .map_err(ServeError::Runtime)?;
    runtime.block_on(run_server(&config, started))
}

fn load_config(arguments: &ServeArguments) -> Result<Config, ServeError> {
    let path = arguments.base.first().map(PathBuf::from).unwrap_or_default();
    let text;
    let base = match arguments.base.as_slice() {
        [] => Base::Embedded,
        [_] => {
            text = read_text(&path).map_err(|error| ServeError::Unreadable(path.clone(), error))?;
            Base::File {
                path: &path,
                text: &text,
            }
        }
        arguments => Base::PortAndDirectory(arguments),
    };
    let sources = Sources {
        base,
        environment: &|name| std::env::var(name).ok(),
        overrides: &arguments.overrides,
        read: &read_small_file,
    };
    match config::load(&sources) {
        Ok(loaded) => {
            tell(&loaded.notices);
            Ok(loaded.config)
        }
        Err(error) => {
            tell(&error.notices);
            for problem in &error.problems {
                tracing::error!("{problem}");
            }
            Err(ServeError::Config(error.problems.len()))
        }
    }
}

fn tell(notices: &[Notice]) {
    for notice in notices {
        match notice.severity {
            Severity::Info => tracing::info!("{notice}"),
            Severity::Warn => tracing::warn!("{notice}"),
        }
    }
}

/// Reads a text in whatever of both it is written that Java reads: zoo.cfg may be older than UTF-8.
fn read_text(path: &Path) -> std::io::Result<String> {
    Ok(properties::decode(std::fs::read(path)?).0)
}

fn read_small_file(path: &Path) -> Result<Option<String>, String> {
    match read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// `datadir.autocreate=false`: a directory that is not there was not mounted, perhaps.
fn check_directories(config: &Config) -> Result<(), ServeError> {
    let storage = &config.storage;
    let missing = [&storage.data_dir, &storage.data_log_dir]
        .into_iter()
        .find(|path| !path.is_dir());
    match missing {
        Some(path) if !storage.create_directories => Err(ServeError::NoDirectory(path.clone())),
        _ => Ok(()),
    }
}

async fn run_server(config: &Config, started: Instant) -> Result<(), ServeError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Runtime)?;
    let doors = doors::open(config)?;
    let addresses = doors::addresses(&doors);
    let status = status(config);
    serve_operators(config, &status)?;
    let ensemble = ensemble(config)?;
    let is_alone = ensemble.is_none();
    let mut server = Server::start(options(config, status.clone(), ensemble))?;
    if let Some(files) = DynamicFile::of(config) {
        tokio::spawn(files.keep(Arc::downgrade(server.shared())));
    }
    let run = async {
        let mut doors = Some(doors);
        if !is_alone {
            // Operators and their probes are answered while there is no leader, and clients told to go elsewhere.
            server.accept(doors.take().unwrap_or_default());
            tracing::info!("waiting for a leader; a majority of the participants must be up");
        }
        let zxid = match server.ready().await {
            Ok(zxid) => zxid,
            Err(failure) => return failure,
        };
        server.accept(doors.take().unwrap_or_default());
        tracing::info!(
            took_ms = started.elapsed().as_millis(),
            %zxid,
            data = %config.storage.data_dir.display(),
            log = %config.storage.data_log_dir.display(),
            "serving clients on {addresses}; stop with Ctrl-C or SIGTERM",
        );
        server.failure().await
    };
    let failure = tokio::select! {
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        failure = run => Some(failure),
    };
    if let Some(failure) = failure {
        if server.begin_anew(&failure, rand::random())? {
            tracing::error!("{failure}");
            return Err(begin_anew());
        }
        // What is not on disk by now was not acknowledged; nothing more is promised.
        return Err(failure.into());
    }
    tracing::info!("stopping: finishing what is in work");
    server.stop().await?;
    tracing::info!("stopped; everything that was acknowledged is on disk");
    Ok(())
}

/// Starts this program again in the place of this process, so that nothing of the former life is left. Gives why not.
fn begin_anew() -> ServeError {
    use std::os::unix::process::CommandExt as _;
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let program = std::env::current_exe()
        .ok()
        .or_else(|| name.map(PathBuf::from))
        .unwrap_or_default();
    tracing::info!("starting again");
    ServeError::Again(std::process::Command::new(program).args(arguments).exec())
}

/// Opens what operators and their tools look at over HTTP.
fn serve_operators(config: &Config, status: &Arc<Status>) -> Result<(), ServeError> {
    if config.metrics.provider == MetricsProvider::Prometheus {
        let listener = doors::bind(&config.metrics.address, 0, "metricsProvider.httpPort")?;
        tokio::spawn(admin::serve_metrics(status.clone(), listener));
        tracing::info!("metrics for Prometheus on {}, at /metrics", config.metrics.address);
    }
    if !config.admin.enabled {
        return Ok(());
    }
    match doors::bind(&config.admin.address, 0, "admin.serverPort") {
        Ok(listener) => {
            tokio::spawn(admin::serve_commands(status.clone(), listener));
            tracing::info!(
                "admin commands on {}, below {}",
                config.admin.address,
                config.admin.command_url
            );
        }
        Err(error) if config.admin.required => return Err(ServeError::Admin(error)),
        Err(error) => tracing::warn!(
            "going on without the HTTP admin server: {error} Choose another admin.serverPort, or set \
             admin.enableServer=false."
        ),
    }
    Ok(())
}

/// The ensemble that is configured, and where this server listens for the others; `None` for a lone one.
fn ensemble(config: &Config) -> Result<Option<EnsembleOptions>, ServeError> {
    let Membership::Ensemble(ensemble) = &config.cluster.membership else {
        return Ok(None);
    };
    let listeners = match ensemble.servers.get(&ensemble.me) {
        Some(me) => peers::listen(config, me)?,
        None => Vec::new(),
    };
    Ok(Some(EnsembleOptions {
        members: Members {
            servers: ensemble.servers.clone(),
            version: ensemble.version,
        },
        listeners,
        links: peers::link_options(config)?,
        election_timeout_ms: config.cluster.election_timeout_ms.into(),
    }))
}

fn layout(config: &Config) -> Layout {
    Layout {
        data_directory: config.storage.data_dir.clone(),
        log_directory: config.storage.data_log_dir.clone(),
    }
}

fn options(config: &Config, status: Arc<Status>, ensemble: Option<EnsembleOptions>) -> Options {
    let is_alone = ensemble.is_none();
    let leaderless_ms = u64::from(config.cluster.sync_limit_ticks) * u64::from(config.sessions.tick_ms);
    Options {
        settings: settings(config, raise_descriptor_limit()),
        rules: rules(config),
        watches: WatchLimits {
            per_connection: limit(config.limits.max_watches_per_connection),
            per_znode: limit(config.limits.max_watches_per_znode),
        },
        recovery: RecoveryOptions {
            layout: layout(config),
            fresh: Identity {
                // It is given one when it has joined an ensemble, or founded one.
                cluster_id: 0,
                server_id: server_id(config).0,
                incarnation: rand::random(),
            },
            log: LogOptions::new(Box::new(rand::random)),
            tree: TreeOptions::new(rand::random()),
        },
        memory_budget_bytes: Some(memory_budget_bytes(config.limits.memory_budget)),
        syncing: Syncing {
            force: config.storage.force_sync,
            warn_after: Duration::from_millis(config.storage.fsync_warning_ms.into()),
        },
        checkpoints: CheckpointSchedule {
            // What is set again and again is written once in so long: ten thousand hot znodes are ten thousand records then,
            // and for some 20 ms there is less of processor and disk for clients.
            interval_ms: 5000,
            // One to three milliseconds of the applier's time; reads have their turns in between.
            records: 16_384,
            bytes: 8 << 20,
            // With each checkpoint: a little often holds up the log's fsync less than much now and then.
            persist_interval_ms: 1000,
            // About two hundred thousand small commands, which are replayed in less than half a second.
            log_bytes: 32 << 20,
        },
        containers: ContainerSchedule {
            check_interval_ms: config.tree.container_check_interval_ms.into(),
            max_per_minute: config.tree.container_max_per_minute,
            max_never_used_ms: config.tree.container_max_never_used_ms.map_or(0, |ms| ms.get().into()),
        },
        patience: Patience {
            leaderless_ms: (!is_alone).then_some(leaderless_ms),
            read_only_ms: (!is_alone && config.reads.read_only_mode)
                .then_some(u64::from(config.sessions.tick_ms).max(READ_ONLY_AFTER_MS)),
        },
        ensemble,
        words: Box::new(move |shared| -> Box<dyn Words> {
            status.attach(shared);
            Box::new(FourLetterAnswers::new(status))
        }),
    }
}

/// What operators are shown is read through this.
fn status(config: &Config) -> Arc<Status> {
    let layout = layout(config);
    let directories = Directories {
        tree: layout.own_data(),
        log: layout.log(),
    };
    let registry = Arc::new(Registry::default());
    if config.metrics.provider != MetricsProvider::Nobody {
        registry.install();
    }
    Arc::new(Status::new(config.clone(), directories, registry))
}

fn memory_budget_bytes(budget: MemoryBudget) -> u64 {
    match budget {
        MemoryBudget::Bytes(bytes) => bytes.get(),
        MemoryBudget::Percent(percent) => machine::memory_bytes() / 100 * u64::from(percent),
    }
}

/// An eighth of the budget, of which the state itself takes three quarters; enough for a few large listings at least.
fn outbound_total_bytes(budget: MemoryBudget) -> usize {
    usize::try_from(memory_budget_bytes(budget) / 8)
        .unwrap_or(usize::MAX)
        .max(LEAST_OUTBOUND_TOTAL_BYTES)
}

fn limit(limit: Option<NonZeroU32>) -> usize {
    limit.map_or(0, |limit| limit.get() as usize)
}

/// A server that stands alone and was given no number is number 1, as session ids show.
fn server_id(config: &Config) -> ServerId {
    config
        .cluster
        .server_id
        .map_or(ServerId(1), |id| ServerId(u64::from(id.get())))
}

fn settings(config: &Config, descriptors: Option<Descriptors>) -> Settings {
    let milliseconds = |ms: u32| i32::try_from(ms).unwrap_or(i32::MAX);
    Settings {
        server: server_id(config),
        in_ensemble: config.cluster.membership != Membership::Standalone,
        max_request_bytes: config.limits.max_frame_bytes as usize,
        min_session_timeout_ms: milliseconds(config.sessions.min_timeout_ms),
        max_session_timeout_ms: milliseconds(config.sessions.max_timeout_ms),
        global_outstanding_limit: config.limits.max_outstanding_requests as usize,
        max_connections_per_address: limit(config.limits.max_connections_per_address),
        max_connections: limit(config.limits.max_connections),
        descriptor_connections: descriptors.map_or(usize::MAX, |descriptors| descriptors.clients),
        handshake_timeout_ms: config.limits.handshake_timeout_ms.into(),
        outbound_limit_bytes: usize::try_from(config.limits.outbound_queue_bytes).unwrap_or(usize::MAX),
        outbound_limit_events: config.limits.outbound_queue_messages as usize,
        outbound_total_bytes: outbound_total_bytes(config.limits.memory_budget),
        outbound_stall_ms: config.limits.outbound_stall_timeout_ms.into(),
        fan_out_jitter_ms: config.limits.watch_fan_out_jitter_ms.into(),
        skip_acl: config.auth.skip_acl,
        digest_enabled: config.auth.providers.contains(&config::AuthProvider::Digest),
        digest_algorithm: match config.auth.digest_algorithm {
            config::DigestAlgorithm::Sha1 => DigestAlgorithm::Sha1,
            config::DigestAlgorithm::Sha256 => DigestAlgorithm::Sha256,
            config::DigestAlgorithm::Sha512 => DigestAlgorithm::Sha512,
            config::DigestAlgorithm::Sha3With256Bits => DigestAlgorithm::Sha3With256Bits,
        },
        super_digest: config
            .auth
            .super_digest
            .as_ref()
            .map(|secret| secret.expose().to_owned()),
        sasl: sasl_users(config),
        x509_enabled: config.tls.client.auth_scheme == config::AuthProvider::X509.scheme(),
        x509_super_user: config.auth.x509_super_user.clone(),
        required_schemes: config.auth.enforced_schemes.iter().flatten().cloned().collect(),
        linearizable_reads: config.reads.linearizable,
    }
}

/// Clients have what the server does not need of the descriptors.
fn raise_descriptor_limit() -> Option<Descriptors> {
    let descriptors = net::raise_limit()?;
    tracing::info!(
        limit = descriptors.limit,
        "clients may have {} connections; the other descriptors are kept for files and servers (ulimit -Hn sets the limit)",
        descriptors.clients
    );
    Some(descriptors)
}

fn sasl_users(config: &Config) -> Option<SaslUsers> {
    let users = config.auth.sasl.users.as_ref()?;
    Some(SaslUsers {
        passwords: users
            .iter()
            .map(|(user, password)| (user.clone(), password.expose().to_owned()))
            .collect(),
        super_users: config.auth.sasl_super_users.clone(),
        allow_failed: config.auth.sasl.allow_failed,
    })
}

fn rules(config: &Config) -> Rules {
    Rules::default()
        .with(Rules::SKIP_ACL, config.auth.skip_acl)
        .with(Rules::ENFORCE_QUOTA, config.tree.enforce_quota)
        .with(Rules::EXTENDED_TYPES, config.tree.extended_types)
        .with(Rules::RECONFIG, config.cluster.reconfig_enabled)
        .with(Rules::STANDALONE_ENABLED, config.cluster.standalone_enabled)
        .with(Rules::MULTI_ADDRESS, config.cluster.several_addresses)
        .with(Rules::STANDALONE, config.cluster.membership == Membership::Standalone)
        .with(
            Rules::DIGEST_SCHEME,
            config.auth.providers.contains(&config::AuthProvider::Digest),
        )
        .with(
            Rules::SASL_SCHEME,
            config.auth.providers.contains(&config::AuthProvider::Sasl),
        )
        .with(
            Rules::X509_SCHEME,
            config.auth.providers.contains(&config::AuthProvider::X509),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::authentication::{IDENTITIES, IDENTITY_BYTES};
    use crate::storage::log::MAX_ENTRY_BYTES;

    #[test]
    fn the_largest_request_fits_into_the_log_with_all_that_is_added_to_it() {
        let added_bytes = IDENTITY_BYTES + 64 * IDENTITIES;
        assert!(config::MOST_REQUEST_BYTES as usize + added_bytes <= MAX_ENTRY_BYTES);
    }

    #[test]
    fn a_zoo_cfg_in_latin_1_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let zoo_cfg = directory.path().join("zoo.cfg");
        std::fs::write(&zoo_cfg, b"# f\xfcr alle\ndataDir=/d\xe4ta\nclientPort=2181\n").unwrap();
        let arguments = ServeArguments {
            base: vec![zoo_cfg.display().to_string()],
            overrides: Vec::new(),
        };
        let config = load_config(&arguments).unwrap();
        assert_eq!(config.storage.data_dir, Path::new("/d\u{e4}ta"));
    }
}
