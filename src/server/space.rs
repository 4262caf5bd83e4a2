//! The thread that watches over the room on the disks, and what everybody else may know of it.
//!
//! Looking at a disk can take as long as the disk likes, so nobody does it but this thread; the others read [`Room`]. The
//! leader's driver stamps its entries with `Rules::NO_GROWTH` while its room is short. What the operator gets: a line at
//! every change and once a minute while growth is refused, and the gauges `disk_*`.

use crate::storage::directory::Layout;
use crate::storage::space::{Headroom, Look, SpaceWatch};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Time between two looks. What can be written meanwhile must fit into `Thresholds::short_bytes`.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// While growth is refused, so many looks pass between two reminders.
const REMINDER_LOOKS: u32 = 240;

/// What is known of the room on the disks.
#[derive(Debug)]
pub struct Room {
    is_short: AtomicBool,
    /// -1 before the first look.
    free_bytes: AtomicI64,
    short_bytes: AtomicI64,
}

impl Default for Room {
    fn default() -> Room {
        Room {
            is_short: AtomicBool::new(false),
            free_bytes: AtomicI64::new(-1),
            short_bytes: AtomicI64::new(-1),
        }
    }
}

impl Room {
    /// Whether what makes the state larger must be refused.
    pub fn is_short(&self) -> bool {
        self.is_short.load(Relaxed)
    }

    /// Free bytes on the disk that is worst off, the reserve not counted; -1 before the first look.
    pub fn free_bytes(&self) -> i64 {
        self.free_bytes.load(Relaxed)
    }

    /// Below so many free bytes growth is refused; -1 before the first look.
    pub fn short_bytes(&self) -> i64 {
        self.short_bytes.load(Relaxed)
    }

    fn set(&self, look: Option<&Look>) {
        let Some(look) = look else { return };
        let whole = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.free_bytes.store(whole(look.free_bytes), Relaxed);
        self.short_bytes.store(whole(look.short_bytes), Relaxed);
        self.is_short.store(look.headroom == Headroom::Short, Relaxed);
    }
}

/// Looks once before the stores are opened, so that a start upon a full disk gets the reserve. The directories exist.
/// Without an answer of the disk the server starts all the same: then it just is not watched over.
pub fn look_before_start(layout: &Layout) -> Option<Watcher> {
    let directories: [&Path; 2] = [&layout.data_directory, &layout.log_directory];
    let mut watcher = match SpaceWatch::new(&directories) {
        Ok(watch) => Watcher {
            watch,
            last: None,
            looks_since_told: 0,
            failed: false,
        },
        Err(error) => {
            tracing::warn!(%error, "cannot look at the room on the disks: a full disk will stop this server");
            return None;
        }
    };
    watcher.look();
    Some(watcher)
}

/// Looks again and again, and says what it sees.
#[derive(Debug)]
pub struct Watcher {
    watch: SpaceWatch,
    last: Option<Look>,
    looks_since_told: u32,
    failed: bool,
}

impl Watcher {
    /// Goes on looking on a thread of its own, until what this gives is dropped.
    pub fn start(mut self, room: Arc<Room>) -> io::Result<Watching> {
        let (stop, stopped) = channel();
        room.set(self.last.as_ref());
        std::thread::Builder::new().name("space".into()).spawn(move || {
            while stopped.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                self.look();
                room.set(self.last.as_ref());
            }
        })?;
        Ok(Watching { _stop: stop })
    }

    fn look(&mut self) {
        match self.watch.look() {
            Ok(Some(look)) => {
                self.failed = false;
                self.tell(&look);
                self.last = Some(look);
            }
            Ok(None) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::warn!(%error, "cannot look at the room on the disks; what was decided before stays");
                }
            }
        }
    }

    fn tell(&mut self, look: &Look) {
        let before = self.last.as_ref().map_or(Headroom::Ample, |last| last.headroom);
        self.looks_since_told += 1;
        let reminds = look.headroom == Headroom::Short && self.looks_since_told >= REMINDER_LOOKS;
        if look.headroom == before && !reminds {
            return;
        }
        self.looks_since_told = 0;
        let (directory, free, limit) = (look.directory.display(), look.free_bytes, look.short_bytes);
        match look.headroom {
            Headroom::Short => tracing::error!(
                %directory, free, limit,
                "the disk is short of space: where this server leads, what makes the state larger is refused (SystemError). \
                 Deletes, sessions and writes that do not grow go on. Make room on the disk or delete znodes; it heals by \
                 itself"
            ),
            Headroom::Low => tracing::warn!(
                %directory, free, limit,
                "there is little space left on the disk; below the limit, creating znodes and longer data are refused"
            ),
            Headroom::Ample => tracing::info!(%directory, free, "there is enough space on the disk again"),
        }
    }
}

/// The thread goes on while this exists.
#[derive(Debug)]
pub struct Watching {
    _stop: Sender<()>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_known_before_the_start_and_the_thread_ends_with_its_owner() {
        let place = tempfile::tempdir().expect("temporary directory");
        let layout = Layout {
            data_directory: place.path().into(),
            log_directory: place.path().into(),
        };
        let room = Arc::new(Room::default());
        assert_eq!((room.is_short(), room.free_bytes()), (false, -1));
        let watcher = look_before_start(&layout).expect("a disk");
        let watching = watcher.start(room.clone()).expect("a thread");
        assert!(room.free_bytes() >= 0 && room.short_bytes() > 0);
        assert_eq!(Arc::strong_count(&room), 2);
        drop(watching);
        while Arc::strong_count(&room) > 1 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let nowhere = Layout {
            data_directory: place.path().join("absent"),
            log_directory: place.path().into(),
        };
        assert!(look_before_start(&nowhere).is_none());
    }
}
