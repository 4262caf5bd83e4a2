//! The servers under test as processes: started from a generated zoo.cfg in a directory of their own, stopped by
//! signal, and never left behind.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::control::await_first_reply;

/// How long a server may take to start, or to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which program serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    Apache,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Ours => "ours",
            Side::Apache => "apache",
        }
    }
}

/// How each side is started.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The release binary of menagerie.
    pub(crate) ours: PathBuf,
    /// `compat/oracle/run.sh`, which fetches Apache ZooKeeper and knows its class path.
    pub(crate) oracle: PathBuf,
    /// The JVM's largest heap.
    pub(crate) java_heap: String,
    /// Further lines for the zoo.cfg of both.
    pub(crate) settings: Vec<String>,
}

/// One server that runs, or ran, in its directory.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) side: Side,
    pub(crate) address: SocketAddr,
    directory: PathBuf,
    command: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server with an empty data directory; returns when it has answered its first request.
    ///
    /// # Errors
    /// Files that cannot be written, a program that cannot be started or ends at once.
    pub(crate) fn start_fresh(side: Side, programs: &Programs, directory: &Path) -> Result<Self, String> {
        fs::create_dir_all(directory.join("data")).map_err(|error| format!("{}: {error}", directory.display()))?;
        let address = free_address().map_err(|error| format!("no free port: {error}"))?;
        let configuration = directory.join("zoo.cfg");
        fs::write(
            &configuration,
            zoo_cfg(address, &directory.join("data"), &programs.settings),
        )
        .map_err(|error| format!("{}: {error}", configuration.display()))?;
        let command = command(side, programs, &configuration)?;
        let mut server = Self {
            side,
            address,
            directory: directory.to_owned(),
            command,
            child: None,
        };
        server.start(b"/zookeeper")?;
        Ok(server)
    }

    /// Starts the program and returns the time from there to the first reply of a new session that reads `path`.
    ///
    /// # Errors
    /// A program that cannot be started, ends at once, or never answers.
    pub(crate) fn start(&mut self, path: &[u8]) -> Result<Duration, String> {
        let log_path = self.directory.join("log");
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.map_err(|error| format!("{}: {error}", log_path.display()))?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let started = Instant::now();
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("{}: {error}", self.command[0]))?;
        let child = self.child.insert(child);
        let alive = || matches!(child.try_wait(), Ok(None));
        let (_, answered) = await_first_reply(self.address, path, PATIENCE, alive)
            .map_err(|error| format!("{}: {error}; its log is {}", self.side.name(), log_path.display()))?;
        Ok(answered - started)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Sends `signal` and waits until the process has gone; returns how long that took.
    ///
    /// # Errors
    /// A server that is still there after two minutes.
    pub(crate) fn stop(&mut self, signal: Signal) -> Result<Duration, String> {
        let Some(mut child) = self.child.take() else {
            return Ok(Duration::ZERO);
        };
        let started = Instant::now();
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or("an impossible pid")?;
        kill_process(pid, signal).map_err(|error| format!("kill: {error}"))?;
        while started.elapsed() < PATIENCE {
            if child.try_wait().map_err(|error| error.to_string())?.is_some() {
                return Ok(started.elapsed());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.child = Some(child);
        Err(format!("{} does not end after signal {signal:?}", self.side.name()))
    }

    /// Bytes on disk below the data directory.
    pub(crate) fn disk_bytes(&self) -> u64 {
        allocated_bytes(&self.directory.join("data"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It ends anyway; a failure means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The same for both sides. The limits are off or far away, because every session comes from one address, and 100
/// sessions with 16 requests each exceed ZooKeeper's default of 1000 outstanding requests.
fn zoo_cfg(address: SocketAddr, data: &Path, settings: &[String]) -> String {
    let mut text = format!(
        "clientPort={}\nclientPortAddress={}\ndataDir={}\ntickTime=2000\nmaxClientCnxns=0\n\
         globalOutstandingLimit=100000\nmaxSessionTimeout=600000\nadmin.enableServer=false\n",
        address.port(),
        address.ip(),
        data.display()
    );
    for setting in settings {
        text.push_str(setting);
        text.push('\n');
    }
    text
}

fn command(side: Side, programs: &Programs, configuration: &Path) -> Result<Vec<String>, String> {
    let configuration = configuration.display().to_string();
    if side == Side::Ours {
        if !programs.ours.exists() {
            return Err(format!(
                "{} is missing: build it by `cargo build --release`",
                programs.ours.display()
            ));
        }
        return Ok(vec![
            programs.ours.display().to_string(),
            "serve".to_owned(),
            configuration,
        ]);
    }
    // Java is started directly, not by the script, so that the time to the first reply holds nothing but Java.
    let output = Command::new(&programs.oracle)
        .arg("classpath")
        .stderr(Stdio::inherit())
        .output();
    let output = output.map_err(|error| format!("{}: {error}", programs.oracle.display()))?;
    if !output.status.success() {
        return Err(format!("{} classpath failed", programs.oracle.display()));
    }
    let class_path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let heap = format!("-Xmx{}", programs.java_heap);
    let main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
    let flags = ["-Dzookeeper.jmx.log4j.disable=true", "-Doracle.log.level=WARN", "-cp"];
    let mut command = vec!["java".to_owned(), heap];
    command.extend(flags.map(str::to_owned));
    command.extend([class_path, main.to_owned(), configuration]);
    Ok(command)
}

/// A port that nothing listens on now. Another process could take it before the server does, which then says so.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn allocated_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    let Ok(entries) = fs::read_dir(path) else {
        return metadata.blocks() * 512;
    };
    entries
        .flatten()
        .map(|entry| allocated_bytes(&entry.path()))
        .sum::<u64>()
}
