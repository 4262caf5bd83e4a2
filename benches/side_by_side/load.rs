//! What the sessions ask for: one [`Load`] per kind of row, the znodes that it needs, and the shape of its replies.
//!
//! Every znode that is read or overwritten holds [`VALUE`]; keys are drawn from [`KEYS`] znodes by a small generator
//! with a fixed seed, so that both servers get the same sequence.

use crate::wire::{self, REPLY_HEADER_BYTES, STAT_BYTES, op};

/// 100 bytes, as in every row of the table.
pub(crate) const VALUE: &[u8; 100] = &[b'v'; 100];
/// Znodes that reads and overwrites spread over.
pub(crate) const KEYS: u32 = 10_000;
/// Children of the listed znode.
pub(crate) const LISTED_CHILDREN: u32 = 100;
/// Children under each parent of the memory row.
pub(crate) const CHILDREN_PER_PARENT: u32 = 1_000;
/// Operations in one multi.
const MULTI_OPERATIONS: usize = 10;

const GET_REPLY_BYTES: usize = REPLY_HEADER_BYTES + 4 + VALUE.len() + STAT_BYTES;
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
}

impl Kind {
    pub(crate) const ALL: [(&'static str, Kind); 8] = [
        ("set", Kind::Set),
        ("create", Kind::Create),
        ("get", Kind::Get),
        ("mixed", Kind::Mixed),
        ("multi", Kind::Multi),
        ("children", Kind::Children),
        ("sessions", Kind::Sessions),
        ("production", Kind::Production),
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
        }
    }

    /// Whether the row makes znodes that nobody removes.
    pub(crate) fn grows_the_tree(self) -> bool {
        matches!(self, Kind::Create | Kind::Production)
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
    fn draw(&mut self, bound: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// A stream of requests for a fleet of sessions.
#[derive(Debug)]
pub(crate) enum Load {
    /// An endless row. `generation` keeps the names that it creates apart from those of earlier rows.
    Row { kind: Kind, generation: u32 },
    /// Ends after `end`: creates the znodes of the memory row, numbered, each under parent number / 1000.
    Fill { next: u32, end: u32 },
}

impl Load {
    /// Appends one request, or nothing when the load is exhausted; returns whether it did.
    pub(crate) fn append(&mut self, place: &mut Place, xid: i32, out: &mut Vec<u8>) -> bool {
        match self {
            Load::Row { kind, generation } => append_for_row(*kind, *generation, place, xid, out),
            Load::Fill { next, end } => {
                if next == end {
                    return false;
                }
                wire::request(out, xid, op::CREATE, |out| {
                    wire::create_body(out, &fill_path(*next), VALUE)
                });
                *next += 1;
            }
        }
        true
    }

    /// Checks the size of a successful reply: the cheapest proof that the server did what it was asked.
    pub(crate) fn expects(&self, payload: &[u8]) -> bool {
        let bytes = payload.len();
        let Load::Row { kind, .. } = self else {
            return bytes > REPLY_HEADER_BYTES + 4;
        };
        match kind {
            Kind::Set => bytes == SET_REPLY_BYTES,
            Kind::Get => bytes == GET_REPLY_BYTES,
            Kind::Mixed => bytes == SET_REPLY_BYTES || bytes == GET_REPLY_BYTES,
            Kind::Multi => bytes == MULTI_REPLY_BYTES,
            Kind::Create => bytes > REPLY_HEADER_BYTES + 4,
            Kind::Children => wire::i32_at(payload, REPLY_HEADER_BYTES) == Some(LISTED_CHILDREN as i32),
            // A delete has an empty reply.
            Kind::Sessions | Kind::Production => true,
        }
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
        Kind::Sessions => unreachable!("sessions are opened by `churn`, not by requests of a fleet"),
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

const LIST_PARENT: &[u8] = b"/bench/list";

/// The paths that must exist before rows run, in the order of their creation, with their values.
pub(crate) fn common_paths() -> impl Iterator<Item = Vec<u8>> {
    let roots = ["/bench", "/bench/k", "/bench/c", "/bench/list"].map(|path| path.as_bytes().to_vec());
    let keys = (0..KEYS).map(|key| key_path(key).to_vec());
    let listed = (0..LISTED_CHILDREN).map(|child| format!("/bench/list/child-{child:08}").into_bytes());
    roots.into_iter().chain(keys).chain(listed)
}

/// The parents that a creating row needs.
pub(crate) fn row_parents(generation: u32, sessions: u32) -> impl Iterator<Item = Vec<u8>> {
    (0..sessions).map(move |session| created_path(generation, session, 0)[..CREATED_PARENT_BYTES].to_vec())
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
