//! What came back, decoded: reply headers, bodies by request, watch events.
//!
//! A body becomes a list of pieces: text that can be compared as it stands, and Stats, whose zxids, times and owners
//! `view.rs` has to translate first. Everything that the protocol leaves unordered is sorted here, each with its reason.

use crate::client::{Malformed, Reader};
use crate::operation::{Request, opcode};

/// The header of a reply.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The request's xid, or a reserved one.
    pub xid: i32,
    /// The zxid.
    pub zxid: i64,
    /// The error code, 0 for none.
    pub error: i32,
}

/// A znode's Stat as sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stat {
    pub czxid: i64,
    pub mzxid: i64,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    pub cversion: i32,
    pub aversion: i32,
    pub ephemeral_owner: i64,
    pub data_length: i32,
    pub num_children: i32,
    pub pzxid: i64,
}

/// A part of a reply's body.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Comparable as it stands, once the run's root is replaced.
    Text(String),
    /// A Stat and the path that it belongs to.
    Stat(Stat, String),
}

/// A watch event.
#[derive(Clone, Debug)]
pub struct Event {
    /// The header's zxid.
    pub zxid: i64,
    /// 1 created, 2 deleted, 3 data changed, 4 children changed.
    pub kind: i32,
    /// 3, always.
    pub state: i32,
    /// The path.
    pub path: String,
}

/// Reads the header that every frame of an open session starts with.
pub fn header(reader: &mut Reader<'_>) -> Result<Header, Malformed> {
    Ok(Header {
        xid: reader.int("xid")?,
        zxid: reader.long("zxid")?,
        error: reader.int("err")?,
    })
}

/// Reads the rest of a notification.
pub fn event(header: Header, reader: &mut Reader<'_>) -> Result<Event, Malformed> {
    let event = Event {
        zxid: header.zxid,
        kind: reader.int("type")?,
        state: reader.int("state")?,
        path: reader
            .string("path")?
            .ok_or_else(|| Malformed("a null path in an event".to_owned()))?,
    };
    finished(reader)?;
    Ok(event)
}

/// Reads the body of a successful reply to `request`; `path` is where its Stat belongs, as the server knows it.
pub fn body(request: &Request, path: &str, reader: &mut Reader<'_>) -> Result<Vec<Piece>, Malformed> {
    let mut pieces = Vec::new();
    match request {
        Request::Mangled { request, .. } => return body(request, path, reader),
        Request::Create { opcode, .. } => read_created(*opcode != opcode::CREATE, reader, &mut pieces)?,
        Request::SetData { .. } | Request::SetAcl { .. } => read_stat(path, reader, &mut pieces)?,
        Request::GetAcl { .. } => {
            read_access_list(reader, &mut pieces)?;
            read_stat(path, reader, &mut pieces)?;
        }
        Request::Read { opcode, .. } => match *opcode {
            opcode::EXISTS => read_stat(path, reader, &mut pieces)?,
            opcode::GET_DATA => {
                read_data(reader, &mut pieces)?;
                read_stat(path, reader, &mut pieces)?;
            }
            opcode::GET_CHILDREN => read_strings("children", reader, &mut pieces)?,
            _ => {
                read_strings("children", reader, &mut pieces)?;
                read_stat(path, reader, &mut pieces)?;
            }
        },
        Request::Sync { .. } => {
            let text = format!("path={:?}", reader.string("path")?);
            pieces.push(Piece::Text(text));
        }
        Request::Multi { operations, .. } => read_results(operations, reader, &mut pieces)?,
        Request::AddWatch { .. } => pieces.push(Piece::Text(format!("result={}", reader.int("err")?))),
        Request::GetEphemerals { .. } => read_strings("ephemerals", reader, &mut pieces)?,
        Request::GetAllChildrenNumber { .. } => {
            pieces.push(Piece::Text(format!("total={}", reader.int("totalNumber")?)));
        }
        Request::WhoAmI => read_identities(reader, &mut pieces)?,
        Request::Sasl { .. } => read_data(reader, &mut pieces)?,
        Request::Reconfig { .. } => {
            read_data(reader, &mut pieces)?;
            read_stat(path, reader, &mut pieces)?;
        }
        Request::Delete { .. }
        | Request::Check { .. }
        | Request::Watches { .. }
        | Request::SetWatches { .. }
        | Request::Ping
        | Request::Auth { .. }
        | Request::CloseSession
        | Request::Unknown { .. } => {}
    }
    finished(reader)?;
    Ok(pieces)
}

/// A record ends with its frame: bytes behind it are a defect of the server.
pub fn finished(reader: &Reader<'_>) -> Result<(), Malformed> {
    match reader.remaining() {
        0 => Ok(()),
        more => Err(Malformed(format!("{more} bytes behind the record"))),
    }
}

fn read_created(with_stat: bool, reader: &mut Reader<'_>, pieces: &mut Vec<Piece>) -> Result<(), Malformed> {
    let path = reader.string("path")?.unwrap_or_else(|| "null".to_owned());
    pieces.push(Piece::Text(format!("path={path}")));
    if with_stat {
        read_stat(&path, reader, pieces)
    } else {
        Ok(())
    }
}

fn read_data(reader: &mut Reader<'_>, pieces: &mut Vec<Piece>) -> Result<(), Malformed> {
    let text = match reader.buffer("data")? {
        None => "data=null".to_owned(),
        // Whole, up to a size that a reader of the report can bear: behind it length and a sum stand for the bytes.
        Some(bytes) if bytes.len() > 200 => {
            let sum = bytes
                .iter()
                .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            format!("data=[{} bytes, sum {sum:x}]", bytes.len())
        }
        Some(bytes) => format!("data=\"{}\"", bytes.escape_ascii()),
    };
    pieces.push(Piece::Text(text));
    Ok(())
}

fn read_stat(path: &str, reader: &mut Reader<'_>, pieces: &mut Vec<Piece>) -> Result<(), Malformed> {
    let stat = Stat {
        czxid: reader.long("czxid")?,
        mzxid: reader.long("mzxid")?,
        ctime: reader.long("ctime")?,
        mtime: reader.long("mtime")?,
        version: reader.int("version")?,
        cversion: reader.int("cversion")?,
        aversion: reader.int("aversion")?,
        ephemeral_owner: reader.long("ephemeralOwner")?,
        data_length: reader.int("dataLength")?,
        num_children: reader.int("numChildren")?,
        pzxid: reader.long("pzxid")?,
    };
    pieces.push(Piece::Stat(stat, path.to_owned()));
    Ok(())
}

/// A list of names, sorted: children and ephemerals come in the order of a hash table.
fn read_strings(field: &str, reader: &mut Reader<'_>, pieces: &mut Vec<Piece>) -> Result<(), Malformed> {
    let mut names = Vec::new();
    for _ in 0..reader.count(field)? {
        names.push(reader.string(field)?.unwrap_or_else(|| "null".to_owned()));
    }
    names.sort();
    pieces.push(Piece::Text(format!("{field}={names:?}")));
    Ok(())
}

/// An access control list, sorted: `auth` expands to the identities of a connection in the order of a hash table.
fn read_access_list(reader: &mut Reader<'_>, pieces: &mut Vec<Piece>) -> Result<(), Malformed> {
    let mut entries = Vec::new();
    for _ in 0..reader.count("acl")? {
        let permissions = reader.int("perms")?;
        let scheme = reader.string("scheme")?;
        let id = reader.string("id")?;
        entries.push(format!(
            "{}:{}:{permissions}",
            scheme.unwrap_or_default(),
            id.unwrap_or_default()
        ));
    }
    entries.sort();
    pieces.push(Piece::Text(format!("acl={entries:?}")));
    Ok(())
}

/// The identities of the connection, sorted: they are kept in a hash table.
fn read_identities(reader: &mut Reader<'_>, pieces: &mut Vec<Piece>) -> Result<(), Malformed> {
    let mut identities = Vec::new();
    for _ in 0..reader.count("clientInfo")? {
        let scheme = reader.string("authScheme")?;
        identities.push(format!("{scheme:?}:{:?}", reader.string("user")?));
    }
    identities.sort();
    pieces.push(Piece::Text(format!("identities={identities:?}")));
    Ok(())
}

fn read_results(operations: &[Request], reader: &mut Reader<'_>, pieces: &mut Vec<Piece>) -> Result<(), Malformed> {
    let mut index = 0;
    loop {
        let kind = reader.int("type")?;
        let done = reader.boolean("done")?;
        let error = reader.int("err")?;
        if done {
            pieces.push(Piece::Text(format!("end(type {kind}, err {error})")));
            return Ok(());
        }
        let operation = operations.get(index);
        let path = operation.and_then(Request::path).unwrap_or("?");
        pieces.push(Piece::Text(format!("[{index}] type {kind} err {error}")));
        match kind {
            opcode::CREATE => read_created(false, reader, pieces)?,
            opcode::CREATE2 | opcode::CREATE_CONTAINER | opcode::CREATE_TTL => read_created(true, reader, pieces)?,
            opcode::GET_DATA => {
                read_data(reader, pieces)?;
                read_stat(path, reader, pieces)?;
            }
            5 => read_stat(path, reader, pieces)?,
            opcode::GET_CHILDREN => read_strings("children", reader, pieces)?,
            2 | 13 => {}
            -1 => pieces.push(Piece::Text(format!("code {}", reader.int("code")?))),
            other => return Err(Malformed(format!("a result of type {other}"))),
        }
        index += 1;
    }
}
