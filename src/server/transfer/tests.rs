//! Transfers over pipes in memory, between stores on disk.

use super::wire::{Frame, read_frame, write_frame};
use super::*;
use crate::proto::request::{CreateRequest, Write};
use crate::proto::{Acl, Identity, OpCode, SessionId, Xid};
use crate::replica::{MembersAt, Registry};
use crate::server::store;
use crate::state_machine::command::SessionBody;
use crate::state_machine::{Command, ConnectionId, Origin, Rules, ServerId, Stamp, State};
use crate::storage::directory::Layout;
use crate::storage::file::DiskFiles;
use crate::storage::generations::Generations;
use crate::storage::log::LogPoint;
use crate::storage::tree::{Meta, TreeOptions, TreeStore, TreeView};
use bytes::{Bytes, BytesMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const SESSION: SessionId = SessionId(0x0100_0000_0000_000a);

/// A place for two members.
struct Bench {
    place: tempfile::TempDir,
    generations: Arc<Generations>,
}

impl Bench {
    fn new() -> Bench {
        let place = tempfile::tempdir().expect("temporary directory");
        let layout = Layout {
            data_directory: place.path().join("receiver"),
            log_directory: place.path().join("receiver"),
        };
        std::fs::create_dir_all(layout.own_data()).expect("create");
        let generations = Arc::new(Generations::open(&DiskFiles::shared(), &layout).expect("opens"));
        Bench { place, generations }
    }

    fn intake(&self, pace: Pace) -> Intake {
        Intake::new(self.generations.clone(), TreeOptions::new(2), pace)
    }

    fn source(&self) -> PathBuf {
        self.place.path().join("source")
    }

    fn spool(&self) -> PathBuf {
        self.place.path().join("spool")
    }

    /// What is in the receiver's directory.
    fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.place.path().join("receiver/menagerie")).expect("list");
        entries
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// A thread removes what is not kept.
    async fn until_nothing_is_left(&self) {
        while !self.left().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn apply(state: &mut State, op: OpCode, body: Bytes) {
    let stamp = Stamp {
        time_ms: 1000,
        rules: Rules::default(),
    };
    let command = Command {
        origin: Origin {
            server: ServerId(1),
            connection: ConnectionId(1),
        },
        session: SESSION,
        xid: Xid(1),
        identities: vec![Identity::new("ip", "127.0.0.1")].into(),
        op,
        body,
    };
    let result = state.apply(&stamp, &command, &mut Vec::new()).result;
    assert!(result.is_ok(), "{result:?}");
}

fn create(state: &mut State, path: &str, data: Vec<u8>, flags: i32) {
    let write = Write::Create(
        OpCode::Create,
        CreateRequest {
            path: path.into(),
            data: Some(data.into()),
            acl: Some(vec![Acl::open()]),
            flags,
            ttl_ms: None,
        },
    );
    let mut body = BytesMut::new();
    write.encode(&mut body);
    apply(state, OpCode::Create, body.freeze());
}

fn members() -> MembersAt {
    MembersAt {
        registry: Registry::new([(ServerId(1), 77)]),
        ..MembersAt::default()
    }
}

fn checkpoint(state: &mut State, tree: &mut TreeStore, index: u64) {
    let applied = LogPoint { index, term: 3 };
    store::commit(tree, &state.take_dirty(), applied, &members()).expect("commit");
}

/// A member with so many znodes of 2,000 bytes, an ephemeral among them.
fn filled(directory: &Path, znodes: usize) -> (TreeStore, State) {
    let mut state = State::new();
    let session = SessionBody {
        timeout_ms: 4000,
        password: [7; 16],
    };
    apply(&mut state, OpCode::CreateSession, session.to_bytes());
    create(&mut state, "/ephemeral", Vec::new(), 1);
    for number in 0..znodes {
        // Bytes that cannot be compressed much, so that the tree has its size on disk too.
        let data = (0..500u64).flat_map(|at| {
            ((at ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).to_be_bytes()[4..].to_vec()
        });
        create(&mut state, &format!("/n{number}"), data.collect(), 0);
    }
    let mut tree = TreeStore::open(directory, TreeOptions::new(1)).expect("opens");
    checkpoint(&mut state, &mut tree, 10);
    (tree, state)
}

fn view(tree: &mut TreeStore) -> TreeView {
    tree.view().expect("readable").expect("written")
}

fn all(_: &Offer) -> Result<(), String> {
    Ok(())
}

fn unlimited() -> u64 {
    u64::MAX
}

fn brief() -> Pace {
    Pace {
        patience: Duration::from_millis(200),
        ..Pace::default()
    }
}

const MESSAGE: Bytes = Bytes::from_static(b"raft's own");

#[tokio::test(flavor = "multi_thread")]
async fn a_member_gets_the_whole_state_while_the_sender_goes_on() {
    let bench = Bench::new();
    let (mut tree, mut state) = filled(&bench.source(), 3000);
    let (digest, zxid) = (state.digest(), state.zxid());
    let view = view(&mut tree);
    let (mut ours, mut theirs) = duplex(64 << 10);
    let spool = bench.spool();
    let sending = tokio::spawn(async move { send(&mut ours, view, MESSAGE, spool, Pace::default()).await });
    create(&mut state, "/later", Vec::new(), 0);
    checkpoint(&mut state, &mut tree, 11);
    let intake = bench.intake(Pace::default());
    let received = intake.receive(&mut theirs, all, unlimited).await.expect("received");
    assert_eq!((received.state.digest(), received.state.zxid()), (digest, zxid));
    assert_eq!(received.state.ephemeral_paths(SESSION).len(), 1);
    assert_eq!(received.offer.message, MESSAGE);
    assert_eq!(received.offer.meta.applied, LogPoint { index: 10, term: 3 });
    assert!(!sending.is_finished());
    confirm(&mut theirs, Pace::default()).await.expect("confirmed");
    let sent = sending.await.expect("no panic").expect("sent");
    // Nodes, their chunks of 2,000 bytes, the session, and the few records that every tree has.
    assert!(sent.records > 6000 && sent.bytes > 6_000_000, "{sent:?}");

    // It is switched to, and found again.
    let arrived = received.tree.keep();
    assert_eq!(
        arrived.directory(),
        bench.place.path().join("receiver/menagerie/tree-2")
    );
    bench.generations.switch(arrived.directory()).expect("switch");
    drop(arrived);
    let mut again = TreeStore::open(&bench.generations.current(), TreeOptions::new(9)).expect("opens");
    let loaded = store::load(&mut again, u64::MAX).expect("loads");
    assert_eq!((loaded.state.digest(), loaded.applied.index), (digest, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_for_which_there_is_no_room_beside_the_old_state_stay_on_the_disk() {
    let bench = Bench::new();
    let (mut tree, state) = filled(&bench.source(), 3000);
    let half = state.memory_bytes() / 2;
    for (room, are_away) in [(0, 3000..=3000), (half, 1000..=2900), (u64::MAX, 0..=0)] {
        let view = view(&mut tree);
        let (mut ours, mut theirs) = duplex(64 << 10);
        let spool = bench.spool();
        let sending = tokio::spawn(async move { send(&mut ours, view, MESSAGE, spool, Pace::default()).await });
        let intake = bench.intake(Pace::default());
        let received = intake.receive(&mut theirs, all, move || room).await.expect("received");
        assert_eq!(received.state.digest(), state.digest());
        let away = received.state.values_away();
        assert!(are_away.contains(&away), "{room}: {away}");
        confirm(&mut theirs, Pace::default()).await.expect("confirmed");
        sending.await.expect("no panic").expect("sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_link_does_not_hold_the_view() {
    let bench = Bench::new();
    let (mut tree, state) = filled(&bench.source(), 10_000);
    let view = view(&mut tree);
    // Nobody reads yet: everything that does not fit into the pipe and the channel goes to the file.
    let (mut ours, mut theirs) = duplex(1000);
    let spool = bench.spool();
    let pace = Pace {
        view_patience: Duration::ZERO,
        ..Pace::default()
    };
    let sending = tokio::spawn(async move { send(&mut ours, view, MESSAGE, spool, pace).await });
    while tree.is_viewed() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!bench.spool().exists());
    let received = bench
        .intake(Pace::default())
        .receive(&mut theirs, all, unlimited)
        .await
        .expect("received");
    assert_eq!(received.state.digest(), state.digest());
    confirm(&mut theirs, pace).await.expect("confirmed");
    sending.await.expect("no panic").expect("sent");
    drop(received);
    bench.until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_a_file_the_view_is_held_and_the_tree_still_arrives() {
    let bench = Bench::new();
    let (mut tree, state) = filled(&bench.source(), 10_000);
    let view = view(&mut tree);
    let (mut ours, mut theirs) = duplex(1000);
    let nowhere = bench.place.path().join("absent/spool");
    let pace = Pace {
        view_patience: Duration::ZERO,
        ..Pace::default()
    };
    let sending = tokio::spawn(async move { send(&mut ours, view, MESSAGE, nowhere, pace).await });
    let received = bench
        .intake(pace)
        .receive(&mut theirs, all, unlimited)
        .await
        .expect("received");
    assert_eq!(received.state.digest(), state.digest());
    confirm(&mut theirs, pace).await.expect("confirmed");
    sending.await.expect("no panic").expect("sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_stands_still_is_given_up_on_both_sides() {
    let bench = Bench::new();
    let (mut tree, _) = filled(&bench.source(), 2000);
    // The receiver reads nothing.
    let (mut ours, _theirs) = duplex(1000);
    let stalled = send(&mut ours, view(&mut tree), MESSAGE, bench.spool(), brief()).await;
    assert!(
        matches!(stalled, Err(TransferError::Stalled { action: "sending", .. })),
        "{stalled:?}"
    );
    // It reads everything, and never answers.
    let (mut ours, mut theirs) = duplex(64 << 10);
    let reading = tokio::spawn(async move { theirs.read_to_end(&mut Vec::new()).await });
    let stalled = send(&mut ours, view(&mut tree), MESSAGE, bench.spool(), brief()).await;
    assert!(matches!(stalled, Err(TransferError::Stalled { .. })), "{stalled:?}");
    drop(ours);
    reading.await.expect("no panic").expect("read");
    while tree.is_viewed() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The sender stops in the middle: it gets to know why it is given up.
    let (mut ours, mut theirs) = duplex(64 << 10);
    let meta = view(&mut tree).meta().clone();
    let offer = Frame::Offer { message: MESSAGE, meta };
    write_frame(&mut ours, &offer, brief()).await.expect("write");
    let stalled = bench.intake(brief()).receive(&mut theirs, all, unlimited).await;
    assert!(
        matches!(
            stalled,
            Err(TransferError::Stalled {
                action: "receiving",
                ..
            })
        ),
        "{stalled:?}"
    );
    let told = read_frame(&mut ours, None).await.expect("told");
    assert!(matches!(told, Frame::Refused(reason) if reason.contains("nothing moved")));
    assert_eq!(bench.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn signs_of_life_keep_a_sender_waiting() {
    let bench = Bench::new();
    let (mut tree, _) = filled(&bench.source(), 10);
    let (mut ours, mut theirs) = duplex(1 << 20);
    let pace = Pace {
        patience: Duration::from_secs(3),
        ..Pace::default()
    };
    let view = view(&mut tree);
    let spool = bench.spool();
    let sending = tokio::spawn(async move { send(&mut ours, view, MESSAGE, spool, pace).await });
    while !matches!(read_frame(&mut theirs, None).await.expect("a frame"), Frame::End(_)) {}
    for _ in 0..45 {
        write_frame(&mut theirs, &Frame::Working, pace).await.expect("write");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    confirm(&mut theirs, pace).await.expect("confirmed");
    sending.await.expect("no panic").expect("sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_not_wanted_is_refused_with_the_reason() {
    let bench = Bench::new();
    let (mut tree, _) = filled(&bench.source(), 3000);
    let view = view(&mut tree);
    let (mut ours, mut theirs) = duplex(1000);
    let spool = bench.spool();
    let sending = tokio::spawn(async move { send(&mut ours, view, MESSAGE, spool, Pace::default()).await });
    let received = bench
        .intake(Pace::default())
        .receive(
            &mut theirs,
            |offer| Err(format!("entry {} is here already", offer.meta.applied.index)),
            unlimited,
        )
        .await;
    assert!(matches!(received, Err(TransferError::NotWanted(_))), "{received:?}");
    let refused = sending.await.expect("no panic");
    assert!(
        matches!(&refused, Err(TransferError::Refused(reason)) if reason.contains("entry 10 is here already")),
        "{refused:?}"
    );
    assert_eq!(bench.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_leaves_nothing_behind() {
    let bench = Bench::new();
    let (mut tree, _) = filled(&bench.source(), 3000);
    let view = view(&mut tree);
    let (mut ours, mut cut_here) = duplex(64 << 10);
    let (mut on, mut theirs) = duplex(64 << 10);
    let spool = bench.spool();
    let sending = tokio::spawn(async move { send(&mut ours, view, MESSAGE, spool, Pace::default()).await });
    tokio::spawn(async move {
        tokio::io::copy(&mut (&mut cut_here).take(3_000_000), &mut on)
            .await
            .expect("copied");
    });
    let broken = bench.intake(Pace::default()).receive(&mut theirs, all, unlimited).await;
    assert!(matches!(broken, Err(TransferError::Connection { .. })), "{broken:?}");
    let broken = sending.await.expect("no panic");
    assert!(matches!(broken, Err(TransferError::Connection { .. })), "{broken:?}");
    assert_eq!(bench.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_on_the_way_is_found() {
    let bench = Bench::new();
    let (mut tree, _) = filled(&bench.source(), 3000);
    let view = view(&mut tree);
    let (mut ours, mut damaged_here) = duplex(64 << 10);
    let (mut on, mut theirs) = duplex(64 << 10);
    let spool = bench.spool();
    let sending = tokio::spawn(async move { send(&mut ours, view, MESSAGE, spool, Pace::default()).await });
    tokio::spawn(async move {
        tokio::io::copy(&mut (&mut damaged_here).take(3_000_000), &mut on)
            .await
            .expect("copied");
        let byte = damaged_here.read_u8().await.expect("read");
        on.write_u8(byte ^ 1).await.expect("write");
        // The refusal must get back, and the rest on.
        let _ = tokio::io::copy_bidirectional(&mut damaged_here, &mut on).await;
    });
    let damaged = bench.intake(Pace::default()).receive(&mut theirs, all, unlimited).await;
    assert!(
        matches!(damaged, Err(TransferError::Malformed("a frame's checksum is wrong"))),
        "{damaged:?}"
    );
    let refused = sending.await.expect("no panic");
    assert!(
        matches!(&refused, Err(TransferError::Refused(reason)) if reason.contains("checksum")),
        "{refused:?}"
    );
    assert_eq!(bench.left(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_whose_digest_differs_is_refused_loudly() {
    let bench = Bench::new();
    let (mut tree, _) = filled(&bench.source(), 100);
    // The store says what is not so.
    let meta = tree.committed().cloned().expect("written");
    tree.batch()
        .expect("batch")
        .commit(Meta {
            digest: meta.digest ^ 1,
            ..meta
        })
        .expect("commit");
    let view = view(&mut tree);
    let (mut ours, mut theirs) = duplex(64 << 10);
    let spool = bench.spool();
    let sending = tokio::spawn(async move { send(&mut ours, view, MESSAGE, spool, Pace::default()).await });
    let refused = bench.intake(Pace::default()).receive(&mut theirs, all, unlimited).await;
    assert!(matches!(refused, Err(TransferError::Load(_))), "{refused:?}");
    let refused = sending.await.expect("no panic").expect_err("refused");
    assert!(refused.to_string().contains("digest"), "{refused}");
    bench.until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_transfer_takes_the_place_of_one_on_its_way_and_an_unwanted_one_does_not() {
    let bench = Bench::new();
    let (mut tree, state) = filled(&bench.source(), 3000);
    let intake = Arc::new(bench.intake(Pace::default()));
    // The first one stops in the middle.
    let (mut stuck, theirs) = duplex(64 << 10);
    let first_view = view(&mut tree);
    let offer = Frame::Offer {
        message: MESSAGE,
        meta: first_view.meta().clone(),
    };
    write_frame(&mut stuck, &offer, Pace::default()).await.expect("write");
    let first = {
        let (intake, mut theirs): (_, DuplexStream) = (intake.clone(), theirs);
        tokio::spawn(async move { intake.receive(&mut theirs, all, unlimited).await.map(drop) })
    };
    while bench.left().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // One that is not wanted changes nothing.
    let (mut unwanted, mut theirs) = duplex(64 << 10);
    write_frame(&mut unwanted, &offer, Pace::default())
        .await
        .expect("write");
    drop(unwanted);
    let refused = intake.receive(&mut theirs, |_| Err("not now".into()), unlimited).await;
    assert!(matches!(refused, Err(TransferError::NotWanted(_))));
    assert!(!first.is_finished());

    let (mut ours, mut theirs) = duplex(64 << 10);
    let (second_view, spool) = (view(&mut tree), bench.spool());
    let sending = tokio::spawn(async move { send(&mut ours, second_view, MESSAGE, spool, Pace::default()).await });
    let received = intake.receive(&mut theirs, all, unlimited).await.expect("received");
    assert_eq!(received.state.digest(), state.digest());
    let told = read_frame(&mut stuck, None).await.expect("told");
    assert!(matches!(told, Frame::Refused(reason) if reason.contains("newer")));
    drop(stuck);
    assert!(matches!(first.await.expect("no panic"), Err(TransferError::Superseded)));
    confirm(&mut theirs, Pace::default()).await.expect("confirmed");
    sending.await.expect("no panic").expect("sent");
    assert_eq!(bench.left(), ["tree-3"]);
}
