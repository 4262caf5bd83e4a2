//! The framing of multi and multiRead: each operation behind a header, a last header that says done.
//!
//! Source: Apache's `MultiOperationRecord` and `MultiResponse`. A kind of operation that does not belong into the multi
//! makes the whole request malformed, as in 3.9 (3.8 gave that operation an error of its own).

use super::jute::{Decoder, Encode, Malformed};
use super::request::{CreateMode, CreateRequest, OpCode, PathVersion, PathWatch, SetDataRequest, Write};
use bytes::BytesMut;

/// Header of an operation's result that is an error.
const ERROR_RESULT: i32 = -1;

/// Several writes, all or none. May be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MultiRequest {
    /// create of every kind, delete, setData and check only.
    pub operations: Vec<Write>,
}

/// One read of a multiRead. Its watch flag is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOperation {
    /// getData.
    GetData(PathWatch),
    /// getChildren.
    GetChildren(PathWatch),
}

/// Several reads, each answered for itself. May be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MultiReadRequest {
    /// The reads.
    pub operations: Vec<ReadOperation>,
}

/// What stands before each operation and each result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiHeader {
    /// The op code of the operation or result; -1 for errors and at the end.
    pub op: i32,
    /// Whether this is the end.
    pub done: bool,
    /// The result's error code; -1 in requests.
    pub error: i32,
}

impl MultiHeader {
    /// Bytes on the wire, always.
    pub const BYTES: usize = 9;
    /// The last header.
    pub const END: MultiHeader = MultiHeader {
        op: -1,
        done: true,
        error: -1,
    };

    /// The header of a result without an error.
    pub fn result(op: OpCode) -> MultiHeader {
        MultiHeader {
            op: op.to_wire(),
            done: false,
            error: 0,
        }
    }

    /// The header of a result that is an error; its body is the code again.
    pub fn error(code: i32) -> MultiHeader {
        MultiHeader {
            op: ERROR_RESULT,
            done: false,
            error: code,
        }
    }

    /// Reads one.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<MultiHeader, Malformed> {
        Ok(MultiHeader {
            op: decoder.int()?,
            done: decoder.bool()?,
            error: decoder.int()?,
        })
    }

    /// Writes it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.write_int(self.op);
        out.write_bool(self.done);
        out.write_int(self.error);
    }
}

/// Reads operations until the last header. The loop is bounded by the frame: each turn reads at least a header.
fn decode_operations<T>(
    decoder: &mut Decoder<'_>,
    mut operation: impl FnMut(i32, &mut Decoder<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut operations = Vec::new();
    loop {
        let header = MultiHeader::decode(decoder)?;
        if header.error != -1 || (header.done && header != MultiHeader::END) {
            decoder.be_lenient();
        }
        if header.done {
            return Ok(operations);
        }
        operations.push(operation(header.op, decoder)?);
    }
}

fn encode_operation(op: OpCode, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    MultiHeader {
        op: op.to_wire(),
        done: false,
        error: -1,
    }
    .encode(out);
    body(out);
}

/// Reads a create of a multi. In there the flags decide what it is, and the op code only what they leave open: a create
/// with a container's flag makes a container, a createTTL without a TTL's flag is a create without a time to live, and
/// a TTL's flag in any other create makes the whole multi malformed, as does a null list. Alone, each of these is
/// something else.
fn decode_create(op: OpCode, decoder: &mut Decoder<'_>) -> Result<Write, Malformed> {
    let mut body = CreateRequest::decode(op, decoder)?;
    if body.acl.is_none() && op != OpCode::CreateTtl {
        return Err(Malformed::UnexpectedNull);
    }
    let mode = CreateMode::from_flags(body.flags);
    let meant = match mode {
        None if op != OpCode::CreateTtl => return Err(Malformed::UnknownKind),
        Some(mode) if mode.is_ttl() && op != OpCode::CreateTtl => return Err(Malformed::UnknownKind),
        Some(CreateMode::Container) => OpCode::CreateContainer,
        Some(mode) if op == OpCode::CreateTtl && !mode.is_ttl() => OpCode::Create,
        // Flags that stand for nothing are refused when it is applied.
        _ => op,
    };
    if meant != op {
        body.ttl_ms = None;
        // Neither null nor empty is a valid list.
        body.acl.get_or_insert_default();
        decoder.be_lenient();
    }
    Ok(Write::Create(meant, body))
}

impl MultiRequest {
    /// Reads one.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<MultiRequest, Malformed> {
        let operations = decode_operations(decoder, |op, decoder| {
            Ok(match OpCode::from_wire(op) {
                Some(op @ (OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl)) => {
                    decode_create(op, decoder)?
                }
                Some(OpCode::Delete) => Write::Delete(PathVersion::decode(decoder)?),
                Some(OpCode::SetData) => {
                    if decoder.is_null() {
                        return Err(Malformed::UnexpectedNull);
                    }
                    Write::SetData(SetDataRequest::decode(decoder)?)
                }
                Some(OpCode::Check) => Write::Check(PathVersion::decode(decoder)?),
                _ => return Err(Malformed::UnknownKind),
            })
        })?;
        Ok(MultiRequest { operations })
    }

    /// Writes it.
    pub fn encode(&self, out: &mut BytesMut) {
        for operation in &self.operations {
            encode_operation(operation.op(), out, |out| operation.encode(out));
        }
        MultiHeader::END.encode(out);
    }
}

impl MultiReadRequest {
    /// Reads one.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<MultiReadRequest, Malformed> {
        let operations = decode_operations(decoder, |op, decoder| match OpCode::from_wire(op) {
            Some(OpCode::GetData) => PathWatch::decode(decoder).map(ReadOperation::GetData),
            Some(OpCode::GetChildren) => PathWatch::decode(decoder).map(ReadOperation::GetChildren),
            _ => Err(Malformed::UnknownKind),
        })?;
        Ok(MultiReadRequest { operations })
    }

    /// Writes it.
    pub fn encode(&self, out: &mut BytesMut) {
        for operation in &self.operations {
            match operation {
                ReadOperation::GetData(body) => encode_operation(OpCode::GetData, out, |out| body.encode(out)),
                ReadOperation::GetChildren(body) => encode_operation(OpCode::GetChildren, out, |out| body.encode(out)),
            }
        }
        MultiHeader::END.encode(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn create(op: OpCode, flags: i32, ttl_ms: Option<i64>) -> Write {
        let body = CreateRequest {
            path: "/a".into(),
            data: None,
            acl: Some(Vec::new()),
            flags,
            ttl_ms,
        };
        Write::Create(op, body)
    }

    /// What is read from a multi that has one operation.
    fn read(operation: Write) -> Result<Write, Malformed> {
        let mut out = BytesMut::new();
        MultiRequest {
            operations: vec![operation],
        }
        .encode(&mut out);
        let frame: Bytes = out.freeze();
        MultiRequest::decode(&mut Decoder::new(&frame)).map(|mut request| request.operations.remove(0))
    }

    #[test]
    fn in_a_multi_the_flags_decide_what_is_created() {
        let ttl = Some(5);
        for (op, flags, ttl_ms, meant) in [
            (OpCode::Create, 3, None, create(OpCode::Create, 3, None)),
            (OpCode::Create2, 0, None, create(OpCode::Create2, 0, None)),
            (OpCode::Create, 4, None, create(OpCode::CreateContainer, 4, None)),
            (
                OpCode::CreateContainer,
                0,
                None,
                create(OpCode::CreateContainer, 0, None),
            ),
            (OpCode::CreateTtl, 5, ttl, create(OpCode::CreateTtl, 5, ttl)),
            (OpCode::CreateTtl, 0, ttl, create(OpCode::Create, 0, None)),
            (OpCode::CreateTtl, 4, ttl, create(OpCode::CreateContainer, 4, None)),
            (OpCode::CreateTtl, 7, ttl, create(OpCode::CreateTtl, 7, ttl)),
        ] {
            assert_eq!(read(create(op, flags, ttl_ms)), Ok(meant), "{op:?} with flags {flags}");
        }
    }

    #[test]
    fn a_multi_is_malformed_by_flags_that_its_operation_cannot_have() {
        for (op, flags) in [
            (OpCode::Create, 5),
            (OpCode::Create2, 6),
            (OpCode::CreateContainer, 5),
            (OpCode::Create, 7),
        ] {
            assert_eq!(
                read(create(op, flags, None)),
                Err(Malformed::UnknownKind),
                "{op:?} with flags {flags}"
            );
        }
    }

    #[test]
    fn a_multi_is_malformed_by_a_null_path() {
        let mut out = BytesMut::new();
        MultiHeader {
            op: OpCode::SetData.to_wire(),
            done: false,
            error: -1,
        }
        .encode(&mut out);
        out.write_buffer(None);
        out.write_buffer(None);
        out.write_int(-1);
        MultiHeader::END.encode(&mut out);
        let frame = out.freeze();
        assert_eq!(
            MultiRequest::decode(&mut Decoder::new(&frame)),
            Err(Malformed::UnexpectedNull)
        );
    }
}
