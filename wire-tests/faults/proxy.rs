//! Cutting proxies between the members: each member is reached by its peers through one, at the address that stands in
//! every member's configuration.
//!
//! A proxy must know whose connection it takes, so that one pair of members can be parted and no other. The connection
//! itself does not tell (every member is on 127.0.0.1), and its bytes are not the proxy's business: the kernel is asked
//! which process holds the other end.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a pair is parted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Connections are closed, new ones too, as soon as they come.
    Refuse,
    /// Nothing is carried, and nobody is told: a cable that was pulled.
    Stall,
}

/// How often a proxy looks whether a stall has ended.
const POLL: Duration = Duration::from_millis(20);
const CHUNK_BYTES: usize = 64 << 10;

/// What is between the members. One for all proxies of an ensemble.
#[derive(Default)]
pub(crate) struct Network {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Which process is which member.
    members: HashMap<u32, usize>,
    cuts: HashMap<(usize, usize), Cut>,
    /// Connections by their direction, to be closed by a cut.
    open: Vec<((usize, usize), [TcpStream; 2])>,
}

impl Network {
    /// The process that is a member now; it takes the place of an earlier one.
    pub(crate) fn set_member(&self, pid: u32, member: usize) {
        let mut state = self.lock();
        state.members.retain(|_, other| *other != member);
        state.members.insert(pid, member);
    }

    /// Parts what `from` has opened to `to`.
    pub(crate) fn cut(&self, from: usize, to: usize, cut: Cut) {
        let mut state = self.lock();
        state.cuts.insert((from, to), cut);
        if cut == Cut::Refuse {
            state.open.retain(|(direction, streams)| {
                let stays = *direction != (from, to);
                if !stays {
                    close(streams);
                }
                stays
            });
        }
    }

    pub(crate) fn heal(&self) {
        self.lock().cuts.clear();
    }

    /// Starts the proxy at `listener` for the member that listens at `target`. Its threads end with the process.
    pub(crate) fn serve(self: &Arc<Self>, listener: TcpListener, member: usize, target: SocketAddr) {
        let network = Arc::clone(self);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let network = Arc::clone(&network);
                std::thread::spawn(move || network.carry(stream, member, target));
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this")
    }

    fn cut_of(&self, direction: (usize, usize)) -> Option<Cut> {
        self.lock().cuts.get(&direction).copied()
    }

    fn carry(&self, near: TcpStream, member: usize, target: SocketAddr) {
        let Some(from) = self.who(&near) else { return };
        let direction = (from, member);
        while self.cut_of(direction) == Some(Cut::Stall) {
            std::thread::sleep(POLL);
        }
        if self.cut_of(direction).is_some() {
            return;
        }
        let Ok(far) = TcpStream::connect(target) else { return };
        let clones = || Some([near.try_clone().ok()?, far.try_clone().ok()?]);
        let (Some(kept), Some([near_too, far_too])) = (clones(), clones()) else {
            return;
        };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        self.lock().open.push((direction, kept));
        std::thread::scope(|scope| {
            scope.spawn(|| self.copy(near, far, direction));
            scope.spawn(|| self.copy(far_too, near_too, direction));
        });
        // What has ended is forgotten.
        self.lock().open.retain(|(_, streams)| streams[0].peer_addr().is_ok());
    }

    /// Carries bytes until either side ends, or a cut closes them.
    fn copy(&self, mut from: TcpStream, mut to: TcpStream, direction: (usize, usize)) {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            while self.cut_of(direction) == Some(Cut::Stall) {
                std::thread::sleep(POLL);
            }
            if to.write_all(&chunk[..count]).is_err() {
                break;
            }
        }
        close(&[from, to]);
    }

    /// The member whose process holds the other end of a connection.
    fn who(&self, near: &TcpStream) -> Option<usize> {
        let inode = socket_inode(near.peer_addr().ok()?, near.local_addr().ok()?)?;
        let members: Vec<(u32, usize)> = self
            .lock()
            .members
            .iter()
            .map(|(pid, member)| (*pid, *member))
            .collect();
        let wanted = format!("socket:[{inode}]");
        members.into_iter().find_map(|(pid, member)| {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
            let holds = files
                .flatten()
                .any(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()));
            holds.then_some(member)
        })
    }
}

fn close(streams: &[TcpStream; 2]) {
    for stream in streams {
        // Closed already, then.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// The inode of the socket whose own address is `local` and whose peer is `remote`.
fn socket_inode(local: SocketAddr, remote: SocketAddr) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let (local, remote) = (kernel_form(local)?, kernel_form(remote)?);
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let found = fields.next()? == local && fields.next()? == remote;
        // Behind the addresses: state, queues, timer, retransmits, user, timeout, inode.
        found.then(|| fields.nth(6).map(str::to_owned))?
    })
}

/// An IPv4 address and port as `/proc/net/tcp` writes it: the address as the machine's integer, in hexadecimal.
fn kernel_form(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let ip = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{ip:08X}:{:04X}", address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy in front of a server that answers each byte with the next one; this process is member 0, the server 1.
    fn scene() -> (Arc<Network>, SocketAddr) {
        let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let target = server.local_addr().expect("it has an address");
        std::thread::spawn(move || {
            for stream in server.incoming() {
                let mut stream = stream.expect("a connection");
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() {
                        byte[0] += 1;
                        if stream.write_all(&byte).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        let network = Arc::new(Network::default());
        network.set_member(std::process::id(), 0);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let proxy = listener.local_addr().expect("it has an address");
        network.serve(listener, 1, target);
        (network, proxy)
    }

    /// What comes back for a byte; `None` if the connection is closed.
    fn ask(stream: &mut TcpStream, byte: u8) -> Option<u8> {
        let mut answer = [0];
        stream.write_all(&[byte]).ok()?;
        stream.read_exact(&mut answer).ok()?;
        Some(answer[0])
    }

    #[test]
    fn a_refused_pair_is_closed_and_stays_closed_until_it_is_healed() {
        let (network, proxy) = scene();
        let mut stream = TcpStream::connect(proxy).expect("the proxy listens");
        assert_eq!(ask(&mut stream, 1), Some(2));
        network.cut(0, 1, Cut::Refuse);
        assert_eq!(ask(&mut stream, 1), None);
        let mut stream = TcpStream::connect(proxy).expect("the proxy listens");
        assert_eq!(ask(&mut stream, 1), None);
        network.heal();
        let mut stream = TcpStream::connect(proxy).expect("the proxy listens");
        assert_eq!(ask(&mut stream, 7), Some(8));
    }

    #[test]
    fn a_stalled_pair_goes_on_where_it_was_and_others_are_not_touched() {
        let (network, proxy) = scene();
        let mut stream = TcpStream::connect(proxy).expect("the proxy listens");
        network.cut(1, 0, Cut::Refuse);
        network.cut(2, 1, Cut::Stall);
        assert_eq!(ask(&mut stream, 1), Some(2));
        network.cut(0, 1, Cut::Stall);
        let limit = Some(Duration::from_millis(200));
        stream.set_read_timeout(limit).expect("a limit");
        assert_eq!(ask(&mut stream, 3), None);
        network.heal();
        stream.set_read_timeout(None).expect("no limit");
        let mut answer = [0];
        stream.read_exact(&mut answer).expect("it goes on");
        assert_eq!(answer, [4]);
    }

    #[test]
    fn an_unknown_process_is_not_carried() {
        let (network, proxy) = scene();
        network.set_member(u32::MAX, 0);
        let mut stream = TcpStream::connect(proxy).expect("the proxy listens");
        assert_eq!(ask(&mut stream, 1), None);
    }
}
