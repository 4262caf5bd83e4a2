//! The handshake: the only two records without a header.

use super::jute::{Decoder, Encode, Malformed};
use super::{SessionId, Zxid};
use bytes::BytesMut;

/// Bytes of a session's password, always.
pub const PASSWORD_BYTES: usize = 16;

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// 0 in every version there is.
    pub protocol_version: i32,
    /// The highest zxid that this client has seen; a server that is behind it must not serve it.
    pub last_zxid_seen: Zxid,
    /// The session timeout that the client would like, ms.
    pub timeout_ms: i32,
    /// The session to resume; 0 for a new one.
    pub session: SessionId,
    /// That session's password.
    pub password: Option<bytes::Bytes>,
    /// Whether a server without a quorum will do. `None`: the client is too old to say, and must not be told either.
    pub read_only: Option<bool>,
}

/// What the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectResponse {
    /// The negotiated timeout, ms; 0 says that the session has expired or never was.
    pub timeout_ms: i32,
    /// The session's id; 0 if there is none.
    pub session: SessionId,
    /// The session's password; zeros if there is none.
    pub password: [u8; PASSWORD_BYTES],
    /// Whether this server has no quorum; `None` where the client did not ask.
    pub read_only: Option<bool>,
}

impl ConnectRequest {
    /// Reads one; the last byte is optional, as in clients before 3.4.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<ConnectRequest, Malformed> {
        Ok(ConnectRequest {
            protocol_version: decoder.int()?,
            last_zxid_seen: Zxid(decoder.long()?),
            timeout_ms: decoder.int()?,
            session: SessionId(decoder.long()?),
            password: decoder.buffer()?,
            read_only: if decoder.remaining() > 0 {
                Some(decoder.bool()?)
            } else {
                None
            },
        })
    }

    /// Writes it.
    pub fn encode(&self, out: &mut BytesMut) {
        out.write_int(self.protocol_version);
        out.write_long(self.last_zxid_seen.0);
        out.write_int(self.timeout_ms);
        out.write_long(self.session.0);
        out.write_buffer(self.password.as_deref());
        if let Some(read_only) = self.read_only {
            out.write_bool(read_only);
        }
    }
}

impl ConnectResponse {
    /// The answer to a client whose session is gone.
    pub fn expired(read_only: Option<bool>) -> ConnectResponse {
        ConnectResponse {
            timeout_ms: 0,
            session: SessionId(0),
            password: [0; PASSWORD_BYTES],
            read_only,
        }
    }

    /// Appends the whole frame, length included.
    pub fn encode_frame(&self, out: &mut BytesMut) {
        let flag_bytes = usize::from(self.read_only.is_some());
        out.write_count(4 + 4 + 8 + 4 + PASSWORD_BYTES + flag_bytes);
        out.write_int(0);
        out.write_int(self.timeout_ms);
        out.write_long(self.session.0);
        out.write_buffer(Some(&self.password));
        if let Some(read_only) = self.read_only {
            out.write_bool(read_only);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_client_that_does_not_know_read_only_is_not_told_about_it() {
        for (flag, bytes) in [(None, 36), (Some(true), 37)] {
            let mut out = BytesMut::new();
            ConnectResponse::expired(flag).encode_frame(&mut out);
            assert_eq!(out.len(), 4 + bytes);
        }
    }

    #[test]
    fn a_request_survives_the_wire_with_and_without_its_last_byte() {
        for read_only in [None, Some(false), Some(true)] {
            let request = ConnectRequest {
                protocol_version: 0,
                last_zxid_seen: Zxid(7),
                timeout_ms: 30_000,
                session: SessionId(0x1234),
                password: Some(Bytes::from_static(&[7; 16])),
                read_only,
            };
            let mut out = BytesMut::new();
            request.encode(&mut out);
            let frame = out.freeze();
            assert_eq!(ConnectRequest::decode(&mut Decoder::new(&frame)), Ok(request));
        }
    }
}
