//! Values by number, in chunks: growing never moves what is there, and leaves at most one chunk unused.

/// Values of one chunk.
const CHUNK: usize = 256;
/// No number: the end of the list of free places.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Place<T> {
    Used(T),
    /// And the next free one.
    Free(u32),
}

/// Values by number. A number is used again after its value is gone.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// All but the last are full.
    chunks: Vec<Vec<Place<T>>>,
    free: u32,
    used: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab {
            chunks: Vec::new(),
            free: NONE,
            used: 0,
        }
    }
}

impl<T> Slab<T> {
    /// Keeps a value and gives its number, which is below `limit`; where there is none, gives the value back.
    pub(super) fn insert(&mut self, value: T, limit: u32) -> Result<u32, T> {
        let number = if self.free == NONE {
            self.push(value, limit)?
        } else {
            let number = self.free;
            let place = &mut self.chunks[number as usize / CHUNK][number as usize % CHUNK];
            if let Place::Free(next) = *place {
                self.free = next;
            }
            *place = Place::Used(value);
            number
        };
        self.used += 1;
        Ok(number)
    }

    /// There is no free place: all that were ever made are used.
    fn push(&mut self, value: T, limit: u32) -> Result<u32, T> {
        let Some(number) = u32::try_from(self.used).ok().filter(|number| *number < limit) else {
            return Err(value);
        };
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(Place::Used(value)),
            Some(_) => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(Place::Used(value));
                self.chunks.push(chunk);
            }
            // The first chunk grows by doubling: most slabs stay small.
            None => self.chunks.push(vec![Place::Used(value)]),
        }
        Ok(number)
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        match self.chunks.get(number as usize / CHUNK)?.get(number as usize % CHUNK)? {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        match self
            .chunks
            .get_mut(number as usize / CHUNK)?
            .get_mut(number as usize % CHUNK)?
        {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let place = self
            .chunks
            .get_mut(number as usize / CHUNK)?
            .get_mut(number as usize % CHUNK)?;
        if matches!(place, Place::Free(_)) {
            return None;
        }
        let Place::Used(value) = std::mem::replace(place, Place::Free(self.free)) else {
            return None;
        };
        self.free = number;
        self.used -= 1;
        if self.used == 0 && self.chunks.len() > 1 {
            // What a burst has taken is given back.
            *self = Slab::default();
        }
        Some(value)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// All values, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten().filter_map(|place| match place {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_and_a_burst_leaves_nothing() {
        let mut slab = Slab::default();
        let numbers: Vec<_> = (0..3 * CHUNK).map(|value| slab.insert(value, NONE).unwrap()).collect();
        assert_eq!(numbers, (0..3 * CHUNK as u32).collect::<Vec<_>>());
        assert_eq!(slab.remove(5), Some(5));
        assert_eq!((slab.remove(5), slab.get(5)), (None, None));
        assert_eq!(slab.insert(77, NONE), Ok(5));
        assert_eq!(slab.iter().filter(|value| **value == 77).count(), 2);
        for number in numbers {
            slab.remove(number);
        }
        assert!(slab.is_empty() && slab.chunks.is_empty());
    }

    #[test]
    fn no_number_reaches_the_limit() {
        let mut slab = Slab::default();
        for value in 0..3 {
            assert_eq!(slab.insert(value, 3), Ok(value));
        }
        assert_eq!(slab.insert(3, 3), Err(3));
        slab.remove(1);
        assert_eq!(slab.insert(4, 3), Ok(1));
    }
}
