//! The receiver's side.

use super::wire::{Frame, read_frame, write_frame};
use super::{Pace, TransferError, WAITING_CHUNKS};
use crate::server::store::{Unloadable, load_state};
use crate::state_machine::State;
use crate::storage::generations::Generations;
use crate::storage::tree::{IncomingPart, Meta, TreeOptions, TreeReader, TreeStore, build_tree};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a refused sender is listened to, so that closing does not take the refusal away from it.
const LINGER: Duration = Duration::from_secs(2);

/// Takes trees that peers send, one at a time; a newer one takes the place of the one that is on its way.
#[derive(Debug)]
pub struct Intake {
    generations: Arc<Generations>,
    options: TreeOptions,
    pace: Pace,
    /// Held by the thread that writes and loads.
    turn: Arc<tokio::sync::Mutex<()>>,
    newest: Mutex<CancellationToken>,
}

/// What is on its way, before any of it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What the sender gave along.
    pub message: Bytes,
    /// What the tree leads to.
    pub meta: Meta,
}

/// A complete tree of a peer.
pub struct Received {
    /// What it is.
    pub offer: Offer,
    /// The tree: complete, durable and in nobody's way. Removed again unless it is kept.
    pub tree: ArrivedTree,
    /// The state, loaded from it; its digest is that of the offer.
    pub state: State,
}

impl std::fmt::Debug for Received {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Received")
            .field("offer", &self.offer)
            .field("tree", &self.tree)
            .finish_non_exhaustive()
    }
}

/// A tree that arrived and is not in use. Unless it is kept it is removed.
#[derive(Debug)]
pub struct ArrivedTree {
    /// `None` once it was kept or removed.
    tree: Option<TreeStore>,
    generations: Arc<Generations>,
}

impl ArrivedTree {
    /// Reads from it, on another thread.
    pub fn reader(&mut self) -> TreeReader {
        let tree = self.tree.as_mut();
        tree.expect("it is taken only by who keeps it, and when dropped")
            .reader()
    }

    /// The tree, to be switched to. If that comes to nothing, the next start removes it.
    pub fn keep(mut self) -> TreeStore {
        self.tree.take().expect("it is taken only here and when dropped")
    }
}

impl Drop for ArrivedTree {
    fn drop(&mut self) {
        let Some(tree) = self.tree.take() else { return };
        let generations = self.generations.clone();
        // Closing and removing it blocks. Without a thread the next start removes it.
        let _ = std::thread::Builder::new()
            .name("discard".into())
            .spawn(move || discard(&generations, tree));
    }
}

fn discard(generations: &Generations, tree: TreeStore) {
    let directory = tree.directory().to_path_buf();
    drop(tree);
    generations.remove(&directory);
}

impl Intake {
    /// Nothing is on its way yet.
    pub fn new(generations: Arc<Generations>, options: TreeOptions, pace: Pace) -> Intake {
        Intake {
            generations,
            options,
            pace,
            turn: Arc::default(),
            newest: Mutex::default(),
        }
    }

    /// Takes what the peer sends, unless `admit` finds a reason not to. When this returns, the tree is durable and loaded,
    /// and the sender waits: the caller installs, and then calls [`confirm`], or [`refuse`]. Of errors the sender knows.
    /// `kept_bytes` is asked when it can be loaded: values beyond so many bytes of memory stay on the disk.
    pub async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        admit: impl FnOnce(&Offer) -> Result<(), String>,
        kept_bytes: impl FnOnce() -> u64 + Send + 'static,
    ) -> Result<Received, TransferError> {
        let superseded = CancellationToken::new();
        let outcome = tokio::select! {
            outcome = self.take(stream, admit, kept_bytes, &superseded) => outcome,
            () = superseded.cancelled() => Err(TransferError::Superseded),
        };
        if let Err(error) = &outcome {
            // If it cannot be told, the connection's end tells it.
            let _ = refuse(stream, &error.to_string()).await;
        }
        outcome
    }

    async fn take<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        admit: impl FnOnce(&Offer) -> Result<(), String>,
        kept_bytes: impl FnOnce() -> u64 + Send + 'static,
        superseded: &CancellationToken,
    ) -> Result<Received, TransferError> {
        let Frame::Offer { message, meta } = read_frame(stream, Some(self.pace.patience)).await? else {
            return Err(TransferError::Malformed("it does not begin with an offer"));
        };
        let offer = Offer { message, meta };
        admit(&offer).map_err(TransferError::NotWanted)?;
        // One that is not wanted does not end another.
        std::mem::replace(&mut *self.newest.lock(), superseded.clone()).cancel();
        let turn = self.turn.clone().lock_owned().await;
        let mut taker = self.start(offer.meta.clone(), kept_bytes, turn);
        let arrived = taker.take_all(stream, self.pace).await;
        let built = taker.finish(stream, self.pace, arrived).await?;
        Ok(Received {
            offer,
            tree: built.tree,
            state: built.state,
        })
    }

    fn start(&self, meta: Meta, kept_bytes: impl FnOnce() -> u64 + Send + 'static, turn: OwnedMutexGuard<()>) -> Taker {
        let (parts, waiting) = mpsc::channel(WAITING_CHUNKS);
        let given_up = Arc::new(AtomicBool::new(false));
        let building = Building {
            directory: self.generations.reserve(),
            generations: self.generations.clone(),
            options: self.options,
            meta,
            given_up: given_up.clone(),
        };
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            building.build(waiting, kept_bytes)
        });
        Taker {
            parts: Some(parts),
            work,
            given_up,
        }
    }
}

/// The task's side of an incoming tree. When it is dropped the thread gives up.
struct Taker {
    /// `None` once all parts were handed over.
    parts: Option<mpsc::Sender<IncomingPart>>,
    work: JoinHandle<Result<Built, TransferError>>,
    given_up: Arc<AtomicBool>,
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

impl Taker {
    /// Hands everything over to the thread. Ends early, without an error, when the thread does: it knows why.
    async fn take_all<S: AsyncRead + Unpin>(&mut self, stream: &mut S, pace: Pace) -> Result<(), TransferError> {
        let Some(parts) = self.parts.take() else { return Ok(()) };
        loop {
            let (part, is_last) = match read_frame(stream, Some(pace.patience)).await? {
                Frame::Chunk(chunk) => (IncomingPart::Chunk(chunk), false),
                Frame::End(totals) => (IncomingPart::End(totals), true),
                _ => return Err(TransferError::Malformed("the sender sent what only receivers send")),
            };
            if parts.send(part).await.is_err() || is_last {
                return Ok(());
            }
        }
    }

    /// Waits for the thread, and tells the sender every now and then that it is at work.
    async fn finish<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        pace: Pace,
        arrived: Result<(), TransferError>,
    ) -> Result<Built, TransferError> {
        loop {
            tokio::select! {
                done = &mut self.work => {
                    let built = done.unwrap_or(Err(TransferError::Panicked("writes")));
                    // If it broke off, that is the reason, and not what the thread makes of it.
                    return arrived.and(built);
                }
                () = tokio::time::sleep(pace.beat) => {}
            }
            if arrived.is_ok() {
                write_frame(stream, &Frame::Working, pace).await?;
            }
        }
    }
}

struct Built {
    tree: ArrivedTree,
    state: State,
}

/// The thread's side.
struct Building {
    directory: PathBuf,
    generations: Arc<Generations>,
    options: TreeOptions,
    meta: Meta,
    given_up: Arc<AtomicBool>,
}

impl Building {
    fn build(
        self,
        mut waiting: mpsc::Receiver<IncomingPart>,
        kept_bytes: impl FnOnce() -> u64,
    ) -> Result<Built, TransferError> {
        let parts = std::iter::from_fn(|| waiting.blocking_recv());
        let built = build_tree(&self.directory, self.options, self.meta.clone(), parts);
        let mut tree = match built {
            Ok(tree) => tree,
            Err(error) => {
                self.generations.remove(&self.directory);
                return Err(error.into());
            }
        };
        let loaded = load_state(&mut tree, &self.meta, kept_bytes(), &self.given_up);
        // Removes it, unless it is handed on.
        let tree = ArrivedTree {
            tree: Some(tree),
            generations: self.generations,
        };
        match loaded {
            Ok(state) => Ok(Built { tree, state }),
            Err(Unloadable::Tree(error)) => Err(error.into()),
            Err(Unloadable::Load(error)) => Err(error.into()),
        }
    }
}

/// Tells the sender that its tree is installed.
pub async fn confirm<S: AsyncWrite + Unpin>(stream: &mut S, pace: Pace) -> Result<(), TransferError> {
    write_frame(stream, &Frame::Taken, pace).await
}

/// Tells the sender why its tree is not installed, and waits a moment until it has heard.
pub async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, reason: &str) -> Result<(), TransferError> {
    let pace = Pace {
        patience: LINGER,
        ..Pace::default()
    };
    write_frame(stream, &Frame::Refused(reason.to_owned()), pace).await?;
    let hearing = async {
        stream.shutdown().await?;
        let mut scratch = vec![0; 64 << 10];
        // What was already on its way is thrown away; closing before would throw the refusal away as well.
        while stream.read(&mut scratch).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    // Told or not: there is nothing more to do.
    let _ = tokio::time::timeout(LINGER, hearing).await;
    Ok(())
}
