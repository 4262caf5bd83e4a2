//! Three servers on loopback as processes: configured, started, asked for their role, tormented by signals.

use super::client::{Connection, Handshake, Malformed, Reader, Received, Writer};
use super::proxy::{Cut, Network};
use super::wire;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A server or an ensemble that is not there after so long never will be.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);
/// What a member logs that sends a client away because it has seen more than this ensemble has.
const CLIENT_OF_ANOTHER: &str = "the client was with another one";
/// Lines of a server's log that a failure shows.
const LOG_LINES: usize = 15;

/// Which program serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Ours,
    /// To prove the test itself. Its members are not parted: its election port tells addresses past the proxies.
    Apache,
}

/// The ensemble's processes and files.
pub(crate) struct Ensemble {
    pub(crate) flavour: Flavour,
    directory: PathBuf,
    clients: Vec<SocketAddr>,
    lines: Vec<String>,
    configurations: Vec<String>,
    processes: Vec<Option<Child>>,
    command: Vec<String>,
    pub(crate) network: Arc<Network>,
}

/// How a member sees itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Follower,
    Observer,
    /// It does not answer, or does not serve.
    Neither,
}

impl Ensemble {
    /// Writes the configuration of `size` members below `directory`, and starts none.
    pub(crate) fn new(flavour: Flavour, size: usize, directory: &Path) -> Self {
        Self::with_spare(flavour, size, 0, "", directory)
    }

    /// The same with settings of the test's own. The last `spare` servers stand in no configuration but their own.
    pub(crate) fn with_spare(flavour: Flavour, size: usize, spare: usize, settings: &str, directory: &Path) -> Self {
        let clients = free_addresses(size);
        let quorum = free_addresses(size);
        let election = free_addresses(size);
        let network = Arc::new(Network::default());
        // Ours are reached through proxies, and listen elsewhere.
        let advertised: Vec<SocketAddr> = match flavour {
            Flavour::Apache => quorum.clone(),
            Flavour::Ours => quorum
                .iter()
                .enumerate()
                .map(|(member, target)| {
                    let address = free_addresses(1)[0];
                    let listener = TcpListener::bind(address).expect("a free port");
                    network.serve(listener, member, *target);
                    address
                })
                .collect(),
        };
        let lines: Vec<String> = (0..size)
            .map(|member| {
                format!(
                    "server.{}=127.0.0.1:{}:{}:participant;127.0.0.1:{}",
                    member + 1,
                    advertised[member].port(),
                    election[member].port(),
                    clients[member].port()
                )
            })
            .collect();
        let mut configurations = Vec::new();
        for (member, listen) in quorum.iter().enumerate() {
            let folder = directory.join((member + 1).to_string());
            let known = (0..size).filter(|other| *other < size - spare || *other == member);
            let known: Vec<&str> = known.map(|other| lines[other].as_str()).collect();
            let mut config = format!(
                "tickTime=500\ninitLimit=40\nsyncLimit=20\nmaxClientCnxns=0\nadmin.enableServer=false\n\
                 4lw.commands.whitelist=*\nminSessionTimeout=1000\nmaxSessionTimeout=60000\ndataDir={}\n{settings}{}\n",
                folder.join("data").display(),
                known.join("\n")
            );
            if flavour == Flavour::Ours {
                config.push_str(&format!("quorumListenAddress={listen}\n"));
            }
            configurations.push(config);
        }
        let ensemble = Self {
            flavour,
            directory: directory.to_owned(),
            clients,
            lines,
            configurations,
            processes: (0..size).map(|_| None).collect(),
            command: command(flavour),
            network,
        };
        for member in 0..size {
            ensemble.make_directory(member);
            ensemble.configure(member);
        }
        ensemble
    }

    /// Runs a test on an ensemble of ours, as [`Ensemble::with_spare`] makes it. If it fails, the servers' logs are told, and
    /// their directories stay.
    pub(crate) fn try_out(
        size: usize,
        spare: usize,
        settings: &str,
        test: impl FnOnce(&mut Self) -> Result<(), String>,
    ) {
        let directory = tempfile::tempdir().expect("a directory");
        let mut ensemble = Self::with_spare(Flavour::Ours, size, spare, settings, directory.path());
        if let Err(reason) = test(&mut ensemble) {
            let logs = ensemble.logs();
            drop(ensemble);
            panic!("{reason}{logs}\n  all of it: {}", directory.keep().display());
        }
    }

    /// Starts all members, and waits until each serves and any could be done without; says who leads.
    pub(crate) fn start_all(&mut self) -> Result<usize, String> {
        (0..self.size()).for_each(|member| self.start(member));
        self.await_all()?;
        self.await_votes()?;
        self.leader()
    }

    /// Writes a member's configuration as it was in the beginning.
    pub(crate) fn configure(&self, member: usize) {
        let file = self.folder(member).join("zoo.cfg");
        fs::write(file, &self.configurations[member]).expect("the configuration is written");
    }

    pub(crate) fn size(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn clients(&self) -> &[SocketAddr] {
        &self.clients
    }

    /// `server.N=…`, as a participant.
    pub(crate) fn line(&self, member: usize) -> &str {
        &self.lines[member]
    }

    pub(crate) fn folder(&self, member: usize) -> PathBuf {
        self.directory.join((member + 1).to_string())
    }

    fn make_directory(&self, member: usize) {
        let data = self.folder(member).join("data");
        fs::create_dir_all(&data).expect("a directory");
        fs::write(data.join("myid"), format!("{}\n", member + 1)).expect("myid is written");
    }

    /// Starts a member; returns at once.
    pub(crate) fn start(&mut self, member: usize) {
        let folder = self.folder(member);
        let log = fs::File::options().create(true).append(true).open(folder.join("log"));
        let log = log.expect("a log file");
        let errors = log.try_clone().expect("a second handle");
        let process = Command::new(&self.command[0])
            .args(&self.command[1..])
            .arg(folder.join("zoo.cfg"))
            .current_dir(&folder)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("the server starts");
        self.network.set_member(process.id(), member);
        self.processes[member] = Some(process);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, member: usize) {
        let mut process = self.processes[member].take().expect("it runs");
        process.kill().expect("SIGKILL reaches a running process");
        process.wait().expect("it ends");
    }

    /// SIGTERM; it must end by itself. Ours must end with exit code 0.
    pub(crate) fn terminate(&mut self, member: usize) -> Result<(), String> {
        self.signal(member, Signal::TERM);
        let mut process = self.processes[member].take().expect("it runs");
        let asked = Instant::now();
        loop {
            if let Some(status) = process.try_wait().expect("the process can be asked") {
                return if status.success() || self.flavour == Flavour::Apache {
                    Ok(())
                } else {
                    Err(format!("server {} ended with {status} at SIGTERM", member + 1))
                };
            }
            if asked.elapsed() > PATIENCE {
                let _ = (process.kill(), process.wait());
                return Err(format!("server {} does not end at SIGTERM", member + 1));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Sends a signal to a member that runs.
    pub(crate) fn signal(&self, member: usize, signal: Signal) {
        let process = self.processes[member].as_ref().expect("it runs");
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("the process can be signalled");
    }

    /// Removes everything that a member has on disk, but its configuration and number.
    pub(crate) fn wipe(&self, member: usize) {
        fs::remove_dir_all(self.folder(member).join("data")).expect("the data is removed");
        self.make_directory(member);
    }

    /// Overwrites the middle of every file of a member's tree, which does not run. What it had set aside before goes.
    pub(crate) fn damage(&self, member: usize) {
        let data = self.folder(member).join("data");
        for path in paths_in(&data) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.contains(".aside-") {
                fs::remove_dir_all(&path).expect("what was set aside is removed");
            }
        }
        let in_use = |path: &PathBuf| path.is_dir() && path.to_string_lossy().contains("/tree");
        let mut pending: Vec<PathBuf> = paths_in(&data.join("menagerie")).into_iter().filter(in_use).collect();
        while let Some(path) = pending.pop() {
            if path.is_dir() {
                pending.extend(paths_in(&path));
            } else {
                let file = fs::OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .expect("a file of the tree");
                let middle = file.metadata().expect("its size").len() / 2;
                file.write_all_at(&[0xff; 64], middle).expect("it can be written");
            }
        }
    }

    pub(crate) fn part(&self, from: usize, to: usize, cut: Cut) {
        self.network.cut(from, to, cut);
    }

    /// The leader, as soon as one member says that it is one and no other does.
    pub(crate) fn leader(&self) -> Result<usize, String> {
        let started = Instant::now();
        loop {
            let leaders: Vec<usize> = (0..self.size())
                .filter(|member| self.role(*member) == Role::Leader)
                .collect();
            if let [leader] = leaders[..] {
                return Ok(leader);
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("there is no single leader: {leaders:?}{}", self.logs()));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Of a member that runs.
    pub(crate) fn process_id(&self, member: usize) -> u32 {
        self.processes[member].as_ref().expect("it runs").id()
    }

    /// What a member answers to a four-letter word; nothing if it does not.
    pub(crate) fn word(&self, member: usize, word: &str) -> String {
        four_letter_word(self.clients[member], word)
    }

    /// One of a member's numbers, as `mntr` has it.
    pub(crate) fn number(&self, member: usize, name: &str) -> Option<u64> {
        let answer = self.word(member, "mntr");
        let mut lines = answer.lines();
        lines
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'))?
            .parse()
            .ok()
    }

    pub(crate) fn role(&self, member: usize) -> Role {
        if self.processes[member].is_none() {
            return Role::Neither;
        }
        match four_letter_word(self.clients[member], "srvr") {
            answer if answer.contains("Mode: leader") => Role::Leader,
            answer if answer.contains("Mode: follower") => Role::Follower,
            answer if answer.contains("Mode: observer") => Role::Observer,
            _ => Role::Neither,
        }
    }

    /// Waits until every member answers a new session's sync and read.
    pub(crate) fn await_all(&mut self) -> Result<(), String> {
        for member in 0..self.size() {
            let started = Instant::now();
            while let Err(reason) = serves(self.clients[member]) {
                let ended = self.processes[member]
                    .as_mut()
                    .and_then(|process| process.try_wait().ok()?);
                if let Some(status) = ended {
                    return Err(format!("server {} ended with {status}{}", member + 1, self.logs()));
                }
                if started.elapsed() > PATIENCE {
                    return Err(format!(
                        "server {} does not serve for {} s: {reason}{}",
                        member + 1,
                        PATIENCE.as_secs(),
                        self.logs()
                    ));
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// Waits until every member counts for a majority: one that was wiped is without a vote until its leader has seen it catch up,
    /// and the next fault would take the quorum away.
    pub(crate) fn await_votes(&self) -> Result<(), String> {
        // What was wiped votes at once there.
        if self.flavour == Flavour::Apache {
            return Ok(());
        }
        let started = Instant::now();
        loop {
            let leader = self.leader()?;
            let followers = four_letter_word(self.clients[leader], "mntr")
                .lines()
                .find_map(|line| line.strip_prefix("zk_synced_followers\t")?.parse::<usize>().ok());
            if followers == Some(self.size() - 1) {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                return Err(format!(
                    "server {} leads {followers:?} followers that vote{}",
                    leader + 1,
                    self.logs()
                ));
            }
            std::thread::sleep(POLL);
        }
    }

    /// What members have said that cannot be so: all clients are of this ensemble.
    pub(crate) fn untruths(&self) -> Vec<String> {
        let of_member = |member: usize| {
            let log = fs::read(self.folder(member).join("log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines = log.lines().filter(|line| line.contains(CLIENT_OF_ANOTHER));
            let told = lines.map(|line| format!("Linear: server {} says: {line}", member + 1));
            told.collect::<Vec<String>>()
        };
        (0..self.size()).flat_map(of_member).collect()
    }

    /// The ends of all logs.
    pub(crate) fn logs(&self) -> String {
        (0..self.size())
            .map(|member| {
                let log = fs::read(self.folder(member).join("log")).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                let lines: Vec<&str> = log.lines().collect();
                let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
                format!(
                    "\n  the end of server {}'s log:\n    {}",
                    member + 1,
                    tail.join("\n    ")
                )
            })
            .collect()
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            // It may have ended already.
            let _ = (process.kill(), process.wait());
        }
    }
}

fn command(flavour: Flavour) -> Vec<String> {
    if flavour == Flavour::Ours {
        // Another build of it, such as a release's; compat/run reads the same variable.
        let binary = std::env::var("MENAGERIE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_menagerie").to_owned());
        return vec![binary, "serve".to_owned()];
    }
    let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat/oracle/run.sh");
    let output = Command::new(launcher)
        .arg("classpath")
        .output()
        .expect("the launcher runs");
    let class_path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let flags = [
        "java",
        "-Xmx256m",
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Dzookeeper.jmx.log4j.disable=true",
    ];
    let mut command: Vec<String> = flags.map(str::to_owned).to_vec();
    command.extend(["-cp".to_owned(), class_path]);
    command.push("org.apache.zookeeper.server.quorum.QuorumPeerMain".to_owned());
    command
}

/// Ports that nothing listens on now, each given once. They lie below those that the system gives to outgoing connections:
/// a server that is started again must find its port free.
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(97);
    let mut found = Vec::with_capacity(count);
    while found.len() < count {
        let port = 12_000 + (begin.wrapping_add(TRIED.fetch_add(1, Relaxed)) % 18_000) as u16;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            found.push(address);
        }
    }
    found
}

fn four_letter_word(address: SocketAddr, word: &str) -> String {
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        // An unfinished answer is no answer: the caller asks again.
        if stream.write_all(word.as_bytes()).is_ok() {
            let _ = stream.read_to_end(&mut answer);
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// What a client keeps of its session when it loses its connection.
pub(crate) struct Ticket {
    pub(crate) session: i64,
    pub(crate) password: Vec<u8>,
    /// The greatest zxid that it has seen.
    pub(crate) last_zxid: i64,
}

/// A short session on one member, for preparing and for the last look.
pub(crate) struct Visit {
    connection: Connection,
    xid: i32,
    ticket: Ticket,
}

impl Visit {
    pub(crate) fn open(address: SocketAddr) -> Result<Self, String> {
        Self::patient(address, Duration::from_secs(5))
    }

    /// For so long it waits for each answer.
    pub(crate) fn patient(address: SocketAddr, patience: Duration) -> Result<Self, String> {
        let none = Ticket {
            session: 0,
            password: Vec::new(),
            last_zxid: 0,
        };
        Self::resume(address, none, patience, || ())
    }

    /// On one connection, without a second try. Does `meanwhile` when the handshake is sent.
    pub(crate) fn resume(
        address: SocketAddr,
        ticket: Ticket,
        patience: Duration,
        meanwhile: impl FnOnce(),
    ) -> Result<Self, String> {
        let mut connection = Connection::open(address).map_err(|error| error.to_string())?;
        let patience = connection.set_patience(patience);
        patience.map_err(|error| error.to_string())?;
        let handshake = Handshake {
            last_zxid_seen: ticket.last_zxid,
            timeout_ms: 10_000,
            session_id: ticket.session,
            password: ticket.password,
            with_read_only_byte: true,
            behind: Vec::new(),
        };
        connection.offer_hand(&handshake);
        meanwhile();
        match connection.welcome() {
            Ok(Some(welcome)) if welcome.session_id != 0 => {
                let ticket = Ticket {
                    session: welcome.session_id,
                    password: welcome.password,
                    last_zxid: ticket.last_zxid,
                };
                Ok(Self {
                    connection,
                    xid: 0,
                    ticket,
                })
            }
            Ok(_) => Err("no session was opened".to_owned()),
            Err(Malformed(reason)) => Err(reason),
        }
    }

    /// The connection is lost.
    pub(crate) fn lose(self) -> Ticket {
        self.connection.drop_now();
        self.ticket
    }

    /// One request; its error code and body.
    pub(crate) fn ask(&mut self, operation: i32, body: impl FnOnce(&mut Writer)) -> Result<(i32, Vec<u8>), String> {
        self.xid += 1;
        self.connection.send(&wire::request(self.xid, operation, body));
        match self.connection.receive() {
            Received::Frame(frame) => {
                let (xid, zxid, error) = wire::header(&mut Reader::new(&frame)).map_err(|Malformed(reason)| reason)?;
                self.ticket.last_zxid = self.ticket.last_zxid.max(zxid);
                if xid != self.xid {
                    return Err(format!("a reply to {xid} where {} is due", self.xid));
                }
                Ok((error, frame[16..].to_vec()))
            }
            Received::Closed => Err("the connection was closed".to_owned()),
            Received::Silence => Err("no answer".to_owned()),
        }
    }

    pub(crate) fn sync(&mut self) -> Result<(), String> {
        match self.ask(wire::SYNC, |body| body.string(Some("/")))? {
            (0, _) => Ok(()),
            (error, _) => Err(format!("sync: error {error}")),
        }
    }

    pub(crate) fn create(&mut self, path: &str) -> Result<(), String> {
        match self.ask(wire::CREATE, |body| body.create(path, b"", 0))? {
            (0 | wire::NODE_EXISTS, _) => Ok(()),
            (error, _) => Err(format!("creating {path}: error {error}")),
        }
    }

    pub(crate) fn close(mut self) -> Result<(), String> {
        self.ask(wire::CLOSE, |_| ()).map(|_| ())
    }

    pub(crate) fn data(&mut self, path: &str) -> Result<Option<(Vec<u8>, wire::Stat)>, String> {
        let (error, body) = self.ask(wire::GET_DATA, |body| {
            body.string(Some(path));
            body.boolean(false);
        })?;
        match error {
            0 => wire::data(&mut Reader::new(&body))
                .map(Some)
                .map_err(|Malformed(reason)| reason),
            wire::NO_NODE => Ok(None),
            error => Err(format!("reading {path}: error {error}")),
        }
    }

    pub(crate) fn children(&mut self, path: &str) -> Result<Vec<String>, String> {
        let (error, body) = self.ask(wire::GET_CHILDREN, |body| {
            body.string(Some(path));
            body.boolean(false);
        })?;
        if error != 0 {
            return Err(format!("listing {path}: error {error}"));
        }
        wire::children(&mut Reader::new(&body)).map_err(|Malformed(reason)| reason)
    }
}

fn serves(address: SocketAddr) -> Result<(), String> {
    let mut visit = Visit::open(address)?;
    visit.sync()?;
    visit.data("/")?;
    visit.close()
}

fn paths_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}
