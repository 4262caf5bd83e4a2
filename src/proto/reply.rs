//! Replies: the header, and the bodies that writes are answered with.
//!
//! Queries write their bodies straight from the tree into the connection's buffer (`state_machine`'s `query`), but for a part
//! that many clients may share; what they write is laid out as here.

use super::jute::{Encode, Text};
use super::multi::MultiHeader;
use super::records::Stat;
use super::request::OpCode;
use super::{ErrorCode, Xid, Zxid};
use bytes::{Bytes, BytesMut};

/// What stands before every body. If there is an error, there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's number, or one of the reserved ones.
    pub xid: Xid,
    /// The last command that this server has applied.
    pub zxid: Zxid,
    /// `None`: the operation succeeded.
    pub error: Option<ErrorCode>,
}

impl ReplyHeader {
    /// Bytes on the wire, always.
    pub const BYTES: usize = 16;

    /// Writes it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.write_int(self.xid.0);
        out.write_long(self.zxid.0);
        out.write_int(self.error.map_or(0, ErrorCode::to_wire));
    }

    /// Appends the whole frame, length included: this header, and the body that `body` writes, but for a part that it gives,
    /// and that the caller is to put into its place. If it fails, whatever it wrote is taken back and the header carries its
    /// error.
    #[must_use]
    pub fn encode_frame(
        mut self,
        out: &mut BytesMut,
        body: impl FnOnce(&mut BytesMut) -> Result<Option<SharedPart>, ErrorCode>,
    ) -> Option<SharedPart> {
        let start = out.len();
        out.write_int(0);
        self.encode(out);
        let after_header = out.len();
        let shared = body(out).unwrap_or_else(|code| {
            out.truncate(after_header);
            self.error = Some(code);
            out[after_header - 4..after_header].copy_from_slice(&code.to_wire().to_be_bytes());
            None
        });
        let length = out.len() - start - 4 + shared.as_ref().map_or(0, |part| part.bytes.len());
        let length = i32::try_from(length).expect("a reply stays below 2 GiB: see Encode::write_count");
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        shared
    }
}

/// A part of a reply that many clients get, and that is too large to be copied for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPart {
    /// Its place in the buffer that the rest was written to.
    pub at: usize,
    /// What belongs there.
    pub bytes: Bytes,
}

/// The body of a write's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing: delete, sync's likes, closeSession.
    Empty,
    /// create.
    Path(Text),
    /// create2, createContainer, createTTL.
    PathStat(Text, Stat),
    /// setData, setACL.
    Stat(Stat),
    /// reconfig: the text of the configuration.
    DataStat(Bytes, Stat),
    /// multi.
    Multi(Vec<MultiResult>),
}

/// The result of one operation of a multi.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiResult {
    /// create.
    Create(Text),
    /// create2, createContainer, createTTL: all told as create2.
    Create2(Text, Stat),
    /// delete.
    Delete,
    /// setData.
    SetData(Stat),
    /// check.
    Check,
    /// In a multi that failed: 0 before the operation that failed, its code, [`ErrorCode::RuntimeInconsistency`] after.
    Failed(Option<ErrorCode>),
}

impl Reply {
    /// Writes the body.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Reply::Empty => {}
            Reply::Path(path) => out.write_text(path),
            Reply::PathStat(path, stat) => {
                out.write_text(path);
                stat.encode(out);
            }
            Reply::Stat(stat) => stat.encode(out),
            Reply::DataStat(data, stat) => {
                out.write_buffer(Some(data));
                stat.encode(out);
            }
            Reply::Multi(results) => {
                for result in results {
                    result.encode(out);
                }
                MultiHeader::END.encode(out);
            }
        }
    }
}

impl MultiResult {
    fn encode(&self, out: &mut BytesMut) {
        match self {
            MultiResult::Create(path) => {
                MultiHeader::result(OpCode::Create).encode(out);
                out.write_text(path);
            }
            MultiResult::Create2(path, stat) => {
                MultiHeader::result(OpCode::Create2).encode(out);
                out.write_text(path);
                stat.encode(out);
            }
            MultiResult::Delete => MultiHeader::result(OpCode::Delete).encode(out),
            MultiResult::SetData(stat) => {
                MultiHeader::result(OpCode::SetData).encode(out);
                stat.encode(out);
            }
            MultiResult::Check => MultiHeader::result(OpCode::Check).encode(out),
            MultiResult::Failed(code) => {
                let code = code.map_or(0, ErrorCode::to_wire);
                MultiHeader::error(code).encode(out);
                out.write_int(code);
            }
        }
    }
}
