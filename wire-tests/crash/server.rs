//! One server on loopback as a process: started on a directory with a zoo.cfg, killed, stopped.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that does not listen after so long never will.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A server process; killed when dropped.
pub(crate) struct Server {
    process: Child,
}

impl Server {
    pub(crate) fn start(directory: &Path, address: SocketAddr) -> Server {
        Server::start_by(Command::new(env!("CARGO_BIN_EXE_menagerie")), directory, address)
    }

    /// With no more than so many descriptors.
    #[allow(dead_code, reason = "for the test of limits; the crash test has no use for it")]
    pub(crate) fn start_with_descriptors(descriptors: u64, directory: &Path, address: SocketAddr) -> Server {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_menagerie"));
        Server::start_by(shell, directory, address)
    }

    fn start_by(mut command: Command, directory: &Path, address: SocketAddr) -> Server {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(directory.join("server.log"))
            .expect("a log file");
        let mut process = command
            .arg("serve")
            .arg(directory.join("zoo.cfg"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = process.try_wait().expect("the process can be asked");
            assert!(ended.is_none(), "the server ended: {}", log_tail(directory));
            assert!(
                started.elapsed() < START_TIMEOUT,
                "the server does not listen: {}",
                log_tail(directory)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Server { process }
    }

    /// A field of its `/proc/PID/status`, KiB.
    #[allow(dead_code, reason = "likewise")]
    pub(crate) fn memory_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number
            .and_then(|number| number.parse().ok())
            .expect("Linux says how much memory it has")
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("SIGKILL reaches a running process");
        self.process.wait().expect("it ends");
    }

    /// SIGTERM: it must end by itself, with exit code 0.
    pub(crate) fn terminate(&mut self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").arg(pid).status().expect("kill runs").success());
        let status = self.process.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "SIGTERM is a clean end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn log_tail(directory: &Path) -> String {
    let log = fs::read_to_string(directory.join("server.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

pub(crate) fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| {
        value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number"))
    })
}

/// A port that is free now, on an address of our own so that other tests do not take it meanwhile.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address")
}
