//! Jute, ZooKeeper's serialisation: big endian, length-prefixed, no framing of records.
//!
//! Decoding is nom over the frame's bytes; payloads come out as slices of the frame. Encoding appends to a
//! [`BytesMut`]. Source: Apache's `BinaryInputArchive` and `BinaryOutputArchive`.

use bytes::{BufMut, Bytes, BytesMut};
use nom::bytes::complete::take;
use nom::number::complete::{be_i32, be_i64, be_u8};
use nom::{IResult, Parser};
use std::fmt;
use std::ops::Deref;

/// The bytes are not the record that they should be. What the network can cause: never a panic, always this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The frame ends before the record does.
    #[error("the record is longer than its frame")]
    Truncated,
    /// A length or count is negative (and not -1), or larger than the bytes that remain could hold.
    #[error("a length is negative or larger than the frame")]
    BadLength,
    /// A value is null where the protocol has no use for null.
    #[error("a value is null that must not be")]
    UnexpectedNull,
    /// A number stands for nothing: an unknown kind of operation, watch or mode.
    #[error("a number stands for no known kind")]
    UnknownKind,
}

/// A string of the wire: UTF-8 in shared bytes, cheap to clone.
///
/// Bytes that are not UTF-8 become U+FFFD when decoded, as in Java; no valid path holds that character.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    /// The empty string.
    pub const EMPTY: Text = Text(Bytes::from_static(b""));

    /// A string known at compile time.
    pub const fn from_static(text: &'static str) -> Text {
        Text(Bytes::from_static(text.as_bytes()))
    }

    /// The string.
    pub fn as_str(&self) -> &str {
        // Every constructor takes a `str` or checks the bytes; a second check per access is what the unsafe
        // alternative would save, and reading a path is cheap beside looking it up.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The string's bytes, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text(Bytes::from(text))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

/// Reads jute values one after the other from a frame. Cheap to make; holds no memory of its own.
pub struct Decoder<'a> {
    frame: &'a Bytes,
    rest: &'a [u8],
    canonical: bool,
}

impl<'a> Decoder<'a> {
    /// A decoder at the start of `frame`.
    pub fn new(frame: &'a Bytes) -> Decoder<'a> {
        Decoder {
            frame,
            rest: frame,
            canonical: true,
        }
    }

    /// Whether all that was read so far is what our encoder would have written. False after text that is not UTF-8, a
    /// bool other than 0 and 1, or numbers in a multi that nobody looks at, all of which Java accepts too.
    pub fn is_canonical(&self) -> bool {
        self.canonical
    }

    /// What was read last is not what our encoder writes, and is taken all the same.
    pub(super) fn be_lenient(&mut self) {
        self.canonical = false;
    }

    /// How many bytes have not been read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The bytes that have not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Leaves out `bytes` if they come next; says whether they do.
    pub fn skip(&mut self, bytes: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(bytes);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// All bytes that have not been read yet, as a slice of the frame. Leaves none.
    pub fn take_rest(&mut self) -> Bytes {
        let rest = self.frame.slice_ref(self.rest);
        self.rest = &[];
        rest
    }

    /// A bool: one byte; anything but 0 is true.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        let byte = self.parse(be_u8)?;
        self.canonical &= byte <= 1;
        Ok(byte != 0)
    }

    /// A 32-bit number.
    pub fn int(&mut self) -> Result<i32, Malformed> {
        self.parse(be_i32)
    }

    /// A 64-bit number.
    pub fn long(&mut self) -> Result<i64, Malformed> {
        self.parse(be_i64)
    }

    /// A buffer; `None` is null, which is not the same as empty.
    pub fn buffer(&mut self) -> Result<Option<Bytes>, Malformed> {
        match self.int()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| Malformed::BadLength)?;
                if length > self.rest.len() {
                    return Err(Malformed::BadLength);
                }
                let bytes = self.parse(take(length))?;
                Ok(Some(self.frame.slice_ref(bytes)))
            }
        }
    }

    /// A string; `None` is null.
    pub fn nullable_text(&mut self) -> Result<Option<Text>, Malformed> {
        let Some(bytes) = self.buffer()? else { return Ok(None) };
        if std::str::from_utf8(&bytes).is_ok() {
            return Ok(Some(Text(bytes)));
        }
        self.canonical = false;
        Ok(Some(Text::from(String::from_utf8_lossy(&bytes).into_owned())))
    }

    /// A string that must not be null.
    pub fn text(&mut self) -> Result<Text, Malformed> {
        self.nullable_text()?.ok_or(Malformed::UnexpectedNull)
    }

    /// Whether the next value is a null buffer, string or vector. Reads nothing.
    pub(super) fn is_null(&self) -> bool {
        self.rest.starts_with(&(-1_i32).to_be_bytes())
    }

    /// A string for which null is as good as empty.
    pub fn text_or_empty(&mut self) -> Result<Text, Malformed> {
        let text = self.nullable_text()?;
        if text.is_none() {
            self.be_lenient();
        }
        Ok(text.unwrap_or(Text::EMPTY))
    }

    /// A vector; `None` is null. `least_bytes` is the smallest size that one element can have: a count that the rest of
    /// the frame cannot hold is refused before anything is allocated.
    pub fn vector<T>(
        &mut self,
        least_bytes: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<Vec<T>>, Malformed> {
        match self.int()? {
            -1 => Ok(None),
            count => {
                let count = usize::try_from(count).map_err(|_| Malformed::BadLength)?;
                if count > self.rest.len() / least_bytes.max(1) {
                    return Err(Malformed::BadLength);
                }
                let mut elements = Vec::with_capacity(count);
                for _ in 0..count {
                    elements.push(element(self)?);
                }
                Ok(Some(elements))
            }
        }
    }

    fn parse<T, P>(&mut self, mut parser: P) -> Result<T, Malformed>
    where
        P: Parser<&'a [u8], Output = T, Error = nom::error::Error<&'a [u8]>>,
    {
        let parsed: IResult<&'a [u8], T> = parser.parse(self.rest);
        let (rest, value) = parsed.map_err(|_| Malformed::Truncated)?;
        self.rest = rest;
        Ok(value)
    }
}

/// Writes jute values at the end of a buffer.
pub trait Encode {
    /// A bool: one byte.
    fn write_bool(&mut self, value: bool);
    /// A 32-bit number.
    fn write_int(&mut self, value: i32);
    /// A 64-bit number.
    fn write_long(&mut self, value: i64);
    /// A buffer; `None` is null.
    fn write_buffer(&mut self, value: Option<&[u8]>);
    /// A string.
    fn write_text(&mut self, value: &str);
    /// The count in front of a vector's elements.
    fn write_count(&mut self, count: usize);
}

impl Encode for BytesMut {
    fn write_bool(&mut self, value: bool) {
        self.put_u8(u8::from(value));
    }
    fn write_int(&mut self, value: i32) {
        self.put_i32(value);
    }
    fn write_long(&mut self, value: i64) {
        self.put_i64(value);
    }
    fn write_buffer(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.put_i32(-1),
            Some(bytes) => {
                self.write_count(bytes.len());
                self.put_slice(bytes);
            }
        }
    }
    fn write_text(&mut self, value: &str) {
        self.write_buffer(Some(value.as_bytes()));
    }
    fn write_count(&mut self, count: usize) {
        // A length beyond 31 bits cannot be said on this wire. Requests are limited to megabytes, and a listing of so
        // many names is beyond what any client reads.
        self.put_i32(i32::try_from(count).expect("lengths fit into 31 bits: requests are limited to megabytes"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(write: impl FnOnce(&mut BytesMut)) -> Bytes {
        let mut out = BytesMut::new();
        write(&mut out);
        out.freeze()
    }

    #[test]
    fn null_and_empty_buffers_differ() {
        let frame = encoded(|out| {
            out.write_buffer(None);
            out.write_buffer(Some(b""));
        });
        let mut decoder = Decoder::new(&frame);
        assert_eq!(decoder.buffer(), Ok(None));
        assert_eq!(decoder.buffer(), Ok(Some(Bytes::new())));
        assert_eq!(decoder.remaining(), 0);
    }

    #[test]
    fn lengths_beyond_the_frame_are_refused_before_anything_is_allocated() {
        for length in [5, i32::MAX, -2, i32::MIN] {
            let frame = encoded(|out| {
                out.write_int(length);
                out.put_slice(b"four");
            });
            assert_eq!(Decoder::new(&frame).buffer(), Err(Malformed::BadLength));
            assert_eq!(Decoder::new(&frame).vector(1, Decoder::bool), Err(Malformed::BadLength));
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_replaced_and_told() {
        let frame = encoded(|out| out.write_buffer(Some(&[b'/', 0xff])));
        let mut decoder = Decoder::new(&frame);
        assert_eq!(decoder.text().unwrap().as_str(), "/\u{fffd}");
        assert!(!decoder.is_canonical());
    }

    #[test]
    fn null_that_counts_as_empty_text_is_told() {
        let frame = encoded(|out| {
            out.write_text("a");
            out.write_buffer(None);
        });
        let mut decoder = Decoder::new(&frame);
        assert_eq!(decoder.text_or_empty(), Ok(Text::from_static("a")));
        assert!(decoder.is_canonical() && decoder.is_null());
        assert_eq!(decoder.text_or_empty(), Ok(Text::EMPTY));
        assert!(!decoder.is_canonical());
    }

    #[test]
    fn a_payload_shares_the_memory_of_its_frame() {
        let frame = encoded(|out| out.write_buffer(Some(b"payload")));
        let payload = Decoder::new(&frame).buffer().unwrap().unwrap();
        assert_eq!(payload.as_ptr(), frame[4..].as_ptr());
    }
}
