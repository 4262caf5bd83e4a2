//! A jute client of its own: sockets, frames and records, written from the protocol's description alone.
//!
//! It shares no line with the library's codec, so that an error there cannot hide by being made twice. It is blocking
//! and small on purpose: one socket, frames out, frames in. What a frame means stands in `reply.rs`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a server may take for one answer before the sequence is given up. Generous: it is only ever waited out
/// when an answer is missing altogether.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest frame that a server may send us; a longer one is taken for a broken length.
const LARGEST_FRAME_BYTES: usize = 64 << 20;

/// Builds the body of a request, field by field.
#[derive(Default)]
pub struct Writer {
    /// What has been written so far.
    pub bytes: Vec<u8>,
}

impl Writer {
    /// A 32-bit integer, big endian.
    pub fn int(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// A 64-bit integer, big endian.
    pub fn long(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// One byte, 0 or 1.
    pub fn boolean(&mut self, value: bool) {
        self.bytes.push(u8::from(value));
    }

    /// Length and bytes; `None` is the length -1.
    pub fn buffer(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.int(-1),
            Some(bytes) => {
                self.int(i32::try_from(bytes.len()).expect("test data is small"));
                self.bytes.extend_from_slice(bytes);
            }
        }
    }

    /// As [`Writer::buffer`], in UTF-8.
    pub fn string(&mut self, value: Option<&str>) {
        self.buffer(value.map(str::as_bytes));
    }

    /// A count and that many strings.
    pub fn strings(&mut self, values: &[String]) {
        self.int(i32::try_from(values.len()).expect("test vectors are small"));
        for value in values {
            self.string(Some(value));
        }
    }

    /// The body of a create; everybody may do everything with the znode.
    #[allow(dead_code)] // Not every test has need of it.
    pub fn create(&mut self, path: &str, data: &[u8], flags: i32) {
        self.string(Some(path));
        self.buffer(Some(data));
        self.int(1);
        self.int(31);
        self.string(Some("world"));
        self.string(Some("anyone"));
        self.int(flags);
    }

    /// The body of a setData; `version` is -1 for any.
    #[allow(dead_code)] // Likewise.
    pub fn set(&mut self, path: &str, data: &[u8], version: i32) {
        self.string(Some(path));
        self.buffer(Some(data));
        self.int(version);
    }
}

/// A record that is not what the protocol promises: the text says which field.
#[derive(Debug)]
pub struct Malformed(pub String);

/// Reads the fields of a reply, in order.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes have not been read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, count: usize, field: &str) -> Result<&'a [u8], Malformed> {
        if self.rest.len() < count {
            return Err(Malformed(format!(
                "{field}: {count} bytes wanted, {} left",
                self.rest.len()
            )));
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    /// A 32-bit integer.
    pub fn int(&mut self, field: &str) -> Result<i32, Malformed> {
        let bytes = self.take(4, field)?;
        Ok(i32::from_be_bytes(bytes.try_into().expect("four bytes were taken")))
    }

    /// A 64-bit integer.
    pub fn long(&mut self, field: &str) -> Result<i64, Malformed> {
        let bytes = self.take(8, field)?;
        Ok(i64::from_be_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    /// One byte that must be 0 or 1.
    pub fn boolean(&mut self, field: &str) -> Result<bool, Malformed> {
        match self.take(1, field)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Malformed(format!("{field}: {other} is no boolean"))),
        }
    }

    /// A buffer, `None` if its length is -1.
    pub fn buffer(&mut self, field: &str) -> Result<Option<&'a [u8]>, Malformed> {
        match self.int(field)? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => self.take(length, field).map(Some),
                Err(_) => Err(Malformed(format!("{field}: length {length}"))),
            },
        }
    }

    /// A string. Java writes a character beyond U+FFFF as its two surrogates, three bytes each; ours writes UTF-8, which
    /// every other client expects. That counts as the same. What is neither is shown as escapes: a wrong encoding has to
    /// be visible, not fatal.
    pub fn string(&mut self, field: &str) -> Result<Option<String>, Malformed> {
        let Some(bytes) = self.buffer(field)? else {
            return Ok(None);
        };
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => surrogates_joined(bytes).unwrap_or_else(|| format!("not UTF-8: {}", bytes.escape_ascii())),
        };
        Ok(Some(text))
    }

    /// The count of a vector.
    pub fn count(&mut self, field: &str) -> Result<usize, Malformed> {
        let count = self.int(field)?;
        usize::try_from(count).map_err(|_| Malformed(format!("{field}: count {count}")))
    }
}

/// UTF-8 in which surrogates stand for themselves.
fn surrogates_joined(bytes: &[u8]) -> Option<String> {
    let mut units: Vec<u16> = Vec::new();
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let (length, lead) = match first {
            0..0x80 => (1, *first),
            0xc0..0xe0 => (2, first & 0x1f),
            0xe0..0xf0 => (3, first & 0x0f),
            _ => return None,
        };
        let (character, after) = rest.split_at_checked(length)?;
        units.push(
            character[1..]
                .iter()
                .fold(u16::from(lead), |unit, byte| unit << 6 | u16::from(byte & 0x3f)),
        );
        rest = after;
    }
    String::from_utf16(&units).ok()
}

/// What came from the server.
#[derive(Debug)]
pub enum Received {
    /// The payload of one frame.
    Frame(Vec<u8>),
    /// The server closed the connection (an orderly end or a reset: a client cannot rely on either).
    Closed,
    /// Nothing for [`ANSWER_TIMEOUT`], or what [`Connection::set_patience`] has set.
    Silence,
}

/// The handshake that a connection starts with.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// The highest zxid that the client has seen.
    pub last_zxid_seen: i64,
    /// The timeout that it asks for.
    pub timeout_ms: i32,
    /// 0 for a new session.
    pub session_id: i64,
    /// Empty for a new session.
    pub password: Vec<u8>,
    /// Whether the trailing `readOnly` byte is sent at all; clients up to 3.3 do not.
    pub with_read_only_byte: bool,
    /// Frames of requests that are sent in the same segment, without waiting for the answer.
    pub behind: Vec<u8>,
}

/// The server's answer to a handshake.
#[derive(Debug)]
pub struct Welcome {
    /// Negotiated; 0 when the session is not alive.
    pub timeout_ms: i32,
    /// The session.
    pub session_id: i64,
    /// To resume it with.
    pub password: Vec<u8>,
    /// The last byte, if the answer had one.
    pub read_only: Option<bool>,
}

/// One socket to a server.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens a socket and sends nothing.
    pub fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// How long [`Connection::receive`] waits before it says [`Received::Silence`]; it can be called again then.
    #[allow(
        dead_code,
        reason = "the fault test waits in small steps; the differential test does not"
    )]
    pub fn set_patience(&self, patience: Duration) -> std::io::Result<()> {
        self.stream.set_read_timeout(Some(patience))
    }

    /// Sends a handshake and reads its answer; `None` if the server closed instead of answering.
    pub fn shake_hands(&mut self, handshake: &Handshake) -> Result<Option<Welcome>, Malformed> {
        self.offer_hand(handshake);
        self.welcome()
    }

    /// Sends a handshake.
    pub fn offer_hand(&mut self, handshake: &Handshake) {
        let mut body = Writer::default();
        body.int(0);
        body.long(handshake.last_zxid_seen);
        body.int(handshake.timeout_ms);
        body.long(handshake.session_id);
        body.buffer(Some(&handshake.password));
        if handshake.with_read_only_byte {
            body.boolean(false);
        }
        let mut bytes = framed(&body.bytes);
        bytes.extend_from_slice(&handshake.behind);
        self.send(&bytes);
    }

    /// Reads the answer to a handshake; `None` if the server closed instead of answering.
    pub fn welcome(&mut self) -> Result<Option<Welcome>, Malformed> {
        let frame = match self.receive() {
            Received::Frame(frame) => frame,
            Received::Closed => return Ok(None),
            Received::Silence => return Err(Malformed("no answer to the handshake".to_owned())),
        };
        let mut reader = Reader::new(&frame);
        let version = reader.int("protocolVersion")?;
        if version != 0 {
            return Err(Malformed(format!("protocolVersion {version}")));
        }
        let welcome = Welcome {
            timeout_ms: reader.int("timeOut")?,
            session_id: reader.long("sessionId")?,
            password: reader.buffer("passwd")?.unwrap_or_default().to_vec(),
            read_only: if reader.remaining() == 0 {
                None
            } else {
                Some(reader.boolean("readOnly")?)
            },
        };
        match reader.remaining() {
            0 => Ok(Some(welcome)),
            more => Err(Malformed(format!("{more} bytes behind the handshake's answer"))),
        }
    }

    /// Sends bytes. A connection that the server has closed swallows them: the next [`Connection::receive`] tells.
    pub fn send(&mut self, bytes: &[u8]) {
        // A write to a closed socket fails with one of several errors, or not at all; which one is no difference.
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame, waiting for it.
    pub fn receive(&mut self) -> Received {
        loop {
            if let Some(frame) = self.take_frame() {
                return Received::Frame(frame);
            }
            let mut chunk = [0; 64 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Received::Closed,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Received::Silence;
                }
                Err(_) => return Received::Closed,
            }
        }
    }

    fn take_frame(&mut self) -> Option<Vec<u8>> {
        let length = u32::from_be_bytes(self.buffer.get(..4)?.try_into().ok()?) as usize;
        assert!(
            length <= LARGEST_FRAME_BYTES,
            "the server announced a frame of {length} bytes"
        );
        let frame = self.buffer.get(4..4 + length)?.to_vec();
        self.buffer.drain(..4 + length);
        Some(frame)
    }

    /// Closes the socket from our side, at once.
    pub fn drop_now(self) {
        // The socket is going away; whether the other side had closed it first does not matter.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// A payload with its length in front.
pub fn framed(payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.buffer(Some(payload));
    writer.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_and_utf8_write_the_same_text() {
        for bytes in ["/é€😀".as_bytes(), b"/\xc3\xa9\xe2\x82\xac\xed\xa0\xbd\xed\xb8\x80"] {
            let mut writer = Writer::default();
            writer.buffer(Some(bytes));
            assert_eq!(
                Reader::new(&writer.bytes).string("text").unwrap().as_deref(),
                Some("/é€😀")
            );
        }
    }
}
