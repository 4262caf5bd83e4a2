//! The sender's side.

use super::spool::Spool;
use super::wire::{Frame, read_frame, write_frame};
use super::{CHUNK_BYTES, Pace, TransferError, WAITING_CHUNKS};
use crate::storage::tree::{Totals, TreeView};
use bytes::Bytes;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};

/// After the connection broke, the receiver's reason may still be on its way for so long.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What was sent and taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Records of the tree.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// From the first byte to the receiver's answer.
    pub took: Duration,
}

/// Sends the tree of `view`, and `message`, which the receiver gets together with it. Returns once the receiver has
/// confirmed. `spool` is where a file may be made if the link is slow: [`Generations::spool`].
///
/// [`Generations::spool`]: crate::storage::generations::Generations::spool
pub async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    view: TreeView,
    message: Bytes,
    spool: PathBuf,
    pace: Pace,
) -> Result<Sent, TransferError> {
    let started = Instant::now();
    let offer = Frame::Offer {
        message,
        meta: view.meta().clone(),
    };
    let (pieces, waiting) = mpsc::channel(WAITING_CHUNKS);
    let outlet = Outlet {
        pieces,
        spool: SpoolFile::NotNeeded(spool),
        since: started,
        pace,
        runtime: Handle::current(),
    };
    let reading = tokio::task::spawn_blocking(move || outlet.read(view));
    let (mut reader, mut writer) = tokio::io::split(stream);
    let beats = AtomicU64::new(0);
    let mut answer = pin!(read_answer(&mut reader, &beats));
    let written = tokio::select! {
        early = &mut answer => return early.and(Err(TransferError::Malformed("it was confirmed before its end"))),
        written = write_all(&mut writer, offer, waiting, pace) => written,
    };
    let totals = match written {
        Ok(Some(totals)) => totals,
        // The thread has ended without a word.
        Ok(None) => {
            let _ = reading.await;
            return Err(TransferError::Panicked("reads"));
        }
        Err(error @ TransferError::Connection { .. }) => {
            // The receiver closes after it has refused: its reason says more than a broken connection.
            return match tokio::time::timeout(LAST_WORDS, answer).await {
                Ok(Err(refused @ TransferError::Refused(_))) => Err(refused),
                _ => Err(error),
            };
        }
        Err(error) => return Err(error),
    };
    loop {
        let heard = beats.load(Ordering::Relaxed);
        tokio::select! {
            answered = &mut answer => break answered?,
            () = tokio::time::sleep(pace.patience) => {}
        }
        if beats.load(Ordering::Relaxed) == heard {
            return Err(TransferError::Stalled {
                action: "waiting for the receiver's answer",
                limit: pace.patience,
            });
        }
    }
    Ok(Sent {
        records: totals.records,
        bytes: totals.bytes,
        took: started.elapsed(),
    })
}

/// Waits for the answer, however long that takes; counts the signs of life.
async fn read_answer<R: AsyncRead + Unpin>(reader: &mut R, beats: &AtomicU64) -> Result<(), TransferError> {
    loop {
        match read_frame(reader, None).await? {
            Frame::Working => drop(beats.fetch_add(1, Ordering::Relaxed)),
            Frame::Taken => return Ok(()),
            Frame::Refused(reason) => return Err(TransferError::Refused(reason)),
            _ => return Err(TransferError::Malformed("the receiver sent what only senders send")),
        }
    }
}

/// `None`: what waits broke off.
async fn write_all<W: AsyncWrite + Unpin>(
    writer: &mut W,
    offer: Frame,
    mut waiting: mpsc::Receiver<Result<Piece, TransferError>>,
    pace: Pace,
) -> Result<Option<Totals>, TransferError> {
    write_frame(writer, &offer, pace).await?;
    while let Some(piece) = waiting.recv().await {
        match piece? {
            Piece::Chunk(chunk) => write_frame(writer, &Frame::Chunk(chunk), pace).await?,
            Piece::End(totals) => {
                write_frame(writer, &Frame::End(totals), pace).await?;
                return Ok(Some(totals));
            }
        }
    }
    Ok(None)
}

enum Piece {
    Chunk(Bytes),
    End(Totals),
}

/// The task has ended: nobody takes chunks any more.
struct Unwanted;

enum SpoolFile {
    /// It would be made here.
    NotNeeded(PathBuf),
    InUse(Spool),
    /// It cannot be made or written: the view is held instead.
    Unusable,
}

/// The reader thread's way to the task.
struct Outlet {
    pieces: mpsc::Sender<Result<Piece, TransferError>>,
    spool: SpoolFile,
    /// Since when the view is held.
    since: Instant,
    pace: Pace,
    runtime: Handle,
}

impl Outlet {
    fn read(mut self, view: TreeView) {
        // Nobody left to tell: the task has its own reason.
        let Err(Unwanted) = self.read_all(view) else { return };
        tracing::debug!("the reading of a view was given up: its transfer has ended");
    }

    fn read_all(&mut self, view: TreeView) -> Result<(), Unwanted> {
        let mut chunks = view.into_chunks(CHUNK_BYTES);
        for chunk in &mut chunks {
            match chunk {
                Ok(chunk) => self.put(chunk)?,
                Err(error) => return self.give_up(error.into()),
            }
        }
        let totals = chunks.totals();
        drop(chunks);
        self.empty_spool()?;
        let end = self.pieces.blocking_send(Ok(Piece::End(totals)));
        end.map_err(|_| Unwanted)
    }

    /// Hands a chunk on, or keeps it in the file.
    fn put(&mut self, chunk: Bytes) -> Result<(), Unwanted> {
        let chunk = match &self.spool {
            SpoolFile::InUse(_) => chunk,
            SpoolFile::Unusable => return self.put_when_there_is_room(chunk),
            SpoolFile::NotNeeded(_) => match self.put_while_patient(chunk)? {
                None => return Ok(()),
                Some(chunk) => {
                    self.open_spool();
                    chunk
                }
            },
        };
        let SpoolFile::InUse(spool) = &mut self.spool else {
            return self.put_when_there_is_room(chunk);
        };
        if let Err(error) = spool.push(&chunk) {
            tracing::warn!(%error, "cannot keep a snapshot for a slow peer in a file: the tree's old values are kept instead");
            self.empty_spool()?;
            self.spool = SpoolFile::Unusable;
            return self.put_when_there_is_room(chunk);
        }
        self.move_on()
    }

    /// Gives the chunk back if the link has not taken it while the view was young.
    fn put_while_patient(&self, chunk: Bytes) -> Result<Option<Bytes>, Unwanted> {
        let left = self.pace.view_patience.saturating_sub(self.since.elapsed());
        let sending = self.pieces.send_timeout(Ok(Piece::Chunk(chunk)), left);
        match self.runtime.block_on(sending) {
            Ok(()) => Ok(None),
            Err(SendTimeoutError::Timeout(Ok(Piece::Chunk(chunk)))) => Ok(Some(chunk)),
            Err(_) => Err(Unwanted),
        }
    }

    fn put_when_there_is_room(&self, chunk: Bytes) -> Result<(), Unwanted> {
        let sent = self.pieces.blocking_send(Ok(Piece::Chunk(chunk)));
        sent.map_err(|_| Unwanted)
    }

    fn open_spool(&mut self) {
        let SpoolFile::NotNeeded(path) = &self.spool else {
            return;
        };
        self.spool = match Spool::create(path) {
            Ok(spool) => {
                tracing::info!(
                    "the link to the peer is slower than the disk: the rest of the snapshot waits in a file"
                );
                SpoolFile::InUse(spool)
            }
            Err(error) => {
                tracing::warn!(
                    path = %path.display(), %error,
                    "cannot make a file for a slow peer's snapshot: the tree's old values are kept instead"
                );
                SpoolFile::Unusable
            }
        };
    }

    /// As much of the file as the link takes now.
    fn move_on(&mut self) -> Result<(), Unwanted> {
        let SpoolFile::InUse(spool) = &mut self.spool else {
            return Ok(());
        };
        loop {
            let room = match self.pieces.try_reserve() {
                Ok(room) => room,
                Err(TrySendError::Full(())) => return Ok(()),
                Err(TrySendError::Closed(())) => return Err(Unwanted),
            };
            match spool.pop() {
                Ok(Some(chunk)) => room.send(Ok(Piece::Chunk(chunk))),
                Ok(None) => return Ok(()),
                Err(error) => return self.give_up(TransferError::Spool(error)),
            }
        }
    }

    /// All that is in the file, at the link's speed.
    fn empty_spool(&mut self) -> Result<(), Unwanted> {
        let SpoolFile::InUse(spool) = &mut self.spool else {
            return Ok(());
        };
        loop {
            match spool.pop() {
                Ok(Some(chunk)) => {
                    let sent = self.pieces.blocking_send(Ok(Piece::Chunk(chunk)));
                    sent.map_err(|_| Unwanted)?;
                }
                Ok(None) => return Ok(()),
                Err(error) => return self.give_up(TransferError::Spool(error)),
            }
        }
    }

    /// The transfer cannot go on.
    fn give_up(&self, error: TransferError) -> Result<(), Unwanted> {
        // Whether the task hears of it or has ended before: nothing more is wanted.
        let _ = self.pieces.blocking_send(Err(error));
        Err(Unwanted)
    }
}
