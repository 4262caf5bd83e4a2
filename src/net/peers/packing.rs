//! Messages on their way into a socket: many small ones in one write, large ones without a copy.

use super::frame;
use crate::net::PromptWriter;
use bytes::{Buf as _, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// A body of fewer bytes is copied beside its neighbours: a copy costs less than a slice of its own.
const COPIED_BYTES: usize = 16 << 10;
/// Slices that one write is given.
const SLICES: usize = 32;

/// Frames as pieces of memory.
#[derive(Default)]
pub(super) struct Packed {
    pieces: VecDeque<Bytes>,
    /// Headers and small bodies that are not yet a piece.
    open: BytesMut,
}

impl Packed {
    /// Adds one frame.
    pub(super) fn add(&mut self, body: Bytes) {
        self.open.extend_from_slice(&frame::header(&body));
        if body.len() < COPIED_BYTES {
            self.open.extend_from_slice(&body);
        } else {
            self.seal();
            self.pieces.push_back(body);
        }
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push_back(self.open.split().freeze());
        }
    }

    /// Whether nothing is left to write.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.open.is_empty()
    }

    fn slices(&self) -> Vec<IoSlice<'_>> {
        let first = self.pieces.iter().take(SLICES);
        first.map(|piece| IoSlice::new(piece)).collect()
    }

    /// Writes what the socket takes at once; says how many bytes these were.
    pub(super) fn write_now(&mut self, writer: &PromptWriter) -> u64 {
        self.seal();
        let mut bytes = 0;
        while !self.pieces.is_empty() {
            let written = writer.try_send_vectored(&self.slices());
            if written == 0 {
                break;
            }
            bytes += written as u64;
            self.advance(written);
        }
        bytes
    }

    /// Writes everything; says how many bytes these were.
    pub(super) async fn write<W: AsyncWrite + Unpin>(&mut self, stream: &mut W) -> io::Result<u64> {
        self.seal();
        let mut bytes = 0;
        while !self.pieces.is_empty() {
            let written = stream.write_vectored(&self.slices()).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes += written as u64;
            self.advance(written);
        }
        stream.flush().await?;
        Ok(bytes)
    }

    /// What is left to write.
    #[cfg(test)]
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let pieces = self.pieces.iter().map(|piece| &piece[..]);
        pieces.chain([&self.open[..]]).flatten().copied().collect()
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            if written < piece.len() {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_bodies_arrive_whole_and_in_order() {
        let lengths = [
            0,
            1,
            COPIED_BYTES - 1,
            COPIED_BYTES,
            3,
            10 * COPIED_BYTES,
            COPIED_BYTES,
            5,
        ];
        let bodies: Vec<Bytes> = (1..)
            .zip(lengths)
            .map(|(fill, length)| vec![fill; length].into())
            .collect();
        let mut packed = Packed::default();
        bodies.iter().for_each(|body| packed.add(body.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let received = runtime.block_on(async {
            // Narrow, so that writes are cut anywhere.
            let (mut ours, mut theirs) = tokio::io::duplex(1000);
            let reader = tokio::spawn(async move {
                let mut received = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut received)
                    .await
                    .unwrap();
                received
            });
            let bytes = packed.write(&mut ours).await.unwrap();
            drop(ours);
            let received = reader.await.unwrap();
            assert_eq!(bytes, received.len() as u64);
            received
        });
        let mut buffer = BytesMut::from(&received[..]);
        let mut found = Vec::new();
        while let Some(body) = frame::split(&mut buffer).unwrap() {
            found.push(body);
        }
        assert!(found == bodies && buffer.is_empty());
    }
}
