//! Frames of a message link: `length u32 │ crc32c of length and body u32 │ body [length]`, numbers big-endian.
//!
//! An empty body is a sign of life, and carries nothing.

use bytes::{Buf as _, Bytes, BytesMut};

/// Bytes of a body at most.
pub const BODY_BYTES: usize = 64 << 20;
/// Bytes before a body.
pub(super) const HEADER_BYTES: usize = 8;

/// Why a link's bytes cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame says that it has {0} bytes, more than the {BODY_BYTES} that any may have")]
    TooLong(usize),
    #[error("the checksum of a frame of {0} bytes is wrong: they were changed on the way")]
    Damaged(usize),
}

/// What stands before `body`, which has at most [`BODY_BYTES`].
pub(super) fn header(body: &[u8]) -> [u8; HEADER_BYTES] {
    let length = (body.len() as u32).to_be_bytes();
    let checksum = checksum(&length, body).to_be_bytes();
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&length);
    header[4..].copy_from_slice(&checksum);
    header
}

fn checksum(length: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(length), body)
}

/// Takes the next whole frame off the front; its body shares the buffer's memory. `None`: more has to come.
pub(super) fn split(buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    let Some((header, rest)) = buffer.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let (length_bytes, mut checksum_bytes) = header.split_at(4);
    let length = (&*length_bytes).get_u32() as usize;
    if length > BODY_BYTES {
        return Err(FrameError::TooLong(length));
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    if checksum(length_bytes, body) != checksum_bytes.get_u32() {
        return Err(FrameError::Damaged(length));
    }
    buffer.advance(HEADER_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// How many bytes the frame at the front still lacks, at least 1.
pub(super) fn missing(buffer: &[u8]) -> usize {
    let whole = match buffer.first_chunk::<4>() {
        Some(length) => HEADER_BYTES + (u32::from_be_bytes(*length) as usize).min(BODY_BYTES),
        None => HEADER_BYTES,
    };
    whole.saturating_sub(buffer.len()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(bodies: &[Vec<u8>]) -> Vec<u8> {
        let frames = bodies.iter().map(|body| [&header(body)[..], body].concat());
        frames.collect::<Vec<_>>().concat()
    }

    proptest! {
        #[test]
        fn bodies_come_out_as_they_went_in(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..10),
            step in 1..50_usize,
        ) {
            let mut buffer = BytesMut::new();
            let mut found = Vec::new();
            for part in encode(&bodies).chunks(step) {
                buffer.extend_from_slice(part);
                while let Some(body) = split(&mut buffer).unwrap() {
                    found.push(body.to_vec());
                }
                prop_assert!(missing(&buffer) > 0);
            }
            prop_assert_eq!(found, bodies);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn a_changed_byte_is_noticed(
            body in prop::collection::vec(any::<u8>(), 0..100),
            place in any::<prop::sample::Index>(),
            change in 1..=u8::MAX,
        ) {
            let mut bytes = encode(&[body]);
            let place = place.index(bytes.len());
            bytes[place] ^= change;
            // A changed length may ask for more than there is; never is another body taken for whole.
            prop_assert!(!matches!(split(&mut BytesMut::from(&bytes[..])), Ok(Some(_))));
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_header_alone() {
        let mut buffer = BytesMut::from(&[0xff; HEADER_BYTES][..]);
        assert_eq!(split(&mut buffer), Err(FrameError::TooLong(u32::MAX as usize)));
    }
}
