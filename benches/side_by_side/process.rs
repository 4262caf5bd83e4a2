//! The servers under test as processes: started from a generated zoo.cfg in a directory of their own, stopped by
//! signal, and never left behind.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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
        let [address] = free_addresses(1)?[..] else {
            return Err("no free port".to_owned());
        };
        let mut server = Self::configure(side, programs, directory, address, "")?;
        server.start(b"/zookeeper")?;
        Ok(server)
    }

    /// Writes the configuration of a server with an empty data directory, and does not start it.
    fn configure(
        side: Side,
        programs: &Programs,
        directory: &Path,
        address: SocketAddr,
        ensemble: &str,
    ) -> Result<Self, String> {
        fs::create_dir_all(directory.join("data")).map_err(|error| format!("{}: {error}", directory.display()))?;
        let configuration = directory.join("zoo.cfg");
        let text = zoo_cfg(address, &directory.join("data"), ensemble, &programs.settings);
        fs::write(&configuration, text).map_err(|error| format!("{}: {error}", configuration.display()))?;
        Ok(Self {
            side,
            address,
            directory: directory.to_owned(),
            command: command(side, programs, &configuration)?,
            child: None,
        })
    }

    /// Starts the program and returns the time from there to the first reply of a new session that reads `path`.
    ///
    /// # Errors
    /// A program that cannot be started, ends at once, or never answers.
    pub(crate) fn start(&mut self, path: &[u8]) -> Result<Duration, String> {
        let started = Instant::now();
        self.spawn()?;
        Ok(self.await_reply(path)? - started)
    }

    /// Starts the program, and does not wait for it.
    ///
    /// # Errors
    /// A program that cannot be started.
    pub(crate) fn spawn(&mut self) -> Result<(), String> {
        let log_path = self.directory.join("log");
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.map_err(|error| format!("{}: {error}", log_path.display()))?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("{}: {error}", self.command[0]))?;
        self.child = Some(child);
        Ok(())
    }

    /// When the first reply came to a new session that reads `path`.
    ///
    /// # Errors
    /// A server that has ended, or never answers.
    pub(crate) fn await_reply(&mut self, path: &[u8]) -> Result<Instant, String> {
        let log_path = self.directory.join("log");
        let child = self.child.as_mut().ok_or("the server was not started")?;
        let alive = || matches!(child.try_wait(), Ok(None));
        let (_, answered) = await_first_reply(self.address, path, PATIENCE, alive)
            .map_err(|error| format!("{}: {error}; its log is {}", self.side.name(), log_path.display()))?;
        Ok(answered)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Sends `signal` and waits until the process has gone; returns how long that took.
    ///
    /// # Errors
    /// A server that is still there after two minutes.
    pub(crate) fn stop(&mut self, signal: Signal) -> Result<Duration, String> {
        let started = Instant::now();
        self.signal(signal)?;
        self.reap()?;
        Ok(started.elapsed())
    }

    /// Sends `signal` to a server that runs, and does not wait.
    ///
    /// # Errors
    /// A process that cannot be signalled.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), String> {
        let Some(child) = &self.child else { return Ok(()) };
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or("an impossible pid")?;
        kill_process(pid, signal).map_err(|error| format!("kill: {error}"))
    }

    /// Waits until the process has gone.
    ///
    /// # Errors
    /// A server that is still there after two minutes.
    pub(crate) fn reap(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if child.try_wait().map_err(|error| error.to_string())?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.child = Some(child);
        Err(format!("{} does not end after its signal", self.side.name()))
    }

    /// Bytes on disk below the data directory.
    pub(crate) fn disk_bytes(&self) -> u64 {
        allocated_bytes(&self.directory.join("data"))
    }
}

/// What one side sends into a contest: a single server, or an ensemble on this machine.
#[derive(Debug)]
pub(crate) struct Contestant {
    pub(crate) side: Side,
    pub(crate) members: Vec<Server>,
}

impl Contestant {
    /// Starts `count` servers with empty data directories; returns when each has answered its first request, the leader
    /// first in the list.
    ///
    /// # Errors
    /// As [`Server::start_fresh`]; an ensemble without a leader.
    pub(crate) fn start_fresh(side: Side, programs: &Programs, directory: &Path, count: usize) -> Result<Self, String> {
        if count == 1 {
            let members = vec![Server::start_fresh(side, programs, directory)?];
            return Ok(Self { side, members });
        }
        let addresses = free_addresses(3 * count)?;
        let [clients, quorum, election] = [0, 1, 2].map(|part| &addresses[part * count..(part + 1) * count]);
        let lines: String = (0..count)
            .map(|member| {
                let ports = [quorum[member].port(), election[member].port()];
                let [quorum, election] = ports;
                format!(
                    "server.{}=127.0.0.1:{quorum}:{election};{}\n",
                    member + 1,
                    clients[member]
                )
            })
            .collect();
        let mut members = Vec::new();
        for (index, client) in clients.iter().enumerate() {
            let directory = directory.join((index + 1).to_string());
            let mut server = Server::configure(side, programs, &directory, *client, &lines)?;
            let number = directory.join("data/myid");
            fs::write(&number, format!("{}\n", index + 1)).map_err(|error| format!("{}: {error}", number.display()))?;
            server.spawn()?;
            members.push(server);
        }
        for server in &mut members {
            server.await_reply(b"/zookeeper")?;
        }
        let mut contestant = Self { side, members };
        let leader = contestant.leader()?;
        contestant.members.swap(0, leader);
        Ok(contestant)
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|server| server.address).collect()
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(Server::pid).collect()
    }

    /// The index of the member that leads, once one does.
    ///
    /// # Errors
    /// No leader for two minutes.
    pub(crate) fn leader(&self) -> Result<usize, String> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(leader) = self.members.iter().position(|server| leads(server.address)) {
                return Ok(leader);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("{}: no member says that it leads", self.side.name()))
    }
}

/// Whether the server says so, by the four-letter word that every server answers.
fn leads(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"srvr")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| String::from_utf8_lossy(&answer).contains("Mode: leader"))
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
fn zoo_cfg(address: SocketAddr, data: &Path, ensemble: &str, settings: &[String]) -> String {
    let mut text = format!(
        "dataDir={}\ntickTime=2000\nmaxClientCnxns=0\nglobalOutstandingLimit=100000\nmaxSessionTimeout=600000\n\
         admin.enableServer=false\n",
        data.display()
    );
    if ensemble.is_empty() {
        text.push_str(&format!(
            "clientPort={}\nclientPortAddress={}\n",
            address.port(),
            address.ip()
        ));
    } else {
        // ZooKeeper's sample file and documentation say 10 and 5.
        text.push_str("initLimit=10\nsyncLimit=5\n");
        text.push_str(ensemble);
    }
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

/// Ports that nothing listens on now. Another process could take one before the server does, which then says so.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, String> {
    let bind = || -> std::io::Result<Vec<SocketAddr>> {
        // All are held until all are chosen, so that they differ.
        let listeners: Vec<_> = (0..count)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<_, _>>()?;
        listeners.iter().map(TcpListener::local_addr).collect()
    };
    bind().map_err(|error| format!("no free port: {error}"))
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
