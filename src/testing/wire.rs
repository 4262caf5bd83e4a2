//! What a simulated client says, and how it reads what it is told: from the checker's words to bytes, and back.

use super::checker::{Answer, Kind, Request, Stat};
use crate::proto::jute::{Encode, Malformed};
use crate::proto::multi::MultiHeader;
use crate::proto::{Acl, Decoder, OpCode};
use bytes::{Bytes, BytesMut};

/// A frame from a server, once the session is open.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) xid: i32,
    pub(super) zxid: i64,
    pub(super) error: i32,
    pub(super) body: Bytes,
}

/// The numbers of requests that have a number of their own.
pub(super) fn xid_of(request: &Request, next: i32) -> i32 {
    if *request == Request::Ping { -2 } else { next }
}

/// The whole frame of a request.
pub(super) fn encode(request: &Request, xid: i32) -> Bytes {
    let mut out = BytesMut::new();
    out.write_int(0);
    out.write_int(xid);
    out.write_int(op_of(request).to_wire());
    body(request, &mut out);
    seal(out)
}

/// The whole frame of a handshake.
pub(super) fn encode_connect(last_zxid: i64, timeout_ms: i32, session: i64, password: &[u8; 16]) -> Bytes {
    let mut out = BytesMut::new();
    out.write_int(0);
    out.write_int(0);
    out.write_long(last_zxid);
    out.write_int(timeout_ms);
    out.write_long(session);
    out.write_buffer(Some(password));
    out.write_bool(false);
    seal(out)
}

fn seal(mut out: BytesMut) -> Bytes {
    let length = u32::try_from(out.len() - 4).expect("a request of some bytes");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

fn op_of(request: &Request) -> OpCode {
    match request {
        Request::Create { .. } => OpCode::Create,
        Request::Set { .. } => OpCode::SetData,
        Request::Delete { .. } => OpCode::Delete,
        Request::Check { .. } => OpCode::Check,
        Request::Multi(_) => OpCode::Multi,
        Request::Get { .. } => OpCode::GetData,
        Request::Exists { .. } => OpCode::Exists,
        Request::Children { .. } => OpCode::GetChildren,
        Request::AddWatch { .. } => OpCode::AddWatch,
        Request::Sync => OpCode::Sync,
        Request::Ping | Request::Other => OpCode::Ping,
        Request::Close => OpCode::CloseSession,
    }
}

fn body(request: &Request, out: &mut BytesMut) {
    match request {
        Request::Create {
            path,
            value,
            ephemeral,
            sequential,
        } => {
            out.write_text(path);
            out.write_buffer(Some(value));
            Acl::encode_list(Some(&[Acl::open()]), out);
            out.write_int(i32::from(*ephemeral) + 2 * i32::from(*sequential));
        }
        Request::Set { path, value, version } => {
            out.write_text(path);
            out.write_buffer(Some(value));
            out.write_int(*version);
        }
        Request::Delete { path, version } | Request::Check { path, version } => {
            out.write_text(path);
            out.write_int(*version);
        }
        Request::Multi(requests) => {
            for request in requests {
                out.write_int(op_of(request).to_wire());
                out.write_bool(false);
                out.write_int(-1);
                body(request, out);
            }
            MultiHeader::END.encode(out);
        }
        Request::Get { path, watch } | Request::Exists { path, watch } | Request::Children { path, watch } => {
            out.write_text(path);
            out.write_bool(*watch);
        }
        Request::AddWatch { path, recursive } => {
            out.write_text(path);
            out.write_int(i32::from(*recursive));
        }
        Request::Sync => out.write_text("/"),
        Request::Ping | Request::Other | Request::Close => {}
    }
}

/// Reads a reply's frame or an event's.
pub(super) fn frame(bytes: &Bytes) -> Result<Frame, Malformed> {
    let mut decoder = Decoder::new(bytes);
    Ok(Frame {
        xid: decoder.int()?,
        zxid: decoder.long()?,
        error: decoder.int()?,
        body: decoder.take_rest(),
    })
}

/// Reads the answer to a handshake: timeout, session, password.
pub(super) fn connected(bytes: &Bytes) -> Result<(i32, i64, [u8; 16]), Malformed> {
    let mut decoder = Decoder::new(bytes);
    let _version = decoder.int()?;
    let timeout_ms = decoder.int()?;
    let session = decoder.long()?;
    let password = decoder.buffer()?.ok_or(Malformed::UnexpectedNull)?;
    let password = password.as_ref().try_into().map_err(|_| Malformed::Truncated)?;
    Ok((timeout_ms, session, password))
}

/// Reads an event: what has happened, to which znode.
pub(super) fn event(frame: &Frame) -> Result<(Kind, String), Malformed> {
    let mut decoder = Decoder::new(&frame.body);
    let kind = match decoder.int()? {
        1 => Kind::Created,
        2 => Kind::Deleted,
        3 => Kind::DataChanged,
        _ => Kind::ChildrenChanged,
    };
    let _state = decoder.int()?;
    Ok((kind, decoder.text()?.as_str().to_owned()))
}

/// Reads the answer to a request.
pub(super) fn answer(request: &Request, frame: &Frame) -> Result<Result<Answer, i32>, Malformed> {
    if frame.error != 0 {
        return Ok(Err(frame.error));
    }
    let mut decoder = Decoder::new(&frame.body);
    Ok(Ok(match request {
        Request::Create { .. } => Answer::Created(decoder.text()?.as_str().to_owned()),
        Request::Set { .. } | Request::Exists { .. } => Answer::Stat(stat(&mut decoder)?),
        Request::Get { .. } => {
            let value = decoder.buffer()?.unwrap_or_default().to_vec();
            Answer::Data(value, stat(&mut decoder)?)
        }
        Request::Children { .. } => {
            let names = decoder.vector(4, Decoder::text)?.unwrap_or_default();
            Answer::Names(names.iter().map(|name| name.as_str().to_owned()).collect())
        }
        Request::Multi(requests) => Answer::Multi(multi(requests, &mut decoder)?),
        _ => Answer::Done,
    }))
}

fn multi(requests: &[Request], decoder: &mut Decoder<'_>) -> Result<Vec<Result<Answer, i32>>, Malformed> {
    let mut results = Vec::new();
    for request in requests {
        let header = MultiHeader::decode(decoder)?;
        results.push(match request {
            _ if header.op == -1 => Err(decoder.int()?),
            Request::Create { .. } => Ok(Answer::Created(decoder.text()?.as_str().to_owned())),
            Request::Set { .. } => Ok(Answer::Stat(stat(decoder)?)),
            _ => Ok(Answer::Done),
        });
    }
    Ok(results)
}

fn stat(decoder: &mut Decoder<'_>) -> Result<Stat, Malformed> {
    let (czxid, mzxid) = (decoder.long()?, decoder.long()?);
    let (_ctime, _mtime) = (decoder.long()?, decoder.long()?);
    let (version, _cversion, _aversion) = (decoder.int()?, decoder.int()?, decoder.int()?);
    let owner = decoder.long()?;
    let (_length, _children, _pzxid) = (decoder.int()?, decoder.int()?, decoder.long()?);
    Ok(Stat {
        czxid,
        mzxid,
        version,
        owner,
    })
}
