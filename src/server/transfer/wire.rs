//! What is on the connection.
//!
//! ```text
//!   frame   kind u8 │ body_bytes u32 │ crc32c u32 of kind and body │ body          little-endian
//!
//!   sender                          receiver
//!   1 offer    version u32 │ message_bytes u32 │ message │ meta
//!   2 chunk    records
//!   …
//!   3 end      records u64 │ bytes u64 │ checksum u32
//!                                   4 working   still at it; any number of times
//!                                   5 taken
//!                                   6 refused   why, in UTF-8; at any time
//! ```

use super::{Pace, TransferError};
use crate::storage::tree::{FORMAT_VERSION, Meta, OLDEST_FORMAT_VERSION, Totals};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The version of these frames.
const WIRE_VERSION: u32 = 1;

/// Bytes of a body at most. The largest record is a list of rights, which came in one request.
const MAX_BODY_BYTES: usize = 64 << 20;

/// Bytes of a refusal's text at most; more is cut off.
const MAX_REFUSAL_BYTES: usize = 4 << 10;

/// Bytes that are made room for at once: a length that a peer only claims costs nothing.
const ROOM_BYTES: usize = 256 << 10;

const HEAD_BYTES: usize = 9;

/// See the module's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Offer { message: Bytes, meta: Meta },
    Chunk(Bytes),
    End(Totals),
    Working,
    Taken,
    Refused(String),
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Frame::Offer { .. } => 1,
            Frame::Chunk(_) => 2,
            Frame::End(_) => 3,
            Frame::Working => 4,
            Frame::Taken => 5,
            Frame::Refused(_) => 6,
        }
    }

    fn body(&self) -> Bytes {
        match self {
            Frame::Offer { message, meta } => {
                let meta = meta.encode();
                let mut body = BytesMut::with_capacity(8 + message.len() + meta.len());
                body.put_u32_le(WIRE_VERSION);
                body.put_u32_le(message.len() as u32);
                body.put_slice(message);
                body.put_slice(&meta);
                body.freeze()
            }
            Frame::Chunk(records) => records.clone(),
            Frame::End(totals) => {
                let mut body = BytesMut::with_capacity(20);
                body.put_u64_le(totals.records);
                body.put_u64_le(totals.bytes);
                body.put_u32_le(totals.checksum);
                body.freeze()
            }
            Frame::Working | Frame::Taken => Bytes::new(),
            Frame::Refused(reason) => {
                let end = reason.floor_char_boundary(MAX_REFUSAL_BYTES);
                Bytes::copy_from_slice(&reason.as_bytes()[..end])
            }
        }
    }

    fn decode(kind: u8, mut body: Bytes) -> Result<Frame, TransferError> {
        let short = |_| TransferError::Malformed("a frame is too short");
        let frame = match kind {
            1 => return decode_offer(body),
            2 => Frame::Chunk(std::mem::take(&mut body)),
            3 => Frame::End(Totals {
                records: body.try_get_u64_le().map_err(short)?,
                bytes: body.try_get_u64_le().map_err(short)?,
                checksum: body.try_get_u32_le().map_err(short)?,
            }),
            4 => Frame::Working,
            5 => Frame::Taken,
            6 => Frame::Refused(String::from_utf8_lossy(&std::mem::take(&mut body)).into_owned()),
            _ => return Err(TransferError::Malformed("a frame is of no known kind")),
        };
        if body.is_empty() {
            Ok(frame)
        } else {
            Err(TransferError::Malformed("a frame is too long"))
        }
    }
}

fn decode_offer(mut body: Bytes) -> Result<Frame, TransferError> {
    let short = |_| TransferError::Malformed("the offer is too short");
    if body.try_get_u32_le().map_err(short)? != WIRE_VERSION {
        return Err(TransferError::Malformed("the offer is of another version"));
    }
    let message_bytes = body.try_get_u32_le().map_err(short)? as usize;
    if message_bytes > body.len() {
        return Err(TransferError::Malformed("the offer is too short"));
    }
    let message = body.split_to(message_bytes);
    let unreadable = |_| TransferError::Malformed("the offer's meta record cannot be read");
    let found = Meta::format_version(&body).map_err(unreadable)?;
    if !(OLDEST_FORMAT_VERSION..=FORMAT_VERSION).contains(&found) {
        return Err(TransferError::FormatVersion {
            found,
            supported: FORMAT_VERSION,
        });
    }
    let meta = Meta::decode(&body).map_err(unreadable)?;
    Ok(Frame::Offer { message, meta })
}

fn checksum(kind: u8, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[kind]), body)
}

/// Writes a frame; every byte that moves is progress.
pub(super) async fn write_frame<W: AsyncWrite + Unpin>(
    writer: &mut W,
    frame: &Frame,
    pace: Pace,
) -> Result<(), TransferError> {
    const ACTION: &str = "sending";
    let body = frame.body();
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    head.put_u8(frame.kind());
    head.put_u32_le(body.len() as u32);
    head.put_u32_le(checksum(frame.kind(), &body));
    for part in [&head[..], &body[..]] {
        let mut rest = part;
        while !rest.is_empty() {
            let written = in_time(ACTION, pace.patience, writer.write(rest)).await?;
            if written == 0 {
                return Err(broken(ACTION)(io::ErrorKind::WriteZero.into()));
            }
            rest = &rest[written..];
        }
    }
    in_time(ACTION, pace.patience, writer.flush()).await
}

/// Reads a frame; every byte that moves is progress. `None` for `patience`: there is a reason to wait for ever.
pub(super) async fn read_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    patience: Option<Duration>,
) -> Result<Frame, TransferError> {
    let mut head = read_bytes(reader, HEAD_BYTES, patience).await?;
    let kind = head.get_u8();
    let body_bytes = head.get_u32_le() as usize;
    let stored = head.get_u32_le();
    if body_bytes > MAX_BODY_BYTES {
        return Err(TransferError::Malformed("a frame is longer than any"));
    }
    let body = read_bytes(reader, body_bytes, patience).await?.freeze();
    if checksum(kind, &body) != stored {
        return Err(TransferError::Malformed("a frame's checksum is wrong"));
    }
    Frame::decode(kind, body)
}

async fn read_bytes<R: AsyncRead + Unpin>(
    reader: &mut R,
    count: usize,
    patience: Option<Duration>,
) -> Result<BytesMut, TransferError> {
    const ACTION: &str = "receiving";
    let mut bytes = BytesMut::with_capacity(count.min(ROOM_BYTES));
    while bytes.len() < count {
        let missing = count - bytes.len();
        bytes.reserve(missing.min(ROOM_BYTES));
        let mut some = (&mut *reader).take(missing as u64);
        let reading = some.read_buf(&mut bytes);
        let read = match patience {
            Some(limit) => in_time(ACTION, limit, reading).await?,
            None => reading.await.map_err(broken(ACTION))?,
        };
        if read == 0 {
            return Err(broken(ACTION)(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(bytes)
}

async fn in_time<T>(
    action: &'static str,
    limit: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, TransferError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result.map_err(broken(action)),
        Err(_) => Err(TransferError::Stalled { action, limit }),
    }
}

fn broken(action: &'static str) -> impl FnOnce(io::Error) -> TransferError {
    move |source| TransferError::Connection { action, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::log::LogPoint;
    use proptest::prelude::*;

    fn frames() -> Vec<Frame> {
        let meta = Meta {
            applied: LogPoint { index: 5, term: 2 },
            zxid: 9,
            digest: 4,
            membership: Bytes::from_static(b"members"),
            extension: Bytes::from_static(b"more"),
        };
        vec![
            Frame::Offer {
                message: Bytes::from_static(b"message"),
                meta,
            },
            Frame::Chunk(vec![7; 300_000].into()),
            Frame::Chunk(Bytes::new()),
            Frame::End(Totals {
                records: 1,
                bytes: 2,
                checksum: 3,
            }),
            Frame::Working,
            Frame::Taken,
            Frame::Refused("ü".repeat(10)),
        ]
    }

    async fn encoded(frames: &[Frame]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            write_frame(&mut out, frame, Pace::default()).await.expect("memory");
        }
        out
    }

    #[tokio::test]
    async fn frames_come_back_as_they_went_and_a_changed_byte_is_found() {
        let bytes = encoded(&frames()).await;
        let mut reader = &bytes[..];
        for frame in frames() {
            assert_eq!(read_frame(&mut reader, None).await.expect("a frame"), frame);
        }
        for frame in frames() {
            let good = encoded(std::slice::from_ref(&frame)).await;
            for at in 0..good.len().min(200) {
                let mut bad = good.clone();
                bad[at] ^= 1;
                let read = read_frame(&mut &bad[..], None).await;
                assert!(read.is_err(), "byte {at} of {frame:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_long_reason_is_cut_between_two_characters() {
        let long = Frame::Refused(format!("x{}", "ü".repeat(MAX_REFUSAL_BYTES)));
        let bytes = encoded(&[long]).await;
        let read = read_frame(&mut &bytes[..], None).await.expect("a frame");
        assert!(
            matches!(read, Frame::Refused(reason) if reason.len() == MAX_REFUSAL_BYTES - 1 && reason.ends_with('ü'))
        );
    }

    proptest! {
        #[test]
        fn any_body_is_decoded_or_refused(kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..100)) {
            // It must not panic.
            let _ = Frame::decode(kind, body.into());
        }
    }
}
