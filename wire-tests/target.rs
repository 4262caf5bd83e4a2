//! The server under test: ours, Apache's, or one that runs already.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::script::{Flavour, Script};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// So long a server is shared by scripts: shorter than their sessions' timeouts (30 s), so that the sessions which one
/// leaves behind do not expire, and take a zxid, while another one counts them.
const SHARED_FOR: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
/// Lines of the server's log that a failure shows.
const LOG_LINES: usize = 12;
/// A port is chosen before the server binds it; somebody else may be quicker. So often another one is tried.
const START_ATTEMPTS: usize = 4;

/// What `WIRE_TARGET` names.
pub(crate) enum Target {
    /// `menagerie`, or the variable is not set: each script gets a server of its own, with an empty data directory.
    Ours,
    /// `apache`: the same with Apache ZooKeeper, from compat/oracle; but scripts without needs of their own share one
    /// server and take turns, since each start costs a second of CPU.
    Apache {
        undemanding: Mutex<Option<(Server, Instant)>>,
    },
    /// `host:port`: one running server for all scripts; it must be empty. `WIRE_FLAVOUR=apache` says what it is.
    Running { address: SocketAddr, flavour: Flavour },
}

impl Target {
    pub(crate) fn from_environment() -> Result<Self, String> {
        let target = std::env::var("WIRE_TARGET").unwrap_or_default();
        match target.as_str() {
            "" | "menagerie" => Ok(Target::Ours),
            "apache" => Ok(Target::Apache {
                undemanding: Mutex::new(None),
            }),
            address => {
                let resolved = address
                    .to_socket_addrs()
                    .ok()
                    .and_then(|mut addresses| addresses.next());
                let address =
                    resolved.ok_or_else(|| format!("WIRE_TARGET={address}: menagerie, apache or host:port"))?;
                let apache = std::env::var("WIRE_FLAVOUR").is_ok_and(|flavour| flavour == "apache");
                Ok(Target::Running {
                    address,
                    flavour: if apache { Flavour::Apache } else { Flavour::Ours },
                })
            }
        }
    }

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Target::Running { .. })
    }

    pub(crate) fn flavour(&self) -> Flavour {
        match self {
            Target::Ours => Flavour::Ours,
            Target::Apache { .. } => Flavour::Apache,
            Target::Running { flavour, .. } => *flavour,
        }
    }

    /// Lends `play` a server that serves, configured as the script wants it.
    pub(crate) fn with_server(
        &self,
        script: &Script,
        play: impl FnOnce(&mut Server) -> Result<(), String>,
    ) -> Result<(), String> {
        match self {
            Target::Running { address, .. } => play(&mut Server {
                address: *address,
                own: None,
            }),
            Target::Apache { undemanding } if !script.needs_own_server() => {
                let mut lent = undemanding.lock().unwrap_or_else(PoisonError::into_inner);
                if lent.as_ref().is_none_or(|(_, started)| started.elapsed() > SHARED_FOR) {
                    *lent = None;
                    *lent = Some((self.start(script)?, Instant::now()));
                }
                match lent.as_mut() {
                    Some((server, _)) => play(server),
                    None => Err("the shared server is gone".to_owned()),
                }
            }
            Target::Ours | Target::Apache { .. } => play(&mut self.start(script)?),
        }
    }

    fn start(&self, script: &Script) -> Result<Server, String> {
        let mut last_error = String::new();
        for _ in 0..START_ATTEMPTS {
            let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
            let probe = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let address = probe.map_err(|error| error.to_string())?;
            let mut own = Own {
                flavour: self.flavour(),
                folder,
                settings: script.settings.clone(),
                properties: script.properties.clone(),
                process: None,
            };
            match own.start(address) {
                Ok(()) => {
                    return Ok(Server {
                        address,
                        own: Some(own),
                    });
                }
                Err(error) if is_taken(&error) => last_error = error,
                Err(error) => return Err(error),
            }
        }
        Err(last_error)
    }
}

/// A server that serves; it ends with this value, if it was started for it.
pub(crate) struct Server {
    address: SocketAddr,
    own: Option<Own>,
}

struct Own {
    flavour: Flavour,
    folder: TempDir,
    settings: Vec<String>,
    properties: Vec<String>,
    process: Option<Process>,
}

enum Process {
    Child(Child),
    /// Started by the oracle's script, so no child of ours.
    Other(String),
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder that holds zoo.cfg and `data/`.
    pub(crate) fn data_folder(&self) -> String {
        self.own
            .as_ref()
            .map(|own| own.folder.path().display().to_string())
            .unwrap_or_default()
    }

    /// Stops the server (in order: SIGTERM, else SIGKILL) and starts it again on the same data and port.
    pub(crate) fn restart(&mut self, in_order: bool) -> Result<(), String> {
        let own = self
            .own
            .as_mut()
            .ok_or("a server that runs already is not ours to restart")?;
        own.stop(in_order)?;
        own.start(self.address)
    }

    pub(crate) fn log_tail(&self) -> String {
        let Some(own) = &self.own else { return String::new() };
        let log = std::fs::read(own.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
        format!("\n    the end of the server's log:\n      {}", tail.join("\n      "))
    }
}

impl Own {
    fn log_file(&self) -> PathBuf {
        self.folder.path().join("oracle.log")
    }

    fn start(&mut self, address: SocketAddr) -> Result<(), String> {
        let process = match self.flavour {
            Flavour::Apache => self.start_apache(address)?,
            Flavour::Ours => self.start_ours(address)?,
        };
        self.process = Some(process);
        self.wait_until_it_serves(address)
    }

    fn start_apache(&self, address: SocketAddr) -> Result<Process, String> {
        let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat/oracle/run.sh");
        let mut command = Command::new(launcher);
        command
            .args(["start", "--port", &address.port().to_string(), "--dir"])
            .arg(self.folder.path());
        command.args(["--cfg", "4lw.commands.whitelist=*"]).args(&self.settings);
        command.args(self.properties.iter().map(|property| format!("-D{property}")));
        command.env("ORACLE_JVM_FLAGS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC");
        let output = command
            .output()
            .map_err(|error| format!("compat/oracle/run.sh: {error}"))?;
        let pid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() && !pid.is_empty() {
            Ok(Process::Other(pid))
        } else {
            Err(format!(
                "compat/oracle/run.sh: {}",
                String::from_utf8_lossy(&output.stderr)
            ))
        }
    }

    fn start_ours(&self, address: SocketAddr) -> Result<Process, String> {
        let folder = self.folder.path();
        let mut lines = vec![
            format!("clientPort={}", address.port()),
            "clientPortAddress=127.0.0.1".to_owned(),
            format!("dataDir={}", folder.join("data").display()),
            "tickTime=2000".to_owned(),
            "admin.enableServer=false".to_owned(),
            "4lw.commands.whitelist=*".to_owned(),
        ];
        // As in any Java properties file, the last line of a key counts.
        lines.extend(self.settings.iter().cloned());
        let file = folder.join("zoo.cfg");
        std::fs::write(&file, lines.join("\n") + "\n").map_err(|error| error.to_string())?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .map_err(|error| error.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_menagerie"));
        command
            .arg("serve")
            .args(self.properties.iter().map(|property| format!("-D{property}")))
            .arg(&file);
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        command.spawn().map(Process::Child).map_err(|error| error.to_string())
    }

    /// It serves when it answers `srvr` with its mode, or with a refusal of the word.
    fn wait_until_it_serves(&mut self, address: SocketAddr) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = ask_srvr(address);
            if answer.contains("Mode: ") || answer.contains("not in the whitelist") {
                return Ok(());
            }
            if let Some(Process::Child(child)) = &mut self.process
                && let Ok(Some(status)) = child.try_wait()
            {
                let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
                return Err(format!("the server ended while starting ({status}):\n{log}"));
            }
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
                return Err(format!(
                    "the server does not serve after {} s; its log:\n{log}",
                    PATIENCE.as_secs()
                ));
            }
            std::thread::sleep(POLL);
        }
    }

    fn stop(&mut self, in_order: bool) -> Result<(), String> {
        let signal = if in_order { "-TERM" } else { "-KILL" };
        match self.process.take() {
            None => Ok(()),
            Some(Process::Child(mut child)) => {
                if in_order {
                    send_signal(signal, &child.id().to_string());
                    let deadline = Instant::now() + PATIENCE;
                    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                        std::thread::sleep(POLL);
                    }
                    if matches!(child.try_wait(), Ok(None)) {
                        child.kill().map_err(|error| error.to_string())?;
                        return Err("the server does not stop on SIGTERM".to_owned());
                    }
                } else {
                    child.kill().map_err(|error| error.to_string())?;
                }
                child.wait().map(|_| ()).map_err(|error| error.to_string())
            }
            Some(Process::Other(pid)) => {
                send_signal(signal, &pid);
                let deadline = Instant::now() + PATIENCE;
                while send_signal("-0", &pid) && Instant::now() < deadline {
                    std::thread::sleep(POLL);
                }
                Ok(())
            }
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Nothing of the data is looked at afterwards, and nobody is left to tell about an error.
        let _ = self.stop(false);
    }
}

/// Whether a server that did not start says that its port was not free.
fn is_taken(error: &str) -> bool {
    ["in use", "listens on port"].iter().any(|sign| error.contains(sign))
}

/// Whether the process could be signalled.
fn send_signal(signal: &str, pid: &str) -> bool {
    let status = Command::new("kill")
        .args([signal, pid])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn ask_srvr(address: SocketAddr) -> String {
    use std::io::{Read, Write};
    let mut answer = Vec::new();
    if let Ok(mut stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        // An unfinished answer is no answer: the caller asks again.
        if stream.write_all(b"srvr").is_ok() {
            let _ = stream.read_to_end(&mut answer);
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}
