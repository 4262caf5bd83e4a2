//! The one place that draws lots; everything behind it gets chance as an argument.

#[cfg(test)]
use rand::{Rng as _, SeedableRng as _};

/// Random bytes: the machine's, or those of a simulation's seed.
pub(super) struct Chance {
    #[cfg(test)]
    seeded: Option<parking_lot::Mutex<rand::rngs::StdRng>>,
}

impl Chance {
    /// The machine's, fit for secrets.
    pub(super) fn of_machine() -> Chance {
        Chance {
            #[cfg(test)]
            seeded: None,
        }
    }

    /// The same for the same seed.
    #[cfg(test)]
    pub(super) fn seeded(seed: u64) -> Chance {
        Chance {
            seeded: Some(parking_lot::Mutex::new(rand::rngs::StdRng::seed_from_u64(seed))),
        }
    }

    /// Sixteen of them.
    pub(super) fn sixteen_bytes(&self) -> [u8; 16] {
        #[cfg(test)]
        if let Some(seeded) = &self.seeded {
            return seeded.lock().random();
        }
        rand::random()
    }
}
