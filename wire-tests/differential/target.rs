//! The servers that are compared: how each is started, and the administrator who clears up between runs.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Connection, Handshake, Malformed, Reader, Received, framed};
use crate::operation::{Access, Request, Surroundings, Version, opcode};
use crate::reply::{self, Header, Piece, Stat};

/// How long a server may take until it answers a handshake. Generous: only a server that never does waits it out.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What both servers are configured with, beside their ports and directories.
const SETTINGS: [&str; 8] = [
    "maxClientCnxns=0",
    "admin.enableServer=false",
    "enforceQuota=true",
    "extendedTypesEnabled=true",
    // Nothing here is a test of the disk, and 20,000 flushes are minutes.
    "forceSync=no",
    // Longer than any pause of a busy machine: an expiry would be a difference that nobody made.
    "minSessionTimeout=20000",
    "maxSessionTimeout=60000",
    // Base64(SHA-1("super:secret")).
    "DigestAuthenticationProvider.superDigest=super:lK75jTNcA+U9vtVEw5vB51mj/w4=",
];

/// Containers and TTL znodes are removed by the clock, which two servers do not read at the same moment: once an hour.
const PROPERTIES: [&str; 1] = ["-Dznode.container.checkIntervalMs=3600000"];

/// Nodes that outlive a run; what a run does to them is shown relative to how it found them.
const LASTING: [&str; 3] = ["/", "/zookeeper", "/zookeeper/quota"];

/// A server under comparison.
pub struct Target {
    /// `apache` or `menagerie`, with a number when there are two of a kind, or the address given.
    pub name: String,
    /// Its client port.
    pub address: SocketAddr,
    process: Process,
    administrator: Option<Administrator>,
}

enum Process {
    /// A child of ours.
    Child(Child),
    /// Started by a script that has ended.
    Detached(Pid),
    /// Somebody else's.
    Foreign,
}

impl Target {
    /// Starts the server of this kind (or finds the one at this address) with its files below `directory`.
    ///
    /// # Errors
    /// Whatever keeps it from serving.
    pub fn start(kind: &str, name: String, directory: &Path) -> Result<Self, String> {
        let directory = directory.join(&name);
        fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let (address, process) = match kind {
            "apache" => start_apache(&directory)?,
            "menagerie" => start_menagerie(&directory)?,
            address => {
                let address = address
                    .parse()
                    .map_err(|_| format!("{address:?}: apache, menagerie or IP:PORT"))?;
                (address, Process::Foreign)
            }
        };
        let mut target = Self {
            name,
            address,
            process,
            administrator: None,
        };
        target.wait_until_it_serves(&directory)?;
        Ok(target)
    }

    fn wait_until_it_serves(&mut self, directory: &Path) -> Result<(), String> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let problem = match self.administrator() {
                Ok(_) => return Ok(()),
                Err(problem) => problem,
            };
            if let Process::Child(child) = &mut self.process
                && let Ok(Some(status)) = child.try_wait()
            {
                return Err(format!(
                    "{} ended with {status}; its log is in {}",
                    self.name,
                    directory.display()
                ));
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "{} does not serve: {problem}; its log is in {}",
                    self.name,
                    directory.display()
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether we started it, so that nothing has happened on it yet.
    pub fn is_fresh(&self) -> bool {
        !matches!(self.process, Process::Foreign)
    }

    /// The session with all rights, opened again if it was lost.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn administrator(&mut self) -> Result<&mut Administrator, String> {
        if self
            .administrator
            .as_ref()
            .is_none_or(|administrator| administrator.broken)
        {
            self.administrator = Some(Administrator::open(self.address)?);
        }
        self.administrator.as_mut().ok_or_else(|| "no administrator".to_owned())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        match &mut self.process {
            Process::Child(child) => {
                // It may have ended by itself; either way it is gone afterwards.
                let _ = child.kill();
                let _ = child.wait();
            }
            Process::Detached(pid) => {
                let _ = kill_process(*pid, Signal::KILL);
            }
            Process::Foreign => {}
        }
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("no free port: {error}"))?;
    listener
        .local_addr()
        .map(|address| address.port())
        .map_err(|error| format!("no free port: {error}"))
}

fn start_apache(directory: &Path) -> Result<(SocketAddr, Process), String> {
    let port = free_port()?;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("compat/oracle/run.sh");
    let output = Command::new("bash")
        .arg(&script)
        .args(["start", "--port", &port.to_string(), "--dir"])
        .arg(directory)
        .arg("--cfg")
        .args(SETTINGS)
        .args(PROPERTIES)
        .env("ORACLE_LOG_LEVEL", "WARN")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{}: {error}", script.display()))?;
    let pid = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .ok()
        .and_then(Pid::from_raw);
    match pid {
        Some(pid) if output.status.success() => {
            Ok((SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Process::Detached(pid)))
        }
        _ => Err(format!("{} ended with {}", script.display(), output.status)),
    }
}

fn start_menagerie(directory: &Path) -> Result<(SocketAddr, Process), String> {
    let port = free_port()?;
    let configuration = directory.join("zoo.cfg");
    let lines = [
        format!("clientPort={port}"),
        "clientPortAddress=127.0.0.1".to_owned(),
        format!("dataDir={}", directory.join("data").display()),
        "tickTime=2000".to_owned(),
    ];
    let text = lines
        .iter()
        .map(String::as_str)
        .chain(SETTINGS)
        .collect::<Vec<_>>()
        .join("\n");
    let problem = |error: std::io::Error| format!("{}: {error}", directory.display());
    fs::write(&configuration, text + "\n").map_err(problem)?;
    let log = File::create(directory.join("server.log")).map_err(problem)?;
    let child = Command::new(env!("CARGO_BIN_EXE_menagerie"))
        .arg("serve")
        .arg(&configuration)
        .args(PROPERTIES)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(problem)?)
        .stderr(log)
        .spawn()
        .map_err(|error| format!("{}: {error}", env!("CARGO_BIN_EXE_menagerie")))?;
    Ok((SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Process::Child(child)))
}

/// A session that is `super`: it prepares a run, reads the tree that the run left, and removes it.
pub struct Administrator {
    connection: Connection,
    next_xid: i32,
    last_zxid: i64,
    broken: bool,
}

/// Paths are sent as they stand.
struct Plain;

impl Surroundings for Plain {
    fn path(&self, path: &str) -> String {
        path.to_owned()
    }

    fn seen_version(&self, _path: &str, _acl: bool) -> i32 {
        -1
    }

    fn zxid_back(&self, _replies: usize) -> i64 {
        0
    }
}

impl Administrator {
    fn open(address: SocketAddr) -> Result<Self, String> {
        let connection = Connection::open(address).map_err(|error| format!("{address}: {error}"))?;
        let mut administrator = Self {
            connection,
            next_xid: 0,
            last_zxid: 0,
            broken: false,
        };
        let handshake = Handshake {
            last_zxid_seen: 0,
            timeout_ms: 60_000,
            session_id: 0,
            password: vec![0; 16],
            with_read_only_byte: true,
            behind: Vec::new(),
        };
        match administrator.connection.shake_hands(&handshake) {
            Ok(Some(welcome)) if welcome.timeout_ms > 0 => {}
            other => {
                return Err(format!(
                    "{address}: the administrator's handshake is answered by {other:?}"
                ));
            }
        }
        administrator.call(&Request::Auth {
            scheme: "digest".to_owned(),
            credentials: Some(b"super:secret".to_vec()),
        })?;
        Ok(administrator)
    }

    /// The highest zxid in a reply so far.
    pub fn last_zxid(&self) -> i64 {
        self.last_zxid
    }

    /// Makes the run's root, and tells how the lasting nodes stand.
    ///
    /// # Errors
    /// When the server refuses anything of it.
    pub fn prepare(&mut self, root: &str) -> Result<Vec<(String, Stat)>, String> {
        for path in LASTING {
            let path = Some(path.to_owned());
            self.expect_ok(&Request::SetData {
                path,
                data: Some(Vec::new()),
                version: Version::Exactly(-1),
            })?;
        }
        let everyone = Access {
            permissions: 31,
            scheme: Some("world".to_owned()),
            id: Some("anyone".to_owned()),
        };
        self.expect_ok(&Request::Create {
            opcode: opcode::CREATE,
            path: Some(root.to_owned()),
            data: Some(Vec::new()),
            acl: Some(vec![everyone]),
            flags: 0,
            ttl: 0,
        })?;
        let mut bases = Vec::new();
        for path in LASTING {
            let pieces = self.expect_ok(&read(opcode::EXISTS, path))?;
            if let Some(Piece::Stat(stat, _)) = pieces.into_iter().next() {
                bases.push((path.to_owned(), stat));
            }
        }
        Ok(bases)
    }

    /// Every znode of the run, if there is one, and the lasting ones: data, Stat, access control list, children.
    ///
    /// # Errors
    /// When the server refuses anything of it.
    pub fn dump(&mut self, root: Option<&str>) -> Result<Vec<(String, Vec<Piece>)>, String> {
        let mut nodes = Vec::new();
        let mut paths: Vec<String> = LASTING.iter().map(|path| (*path).to_owned()).collect();
        paths.push("/zookeeper/config".to_owned());
        for tree in root.into_iter().flat_map(trees) {
            self.collect(&tree, &mut paths)?;
        }
        for path in paths {
            let mut pieces = self.expect_ok(&read(opcode::GET_DATA, &path))?;
            let acl = self.expect_ok(&Request::GetAcl {
                path: Some(path.clone()),
            })?;
            pieces.extend(acl.into_iter().filter(|piece| matches!(piece, Piece::Text(_))));
            pieces.extend(self.expect_ok(&read(opcode::GET_CHILDREN, &path))?);
            nodes.push((path, pieces));
        }
        Ok(nodes)
    }

    /// Removes every znode of the run.
    ///
    /// # Errors
    /// When the server refuses anything of it.
    pub fn clear(&mut self, root: &str) -> Result<(), String> {
        for tree in trees(root) {
            let mut paths = Vec::new();
            self.collect(&tree, &mut paths)?;
            for path in paths.into_iter().rev() {
                let request = Request::Delete {
                    path: Some(path),
                    version: Version::Exactly(-1),
                };
                let (header, _) = self.call(&request)?;
                // A dropped session's ephemeral may go at any moment, by its timeout.
                if header.error != 0 && header.error != -101 {
                    return Err(format!("{request} is refused with {}", header.error));
                }
            }
        }
        Ok(())
    }

    /// The paths of the tree at `path`, parents first, each level sorted.
    fn collect(&mut self, path: &str, paths: &mut Vec<String>) -> Result<(), String> {
        let (header, frame) = self.call(&read(opcode::GET_CHILDREN, path))?;
        if header.error != 0 {
            return Ok(());
        }
        paths.push(path.to_owned());
        let mut reader = Reader::new(&frame[16..]);
        let described = |Malformed(text): Malformed| format!("children of {path}: {text}");
        let mut names = Vec::new();
        for _ in 0..reader.count("children").map_err(described)? {
            names.push(reader.string("child").map_err(described)?.unwrap_or_default());
        }
        names.sort();
        for name in names {
            self.collect(&format!("{path}/{name}"), paths)?;
        }
        Ok(())
    }

    fn expect_ok(&mut self, request: &Request) -> Result<Vec<Piece>, String> {
        let (header, frame) = self.call(request)?;
        if header.error != 0 {
            return Err(format!(
                "the administrator's {request} is refused with {}",
                header.error
            ));
        }
        reply::body(request, request.path().unwrap_or(""), &mut Reader::new(&frame[16..]))
            .map_err(|Malformed(text)| format!("the reply to the administrator's {request}: {text}"))
    }

    fn call(&mut self, request: &Request) -> Result<(Header, Vec<u8>), String> {
        let xid = request.reserved_xid().unwrap_or_else(|| {
            self.next_xid += 1;
            self.next_xid
        });
        self.connection.send(&framed(&request.payload(xid, &Plain)));
        let frame = match self.connection.receive() {
            Received::Frame(frame) => frame,
            other => {
                self.broken = true;
                return Err(format!("the administrator's {request} is answered by {other:?}"));
            }
        };
        let header = reply::header(&mut Reader::new(&frame)).map_err(|Malformed(text)| text)?;
        if header.xid != xid {
            self.broken = true;
            return Err(format!(
                "the administrator's {request} has xid {xid}, its reply {}",
                header.xid
            ));
        }
        self.last_zxid = self.last_zxid.max(header.zxid);
        Ok((header, frame))
    }
}

fn read(opcode: i32, path: &str) -> Request {
    Request::Read {
        opcode,
        path: Some(path.to_owned()),
        watch: false,
    }
}

/// Where the znodes of a run can be.
fn trees(root: &str) -> [String; 3] {
    [
        root.to_owned(),
        format!("/zookeeper{root}"),
        format!("/zookeeper/quota{root}"),
    ]
}
