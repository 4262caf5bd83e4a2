//! How a log is kept, and which settings contradict each other.

use std::fmt;

use super::error::LogError;
use super::preparation::Preparation;
use super::segment::DATA_START;

/// The largest segment size that can be asked for.
const MAX_SEGMENT_BYTES: u64 = 512 << 20;

/// Where new salts come from: random numbers of the whole range, not secret, never repeated in practice.
pub type SaltSource = Box<dyn FnMut() -> u64 + Send>;

/// How a log is kept.
pub struct LogOptions {
    /// The size of a segment, in bytes: 64 MiB unless there is a reason. 16 KiB to 512 MiB.
    pub segment_bytes: u64,
    /// The size of the very first one, which start-up waits for. At most `segment_bytes`.
    pub first_segment_bytes: u64,
    /// How many purged segments are kept to be written again.
    pub max_spares: usize,
    /// Where segments are prepared.
    pub preparation: Preparation,
    /// Chance.
    pub salts: SaltSource,
}

impl LogOptions {
    /// What a server uses.
    pub fn new(salts: SaltSource) -> LogOptions {
        LogOptions {
            segment_bytes: 64 << 20,
            first_segment_bytes: 1 << 20,
            max_spares: 2,
            preparation: Preparation::Thread,
            salts,
        }
    }

    pub(super) fn check(&self) -> Result<(), LogError> {
        if !(2 * DATA_START..=MAX_SEGMENT_BYTES).contains(&self.segment_bytes) {
            return Err(LogError::Options("a segment must have 16 KiB to 512 MiB"));
        }
        if !(2 * DATA_START..=self.segment_bytes).contains(&self.first_segment_bytes) {
            return Err(LogError::Options(
                "the first segment must have at least 16 KiB, and at most a full segment's size",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LogOptions")
            .field("segment_bytes", &self.segment_bytes)
            .finish_non_exhaustive()
    }
}
