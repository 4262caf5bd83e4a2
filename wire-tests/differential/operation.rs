//! What a sequence is made of: steps by sessions, requests, and how a request becomes bytes.
//!
//! A sequence names its own subtree `~`: the player puts a fresh root in its place at every run, so that a shrunken
//! sequence never meets what an earlier run left behind.

use std::fmt::{self, Display, Formatter};

use crate::client::Writer;

/// Stands for the root of the run in every path.
pub const ROOT_MARK: char = '~';

/// One thing that one session does, after which everything that it caused is collected from all sessions.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which of the sequence's sessions acts.
    pub session: usize,
    /// What it does.
    pub action: Action,
}

/// See [`Step`].
#[derive(Clone, Debug)]
pub enum Action {
    /// Requests sent in one segment before any reply is read: usually one, several in a burst.
    Send(Vec<Request>),
    /// The socket is closed without a word; the session lives on.
    Drop,
    /// The session is taken up again on a new socket.
    Resume(Resume),
    /// A new session takes the place of the old one, which is left to its timeout unless it was closed.
    Open {
        /// The timeout that it asks for.
        timeout_ms: i32,
        /// Whether the handshake has the `readOnly` byte.
        with_read_only_byte: bool,
        /// Requests sent in the same segment as the handshake.
        behind: Vec<Request>,
    },
    /// Bytes that are no frame: a length that no server may accept, and what follows it.
    BadFrame(Vec<u8>),
}

/// How a session is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The old socket is dropped first.
    AfterDrop,
    /// The old socket is still open: the server has to close it.
    TakeOver,
    /// With one bit of the password changed.
    WrongPassword,
    /// Claiming to have seen a zxid that the server has not reached.
    Ahead,
}

/// An expected version.
#[derive(Clone, Copy, Debug)]
pub enum Version {
    /// This number.
    Exactly(i32),
    /// What the session last saw of this znode, plus this.
    Seen(i32),
}

/// The zxid that `setWatches` is relative to.
#[derive(Clone, Copy, Debug)]
pub enum RelativeZxid {
    /// Before everything.
    Zero,
    /// After everything.
    Largest,
    /// The zxid of the reply so many replies ago.
    Back(usize),
}

/// One entry of an access control list.
#[derive(Clone, Debug)]
pub struct Access {
    /// The permissions, as bits.
    pub permissions: i32,
    /// The scheme.
    pub scheme: Option<String>,
    /// The identity.
    pub id: Option<String>,
}

/// An access control list; `None` is the null vector.
pub type AccessList = Option<Vec<Access>>;

/// A path; `None` is the null string.
pub type Path = Option<String>;

/// Node data; `None` is null.
pub type Data = Option<Vec<u8>>;

/// The lists of a `setWatches` or `setWatches2`.
#[derive(Clone, Debug, Default)]
pub struct WatchLists {
    /// Watches by getData.
    pub data: Vec<String>,
    /// Watches by exists.
    pub exist: Vec<String>,
    /// Watches by getChildren.
    pub child: Vec<String>,
    /// `None` makes it the older request without these two.
    pub persistent: Option<(Vec<String>, Vec<String>)>,
}

/// One request.
#[derive(Clone, Debug)]
pub enum Request {
    /// create, create2, createContainer and (with a ttl) createTTL, by op code.
    Create {
        opcode: i32,
        path: Path,
        data: Data,
        acl: AccessList,
        flags: i32,
        ttl: i64,
    },
    /// delete.
    Delete { path: Path, version: Version },
    /// setData.
    SetData { path: Path, data: Data, version: Version },
    /// getACL.
    GetAcl { path: Path },
    /// setACL.
    SetAcl {
        path: Path,
        acl: AccessList,
        version: Version,
    },
    /// exists, getData, getChildren or getChildren2, by op code.
    Read { opcode: i32, path: Path, watch: bool },
    /// sync.
    Sync { path: Path },
    /// check: alone it is refused, inside a multi it is an operation.
    Check { path: Path, version: Version },
    /// multi (14) or multiRead (22), by op code.
    Multi { opcode: i32, operations: Vec<Request> },
    /// addWatch.
    AddWatch { path: Path, mode: i32 },
    /// checkWatches (17) or removeWatches (18), by op code.
    Watches { opcode: i32, path: Path, kind: i32 },
    /// setWatches or setWatches2.
    SetWatches { relative: RelativeZxid, lists: WatchLists },
    /// getEphemerals.
    GetEphemerals { prefix: Path },
    /// getAllChildrenNumber.
    GetAllChildrenNumber { path: Path },
    /// whoAmI.
    WhoAmI,
    /// ping.
    Ping,
    /// auth.
    Auth { scheme: String, credentials: Data },
    /// sasl, at servers where it is not set up.
    Sasl { token: Vec<u8> },
    /// reconfig.
    Reconfig {
        joining: Path,
        leaving: Path,
        members: Path,
        config_id: i64,
    },
    /// closeSession.
    CloseSession,
    /// An op code that no server knows.
    Unknown { opcode: i32 },
    /// Another request with its body cut short, or with bytes behind it.
    Mangled {
        request: Box<Request>,
        cut_bytes: usize,
        extra_bytes: usize,
    },
}

/// Op codes that more than one place names.
pub mod opcode {
    pub const CREATE: i32 = 1;
    pub const EXISTS: i32 = 3;
    pub const GET_DATA: i32 = 4;
    pub const GET_CHILDREN: i32 = 8;
    pub const GET_CHILDREN2: i32 = 12;
    pub const MULTI: i32 = 14;
    pub const CREATE2: i32 = 15;
    pub const CHECK_WATCHES: i32 = 17;
    pub const REMOVE_WATCHES: i32 = 18;
    pub const CREATE_CONTAINER: i32 = 19;
    pub const CREATE_TTL: i32 = 21;
    pub const MULTI_READ: i32 = 22;
}

/// What a run knows when a request becomes bytes.
pub trait Surroundings {
    /// The path with the run's root in the place of the mark.
    fn path(&self, path: &str) -> String;
    /// The version that was last seen, of the data or (`acl`) of the access control list.
    fn seen_version(&self, path: &str, acl: bool) -> i32;
    /// The zxid of the reply so many replies ago.
    fn zxid_back(&self, replies: usize) -> i64;
}

impl Request {
    /// The op code on the wire.
    pub fn opcode(&self) -> i32 {
        match self {
            Self::Create { opcode, .. }
            | Self::Read { opcode, .. }
            | Self::Multi { opcode, .. }
            | Self::Watches { opcode, .. }
            | Self::Unknown { opcode } => *opcode,
            Self::Delete { .. } => 2,
            Self::SetData { .. } => 5,
            Self::GetAcl { .. } => 6,
            Self::SetAcl { .. } => 7,
            Self::Sync { .. } => 9,
            Self::Ping => 11,
            Self::Check { .. } => 13,
            Self::Reconfig { .. } => 16,
            Self::Auth { .. } => 100,
            Self::SetWatches { lists, .. } if lists.persistent.is_none() => 101,
            Self::Sasl { .. } => 102,
            Self::GetEphemerals { .. } => 103,
            Self::GetAllChildrenNumber { .. } => 104,
            Self::SetWatches { .. } => 105,
            Self::AddWatch { .. } => 106,
            Self::WhoAmI => 107,
            Self::CloseSession => -11,
            Self::Mangled { request, .. } => request.opcode(),
        }
    }

    /// The reserved xid of those requests that have one.
    pub fn reserved_xid(&self) -> Option<i32> {
        match self {
            Self::Ping => Some(-2),
            Self::Auth { .. } => Some(-4),
            Self::SetWatches { .. } => Some(-8),
            Self::Mangled { request, .. } => request.reserved_xid(),
            _ => None,
        }
    }

    /// Whether the request takes a zxid of its own (when it fails, too).
    pub fn is_write(&self) -> bool {
        match self {
            Self::Create { .. }
            | Self::Delete { .. }
            | Self::SetData { .. }
            | Self::SetAcl { .. }
            | Self::CloseSession => true,
            Self::Multi { opcode, .. } => *opcode == opcode::MULTI,
            Self::Mangled { request, .. } => request.is_write(),
            _ => false,
        }
    }

    /// Whether a reply with this error is the last before the server closes the connection.
    pub fn closes(&self, error: i32) -> bool {
        match self {
            Self::Unknown { .. } | Self::Check { .. } | Self::CloseSession => true,
            Self::Auth { .. } => error != 0,
            _ => false,
        }
    }

    /// The path that a Stat in the reply belongs to.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Create { path, .. }
            | Self::Delete { path, .. }
            | Self::SetData { path, .. }
            | Self::GetAcl { path }
            | Self::SetAcl { path, .. }
            | Self::Read { path, .. } => path.as_deref(),
            Self::Mangled { request, .. } => request.path(),
            _ => None,
        }
    }

    /// The payload of the request's frame.
    pub fn payload(&self, xid: i32, around: &dyn Surroundings) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.int(xid);
        writer.int(self.opcode());
        self.write_body(&mut writer, around);
        writer.bytes
    }

    fn write_body(&self, writer: &mut Writer, around: &dyn Surroundings) {
        let located = |path: &Path| path.as_deref().map(|path| around.path(path));
        let versioned = |path: &Path, version: &Version, acl| match version {
            Version::Exactly(number) => *number,
            Version::Seen(more) => path
                .as_deref()
                .map_or(0, |path| around.seen_version(path, acl))
                .wrapping_add(*more),
        };
        match self {
            Self::Create {
                opcode,
                path,
                data,
                acl,
                flags,
                ttl,
            } => {
                writer.string(located(path).as_deref());
                writer.buffer(data.as_deref());
                write_access_list(writer, acl.as_deref());
                writer.int(*flags);
                if *opcode == opcode::CREATE_TTL {
                    writer.long(*ttl);
                }
            }
            Self::Delete { path, version } | Self::Check { path, version } => {
                writer.string(located(path).as_deref());
                writer.int(versioned(path, version, false));
            }
            Self::SetData { path, data, version } => {
                writer.string(located(path).as_deref());
                writer.buffer(data.as_deref());
                writer.int(versioned(path, version, false));
            }
            Self::SetAcl { path, acl, version } => {
                writer.string(located(path).as_deref());
                write_access_list(writer, acl.as_deref());
                writer.int(versioned(path, version, true));
            }
            Self::Read { path, watch, .. } => {
                writer.string(located(path).as_deref());
                writer.boolean(*watch);
            }
            Self::GetAcl { path } | Self::Sync { path } | Self::GetAllChildrenNumber { path } => {
                writer.string(located(path).as_deref());
            }
            Self::GetEphemerals { prefix } => writer.string(located(prefix).as_deref()),
            Self::Multi { operations, .. } => write_operations(operations, writer, around),
            Self::AddWatch { path, mode: number } | Self::Watches { path, kind: number, .. } => {
                writer.string(located(path).as_deref());
                writer.int(*number);
            }
            Self::SetWatches { relative, lists } => write_watch_lists(*relative, lists, writer, around),
            Self::WhoAmI | Self::Ping | Self::CloseSession | Self::Unknown { .. } => {}
            Self::Auth { scheme, credentials } => {
                writer.int(0);
                writer.string(Some(scheme));
                writer.buffer(credentials.as_deref());
            }
            Self::Sasl { token } => writer.buffer(Some(token)),
            Self::Reconfig {
                joining,
                leaving,
                members,
                config_id,
            } => {
                for text in [joining, leaving, members] {
                    writer.string(text.as_deref());
                }
                writer.long(*config_id);
            }
            Self::Mangled {
                request,
                cut_bytes,
                extra_bytes,
            } => {
                let mut whole = Writer::default();
                request.write_body(&mut whole, around);
                whole.bytes.truncate(whole.bytes.len().saturating_sub(*cut_bytes));
                whole.bytes.resize(whole.bytes.len() + extra_bytes, 0xAB);
                writer.bytes.extend_from_slice(&whole.bytes);
            }
        }
    }
}

fn write_access_list(writer: &mut Writer, acl: Option<&[Access]>) {
    let Some(acl) = acl else {
        writer.int(-1);
        return;
    };
    writer.int(i32::try_from(acl.len()).expect("test lists are small"));
    for access in acl {
        writer.int(access.permissions);
        writer.string(access.scheme.as_deref());
        writer.string(access.id.as_deref());
    }
}

fn write_operations(operations: &[Request], writer: &mut Writer, around: &dyn Surroundings) {
    for operation in operations {
        writer.int(operation.opcode());
        writer.boolean(false);
        writer.int(-1);
        operation.write_body(writer, around);
    }
    writer.int(-1);
    writer.boolean(true);
    writer.int(-1);
}

fn write_watch_lists(relative: RelativeZxid, lists: &WatchLists, writer: &mut Writer, around: &dyn Surroundings) {
    let located = |paths: &[String]| paths.iter().map(|path| around.path(path)).collect::<Vec<_>>();
    writer.long(match relative {
        RelativeZxid::Zero => 0,
        RelativeZxid::Largest => i64::MAX,
        RelativeZxid::Back(replies) => around.zxid_back(replies),
    });
    for paths in [&lists.data, &lists.exist, &lists.child] {
        writer.strings(&located(paths));
    }
    if let Some((persistent, recursive)) = &lists.persistent {
        writer.strings(&located(persistent));
        writer.strings(&located(recursive));
    }
}

impl Display for Step {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "session {}: ", self.session)?;
        match &self.action {
            Action::Send(requests) => {
                if requests.len() > 1 {
                    write!(out, "in one burst: ")?;
                }
                for (index, request) in requests.iter().enumerate() {
                    write!(out, "{}{request}", if index == 0 { "" } else { " ; " })?;
                }
                Ok(())
            }
            Action::Drop => write!(out, "drops its connection"),
            Action::Resume(resume) => write!(out, "resumes ({resume:?})"),
            Action::Open {
                timeout_ms,
                with_read_only_byte,
                behind,
            } => {
                write!(
                    out,
                    "opens a new session (timeout {timeout_ms} ms, readOnly byte {with_read_only_byte})"
                )?;
                behind
                    .iter()
                    .try_for_each(|request| write!(out, " and at once: {request}"))
            }
            Action::BadFrame(bytes) => write!(out, "sends bytes that are no frame: {bytes:02x?}"),
        }
    }
}

impl Display for Request {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let shown = |path: &Path| {
            path.as_ref()
                .map_or_else(|| "null".to_owned(), |path| format!("{path:?}"))
        };
        match self {
            Self::Create {
                opcode,
                path,
                data,
                acl,
                flags,
                ttl,
            } => {
                let name = match *opcode {
                    opcode::CREATE => "create",
                    opcode::CREATE2 => "create2",
                    opcode::CREATE_CONTAINER => "createContainer",
                    _ => "createTTL",
                };
                write!(
                    out,
                    "{name} {} flags={flags} data={} acl={}",
                    shown(path),
                    show_data(data),
                    show_acl(acl)
                )?;
                if *opcode == opcode::CREATE_TTL {
                    write!(out, " ttl={ttl}")
                } else {
                    Ok(())
                }
            }
            Self::Delete { path, version } => write!(out, "delete {} {version:?}", shown(path)),
            Self::SetData { path, data, version } => {
                write!(out, "setData {} data={} {version:?}", shown(path), show_data(data))
            }
            Self::GetAcl { path } => write!(out, "getACL {}", shown(path)),
            Self::SetAcl { path, acl, version } => {
                write!(out, "setACL {} acl={} {version:?}", shown(path), show_acl(acl))
            }
            Self::Read { opcode, path, watch } => {
                let name = match *opcode {
                    opcode::EXISTS => "exists",
                    opcode::GET_DATA => "getData",
                    opcode::GET_CHILDREN => "getChildren",
                    _ => "getChildren2",
                };
                write!(out, "{name} {}{}", shown(path), if *watch { " watch" } else { "" })
            }
            Self::Sync { path } => write!(out, "sync {}", shown(path)),
            Self::Check { path, version } => write!(out, "check {} {version:?}", shown(path)),
            Self::Multi { opcode, operations } => {
                write!(
                    out,
                    "{} [",
                    if *opcode == opcode::MULTI { "multi" } else { "multiRead" }
                )?;
                for (index, operation) in operations.iter().enumerate() {
                    write!(out, "{}{operation}", if index == 0 { "" } else { ", " })?;
                }
                write!(out, "]")
            }
            Self::AddWatch { path, mode } => write!(out, "addWatch {} mode={mode}", shown(path)),
            Self::Watches { opcode, path, kind } => {
                let name = if *opcode == opcode::CHECK_WATCHES {
                    "checkWatches"
                } else {
                    "removeWatches"
                };
                write!(out, "{name} {} type={kind}", shown(path))
            }
            Self::SetWatches { relative, lists } => write!(out, "setWatches {relative:?} {lists:?}"),
            Self::GetEphemerals { prefix } => write!(out, "getEphemerals {}", shown(prefix)),
            Self::GetAllChildrenNumber { path } => write!(out, "getAllChildrenNumber {}", shown(path)),
            Self::WhoAmI => write!(out, "whoAmI"),
            Self::Ping => write!(out, "ping"),
            Self::Auth { scheme, credentials } => write!(out, "auth {scheme} {}", show_data(credentials)),
            Self::Sasl { token } => write!(out, "sasl \"{}\"", token.escape_ascii()),
            Self::Reconfig {
                joining,
                leaving,
                members,
                config_id,
            } => {
                write!(out, "reconfig {joining:?} {leaving:?} {members:?} {config_id}")
            }
            Self::CloseSession => write!(out, "closeSession"),
            Self::Unknown { opcode } => write!(out, "op code {opcode}"),
            Self::Mangled {
                request,
                cut_bytes,
                extra_bytes,
            } => {
                write!(
                    out,
                    "({request}) with {cut_bytes} bytes cut off and {extra_bytes} added"
                )
            }
        }
    }
}

fn show_data(data: &Data) -> String {
    match data {
        None => "null".to_owned(),
        Some(bytes) if bytes.len() > 80 => format!("[{} bytes]", bytes.len()),
        Some(bytes) => format!("\"{}\"", bytes.escape_ascii()),
    }
}

fn show_acl(acl: &AccessList) -> String {
    let Some(acl) = acl else { return "null".to_owned() };
    let entries: Vec<String> = acl
        .iter()
        .map(|access| {
            let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "null".to_owned());
            format!("{}:{}:{}", shown(&access.scheme), shown(&access.id), access.permissions)
        })
        .collect();
    format!("[{}]", entries.join(","))
}
