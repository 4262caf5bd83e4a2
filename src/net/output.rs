//! What is to be sent to a client: one buffer to which replies and events are appended, and before its end large parts of
//! replies that many clients get and none needs a copy of.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Bytes in their order. Read as a [`Buf`].
#[derive(Debug, Default)]
pub struct Output {
    /// What comes before the last piece; none of them is empty.
    pieces: VecDeque<Bytes>,
    /// Bytes in `pieces`.
    pieces_bytes: usize,
    last: BytesMut,
}

impl Output {
    /// Nothing; takes no memory of its own.
    pub fn new() -> Output {
        Output::default()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty() && self.pieces.is_empty()
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.pieces_bytes + self.last.len()
    }

    /// Whether [`Buf::chunk`] is all there is.
    pub fn is_one_piece(&self) -> bool {
        self.pieces.is_empty() || self.last.is_empty() && self.pieces.len() == 1
    }

    /// Where to append. What is there already stays.
    pub fn last(&mut self) -> &mut BytesMut {
        &mut self.last
    }

    /// Puts `bytes` where [`Output::last`] has its byte `at`.
    ///
    /// # Panics
    /// There are not so many.
    pub fn insert(&mut self, at: usize, bytes: Bytes) {
        let behind = self.last.split_off(at);
        let before = std::mem::replace(&mut self.last, behind).freeze();
        for piece in [before, bytes] {
            self.pieces_bytes += piece.len();
            self.pieces.extend((!piece.is_empty()).then_some(piece));
        }
    }

    /// All there is, if nothing of it is shared.
    pub fn take_unshared(&mut self) -> Option<BytesMut> {
        self.pieces.is_empty().then(|| std::mem::take(&mut self.last))
    }

    /// Puts back before the rest what was taken from there.
    pub fn put_back(&mut self, mut taken: BytesMut) {
        if taken.is_empty() {
            return;
        }
        if self.pieces.is_empty() {
            taken.extend_from_slice(&self.last);
            self.last = taken;
        } else {
            self.pieces_bytes += taken.len();
            self.pieces.push_front(taken.freeze());
        }
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&self.last, |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.pieces.iter().map(|piece| &piece[..]);
        let last = Some(&self.last[..]).filter(|last| !last.is_empty());
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces.chain(last)) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    fn advance(&mut self, mut bytes: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let taken = bytes.min(piece.len());
            piece.advance(taken);
            self.pieces_bytes -= taken;
            bytes -= taken;
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.last.advance(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut output: Output) -> Bytes {
        let bytes = output.len();
        output.copy_to_bytes(bytes)
    }

    fn two_shared() -> Output {
        let mut output = Output::new();
        output.last().extend_from_slice(b"first,header,stat");
        output.insert(13, Bytes::from_static(b"LISTING,"));
        output.last().extend_from_slice(b",header,");
        let at = output.last().len();
        output.insert(at, Bytes::from_static(b"LISTING"));
        output.last().extend_from_slice(b",last");
        output
    }

    const TWO_SHARED: &[u8] = b"first,header,LISTING,stat,header,LISTING,last";

    #[test]
    fn shared_parts_stand_in_their_places_and_count() {
        let output = two_shared();
        assert_eq!((output.len(), output.is_one_piece()), (TWO_SHARED.len(), false));
        let mut slices = [IoSlice::new(b""); 8];
        let used = output.chunks_vectored(&mut slices);
        let sent: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(sent, TWO_SHARED);
        assert_eq!(all(output), TWO_SHARED);
    }

    #[test]
    fn any_number_of_bytes_may_be_taken_at_a_time() {
        for step in 1..TWO_SHARED.len() {
            let mut output = two_shared();
            let mut taken = Vec::new();
            while !output.is_empty() {
                let bytes = step.min(output.len());
                let mut part = vec![0; bytes];
                output.copy_to_slice(&mut part);
                taken.extend(part);
                assert_eq!(output.len(), TWO_SHARED.len() - taken.len());
            }
            assert_eq!(taken, TWO_SHARED);
            assert!(output.is_one_piece());
        }
    }

    #[test]
    fn what_was_taken_goes_back_before_the_rest() {
        let mut output = Output::new();
        output.last().extend_from_slice(b"first");
        let taken = output.take_unshared().expect("nothing is shared");
        assert!(output.is_empty());
        output.last().extend_from_slice(b"second");
        output.put_back(taken);
        assert_eq!(all(output), &b"firstsecond"[..]);
        let mut output = two_shared();
        assert_eq!(output.take_unshared(), None);
        output.put_back(BytesMut::from(&b"first"[..]));
        assert_eq!(all(output), [b"first", TWO_SHARED].concat());
    }
}
