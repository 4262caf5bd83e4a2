//! The store against a model, and what a power cut leaves of it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::io::Read;

use bytes::BytesMut;
use proptest::prelude::*;

use super::records::{ChunkSize, Content, NodeKey, StoredData, encode_node};
use super::*;
use crate::storage::file::memory::Chance;
use crate::storage::log::LogPoint;

fn options() -> TreeOptions {
    TreeOptions {
        cache_bytes: 1 << 20,
        memtable_bytes: 1 << 20,
        ..TreeOptions::new(99)
    }
}

/// A store to which batches 1 to `batches` were committed, none of them made durable.
pub(super) fn committed_store(directory: &Path, batches: u64) -> TreeStore {
    let mut store = open(directory);
    for index in 1..=batches {
        put(
            &mut store,
            index,
            &[("/", "a", Some(&[1; 700])), ("/", "b", Some(&[2; 4000]))],
        );
    }
    store
}

pub(super) fn open(directory: &Path) -> TreeStore {
    open_with(directory, options().memtable_bytes)
}

/// Batches of so many bytes become tables at once.
fn open_with(directory: &Path, memtable_bytes: u64) -> TreeStore {
    let options = TreeOptions {
        memtable_bytes,
        ..options()
    };
    TreeStore::open(directory, options).expect("the store opens")
}

fn meta(index: u64) -> Meta {
    Meta {
        applied: LogPoint { index, term: 3 },
        zxid: index as i64 * 2,
        digest: index ^ 77,
        membership: Bytes::from_static(b"members"),
        extension: Bytes::from_static(b"more"),
    }
}

/// Parent and name.
type Place = (Vec<u8>, Vec<u8>);

/// What a store should hold, and what one was found to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    acls: BTreeMap<u32, Vec<u8>>,
    sessions: BTreeMap<i64, SessionRecord>,
    ephemerals: BTreeSet<(i64, Vec<u8>)>,
    nodes: BTreeMap<Place, (NodeStat, Option<Bytes>)>,
}

impl LoadVisitor for Model {
    type Error = Infallible;

    fn acl(&mut self, id: u32, entries: &[u8]) -> Result<(), Infallible> {
        assert!(self.sessions.is_empty() && self.nodes.is_empty());
        self.acls.insert(id, entries.to_vec());
        Ok(())
    }

    fn session(&mut self, session: SessionRecord) -> Result<(), Infallible> {
        assert!(self.nodes.is_empty());
        self.sessions.insert(session.id, session);
        Ok(())
    }

    fn ephemeral(&mut self, session: i64, path: &[u8]) -> Result<(), Infallible> {
        assert!(self.nodes.is_empty());
        self.ephemerals.insert((session, path.to_vec()));
        Ok(())
    }

    fn node(&mut self, parent: &[u8], name: &[u8], stat: NodeStat, data: Option<Bytes>) -> Result<(), Infallible> {
        let before = self.nodes.insert((parent.to_vec(), name.to_vec()), (stat, data));
        assert_eq!(before, None, "loaded twice");
        Ok(())
    }
}

fn load(store: &mut TreeStore) -> Model {
    let mut found = Model::default();
    let summary = store.load(&mut found).expect("the store loads");
    assert_eq!(summary.nodes, found.nodes.len() as u64);
    found
}

fn stat(number: i64) -> NodeStat {
    NodeStat {
        czxid: number,
        mzxid: number + 1,
        pzxid: -number,
        version: 5,
        creates: number as i32,
        acl_id: 1,
        ..NodeStat::default()
    }
}

fn put(store: &mut TreeStore, index: u64, nodes: &[(&str, &str, Option<&[u8]>)]) {
    let mut batch = store.batch().expect("batch");
    for (parent, name, data) in nodes {
        batch
            .put_node(parent.as_bytes(), name.as_bytes(), &stat(1), DataChange::Set(*data))
            .expect("put");
    }
    batch.commit(meta(index)).expect("commit");
}

/// Keys of chunks that the store holds.
fn chunk_count(store: &TreeStore) -> usize {
    store.keyspace.range([records::KeyKind::Chunk as u8]..).count()
}

#[test]
fn a_new_store_is_empty_and_knows_its_durable_point_once_it_has_one() {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut store = open(place.path());
    assert_eq!((store.committed(), store.durable()), (None, None));
    assert_eq!(load(&mut store), Model::default());
    put(&mut store, 7, &[("", "", None)]);
    assert_eq!((store.committed(), store.durable()), (Some(&meta(7)), None));
    assert_eq!(store.persist().expect("persist"), Some(&meta(7)));
    drop(store);
    let store = open(place.path());
    assert_eq!((store.committed(), store.durable()), (Some(&meta(7)), Some(&meta(7))));
}

#[test]
fn null_and_empty_data_are_told_apart_and_a_kept_value_stays() {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut store = open(place.path());
    let long = vec![3; 100_000];
    put(
        &mut store,
        1,
        &[
            ("", "", None),
            ("/", "empty", Some(b"")),
            ("/", "long", Some(&long)),
            ("/", "short", Some(b"s")),
        ],
    );
    let mut batch = store.batch().expect("batch");
    for name in ["empty", "long", "short"] {
        batch
            .put_node(b"/", name.as_bytes(), &stat(9), DataChange::Keep)
            .expect("keep");
    }
    let absent = batch.put_node(b"/", b"absent", &stat(9), DataChange::Keep);
    assert!(matches!(absent, Err(TreeError::NothingToKeep { path }) if path == "/absent"));
    batch.commit(meta(2)).expect("commit");
    let found = load(&mut store);
    let data: Vec<_> = found
        .nodes
        .values()
        .map(|(stat, data)| (stat.czxid, data.as_deref()))
        .collect();
    assert_eq!(
        data,
        [
            (1, None),
            (9, Some(&b""[..])),
            (9, Some(&long[..])),
            (9, Some(&b"s"[..]))
        ]
    );
}

#[test]
fn a_value_that_shrinks_or_goes_leaves_no_chunks() {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut store = open(place.path());
    // What has chunks is known of a new store, found by loading, and looked up in one that was not loaded.
    for round in 0..3 {
        match round {
            0 => {}
            1 => assert_eq!(load(&mut store), Model::default()),
            _ => {
                drop(store);
                store = open(place.path());
                assert!(!store.knows_chunked);
            }
        }
        put(
            &mut store,
            1,
            &[("/", "a", Some(&[1; 100_000])), ("/", "b", Some(&[2; 200_000]))],
        );
        assert_eq!(chunk_count(&store), 2 + 4);
        put(&mut store, 2, &[("/", "a", Some(&[1; 5000]))]);
        assert_eq!(chunk_count(&store), 1 + 4);
        put(
            &mut store,
            2,
            &[("/", "a", Some(&[1; 4000])), ("/", "b", Some(&[2; 100]))],
        );
        assert_eq!(chunk_count(&store), 2);
        let mut batch = store.batch().expect("batch");
        batch.remove_node(b"/", b"a").expect("remove");
        batch.remove_node(b"/", b"b").expect("remove");
        batch.commit(meta(3)).expect("commit");
        assert_eq!(chunk_count(&store), 0);
        assert_eq!(load(&mut store), Model::default());
    }
}

#[test]
fn paths_longer_than_any_key_are_stored_and_loaded_after_their_parents() {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut store = open(place.path());
    let long = format!("/{}", "x".repeat(70_000));
    let longer = format!("{long}/{}", "y".repeat(3000));
    let nodes = [
        (&longer[..], "leaf", Some(&b"data"[..])),
        (&long, &longer[long.len() + 1..], None),
        ("/", &long[1..], Some(b"")),
    ];
    put(&mut store, 1, &nodes);
    drop(store);
    let mut store = open(place.path());
    let found = load(&mut store);
    for (parent, name, data) in nodes {
        let key = (parent.as_bytes().to_vec(), name.as_bytes().to_vec());
        assert_eq!(found.nodes[&key].1.as_deref(), data);
    }
    let mut batch = store.batch().expect("batch");
    for (parent, name, _) in nodes {
        batch.remove_node(parent.as_bytes(), name.as_bytes()).expect("remove");
    }
    batch.commit(meta(2)).expect("commit");
    assert_eq!((chunk_count(&store), load(&mut store)), (0, Model::default()));
}

#[test]
fn a_path_with_a_nul_is_refused() {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut store = open(place.path());
    let mut batch = store.batch().expect("batch");
    let refused = batch.put_node(b"/a\0", b"b", &stat(1), DataChange::Set(None));
    assert!(matches!(refused, Err(TreeError::Impossible { .. })));
}

#[test]
fn a_store_that_is_open_elsewhere_is_refused_with_a_reason() {
    let place = tempfile::tempdir().expect("temporary directory");
    let _first = open(place.path());
    assert!(matches!(
        TreeStore::open(place.path(), options()),
        Err(TreeError::Locked { .. })
    ));
}

#[test]
fn another_format_version_is_refused() {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut store = open(place.path());
    put(&mut store, 1, &[("", "", None)]);
    store.keyspace.insert(META_KEY, 3u32.to_le_bytes()).expect("insert");
    drop(store);
    let refused = TreeStore::open(place.path(), options());
    assert!(matches!(
        refused,
        Err(TreeError::FormatVersion {
            found: 3,
            supported: 2,
            ..
        })
    ));
}

#[test]
fn a_store_of_the_version_before_is_read_and_goes_on() {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut store = open(place.path());
    put(&mut store, 1, &[("/", "inline", Some(b"1"))]);
    // Version 1 had small chunks only.
    let content = Content {
        bytes: 10_000,
        chunk_size: ChunkSize::Small,
    };
    let former = vec![5; 10_000];
    for name in ["kept", "set", "gone"] {
        let key = NodeKey::new(b"/", name.as_bytes(), 99);
        let record = encode_node(&stat(1), StoredData::Chunked(content));
        store.keyspace.insert(&key.key, record).expect("insert");
        for (number, chunk) in former.chunks(3 * 1024).enumerate() {
            store.keyspace.insert(key.chunk(number as u32), chunk).expect("insert");
        }
    }
    let mut record = meta(1).encode();
    record[..4].copy_from_slice(&1u32.to_le_bytes());
    store.keyspace.insert(META_KEY, record).expect("insert");
    drop(store);

    let mut store = open(place.path());
    assert_eq!((store.committed(), chunk_count(&store)), (Some(&meta(1)), 3 * 4));
    let read = store.reader().now().node(b"/", b"kept").expect("readable");
    assert_eq!(read.expect("there").1.as_deref(), Some(&former[..]));
    let view = load(&mut store);
    assert!(
        view.nodes
            .values()
            .filter(|(_, data)| data.as_deref() == Some(&former))
            .count()
            == 3
    );
    let mut batch = store.batch().expect("batch");
    batch.put_node(b"/", b"kept", &stat(2), DataChange::Keep).expect("keep");
    batch
        .put_node(b"/", b"set", &stat(2), DataChange::Set(Some(&former)))
        .expect("set");
    batch.remove_node(b"/", b"gone").expect("remove");
    batch.commit(meta(2)).expect("commit");
    assert_eq!(chunk_count(&store), 4 + 1);
    drop(store);
    let mut store = open(place.path());
    let mut expected = view;
    expected.nodes.remove(&(b"/".to_vec(), b"gone".to_vec()));
    for name in [&b"kept"[..], b"set"] {
        expected
            .nodes
            .get_mut(&(b"/".to_vec(), name.to_vec()))
            .expect("there")
            .0 = stat(2);
    }
    assert_eq!(load(&mut store), expected);
    let record = store.keyspace.get(META_KEY).expect("readable").expect("there");
    assert_eq!(Meta::format_version(&record), Ok(FORMAT_VERSION));
}

#[test]
fn a_record_that_makes_no_sense_is_named() {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut store = open(place.path());
    put(&mut store, 1, &[("/", "a", Some(&[1; 70_000]))]);
    store
        .keyspace
        .remove(NodeKey::new(b"/", b"a", 99).chunk(1))
        .expect("remove");
    let error = store.load(&mut Model::default()).expect_err("a chunk is missing");
    assert!(
        matches!(
            &error,
            TreeError::Malformed {
                problem: MalformedRecord::MissingChunk(1),
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("/\\x00a"), "{error}");
}

/// Chunks of the store as it is, and what they add up to.
fn dump(store: &mut TreeStore, chunk_bytes: usize) -> (Meta, Vec<Bytes>, Totals) {
    let view = store.view().expect("readable").expect("written before");
    let meta = view.meta().clone();
    let mut chunks = view.into_chunks(chunk_bytes);
    let all = chunks
        .by_ref()
        .collect::<Result<Vec<Bytes>, TreeError>>()
        .expect("readable");
    (meta, all, chunks.totals())
}

fn parts(chunks: &[Bytes], totals: Totals) -> Vec<IncomingPart> {
    let chunks = chunks.iter().cloned().map(IncomingPart::Chunk);
    chunks.chain([IncomingPart::End(totals)]).collect()
}

/// Inline and chunked data, short and long paths, in several batches, and records that were overwritten and removed.
fn varied_store(directory: &Path) -> TreeStore {
    let mut store = open(directory);
    let long = format!("/{}", "x".repeat(5000));
    put(
        &mut store,
        1,
        &[
            ("", "", None),
            ("/", &long[1..], Some(b"under a long path")),
            (&long, "y", None),
        ],
    );
    for index in 2..20u8 {
        let name = format!("n{index}");
        let data = vec![index; usize::from(index) * 500];
        put(
            &mut store,
            index.into(),
            &[("/", &name, Some(&data)), ("/", "again", Some(&data))],
        );
    }
    let mut batch = store.batch().expect("batch");
    batch.put_acl(4, b"list");
    batch.put_session(&SessionRecord {
        id: -4,
        timeout_ms: 7,
        password: [9; 16],
        owner: Bytes::from_static(b"owner"),
    });
    batch.remove_node(b"/", b"n3").expect("remove");
    batch.commit(meta(20)).expect("commit");
    store
}

#[test]
fn a_view_is_of_its_moment_and_makes_an_equal_store_that_can_go_on() {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut source = varied_store(&place.path().join("source"));
    let expected = load(&mut source);
    let view = source.view().expect("readable").expect("written before");
    assert!(source.is_viewed());
    // The source goes on, and flushes what the view still needs.
    put(&mut source, 21, &[("/", "n5", Some(b"later")), ("/", "new", None)]);
    source.keyspace.rotate_memtable_and_wait().expect("flush");
    assert_eq!(view.meta(), &meta(20));
    let mut view_chunks = view.into_chunks(4000);
    let chunks: Vec<Bytes> = view_chunks.by_ref().map(|chunk| chunk.expect("readable")).collect();
    let totals = view_chunks.totals();
    drop(view_chunks);
    assert!(!source.is_viewed() && chunks.len() > 10);
    assert!(chunks.iter().all(|chunk| chunk.len() < 4000 + 8 + 64 * 1024 + 6000));

    let directory = place.path().join("copy");
    let copy = build_tree(&directory, TreeOptions::new(1), meta(20), parts(&chunks, totals)).expect("built");
    assert_eq!((copy.committed(), copy.durable()), (Some(&meta(20)), Some(&meta(20))));
    drop(copy);
    let mut copy = open(&directory);
    assert_eq!((copy.committed(), copy.salt), (Some(&meta(20)), source.salt));
    assert_eq!(load(&mut copy), expected);
    // It takes checkpoints as any other: of long paths too, whose keys depend on the salt.
    let long = format!("/{}", "x".repeat(5000));
    let mut batch = copy.batch().expect("batch");
    batch.remove_node(long.as_bytes(), b"y").expect("remove");
    batch.put_node(b"/", b"n5", &stat(3), DataChange::Keep).expect("keep");
    batch.commit(meta(21)).expect("commit");
    drop(copy);
    let mut copy = open(&directory);
    let mut expected = expected;
    expected.nodes.remove(&(long.into_bytes(), b"y".to_vec()));
    expected
        .nodes
        .get_mut(&(b"/".to_vec(), b"n5".to_vec()))
        .expect("there")
        .0 = stat(3);
    assert_eq!(copy.committed(), Some(&meta(21)));
    assert_eq!(load(&mut copy), expected);
    // A view of a copy is as good as one of the source, before and after its tables were compacted.
    let (_, before, _) = dump(&mut copy, 1 << 20);
    copy.keyspace.major_compact().expect("compaction");
    let (_, after, _) = dump(&mut copy, 1 << 20);
    assert_eq!(before, after);
}

#[test]
fn what_stands_in_no_table_yet_is_counted_until_it_does() {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut store = varied_store(&place.path().join("store"));
    let before = store.unflushed_bytes();
    let names: Vec<String> = (0..30).map(|number| format!("more{number}")).collect();
    let nodes: Vec<_> = names
        .iter()
        .map(|name| ("/", &name[..], Some(&[7; 4000][..])))
        .collect();
    put(&mut store, 21, &nodes);
    assert!(store.unflushed_bytes() >= before + 30 * 4000);
    store.flush_soon().expect("a disk that works");
    while store.unflushed_bytes() > 0 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn memtables_are_let_go_of_and_views_stay_readable() {
    let place = tempfile::tempdir().expect("temporary directory");
    let directory = place.path().join("store");
    let mut store = varied_store(&directory);
    // What a call begins, another thread ends.
    let let_go = |store: &mut TreeStore| {
        store.let_go_soon().expect("a disk that works");
        while store.unflushed_bytes() > 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    };
    let (_, before, _) = dump(&mut store, 1 << 20);
    let view = store.view().expect("view").expect("written");
    for index in 21..24 {
        put(&mut store, index, &[("/", "later", Some(&[7; 4000]))]);
        let_go(&mut store);
        let_go(&mut store);
    }
    let after: Vec<Bytes> = view
        .into_chunks(1 << 20)
        .map(|chunk| chunk.expect("readable"))
        .collect();
    assert_eq!(after, before);

    put(&mut store, 24, &[("/", "last", Some(&[7; 4000]))]);
    let (held, expected) = (store.memtable_bytes(), load(&mut store));
    let_go(&mut store);
    let_go(&mut store);
    let left = store.memtable_bytes();
    assert!(held > 4000 && left < 1000, "{left} of {held} bytes");
    // The point that was written once more is the one that it led to.
    drop(store);
    let mut store = open(&directory);
    assert_eq!(store.committed(), Some(&meta(24)));
    assert_eq!(load(&mut store), expected);
}

#[test]
fn a_large_batch_or_one_with_a_large_chunk_is_a_table_and_durable_when_it_is_committed() {
    for large in [vec![7; 1_200_000], vec![7; 5000]] {
        becomes_a_table(large);
    }
}

fn becomes_a_table(large: Vec<u8>) {
    let place = tempfile::tempdir().expect("temporary directory");
    let directory = place.path().join("store");
    let mut store = open(&directory);
    put(
        &mut store,
        1,
        &[("/", "small", Some(b"1")), ("/", "gone", Some(&[1; 4000]))],
    );
    assert_eq!(store.durable(), None);
    let mut batch = store.batch().expect("batch");
    batch.remove_node(b"/", b"gone").expect("remove");
    let data = DataChange::Share(large.clone().into());
    batch.put_node(b"/", b"large", &stat(1), data).expect("put");
    batch.commit(meta(2)).expect("commit");
    assert_eq!((store.committed(), store.durable()), (Some(&meta(2)), Some(&meta(2))));
    assert_eq!(store.unflushed_bytes(), 0);
    // What follows is counted again, and leads to another point.
    put(&mut store, 3, &[("/", "small", Some(b"3"))]);
    assert_eq!(store.durable(), Some(&meta(2)));
    let unflushed = store.unflushed_bytes();
    assert!((1..10_000).contains(&unflushed), "{unflushed}");
    // All that was in a journal may be lost.
    let mut stored = image(&directory);
    drop(store);
    stored.retain(|path, _| path.extension().is_none_or(|extension| extension != "jnl"));
    let copy = place.path().join("copy");
    restore(&stored, &copy);
    let mut store = open(&copy);
    assert_eq!(store.committed(), Some(&meta(2)));
    let nodes = load(&mut store).nodes;
    assert_eq!(nodes.len(), 2);
    assert_eq!(nodes[&(b"/".to_vec(), b"small".to_vec())].1.as_deref(), Some(&b"1"[..]));
    assert_eq!(
        nodes[&(b"/".to_vec(), b"large".to_vec())].1.as_deref(),
        Some(&large[..])
    );
}

#[test]
fn a_store_that_was_never_written_has_no_view() {
    let place = tempfile::tempdir().expect("temporary directory");
    assert!(open(place.path()).view().expect("readable").is_none());
}

#[test]
fn an_incoming_tree_that_is_not_what_was_sent_is_refused() {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut source = varied_store(&place.path().join("source"));
    let (meta, chunks, totals) = dump(&mut source, 4000);
    let tried = |parts: Vec<IncomingPart>| {
        let directory = tempfile::tempdir_in(place.path())
            .expect("temporary directory")
            .path()
            .join("tree");
        build_tree(&directory, options(), meta.clone(), parts).map(drop)
    };
    tried(parts(&chunks, totals)).expect("as it was sent");

    let unfinished = tried(chunks.iter().cloned().map(IncomingPart::Chunk).collect());
    assert!(matches!(unfinished, Err(IncomingError::Unfinished)));
    let lost = tried(parts(&chunks[..chunks.len() - 1], totals));
    assert!(matches!(lost, Err(IncomingError::Totals { .. })));
    let mut swapped = chunks.clone();
    swapped.swap(3, 4);
    assert!(matches!(
        tried(parts(&swapped, totals)),
        Err(IncomingError::Order { .. })
    ));
    let mut repeated = chunks.clone();
    repeated.insert(2, chunks[1].clone());
    assert!(matches!(
        tried(parts(&repeated, totals)),
        Err(IncomingError::Order { .. })
    ));
    let mut altered = chunks.clone();
    let mut bytes = altered[5].to_vec();
    *bytes.last_mut().expect("bytes") ^= 1;
    altered[5] = bytes.into();
    assert!(matches!(
        tried(parts(&altered, totals)),
        Err(IncomingError::Totals { .. })
    ));
    let mut cut = chunks.clone();
    cut[0].truncate(chunks[0].len() - 1);
    assert!(matches!(
        tried(parts(&cut, totals)),
        Err(IncomingError::Malformed { .. })
    ));
    // A meta record or an unknown one may not slip in.
    for key in [&META_KEY[..], &[9, 9]] {
        let mut strange = BytesMut::new();
        strange.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);
        strange.extend_from_slice(key);
        let refused = tried(vec![IncomingPart::Chunk(strange.freeze())]);
        assert!(matches!(
            refused,
            Err(IncomingError::Malformed {
                problem: MalformedRecord::Key,
                ..
            })
        ));
    }
    assert!(matches!(
        tried(parts(&[], Totals::default())),
        Err(IncomingError::NoSalt)
    ));
    let taken = build_tree(&place.path().join("source"), options(), meta.clone(), Vec::new());
    assert!(matches!(taken, Err(IncomingError::Exists(_))));
}

#[test]
fn a_tree_of_many_tables_arrives_whole() {
    let place = tempfile::tempdir().expect("temporary directory");
    let mut source = open(&place.path().join("source"));
    // Incompressible data, so that tables of 64 MiB are begun more than once.
    let mut chance = Chance(5);
    for index in 1..=80u64 {
        let mut batch = source.batch().expect("batch");
        for node in 0..512u64 {
            let data: Vec<u8> = (0..480).flat_map(|_| chance.next().to_le_bytes()).collect();
            let name = format!("{:08}", index * 1000 + node);
            batch
                .put_node(b"/", name.as_bytes(), &stat(1), DataChange::Set(Some(&data)))
                .expect("put");
        }
        batch.commit(meta(index)).expect("commit");
    }
    let (meta, chunks, totals) = dump(&mut source, 1 << 20);
    let mut copy = build_tree(&place.path().join("copy"), options(), meta, parts(&chunks, totals)).expect("built");
    let (_, again, again_totals) = dump(&mut copy, 1 << 20);
    assert_eq!((again_totals, again == chunks), (totals, true));
}

#[derive(Debug, Clone)]
enum Step {
    Put {
        node: usize,
        size: Option<usize>,
        keep: bool,
    },
    Remove(usize),
    Session(i64, bool),
    Acl(u32, Option<Vec<u8>>),
    Commit,
    Persist,
    Flush,
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    let size =
        prop_oneof![1 => Just(None), 6 => (0usize..1500).prop_map(Some), 2 => (1500usize..20_000).prop_map(Some)];
    prop_oneof![
        20 => (0usize..30, size, any::<bool>()).prop_map(|(node, size, keep)| Step::Put { node, size, keep }),
        6 => (0usize..30).prop_map(Step::Remove),
        2 => (-3i64..3, any::<bool>()).prop_map(|(id, gone)| Step::Session(id, gone)),
        2 => (0u32..4, any::<Option<Vec<u8>>>()).prop_map(|(id, list)| Step::Acl(id, list)),
        6 => Just(Step::Commit),
        2 => Just(Step::Persist),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

fn path_of(node: usize) -> Place {
    match node {
        0 => (Vec::new(), Vec::new()),
        1..=20 => (b"/".to_vec(), format!("node-{node}").into_bytes()),
        21..=25 => (b"/node-3".to_vec(), format!("{node}").into_bytes()),
        _ => (
            format!("/node-4/{}", "z".repeat(2500)).into_bytes(),
            format!("{node}").into_bytes(),
        ),
    }
}

/// Changes the model and collects what a batch must say; the last word per znode counts.
#[derive(Default)]
struct Pending {
    nodes: BTreeMap<usize, Option<bool>>,
    sessions: BTreeMap<i64, bool>,
    acls: BTreeMap<u32, Option<Vec<u8>>>,
}

impl Pending {
    fn step(&mut self, model: &mut Model, step: &Step, number: i64) {
        match step {
            Step::Put { node, size, keep } => {
                let path = path_of(*node);
                let stored = model.nodes.get(&path).map(|(_, data)| data.clone());
                let earlier = self.nodes.get(node).copied();
                // Data may be kept only of what is stored and was not set or removed in this batch.
                let keeps = *keep && stored.is_some() && matches!(earlier, None | Some(Some(true)));
                let data = if keeps {
                    stored.flatten()
                } else {
                    size.map(|size| Bytes::from(vec![number as u8; size]))
                };
                model.nodes.insert(path, (stat(number), data));
                self.nodes.insert(*node, Some(keeps));
            }
            Step::Remove(node) => {
                model.nodes.remove(&path_of(*node));
                self.nodes.insert(*node, None);
            }
            Step::Session(id, gone) => {
                let session = SessionRecord {
                    id: *id,
                    timeout_ms: number as i32,
                    password: [1; 16],
                    owner: Bytes::from_static(b"o"),
                };
                if *gone {
                    model.sessions.remove(id)
                } else {
                    model.sessions.insert(*id, session)
                };
                self.sessions.insert(*id, *gone);
            }
            Step::Acl(id, list) => {
                match list {
                    Some(list) => model.acls.insert(*id, list.clone()),
                    None => model.acls.remove(id),
                };
                self.acls.insert(*id, list.clone());
            }
            Step::Commit | Step::Persist | Step::Flush | Step::Reopen => {}
        }
    }

    fn commit(self, store: &mut TreeStore, model: &Model, index: u64) {
        let mut batch = store.batch().expect("batch");
        for (node, put) in self.nodes {
            let path = path_of(node);
            match put {
                None => batch.remove_node(&path.0, &path.1).expect("remove"),
                Some(keep) => {
                    let (stat, data) = &model.nodes[&path];
                    let data = if keep {
                        DataChange::Keep
                    } else {
                        DataChange::Set(data.as_deref())
                    };
                    batch.put_node(&path.0, &path.1, stat, data).expect("put");
                }
            }
        }
        for (id, gone) in self.sessions {
            if gone {
                batch.remove_session(id)
            } else {
                batch.put_session(&model.sessions[&id])
            }
        }
        for (id, list) in self.acls {
            match list {
                Some(list) => batch.put_acl(id, &list),
                None => batch.remove_acl(id),
            }
        }
        batch.commit(meta(index)).expect("commit");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_holds_what_was_committed(
        steps in prop::collection::vec(any_step(), 1..120),
        memtable_bytes in prop::sample::select(&[1_u64, 3000, 1 << 20][..]),
    ) {
        let place = tempfile::tempdir().expect("temporary directory");
        let mut store = open_with(place.path(), memtable_bytes);
        prop_assert_eq!(load(&mut store), Model::default());
        let (mut model, mut pending, mut index) = (Model::default(), Pending::default(), 0);
        for (step, number) in steps.iter().zip(1..) {
            pending.step(&mut model, step, number);
            if matches!(step, Step::Commit | Step::Persist | Step::Flush | Step::Reopen) {
                index += 1;
                std::mem::take(&mut pending).commit(&mut store, &model, index);
            }
            match step {
                Step::Persist => prop_assert_eq!(store.persist().expect("persist"), Some(&meta(index))),
                Step::Flush => store.keyspace.rotate_memtable_and_wait().expect("flush"),
                Step::Reopen => {
                    drop(store);
                    store = open_with(place.path(), memtable_bytes);
                    prop_assert_eq!(store.durable(), Some(&meta(index)));
                    prop_assert_eq!(load(&mut store), model.clone());
                }
                _ => {}
            }
        }
        pending.commit(&mut store, &model, index + 1);
        prop_assert_eq!(load(&mut store), model);
    }
}

/// All files below a directory.
type Image = BTreeMap<PathBuf, Vec<u8>>;

fn image(directory: &Path) -> Image {
    let mut files = Image::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(current) = pending.pop() {
        for entry in fs::read_dir(&current).expect("list") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                pending.push(path);
            } else {
                // Journals are mostly holes: what these tests write is at their beginning.
                let file = fs::File::open(&path).expect("open");
                let size = file.metadata().expect("metadata").len();
                let mut bytes = Vec::new();
                file.take(2 << 20).read_to_end(&mut bytes).expect("read");
                assert!(
                    bytes.len() < 2 << 20 || bytes.ends_with(&[0; 4096]),
                    "more was written than is looked at"
                );
                bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
                bytes.extend_from_slice(&size.to_le_bytes());
                files.insert(path.strip_prefix(directory).expect("below").to_path_buf(), bytes);
            }
        }
    }
    files
}

fn restore(image: &Image, directory: &Path) {
    for (path, bytes) in image {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("create");
        let (bytes, size) = bytes.split_last_chunk().expect("size");
        fs::write(&path, bytes).expect("write");
        let file = fs::OpenOptions::new().write(true).open(&path).expect("open");
        file.set_len(u64::from_le_bytes(*size)).expect("size");
    }
}

/// What may be left of `after` if power went when `stored` was durable: of each journal, the bytes that were added since
/// are cut at random, or some of their pages were never written. Tables are made durable before anything refers to them.
fn power_cut(stored: &Image, after: &Image, chance: &mut Chance) -> Image {
    let mut left = after.clone();
    let journals = left
        .iter_mut()
        .filter(|(path, _)| path.extension().is_some_and(|extension| extension == "jnl"));
    for (path, bytes) in journals {
        let (contents, size) = bytes.split_last_chunk::<8>().expect("size");
        let (mut contents, size) = (contents.to_vec(), *size);
        let durable = stored.get(path).map_or(0, |stored| stored.len() - 8);
        if contents.len() > durable {
            if chance.below(2) == 0 {
                contents.truncate(durable + chance.below((contents.len() - durable) as u64) as usize);
            } else {
                for page in durable / 4096..contents.len().div_ceil(4096) {
                    let (start, end) = ((page * 4096).max(durable), contents.len().min((page + 1) * 4096));
                    if chance.below(4) == 0 {
                        contents[start..end].fill(0);
                    }
                }
            }
        }
        contents.extend_from_slice(&size);
        *bytes = contents;
    }
    left
}

#[test]
fn a_power_cut_leaves_the_state_after_a_batch_that_is_not_older_than_the_durable_one() {
    for seed in 0..25 {
        let mut chance = Chance(seed);
        let place = tempfile::tempdir().expect("temporary directory");
        // With the smaller one, about half of the batches become tables at once.
        let memtable_bytes = [1 << 20, 100_000][seed as usize % 2];
        let mut store = open_with(place.path(), memtable_bytes);
        let mut states = vec![(0, Model::default())];
        let mut model = Model::default();
        let mut stored = Image::new();
        let mut durable = 1 + chance.below(4);
        let last = durable + 1 + chance.below(4);
        for index in 1..=last {
            let mut pending = Pending::default();
            for _ in 0..1 + chance.below(30) {
                let size =
                    [chance.below(1200), chance.below(1200), chance.below(40_000)][chance.below(3) as usize] as usize;
                let step = match chance.below(5) {
                    0 => Step::Remove(chance.below(30) as usize),
                    _ => Step::Put {
                        node: chance.below(30) as usize,
                        size: Some(size),
                        keep: false,
                    },
                };
                pending.step(&mut model, &step, chance.below(1 << 30) as i64);
            }
            pending.commit(&mut store, &model, index);
            states.push((index, model.clone()));
            if index == durable {
                store.persist().expect("persist");
                stored = image(place.path());
            } else if store.durable() == store.committed() {
                durable = durable.max(index);
            }
        }
        drop(store);
        let after = image(place.path());
        for cut in 0..4 {
            let found_at = tempfile::tempdir().expect("temporary directory");
            let directory = found_at.path().join("tree");
            restore(&power_cut(&stored, &after, &mut chance), &directory);
            let mut store = TreeStore::open(&directory, options())
                .unwrap_or_else(|error| panic!("Durable: seed {seed}, cut {cut}: {error}"));
            let index = store.committed().map_or(0, |meta| meta.applied.index);
            assert!(
                index >= durable,
                "Durable: seed {seed}, cut {cut}: at {index}, {durable} was durable"
            );
            let (_, expected) = &states[index as usize];
            assert!(
                load(&mut store) == *expected,
                "Atomic: seed {seed}, cut {cut}: a torn batch at {index}"
            );
        }
    }
}

/// A store that noted totals and an ephemeral: `znodes` below two parents and below /zookeeper.
fn counted_store(directory: &Path) -> TreeStore {
    let mut store = open(directory);
    let mut batch = store.batch().expect("batch");
    let large = vec![7; 10_000];
    let mut nodes = 0;
    let mut node = |parent: &str, name: &str, data: Option<&[u8]>| {
        nodes += 1;
        let put = batch.put_node(parent.as_bytes(), name.as_bytes(), &stat(nodes), DataChange::Set(data));
        put.expect("put");
    };
    node("", "", None);
    for name in ["a", "a-b", "b", "zookeeper", "zookeeper-x"] {
        node("/", name, Some(name.as_bytes()));
    }
    node("/zookeeper", "config", Some(b""));
    node("/zookeeper/quota", "a", None);
    node("/zookeeper", "quota", Some(b"q"));
    node("/zookeeper-x", "y", None);
    for number in 0..20 {
        node("/a", &format!("n{number:02}"), Some(&large[..number * 400]));
        node("/a/n05", &format!("{number}"), None);
    }
    node("/b", "large", Some(&large));
    batch.put_ephemeral(-9, b"/b/large");
    batch.put_ephemeral(3, b"/gone");
    batch.remove_ephemeral(3, b"/gone");
    batch.put_ephemeral(4, &[b'x'; 5000]);
    batch.totals(nodes as u64, 77);
    batch.commit(meta(1)).expect("commit");
    store
}

fn take(visitor: &mut Model, parent: &[u8], child: StoredChild) {
    let taken = visitor.node(parent, &child.name, child.stat, child.data);
    taken.expect("taken");
}

#[test]
fn a_store_is_read_group_by_group_as_it_was_when_it_was_opened() {
    let place = tempfile::tempdir().expect("temporary directory");
    drop(counted_store(place.path()));
    let same = tempfile::tempdir().expect("temporary directory");
    let expected = load(&mut counted_store(same.path()));
    for most in [1, 2, 7, 1000] {
        let mut store = open(place.path());
        let mut found = Model::default();
        let (totals, mut groups) = store.load_first(&mut found).expect("readable").expect("counted");
        assert_eq!((totals.nodes, totals.data_bytes), (expected.nodes.len() as u64, 77));
        assert_eq!(found.ephemerals, BTreeSet::from([(-9, b"/b/large".to_vec())]));
        let first: BTreeSet<&[u8]> = found.nodes.keys().map(|(parent, _)| &**parent).collect();
        let expected_first: [&[u8]; 4] = [b"", b"/", b"/zookeeper", b"/zookeeper/quota"];
        assert_eq!(first, BTreeSet::from(expected_first));
        assert!(store.is_viewed() && !store.knows_chunked);
        // What is written meanwhile is not seen.
        if most == 2 {
            put(&mut store, 2, &[("/a", "n03", Some(b"later")), ("/a", "new", None)]);
        }
        let mut out_of_turn = |parent: &[u8]| {
            let (mut below, mut count) = (groups.below(parent), 0);
            loop {
                let slice = groups.next_below(&mut below, most).expect("readable").len();
                assert!(slice <= most);
                if slice == 0 {
                    return count;
                }
                count += slice;
            }
        };
        assert_eq!((out_of_turn(b"/a/n05"), out_of_turn(b"/a/n06")), (20, 0));
        let mut open_group: Option<Bytes> = None;
        loop {
            let pieces = groups.next(most).expect("readable");
            assert!(pieces.iter().map(|piece| piece.children.len()).sum::<usize>() <= most);
            let Some(last) = pieces.last() else { break };
            assert!(open_group.is_none_or(|parent| parent == pieces[0].parent));
            open_group = (!last.is_last).then(|| last.parent.clone());
            for piece in pieces {
                let is_first = first_group(&piece.parent);
                for child in piece.children.into_iter().filter(|_| !is_first) {
                    take(&mut found, &piece.parent, child);
                }
            }
        }
        assert_eq!(open_group, None);
        assert_eq!(found, expected);
        store.groups_read(groups);
        assert!(!store.is_viewed() && store.knows_chunked);
        // A value that loses its chunks leaves none over.
        if most == 2 {
            put(
                &mut store,
                3,
                &[
                    ("/b", "large", Some(b"small")),
                    ("/a", "n03", None),
                    ("/a", "new", None),
                ],
            );
            let mut left = store
                .keyspace
                .range([records::KeyKind::Chunk as u8]..[records::KeyKind::LongNode as u8]);
            let is_of_large = |key: &[u8]| key.windows(5).any(|part| part == b"large");
            assert!(left.all(|guard| !is_of_large(&guard.key().expect("readable"))));
            drop(store);
            fs::remove_dir_all(place.path()).expect("removed");
            drop(counted_store(place.path()));
        }
    }
}

#[test]
fn large_values_come_in_small_pieces() {
    const VALUES: usize = 12;
    const VALUE_BYTES: usize = 1 << 20;
    let place = tempfile::tempdir().expect("temporary directory");
    let mut store = counted_store(place.path());
    let mut batch = store.batch().expect("batch");
    for number in 0..VALUES {
        let data = DataChange::Share(vec![7; VALUE_BYTES].into());
        let put = batch.put_node(b"/b", format!("{number:02}").as_bytes(), &stat(1), data);
        put.expect("put");
    }
    batch.totals(1, 1);
    batch.commit(meta(2)).expect("commit");
    let (_, mut groups) = store
        .load_first(&mut Model::default())
        .expect("readable")
        .expect("counted");
    let most = |children: &[StoredChild]| {
        let bytes: usize = children.iter().map(StoredChild::data_bytes).sum();
        assert!(bytes < 5 * VALUE_BYTES, "{bytes}");
        children
            .iter()
            .filter(|child| child.data_bytes() == VALUE_BYTES)
            .count()
    };
    let (mut below, mut count) = (groups.below(b"/b"), 0);
    loop {
        let children = groups.next_below(&mut below, 1000).expect("readable");
        if children.is_empty() {
            break;
        }
        count += most(&children);
    }
    assert_eq!(count, VALUES);
    let mut count = 0;
    loop {
        let pieces = groups.next(1000).expect("readable");
        if pieces.is_empty() {
            break;
        }
        let children: Vec<StoredChild> = pieces.into_iter().flat_map(|piece| piece.children).collect();
        count += most(&children);
    }
    assert_eq!(count, VALUES);
}

fn first_group(parent: &[u8]) -> bool {
    parent == b"/" || parent == b"/zookeeper" || parent.starts_with(b"/zookeeper/")
}

#[test]
fn a_store_that_cannot_be_read_in_parts_is_told() {
    let place = tempfile::tempdir().expect("temporary directory");
    let is_whole = |store: &mut TreeStore| store.load_first(&mut Model::default()).expect("readable").is_none();
    // Of an earlier version, or written by one since.
    let directory = place.path().join("early");
    assert!(is_whole(&mut committed_store(&directory, 3)));
    let directory = place.path().join("later");
    let mut store = counted_store(&directory);
    assert!(!is_whole(&mut store));
    put(&mut store, 2, &[("/a", "n03", None)]);
    assert!(is_whole(&mut store));
    // With a path that has no place among the others.
    let long = "x".repeat(5000);
    let mut batch = store.batch().expect("batch");
    batch
        .put_node(b"/", long.as_bytes(), &stat(1), DataChange::Set(None))
        .expect("put");
    batch.totals(8, 8);
    batch.commit(meta(3)).expect("commit");
    assert!(is_whole(&mut store));
    // What a peer is sent has neither totals nor ephemerals: it derives them.
    let (meta, chunks, totals) = dump(&mut counted_store(&place.path().join("sent")), 4000);
    let copy = build_tree(
        &place.path().join("copy"),
        TreeOptions::new(1),
        meta,
        parts(&chunks, totals),
    );
    assert!(is_whole(&mut copy.expect("built")));
}
