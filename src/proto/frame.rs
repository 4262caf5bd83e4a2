//! Frames: a 32-bit length, then so many bytes.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the length in front of a frame.
pub const LENGTH_BYTES: usize = 4;

/// So much of a frame has arrived that room is made for the rest, and it need not be copied each time that it has grown.
const LARGE_PART_BYTES: usize = 32 << 10;
/// The room that is made is so many times what has arrived at most: a length is only a claim.
const ROOM_FACTOR: usize = 32;

/// The stream cannot be split any further; the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame length {length} is not within 0..={limit}")]
pub struct BadFrameLength {
    /// What stood where a length should be.
    pub length: i32,
    /// The largest length allowed.
    pub limit: usize,
}

/// Splits the next whole frame off the front of `received`, without its length. `None`: more bytes must arrive first.
/// A length beyond `limit_bytes` is refused before anything is allocated for it.
pub fn split_frame(received: &mut BytesMut, limit_bytes: usize) -> Result<Option<Bytes>, BadFrameLength> {
    let Some(length) = next_length(received, limit_bytes)? else {
        return Ok(None);
    };
    let missing = (LENGTH_BYTES + length).saturating_sub(received.len());
    if missing > 0 {
        if received.len() >= LARGE_PART_BYTES {
            received.reserve(missing.min(received.len() * ROOM_FACTOR));
        }
        return Ok(None);
    }
    received.advance(LENGTH_BYTES);
    Ok(Some(received.split_to(length).freeze()))
}

/// The length of the next frame, once its four bytes are there.
pub fn next_length(received: &[u8], limit_bytes: usize) -> Result<Option<usize>, BadFrameLength> {
    let Some(prefix) = received.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*prefix);
    match usize::try_from(length) {
        Ok(length) if length <= limit_bytes => Ok(Some(length)),
        _ => Err(BadFrameLength {
            length,
            limit: limit_bytes,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_and_in_order() {
        let mut received = BytesMut::from(&[0, 0, 0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 2, b'b'][..]);
        assert_eq!(split_frame(&mut received, 10), Ok(Some(Bytes::from_static(b"a"))));
        assert_eq!(split_frame(&mut received, 10), Ok(Some(Bytes::new())));
        assert_eq!(split_frame(&mut received, 10), Ok(None));
        received.extend_from_slice(b"c");
        assert_eq!(split_frame(&mut received, 10), Ok(Some(Bytes::from_static(b"bc"))));
    }

    #[test]
    fn room_is_made_for_a_large_frame_once_a_part_of_it_has_come_and_not_for_a_claim() {
        let length = 1 << 20;
        let mut received = BytesMut::from(&i32::to_be_bytes(length)[..]);
        assert_eq!(split_frame(&mut received, length as usize), Ok(None));
        assert!(received.capacity() < LARGE_PART_BYTES, "{}", received.capacity());
        received.resize(LARGE_PART_BYTES, 7);
        assert_eq!(split_frame(&mut received, length as usize), Ok(None));
        let start = received.as_ptr();
        received.resize(LENGTH_BYTES + length as usize - 1, 7);
        assert_eq!(split_frame(&mut received, length as usize), Ok(None));
        received.extend_from_slice(&[7]);
        assert_eq!(received.as_ptr(), start, "what had come was copied");
        let frame = split_frame(&mut received, length as usize)
            .expect("a fair length")
            .expect("whole");
        assert_eq!((frame.len(), received.len()), (length as usize, 0));
        // A frame of a gigabyte is not believed after 32 KiB.
        let mut received = BytesMut::from(&i32::to_be_bytes(1 << 30)[..]);
        received.resize(LARGE_PART_BYTES, 7);
        assert_eq!(split_frame(&mut received, 1 << 30), Ok(None));
        assert!(
            received.capacity() <= 2 * LARGE_PART_BYTES * ROOM_FACTOR,
            "{}",
            received.capacity()
        );
    }

    #[test]
    fn negative_and_oversized_lengths_are_refused() {
        for prefix in [[0xff, 0xff, 0xff, 0xff], [0, 0, 0, 11]] {
            assert!(split_frame(&mut BytesMut::from(&prefix[..]), 10).is_err());
        }
    }
}
