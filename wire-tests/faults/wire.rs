//! Operations, errors and records of the protocol, as far as the fault test needs them.

use super::checker;
use super::client::{Malformed, Reader, Writer, framed};

pub(crate) const CREATE: i32 = 1;
pub(crate) const DELETE: i32 = 2;
pub(crate) const EXISTS: i32 = 3;
pub(crate) const GET_DATA: i32 = 4;
pub(crate) const SET_DATA: i32 = 5;
pub(crate) const GET_CHILDREN: i32 = 8;
pub(crate) const SYNC: i32 = 9;
pub(crate) const MULTI: i32 = 14;
pub(crate) const RECONFIG: i32 = 16;
pub(crate) const MULTI_READ: i32 = 22;
pub(crate) const SET_WATCHES: i32 = 101;
pub(crate) const CLOSE: i32 = -11;

pub(crate) const EVENT_XID: i32 = -1;
pub(crate) const SET_WATCHES_XID: i32 = -8;
pub(crate) const DATA_CHANGED: i32 = 3;

pub(crate) const NEW_CONFIG_NO_QUORUM: i32 = -13;
pub(crate) const NO_NODE: i32 = -101;
pub(crate) const BAD_VERSION: i32 = -103;
pub(crate) const NODE_EXISTS: i32 = -110;

pub(crate) const EPHEMERAL: i32 = 1;
pub(crate) const SEQUENTIAL: i32 = 2;

/// A request's frame.
pub(crate) fn request(xid: i32, operation: i32, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.int(xid);
    writer.int(operation);
    body(&mut writer);
    framed(&writer.bytes)
}

/// In front of each operation of a multi, and behind the last.
pub(crate) fn multi_header(body: &mut Writer, operation: i32, done: bool) {
    body.int(operation);
    body.boolean(done);
    body.int(-1);
}

/// A reply's xid, zxid and error.
pub(crate) fn header(reader: &mut Reader<'_>) -> Result<(i32, i64, i32), Malformed> {
    Ok((reader.int("xid")?, reader.long("zxid")?, reader.int("err")?))
}

/// An event's type and path.
pub(crate) fn event(reader: &mut Reader<'_>) -> Result<(i32, String), Malformed> {
    let kind = reader.int("type")?;
    reader.int("state")?;
    Ok((kind, reader.string("path")?.unwrap_or_default()))
}

/// The fields of a Stat that are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) czxid: i64,
    pub(crate) mzxid: i64,
    pub(crate) version: i32,
    pub(crate) owner: i64,
}

pub(crate) fn stat(reader: &mut Reader<'_>) -> Result<Stat, Malformed> {
    let czxid = reader.long("czxid")?;
    let mzxid = reader.long("mzxid")?;
    reader.long("ctime")?;
    reader.long("mtime")?;
    let version = reader.int("version")?;
    reader.int("cversion")?;
    reader.int("aversion")?;
    let owner = reader.long("ephemeralOwner")?;
    reader.int("dataLength")?;
    reader.int("numChildren")?;
    reader.long("pzxid")?;
    Ok(Stat {
        czxid,
        mzxid,
        version,
        owner,
    })
}

impl From<Stat> for checker::Stat {
    fn from(stat: Stat) -> Self {
        checker::Stat {
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            version: stat.version,
            owner: stat.owner,
        }
    }
}

/// The answer of getData.
pub(crate) fn data(reader: &mut Reader<'_>) -> Result<(Vec<u8>, Stat), Malformed> {
    let data = reader.buffer("data")?.unwrap_or_default().to_vec();
    Ok((data, stat(reader)?))
}

/// The answer of a multi of setData.
pub(crate) fn multi_stats(reader: &mut Reader<'_>) -> Result<Vec<Stat>, Malformed> {
    multi(reader, SET_DATA, stat)
}

/// The answer of a multiRead of getData.
pub(crate) fn multi_data(reader: &mut Reader<'_>) -> Result<Vec<(Vec<u8>, Stat)>, Malformed> {
    multi(reader, GET_DATA, data)
}

fn multi<T>(
    reader: &mut Reader<'_>,
    operation: i32,
    result: impl Fn(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut results = Vec::new();
    loop {
        let kind = reader.int("type")?;
        let done = reader.boolean("done")?;
        let error = reader.int("err")?;
        if done {
            return Ok(results);
        }
        if kind != operation {
            return Err(Malformed(format!(
                "a result of type {kind} with error {error} in a multi"
            )));
        }
        results.push(result(reader)?);
    }
}

/// The names that getChildren answers with.
pub(crate) fn children(reader: &mut Reader<'_>) -> Result<Vec<String>, Malformed> {
    let count = reader.count("children")?;
    (0..count)
        .map(|_| Ok(reader.string("child")?.unwrap_or_default()))
        .collect()
}
