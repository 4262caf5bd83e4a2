//! What the sessions ask for: a [`Load`] gives them requests. One per kind of row, the znodes that it needs, and the shape
//! of its replies; sections have loads of their own.
//!
//! Every znode that is read or overwritten holds [`VALUE`]; keys are drawn from [`KEYS`] znodes by a small generator
//! with a fixed seed, so that both servers get the same sequence.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::wire::{self, REPLY_HEADER_BYTES, STAT_BYTES, op};

/// 100 bytes, as in every row of the table.
pub(crate) const VALUE: &[u8; 100] = &[b'v'; 100];
/// Znodes that reads and overwrites spread over.
pub(crate) const KEYS: u32 = 10_000;
/// Children of the listed znode.
pub(crate) const LISTED_CHILDREN: u32 = 100;
/// Children of the wide znode.
pub(crate) const WIDE_CHILDREN: u32 = 100_000;
/// A mebibyte, less what path and header need below the default `jute.maxbuffer` of a mebibyte less one.
pub(crate) const LARGE_VALUE_BYTES: usize = (1 << 20) - 1024;
/// Znodes of that size that reads spread over.
pub(crate) const LARGE_KEYS: u32 = 50;
/// Children under each parent of the memory row.
pub(crate) const CHILDREN_PER_PARENT: u32 = 1_000;
/// The xid of every ping and its answer.
const PING_XID: i32 = -2;
/// Operations in one multi.
const MULTI_OPERATIONS: usize = 10;

const GET_REPLY_BYTES: usize = REPLY_HEADER_BYTES + 4 + VALUE.len() + STAT_BYTES;
const LARGE_GET_REPLY_BYTES: usize = REPLY_HEADER_BYTES + 4 + LARGE_VALUE_BYTES + STAT_BYTES;
const SET_REPLY_BYTES: usize = REPLY_HEADER_BYTES + STAT_BYTES;
/// A multi's reply: a header of nine bytes and a Stat each, and the closing header.
const MULTI_REPLY_BYTES: usize = REPLY_HEADER_BYTES + MULTI_OPERATIONS * (9 + STAT_BYTES) + 9;

/// The operation that a row repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// setData on a random key.
    Set,
    /// create of a new znode under the session's own parent.
    Create,
    /// getData on a random key.
    Get,
    /// nine getData to one setData.
    Mixed,
    /// a multi of ten setData.
    Multi,
    /// getChildren of a znode with a hundred children.
    Children,
    /// opening and closing a session, its connection included.
    Sessions,
    /// The mix of a production cluster: get 38 %, create 34 %, multi 11 %, set 9 %, list 4 %, delete 4 %.
    Production,
    /// getChildren of a znode with a hundred thousand children.
    Wide,
    /// setData of a mebibyte on the session's own znode.
    Large,
    /// getData of a mebibyte.
    LargeGet,
    /// The client's sign of life.
    Ping,
}

impl Kind {
    pub(crate) const ALL: [(&'static str, Kind); 12] = [
        ("set", Kind::Set),
        ("create", Kind::Create),
        ("get", Kind::Get),
        ("mixed", Kind::Mixed),
        ("multi", Kind::Multi),
        ("children", Kind::Children),
        ("sessions", Kind::Sessions),
        ("production", Kind::Production),
        ("wide", Kind::Wide),
        ("large", Kind::Large),
        ("largeget", Kind::LargeGet),
        ("ping", Kind::Ping),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("?", |(name, _)| name)
    }

    /// The name for a reader of the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::Set => "setData",
            Kind::Create => "create",
            Kind::Get => "getData",
            Kind::Mixed => "mixed 90/10",
            Kind::Multi => "multi of 10 setData",
            Kind::Children => "getChildren of 100",
            Kind::Sessions => "session open + close",
            Kind::Production => "production mix",
            Kind::Wide => "getChildren of 100,000",
            Kind::Large => "setData of 1 MiB",
            Kind::LargeGet => "getData of 1 MiB",
            Kind::Ping => "ping",
        }
    }

    /// Whether it changes the tree.
    pub(crate) fn is_write(self) -> bool {
        use Kind::{Children, Get, LargeGet, Mixed, Ping, Wide};
        !matches!(self, Get | LargeGet | Mixed | Children | Wide | Ping)
    }
}

/// What one session remembers between its requests.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Number of the session in its fleet.
    pub(crate) session: u32,
    random: u64,
    created: u32,
    deleted: u32,
}

impl Place {
    pub(crate) fn new(session: u32) -> Self {
        let random = 0x9e37_79b9_7f4a_7c15 ^ (u64::from(session) + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self {
            session,
            random,
            created: 0,
            deleted: 0,
        }
    }

    /// The next of a xorshift sequence, below `bound`.
    pub(crate) fn draw(&mut self, bound: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// A stream of requests for a fleet of sessions.
pub(crate) trait Load: Send {
    /// Appends one request, or nothing when the load is exhausted; returns whether it did.
    fn append(&mut self, place: &mut Place, xid: i32, out: &mut Vec<u8>) -> bool;

    /// Checks the size of a successful reply: the cheapest proof that the server did what it was asked.
    fn expects(&self, payload: &[u8]) -> bool;

    /// The xid of a session's request with this number.
    fn xid(&self, number: i32) -> i32 {
        number
    }
}

/// An endless row.
#[derive(Debug)]
pub(crate) struct RowLoad {
    pub(crate) kind: Kind,
    /// Keeps the names that it creates apart from those of earlier rows.
    pub(crate) generation: u32,
    large: Vec<u8>,
}

impl RowLoad {
    pub(crate) fn new(kind: Kind, generation: u32) -> Self {
        let large_bytes = if kind == Kind::Large { LARGE_VALUE_BYTES } else { 0 };
        Self {
            kind,
            generation,
            large: vec![b'l'; large_bytes],
        }
    }
}

impl Load for RowLoad {
    fn append(&mut self, place: &mut Place, xid: i32, out: &mut Vec<u8>) -> bool {
        if self.kind == Kind::Large {
            let path = large_path(place.session);
            wire::request(out, xid, op::SET_DATA, |out| {
                wire::set_data_body(out, &path, &self.large)
            });
        } else {
            append_for_row(self.kind, self.generation, place, xid, out);
        }
        true
    }

    fn expects(&self, payload: &[u8]) -> bool {
        let bytes = payload.len();
        match self.kind {
            Kind::Set | Kind::Large => bytes == SET_REPLY_BYTES,
            Kind::Get => bytes == GET_REPLY_BYTES,
            Kind::LargeGet => bytes == LARGE_GET_REPLY_BYTES,
            Kind::Mixed => bytes == SET_REPLY_BYTES || bytes == GET_REPLY_BYTES,
            Kind::Multi => bytes == MULTI_REPLY_BYTES,
            Kind::Create => bytes > REPLY_HEADER_BYTES + 4,
            Kind::Children => wire::i32_at(payload, REPLY_HEADER_BYTES) == Some(LISTED_CHILDREN as i32),
            Kind::Wide => wire::i32_at(payload, REPLY_HEADER_BYTES) == Some(WIDE_CHILDREN as i32),
            Kind::Ping => bytes == REPLY_HEADER_BYTES,
            // A delete has an empty reply.
            Kind::Sessions | Kind::Production => true,
        }
    }

    fn xid(&self, number: i32) -> i32 {
        if self.kind == Kind::Ping { PING_XID } else { number }
    }
}

/// A row that ends when it is told to.
#[derive(Debug)]
pub(crate) struct UntilToldTo {
    pub(crate) load: RowLoad,
    pub(crate) ended: Arc<AtomicBool>,
}

impl Load for UntilToldTo {
    fn append(&mut self, place: &mut Place, xid: i32, out: &mut Vec<u8>) -> bool {
        !self.ended.load(Ordering::Relaxed) && self.load.append(place, xid, out)
    }

    fn expects(&self, payload: &[u8]) -> bool {
        self.load.expects(payload)
    }

    fn xid(&self, number: i32) -> i32 {
        self.load.xid(number)
    }
}

/// One request for each number of a range, whichever session comes next.
#[derive(Debug)]
pub(crate) struct Numbered {
    pub(crate) what: Step,
    pub(crate) next: u32,
    pub(crate) end: u32,
}

/// What is done with each number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Creates the znode of the memory row, under parent number / 1000.
    Fill,
    /// Arms a data watch on it.
    Watch,
}

impl Load for Numbered {
    fn append(&mut self, _: &mut Place, xid: i32, out: &mut Vec<u8>) -> bool {
        if self.next == self.end {
            return false;
        }
        let path = fill_path(self.next);
        match self.what {
            Step::Fill => wire::request(out, xid, op::CREATE, |out| wire::create_body(out, &path, VALUE)),
            Step::Watch => wire::request(out, xid, op::GET_DATA, |out| wire::read_body(out, &path, true)),
        }
        self.next += 1;
        true
    }

    fn expects(&self, payload: &[u8]) -> bool {
        payload.len() > REPLY_HEADER_BYTES + 4
    }
}

fn append_for_row(kind: Kind, generation: u32, place: &mut Place, xid: i32, out: &mut Vec<u8>) {
    match kind {
        Kind::Set => append_set(place, xid, out),
        Kind::Get => append_get(place, xid, out),
        Kind::Mixed if place.draw(10) == 0 => append_set(place, xid, out),
        Kind::Mixed => append_get(place, xid, out),
        Kind::Create => append_create(generation, place, xid, out),
        Kind::Multi => append_multi(place, xid, out),
        Kind::Children => wire::request(out, xid, op::GET_CHILDREN, |out| {
            wire::read_body(out, LIST_PARENT, false)
        }),
        Kind::Production => match place.draw(100) {
            0..38 => append_get(place, xid, out),
            38..72 => append_create(generation, place, xid, out),
            72..83 => append_multi(place, xid, out),
            83..92 => append_set(place, xid, out),
            92..96 => wire::request(out, xid, op::GET_CHILDREN, |out| {
                wire::read_body(out, LIST_PARENT, false)
            }),
            // Only what this session has asked to create before: its requests are executed in order.
            _ if place.deleted < place.created => {
                let path = created_path(generation, place.session, place.deleted);
                place.deleted += 1;
                wire::request(out, xid, op::DELETE, |out| wire::delete_body(out, &path));
            }
            _ => append_create(generation, place, xid, out),
        },
        Kind::Wide => wire::request(out, xid, op::GET_CHILDREN, |out| {
            wire::read_body(out, WIDE_PARENT, false)
        }),
        Kind::LargeGet => {
            let path = large_read_path(place.draw(LARGE_KEYS));
            wire::request(out, xid, op::GET_DATA, |out| wire::read_body(out, &path, false));
        }
        Kind::Ping => wire::request(out, xid, op::PING, |_| ()),
        Kind::Sessions | Kind::Large => unreachable!("`churn` opens sessions, and `RowLoad` knows the large value"),
    }
}

fn append_set(place: &mut Place, xid: i32, out: &mut Vec<u8>) {
    let path = key_path(place.draw(KEYS));
    wire::request(out, xid, op::SET_DATA, |out| wire::set_data_body(out, &path, VALUE));
}

fn append_get(place: &mut Place, xid: i32, out: &mut Vec<u8>) {
    let path = key_path(place.draw(KEYS));
    wire::request(out, xid, op::GET_DATA, |out| wire::read_body(out, &path, false));
}

fn append_create(generation: u32, place: &mut Place, xid: i32, out: &mut Vec<u8>) {
    let path = created_path(generation, place.session, place.created);
    place.created += 1;
    wire::request(out, xid, op::CREATE, |out| wire::create_body(out, &path, VALUE));
}

fn append_multi(place: &mut Place, xid: i32, out: &mut Vec<u8>) {
    wire::request(out, xid, op::MULTI, |out| {
        for _ in 0..MULTI_OPERATIONS {
            wire::multi_header(out, op::SET_DATA, false);
            wire::set_data_body(out, &key_path(place.draw(KEYS)), VALUE);
        }
        wire::multi_header(out, -1, true);
    });
}

const LARGE_READ_PARENT: &[u8] = b"/bench/large-read";
const LIST_PARENT: &[u8] = b"/bench/list";
const WIDE_PARENT: &[u8] = b"/bench/wide";

/// The paths that must exist before rows run, in the order of their creation, with their values.
pub(crate) fn common_paths() -> impl Iterator<Item = Vec<u8>> {
    let roots = ["/bench", "/bench/k", "/bench/c", "/bench/list"].map(|path| path.as_bytes().to_vec());
    let keys = (0..KEYS).map(|key| key_path(key).to_vec());
    let listed = (0..LISTED_CHILDREN).map(|child| format!("/bench/list/child-{child:08}").into_bytes());
    roots.into_iter().chain(keys).chain(listed)
}

/// The value of the znodes that a row needs beyond the common paths.
pub(crate) fn row_value(kind: Kind) -> Vec<u8> {
    match kind {
        Kind::LargeGet => vec![b'l'; LARGE_VALUE_BYTES],
        _ => VALUE.to_vec(),
    }
}

/// What a row needs beyond the common paths. Where the last one is there, the others are.
pub(crate) fn row_paths(kind: Kind, generation: u32, sessions: u32) -> Vec<Vec<u8>> {
    match kind {
        Kind::Create | Kind::Production => (0..sessions)
            .map(|session| created_path(generation, session, 0)[..CREATED_PARENT_BYTES].to_vec())
            .collect(),
        Kind::Wide => {
            let children = (0..WIDE_CHILDREN).map(|child| format!("/bench/wide/child-{child:08}").into_bytes());
            std::iter::once(WIDE_PARENT.to_vec()).chain(children).collect()
        }
        Kind::Large => {
            let znodes = (0..sessions).map(|session| large_path(session).to_vec());
            std::iter::once(b"/bench/large".to_vec()).chain(znodes).collect()
        }
        Kind::LargeGet => {
            let znodes = (0..LARGE_KEYS).map(|key| large_read_path(key).to_vec());
            std::iter::once(LARGE_READ_PARENT.to_vec()).chain(znodes).collect()
        }
        _ => Vec::new(),
    }
}

/// The parents of the first `znodes` of the memory row, and their root.
pub(crate) fn fill_parents(znodes: u32) -> impl Iterator<Item = Vec<u8>> {
    let parents = (0..znodes.div_ceil(CHILDREN_PER_PARENT))
        .map(|parent| fill_path(parent * CHILDREN_PER_PARENT)[..FILL_PARENT_BYTES].to_vec());
    std::iter::once(b"/fill".to_vec()).chain(parents)
}

const FILL_PARENT_BYTES: usize = "/fill/p000000".len();

/// The path of the memory row's znode `number`.
pub(crate) fn fill_path(number: u32) -> [u8; 27] {
    let mut path = *b"/fill/p000000/node-00000000";
    digits(&mut path[7..13], number / CHILDREN_PER_PARENT);
    digits(&mut path[19..27], number);
    path
}

fn key_path(key: u32) -> [u8; 15] {
    let mut path = *b"/bench/k/000000";
    digits(&mut path[9..15], key);
    path
}

fn large_path(session: u32) -> [u8; 18] {
    let mut path = *b"/bench/large/00000";
    digits(&mut path[13..18], session);
    path
}

fn large_read_path(key: u32) -> [u8; 23] {
    let mut path = *b"/bench/large-read/00000";
    digits(&mut path[18..23], key);
    path
}

const CREATED_PARENT_BYTES: usize = "/bench/c/0000-00000".len();

fn created_path(generation: u32, session: u32, number: u32) -> [u8; 28] {
    let mut path = *b"/bench/c/0000-00000/00000000";
    digits(&mut path[9..13], generation);
    digits(&mut path[14..19], session);
    digits(&mut path[20..28], number);
    path
}

/// Writes `number` in decimal over the whole of `place`, zero-padded.
fn digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    debug_assert_eq!(number, 0, "the number needs more digits than the path has");
}
