//! A set of numbers that is small in memory whether it has one member or millions, and loses any of them in a moment.

use roaring::RoaringBitmap;
use smallvec::SmallVec;

/// Up to so many members stand in a list that is searched; beyond, in a compressed bitmap: 2 to 4 bytes each at worst,
/// down to a bit where they stand close together.
const LIST_LIMIT: usize = 128;

/// A set of numbers.
#[derive(Debug)]
pub(super) enum Numbers {
    Few(SmallVec<[u32; 4]>),
    Many(Box<RoaringBitmap>),
}

impl Default for Numbers {
    fn default() -> Numbers {
        Numbers::Few(SmallVec::new())
    }
}

impl Numbers {
    pub(super) fn insert(&mut self, number: u32) {
        match self {
            Numbers::Many(bitmap) => {
                bitmap.insert(number);
            }
            Numbers::Few(list) if list.contains(&number) => {}
            Numbers::Few(list) if list.len() < LIST_LIMIT => list.push(number),
            Numbers::Few(list) => {
                let mut bitmap: RoaringBitmap = list.iter().copied().collect();
                bitmap.insert(number);
                *self = Numbers::Many(Box::new(bitmap));
            }
        }
    }

    pub(super) fn remove(&mut self, number: u32) {
        match self {
            Numbers::Many(bitmap) => {
                bitmap.remove(number);
            }
            Numbers::Few(list) => {
                if let Some(place) = list.iter().position(|member| *member == number) {
                    list.swap_remove(place);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Numbers::Few(list) => list.len(),
            Numbers::Many(bitmap) => usize::try_from(bitmap.len()).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Numbers::Few(list) => list.is_empty(),
            Numbers::Many(bitmap) => bitmap.is_empty(),
        }
    }

    /// Some members, `limit` at most: those that go most cheaply.
    pub(super) fn some(&self, limit: usize) -> Vec<u32> {
        match self {
            Numbers::Few(list) => list.iter().rev().take(limit).copied().collect(),
            Numbers::Many(bitmap) => bitmap.iter().rev().take(limit).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_set_is_a_set_at_every_size() {
        let mut numbers = Numbers::default();
        let mut model = BTreeSet::new();
        let mut random = 9_u32;
        for step in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = (random >> 8) % 1_000;
            // First it grows, then it shrinks.
            if (random >> 4) % 10 < if step < 10_000 { 7 } else { 3 } {
                numbers.insert(number);
                model.insert(number);
            } else {
                numbers.remove(number);
                model.remove(&number);
            }
            assert_eq!(numbers.len(), model.len());
            assert_eq!(numbers.is_empty(), model.is_empty());
        }
        let mut all = numbers.some(usize::MAX);
        all.sort_unstable();
        assert_eq!(all, model.into_iter().collect::<Vec<_>>());
    }
}
