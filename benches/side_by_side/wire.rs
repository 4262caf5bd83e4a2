//! The driver's own codec: client frames built by hand, replies looked at as far as a load needs it.
//!
//! It shares nothing with the server's codec on purpose: a mistake in that one would cancel itself out here, and
//! building a frame must cost nanoseconds, because the driver runs on the cores that it measures.

use std::io::{self, Read};

/// Operation codes, as ZooKeeper numbers them.
pub(crate) mod op {
    pub(crate) const CREATE: i32 = 1;
    pub(crate) const DELETE: i32 = 2;
    pub(crate) const GET_DATA: i32 = 4;
    pub(crate) const SET_DATA: i32 = 5;
    pub(crate) const GET_CHILDREN: i32 = 8;
    pub(crate) const SYNC: i32 = 9;
    pub(crate) const PING: i32 = 11;
    pub(crate) const MULTI: i32 = 14;
    pub(crate) const CLOSE_SESSION: i32 = -11;
}

/// Bytes of a reply's header behind its length: xid, zxid, error.
pub(crate) const REPLY_HEADER_BYTES: usize = 16;
/// Bytes of a Stat on the wire.
pub(crate) const STAT_BYTES: usize = 68;
/// The error code of a create whose path exists.
pub(crate) const NODE_EXISTS: i32 = -110;
/// No reply that a load asks for comes near it; a longer one means that the stream is out of step.
const REPLY_LIMIT_BYTES: usize = 16 << 20;

/// Appends one request frame: length, xid, operation, and what `body` writes.
pub(crate) fn request(out: &mut Vec<u8>, xid: i32, operation: i32, body: impl FnOnce(&mut Vec<u8>)) {
    frame(out, |out| {
        int(out, xid);
        int(out, operation);
        body(out);
    });
}

/// Appends one frame: the length of what `payload` writes, then that.
fn frame(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    int(out, 0);
    payload(out);
    let length = (out.len() - start - 4) as i32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends the handshake that opens a new session.
pub(crate) fn connect_request(out: &mut Vec<u8>, timeout_ms: i32) {
    resume_request(out, timeout_ms, 0, (0, &[0; 16]));
}

/// Appends the handshake that resumes a session, given by its id and password, or opens a new one if the id is 0.
pub(crate) fn resume_request(out: &mut Vec<u8>, timeout_ms: i32, last_zxid: i64, session: (i64, &[u8])) {
    frame(out, |out| {
        int(out, 0);
        long(out, last_zxid);
        int(out, timeout_ms);
        long(out, session.0);
        buffer(out, session.1);
        out.push(0);
    });
}

/// The session's password in a handshake's answer.
pub(crate) fn granted_password(answer: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(i32_at(answer, 16)?).ok()?;
    answer.get(20..20 + length)
}

/// The session id that a handshake's answer grants, or nothing if the server refused.
pub(crate) fn granted_session(answer: &[u8]) -> Option<i64> {
    let timeout_ms = i32_at(answer, 4)?;
    let session = i64::from_be_bytes(answer.get(8..16)?.try_into().ok()?);
    (timeout_ms > 0).then_some(session)
}

/// Body of a create: a persistent znode, open to the world.
pub(crate) fn create_body(out: &mut Vec<u8>, path: &[u8], data: &[u8]) {
    create_flagged(out, path, data, 0);
}

/// Body of a create with its flags.
pub(crate) fn create_flagged(out: &mut Vec<u8>, path: &[u8], data: &[u8], flags: i32) {
    buffer(out, path);
    buffer(out, data);
    int(out, 1);
    int(out, 31);
    buffer(out, b"world");
    buffer(out, b"anyone");
    int(out, flags);
}

/// Body of a setData that takes any version.
pub(crate) fn set_data_body(out: &mut Vec<u8>, path: &[u8], data: &[u8]) {
    buffer(out, path);
    buffer(out, data);
    int(out, -1);
}

/// Body of a delete that takes any version.
pub(crate) fn delete_body(out: &mut Vec<u8>, path: &[u8]) {
    buffer(out, path);
    int(out, -1);
}

/// Body of a read (getData, getChildren) with its watch flag.
pub(crate) fn read_body(out: &mut Vec<u8>, path: &[u8], watch: bool) {
    buffer(out, path);
    out.push(watch.into());
}

/// The header in front of each operation of a multi, and behind the last one.
pub(crate) fn multi_header(out: &mut Vec<u8>, operation: i32, done: bool) {
    int(out, operation);
    out.push(done.into());
    int(out, -1);
}

pub(crate) fn int(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn long(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn buffer(out: &mut Vec<u8>, bytes: &[u8]) {
    int(out, bytes.len() as i32);
    out.extend_from_slice(bytes);
}

/// The long at `offset`, if the bytes reach that far.
pub(crate) fn i64_at(bytes: &[u8], offset: usize) -> Option<i64> {
    bytes.get(offset..offset + 8)?.try_into().ok().map(i64::from_be_bytes)
}

/// The int at `offset`, if the bytes reach that far.
pub(crate) fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    bytes.get(offset..offset + 4)?.try_into().ok().map(i32::from_be_bytes)
}

/// The payload of the first frame in `bytes`, if it has arrived whole.
///
/// # Errors
/// A length that no reply can have.
pub(crate) fn first_frame(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    let Some(length) = i32_at(bytes, 0) else {
        return Ok(None);
    };
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= REPLY_LIMIT_BYTES);
    let length = length.ok_or("a frame with an impossible length: the stream is out of step")?;
    Ok(bytes.get(4..4 + length))
}

/// Reads one frame's payload from a blocking stream.
///
/// # Errors
/// The stream's, and a length that no reply can have.
pub(crate) fn read_frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length))
        .ok()
        .filter(|length| *length <= REPLY_LIMIT_BYTES);
    let length = length.ok_or_else(|| io::Error::other("a frame with an impossible length"))?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok(payload)
}
