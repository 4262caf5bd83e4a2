//! What two servers say before anything else.
//!
//! ```text
//!   dialler ── Hello{who I am, whom I want, for what} ──▶ acceptor
//!   dialler ◀── Hello{who I am}, or Refusal ───────────── acceptor
//!   dialler ── Agreed, or Refusal ──────────────────────▶ acceptor
//!
//!   each: magic [8] │ length u32 │ crc32c of the body u32 │ body [length] = kind u8 │ content
//!   Hello:   protocol version u32 │ cluster u64 │ server u64 │ incarnation u64 │ boot u64 │ addressee u64 │ purpose u8
//!   Refusal: code u8 │ text, UTF-8
//! ```
//!
//! Numbers are big-endian. Bytes behind the content that we know are those of a later version, and are ignored. Nothing is
//! read beyond the last byte of a word, so that the stream can go on in another form.

use super::LinkOptions;
use crate::net::tls;
use bytes::{Buf, BufMut};
use std::fmt;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::rustls;

/// The version of hellos and frames that we speak.
pub const PROTOCOL_VERSION: u32 = 1;
/// The oldest version that we still understand.
const OLDEST_VERSION: u32 = 1;

/// Begins every word. Its first byte is not that of a TLS record, nor the zero that ZooKeeper's own packets begin with.
const MAGIC: [u8; 8] = *b"MENAGER\n";
/// Bytes of a word's body at most; a longer one is refused before anything is allocated.
const BODY_BYTES: usize = 1024;
/// Bytes of a refusal's text at most; the rest is cut off.
const TEXT_BYTES: usize = 900;

const HELLO: u8 = 1;
const REFUSAL: u8 = 2;
const AGREED: u8 = 3;

/// Who a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The ensemble; 0: it belongs to none yet.
    pub cluster_id: u64,
    /// Its number in the ensemble.
    pub server: u64,
    /// The life of its data directory.
    pub incarnation: u64,
    /// Grows with every start of that life.
    pub boot: u64,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The dialler's messages.
    Messages,
    /// One snapshot.
    Snapshot,
}

/// A hello as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) protocol_version: u32,
    pub(super) hello: Hello,
    /// Whom it is meant for.
    pub(super) addressee: u64,
    pub(super) purpose: Purpose,
}

/// Why a server is not talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RefusalCode {
    /// It speaks another version.
    Version = 1,
    /// It belongs to another ensemble.
    Cluster = 2,
    /// Another server answers at its address.
    WrongServer = 3,
    /// It is we.
    Oneself = 4,
    /// It is no member.
    UnknownServer = 5,
    /// A later start of the same server has been met.
    OlderBoot = 6,
    /// Its data directory is not the one that is known for it.
    Identity = 7,
    /// This server is not ready to talk, or not any more.
    NotReady = 8,
    /// Its certificate is that of another host.
    Certificate = 9,
    /// A reason of a later version.
    Other = 255,
}

impl RefusalCode {
    const ALL: [RefusalCode; 10] = [
        RefusalCode::Version,
        RefusalCode::Cluster,
        RefusalCode::WrongServer,
        RefusalCode::Oneself,
        RefusalCode::UnknownServer,
        RefusalCode::OlderBoot,
        RefusalCode::Identity,
        RefusalCode::NotReady,
        RefusalCode::Certificate,
        RefusalCode::Other,
    ];

    /// The reason in a word, by which log lines about it are counted as the same.
    fn name(self) -> &'static str {
        match self {
            RefusalCode::Version => "version",
            RefusalCode::Cluster => "cluster",
            RefusalCode::WrongServer => "wrong server",
            RefusalCode::Oneself => "oneself",
            RefusalCode::UnknownServer => "unknown server",
            RefusalCode::OlderBoot => "older boot",
            RefusalCode::Identity => "identity",
            RefusalCode::NotReady => "not ready",
            RefusalCode::Certificate => "certificate",
            RefusalCode::Other => "other",
        }
    }

    fn of_number(number: u8) -> RefusalCode {
        let found = RefusalCode::ALL.into_iter().find(|code| *code as u8 == number);
        found.unwrap_or(RefusalCode::Other)
    }
}

/// A refusal, with what an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Why.
    pub code: RefusalCode,
    /// Why, and what to do, for both sides' logs: it says "server 3", not "you".
    pub text: String,
}

impl Refusal {
    /// A refusal; the peer gets the first 900 bytes of the text.
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Refusal {
        Refusal {
            code,
            text: text.into(),
        }
    }
}

/// Why no hello came about.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// Something else speaks there.
    #[error(
        "it does not speak the protocol of Menagerie's servers (it begins with {0}); is this a server's quorum port?"
    )]
    NotAPeer(String),
    /// Plain here, TLS there.
    #[error("it speaks TLS, and this server does not: sslQuorum must be the same on all servers")]
    Encrypted,
    /// The handshake of TLS.
    #[error(
        "TLS failed: {0}. sslQuorum must be the same on all servers, and each must trust the certificates of the others \
         (ssl.quorum.trustStore.location)"
    )]
    Tls(#[source] io::Error),
    /// A bit has changed on the way, or the peer is mad.
    #[error("its hello is damaged: {0}")]
    Damaged(&'static str),
    /// The peer does not want us.
    #[error("it refuses: {0}")]
    RefusedByPeer(Refusal),
    /// We do not want the peer.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// It took too long.
    #[error("its hello was not finished in time")]
    TooLate,
    /// The connection.
    #[error("the connection broke during the hello: {0}")]
    Broken(#[source] io::Error),
}

impl From<io::Error> for HelloError {
    /// What TLS complains about comes as an error of reading or writing, too: in TLS 1.3 a certificate is refused only after
    /// the handshake of the one who has shown it.
    fn from(error: io::Error) -> HelloError {
        if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
            HelloError::Tls(error)
        } else {
            HelloError::Broken(error)
        }
    }
}

impl HelloError {
    /// The reason in a word, by which log lines about it are counted as the same.
    pub(super) fn name(&self) -> &'static str {
        match self {
            HelloError::NotAPeer(_) => "no peer",
            HelloError::Encrypted => "encrypted",
            HelloError::Tls(_) => "tls",
            HelloError::Damaged(_) => "damaged",
            HelloError::RefusedByPeer(refusal) | HelloError::Refused(refusal) => refusal.code.name(),
            HelloError::TooLate => "too late",
            HelloError::Broken(_) => "broken",
        }
    }

    /// Whether one side does not want the other.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, HelloError::RefusedByPeer(_) | HelloError::Refused(_))
    }
}

/// One of the three things that can be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Hello(Greeting),
    Refusal(Refusal),
    Agreed,
}

impl Word {
    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64);
        match self {
            Word::Hello(greeting) => {
                body.put_u8(HELLO);
                body.put_u32(greeting.protocol_version);
                body.put_u64(greeting.hello.cluster_id);
                body.put_u64(greeting.hello.server);
                body.put_u64(greeting.hello.incarnation);
                body.put_u64(greeting.hello.boot);
                body.put_u64(greeting.addressee);
                body.put_u8(match greeting.purpose {
                    Purpose::Messages => 0,
                    Purpose::Snapshot => 1,
                });
            }
            Word::Refusal(refusal) => {
                body.put_u8(REFUSAL);
                body.put_u8(refusal.code as u8);
                body.put_slice(&refusal.text.as_bytes()[..refusal.text.floor_char_boundary(TEXT_BYTES)]);
            }
            Word::Agreed => body.put_u8(AGREED),
        }
        let mut word = Vec::with_capacity(MAGIC.len() + 8 + body.len());
        word.put_slice(&MAGIC);
        word.put_u32(body.len() as u32);
        word.put_u32(crc32c::crc32c(&body));
        word.put_slice(&body);
        word
    }

    fn decode(mut body: &[u8]) -> Option<Word> {
        match body.try_get_u8().ok()? {
            HELLO => {
                let protocol_version = body.try_get_u32().ok()?;
                let hello = Hello {
                    cluster_id: body.try_get_u64().ok()?,
                    server: body.try_get_u64().ok()?,
                    incarnation: body.try_get_u64().ok()?,
                    boot: body.try_get_u64().ok()?,
                };
                let addressee = body.try_get_u64().ok()?;
                let purpose = match body.try_get_u8().ok()? {
                    0 => Purpose::Messages,
                    1 => Purpose::Snapshot,
                    _ => return None,
                };
                Some(Word::Hello(Greeting {
                    protocol_version,
                    hello,
                    addressee,
                    purpose,
                }))
            }
            REFUSAL => Some(Word::Refusal(Refusal {
                code: RefusalCode::of_number(body.try_get_u8().ok()?),
                // It goes to the log: no control characters of a stranger.
                text: String::from_utf8_lossy(body).replace(char::is_control, " "),
            })),
            AGREED => Some(Word::Agreed),
            _ => None,
        }
    }
}

/// Says one word.
pub(super) async fn say<S: AsyncWrite + Unpin>(stream: &mut S, word: &Word) -> io::Result<()> {
    stream.write_all(&word.encode()).await?;
    stream.flush().await
}

/// Hears one word, and not a byte more.
pub(super) async fn hear<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Word, HelloError> {
    let mut magic = [0; MAGIC.len()];
    // In two steps: what is no server of ours may have only a few bytes to say.
    for part in [0..4, 4..MAGIC.len()] {
        stream.read_exact(&mut magic[part.clone()]).await?;
        if magic[part.clone()] != MAGIC[part.clone()] {
            return Err(stranger(&magic[..part.end]));
        }
    }
    let length = stream.read_u32().await? as usize;
    let checksum = stream.read_u32().await?;
    if length > BODY_BYTES {
        return Err(HelloError::Damaged("it is longer than any hello"));
    }
    let mut body = [0; BODY_BYTES];
    let body = &mut body[..length];
    stream.read_exact(body).await?;
    if crc32c::crc32c(body) != checksum {
        return Err(HelloError::Damaged("its checksum is wrong"));
    }
    Word::decode(body).ok_or(HelloError::Damaged("its content cannot be read"))
}

fn stranger(bytes: &[u8]) -> HelloError {
    if bytes.first() == Some(&tls::FIRST_BYTE) {
        return HelloError::Encrypted;
    }
    HelloError::NotAPeer(bytes.escape_ascii().to_string())
}

/// What can be said about a peer from the hellos alone. `ours` is this server's, `theirs` the other's.
pub(super) fn examine(ours: &Hello, theirs: &Greeting) -> Result<(), Refusal> {
    let peer = &theirs.hello;
    if theirs.protocol_version < OLDEST_VERSION {
        return Err(Refusal::new(
            RefusalCode::Version,
            format!(
                "server {} speaks version {} of the protocol between servers, server {} understands {OLDEST_VERSION} to \
                 {PROTOCOL_VERSION}: update server {0}",
                peer.server, theirs.protocol_version, ours.server
            ),
        ));
    }
    if ours.cluster_id != 0 && peer.cluster_id != 0 && ours.cluster_id != peer.cluster_id {
        return Err(Refusal::new(
            RefusalCode::Cluster,
            format!(
                "server {} belongs to the ensemble {:016x}, server {} to {:016x}: one of them has the wrong address of the \
                 other, or the data directory of another ensemble",
                peer.server, peer.cluster_id, ours.server, ours.cluster_id
            ),
        ));
    }
    Ok(())
}

/// What the acceptor says first to a hello.
pub(super) fn examine_caller(ours: &Hello, theirs: &Greeting) -> Result<(), Refusal> {
    if theirs.hello.server == ours.server {
        return Err(oneself(ours));
    }
    if theirs.addressee != ours.server {
        return Err(wrong_server(theirs.addressee, ours.server));
    }
    examine(ours, theirs)
}

/// What the dialler, who has called the server `called`, says to the answer.
pub(super) fn examine_answer(ours: &Hello, theirs: &Greeting, called: u64) -> Result<(), Refusal> {
    if theirs.hello.server == ours.server {
        return Err(oneself(ours));
    }
    if theirs.hello.server != called {
        return Err(wrong_server(called, theirs.hello.server));
    }
    examine(ours, theirs)
}

fn oneself(ours: &Hello) -> Refusal {
    Refusal::new(
        RefusalCode::Oneself,
        format!(
            "both ends say that they are server {}: two servers have the same myid, or a server.N line has the address of \
             another server",
            ours.server
        ),
    )
}

fn wrong_server(called: u64, found: u64) -> Refusal {
    Refusal::new(
        RefusalCode::WrongServer,
        format!("server {found} answers at the address of server {called}: correct the server.{called} line"),
    )
}

/// Puts the time limit of the options on a hello.
pub(super) async fn in_time<T>(
    options: &LinkOptions,
    hello: impl Future<Output = Result<T, HelloError>>,
) -> Result<T, HelloError> {
    let limited = tokio::time::timeout(options.hello_limit, hello).await;
    limited.unwrap_or(Err(HelloError::TooLate))
}

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hello {
            cluster_id,
            server,
            incarnation,
            boot,
        } = self;
        let life = format_args!("incarnation {incarnation:016x}, boot {boot}");
        match cluster_id {
            0 => write!(f, "server {server} of no ensemble yet, {life}"),
            _ => write!(f, "server {server} of ensemble {cluster_id:016x}, {life}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> impl Strategy<Value = Hello> {
        any::<(u64, u64, u64, u64)>().prop_map(|(cluster_id, server, incarnation, boot)| Hello {
            cluster_id,
            server,
            incarnation,
            boot,
        })
    }

    fn word() -> impl Strategy<Value = Word> {
        let purpose = prop_oneof![Just(Purpose::Messages), Just(Purpose::Snapshot)];
        let greeting = (any::<u32>(), hello(), any::<u64>(), purpose);
        let code = prop::sample::select(RefusalCode::ALL.to_vec());
        prop_oneof![
            greeting.prop_map(|(protocol_version, hello, addressee, purpose)| Word::Hello(Greeting {
                protocol_version,
                hello,
                addressee,
                purpose
            })),
            (code, "[a-zä ]{0,300}").prop_map(|(code, text)| Word::Refusal(Refusal { code, text })),
            Just(Word::Agreed),
        ]
    }

    fn heard(mut bytes: &[u8]) -> Result<Word, HelloError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(hear(&mut bytes))
    }

    proptest! {
        #[test]
        fn what_is_said_is_heard(word in word()) {
            prop_assert_eq!(heard(&word.encode()).unwrap(), word);
        }

        #[test]
        fn a_changed_byte_is_noticed(word in word(), place in any::<prop::sample::Index>(), change in 1..=u8::MAX) {
            let mut bytes = word.encode();
            let place = place.index(bytes.len());
            bytes[place] ^= change;
            prop_assert!(heard(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_heard_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(heard(&bytes).is_err());
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend(&bytes);
            let _ = heard(&with_magic);
            let _ = Word::decode(&bytes);
        }
    }

    #[test]
    fn the_bytes_of_a_hello_do_not_change() {
        let greeting = Greeting {
            protocol_version: 1,
            hello: Hello {
                cluster_id: 2,
                server: 3,
                incarnation: 4,
                boot: 5,
            },
            addressee: 6,
            purpose: Purpose::Snapshot,
        };
        let bytes = Word::Hello(greeting).encode();
        let body = [
            &[1, 0, 0, 0, 1][..],
            &[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3],
            &[0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5],
            &[0, 0, 0, 0, 0, 0, 0, 6, 1],
        ]
        .concat();
        assert_eq!(bytes[..8], *b"MENAGER\n");
        assert_eq!(bytes[8..12], (body.len() as u32).to_be_bytes());
        assert_eq!(bytes[12..16], crc32c::crc32c(&body).to_be_bytes());
        assert_eq!(bytes[16..], body);
    }

    #[test]
    fn what_a_later_version_adds_is_ignored() {
        let mut body = Word::Agreed.encode()[16..].to_vec();
        body.extend(b"more");
        assert_eq!(Word::decode(&body), Some(Word::Agreed));
    }

    #[test]
    fn strangers_are_told_by_what_they_say() {
        let told = |bytes: &[u8]| heard(bytes).unwrap_err().to_string();
        assert!(told(b"\x16\x03\x01\x02\x00\x01").contains("sslQuorum"));
        assert!(told(b"ruok").contains("ruok"));
        assert!(told(b"\0\0\0\x2d\0\0\0\0").contains("quorum port"));
    }

    #[test]
    fn a_long_refusal_is_cut() {
        let refusal = Refusal::new(RefusalCode::Identity, "ä".repeat(2000));
        let Word::Refusal(heard) = heard(&Word::Refusal(refusal).encode()).unwrap() else {
            panic!("no refusal");
        };
        assert_eq!(heard.text, "ä".repeat(450));
    }

    #[test]
    fn hellos_that_do_not_fit_are_refused() {
        let ours = Hello {
            cluster_id: 7,
            server: 1,
            incarnation: 10,
            boot: 1,
        };
        let fitting = Greeting {
            protocol_version: PROTOCOL_VERSION,
            hello: Hello {
                cluster_id: 7,
                server: 2,
                incarnation: 20,
                boot: 1,
            },
            addressee: 1,
            purpose: Purpose::Messages,
        };
        let with = |change: &dyn Fn(&mut Greeting)| {
            let mut greeting = fitting;
            change(&mut greeting);
            greeting
        };
        let code = |result: Result<(), Refusal>| result.err().map(|refusal| refusal.code);
        let caller = |change: &dyn Fn(&mut Greeting)| code(examine_caller(&ours, &with(change)));
        let answer = |change: &dyn Fn(&mut Greeting)| code(examine_answer(&ours, &with(change), 2));
        for examine in [&caller as &dyn Fn(&dyn Fn(&mut Greeting)) -> _, &answer] {
            assert_eq!(examine(&|_| {}), None);
            assert_eq!(
                examine(&|greeting| greeting.hello.cluster_id = 0),
                None,
                "it knows none yet"
            );
            assert_eq!(examine(&|greeting| greeting.protocol_version = 9), None, "it decides");
            assert_eq!(
                examine(&|greeting| greeting.protocol_version = 0),
                Some(RefusalCode::Version)
            );
            assert_eq!(
                examine(&|greeting| greeting.hello.cluster_id = 8),
                Some(RefusalCode::Cluster)
            );
            assert_eq!(
                examine(&|greeting| greeting.hello.server = 1),
                Some(RefusalCode::Oneself)
            );
        }
        assert_eq!(
            caller(&|greeting| greeting.addressee = 3),
            Some(RefusalCode::WrongServer)
        );
        assert_eq!(
            answer(&|greeting| greeting.hello.server = 3),
            Some(RefusalCode::WrongServer)
        );
    }
}
