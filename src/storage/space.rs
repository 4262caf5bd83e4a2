//! Room on the disk: how much there is, what is done before none is left, and what is kept back for that.
//!
//! ```text
//!   free      ample ────────▶ low ────────▶ short ────────▶ critical
//!   done      nothing         warned of     growth refused  the reserve is given up
//!   back at   –               5/4 of low    3/2 of short    when there is room for it again
//! ```
//!
//! A server that writes until the disk is full dies of it (fjall poisons itself, the log stops), and cannot start again,
//! because starting needs room as well. So growth is refused while there is still room for everything else: deletes,
//! sessions, checkpoints, the tree's compactions. Others may fill the disk faster than that: for them a file is kept in
//! reserve, which is given up when hardly anything is left, at a start too.
//!
//! Invariants: a decision changes only beyond the margin, so that it does not flicker; the reserve counts as used
//! even while it is given up, so that giving it up does not look like room.
//!
//! Left out on purpose: refusing (a rule of the leader's entries does that), when to look (the caller's), and quotas of
//! file systems that `statvfs` does not show: those end as a failed write.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The reserve's name in dataDir, and in dataLogDir if that is another file system.
const RESERVE: &str = "menagerie.reserve";

/// Zeros that are written at once where a file system cannot set room aside.
const ZEROS_BYTES: usize = 1 << 20;

/// What a file system has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Its size.
    pub total_bytes: u64,
    /// What this process may still use.
    pub free_bytes: u64,
}

impl DiskSpace {
    /// Of the file system of `directory`. May wait as long as the disk makes it wait.
    pub fn of(directory: &Path) -> io::Result<DiskSpace> {
        let found = rustix::fs::statvfs(directory)?;
        Ok(DiskSpace {
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }
}

/// How a disk is doing; from bad to good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Headroom {
    /// What makes the state larger must be refused.
    Short,
    /// Enough for now: somebody should look.
    Low,
    /// Nothing to do.
    Ample,
}

/// Where the borders are, in bytes of free space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Below it there is little.
    pub low_bytes: u64,
    /// Below it growth is refused: a twentieth of the disk, 64 MiB to 1 GiB. What must still fit into it: two segments of
    /// the log, two of fjall's journals, and the tables that a compaction writes before it removes the old ones.
    pub short_bytes: u64,
    /// What is kept in reserve: a fiftieth of the disk, 16 to 128 MiB.
    pub reserve_bytes: u64,
}

impl Thresholds {
    /// Those of a disk of that size. A very small one keeps three quarters for use.
    pub fn of(total_bytes: u64) -> Thresholds {
        let short_bytes = (total_bytes / 20).clamp(64 << 20, 1 << 30).min(total_bytes / 4);
        Thresholds {
            low_bytes: short_bytes * 2,
            short_bytes,
            reserve_bytes: (total_bytes / 50).clamp(16 << 20, 128 << 20).min(total_bytes / 16),
        }
    }

    /// Below it the reserve is given up.
    pub fn critical_bytes(&self) -> u64 {
        self.reserve_bytes / 2
    }

    /// The decision that follows `before`. `free_bytes` without what the reserve would take.
    pub fn judge(&self, before: Headroom, free_bytes: u64) -> Headroom {
        // Getting better takes more than getting worse.
        let short_until = match before {
            Headroom::Short => self.short_bytes + self.short_bytes / 2,
            Headroom::Low | Headroom::Ample => self.short_bytes,
        };
        let low_until = match before {
            Headroom::Short | Headroom::Low => self.low_bytes + self.low_bytes / 4,
            Headroom::Ample => self.low_bytes,
        };
        if free_bytes < short_until {
            Headroom::Short
        } else if free_bytes < low_until {
            Headroom::Low
        } else {
            Headroom::Ample
        }
    }
}

/// A file system that data of ours is on. A trait, because a test must be able to fill it.
trait Volume: Send {
    fn space(&self) -> io::Result<DiskSpace>;
    /// Bytes of the reserve that is there; 0 when there is none.
    fn reserved_bytes(&self) -> io::Result<u64>;
    fn set_reserve(&self, bytes: u64) -> io::Result<()>;
    fn give_reserve_up(&self) -> io::Result<()>;
}

struct Directory(PathBuf);

impl Directory {
    fn reserve(&self) -> PathBuf {
        self.0.join(RESERVE)
    }
}

impl Volume for Directory {
    fn space(&self) -> io::Result<DiskSpace> {
        DiskSpace::of(&self.0)
    }

    fn reserved_bytes(&self) -> io::Result<u64> {
        match fs::metadata(self.reserve()) {
            // What it takes, not how long it is.
            Ok(metadata) => Ok(metadata.blocks() * 512),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn set_reserve(&self, bytes: u64) -> io::Result<()> {
        let file = fs::File::create(self.reserve())?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => write_zeros(&file, bytes),
            done => Ok(done?),
        }
    }

    fn give_reserve_up(&self) -> io::Result<()> {
        fs::remove_file(self.reserve())
    }
}

fn write_zeros(mut file: &fs::File, mut bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    while bytes > 0 {
        let some = zeros.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        io::Write::write_all(&mut file, &zeros[..some])?;
        bytes -= some as u64;
    }
    Ok(())
}

/// One file system, and what was decided about it.
struct Watched {
    /// A directory on it.
    directory: PathBuf,
    volume: Box<dyn Volume>,
    headroom: Headroom,
    /// Whether it was told that no reserve can be kept.
    told: bool,
}

/// What a look has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The worst of all file systems.
    pub headroom: Headroom,
    /// Where that is.
    pub directory: PathBuf,
    /// What is free there, the reserve not counted.
    pub free_bytes: u64,
    /// The file system's size.
    pub total_bytes: u64,
    /// Below so many free bytes growth is refused there.
    pub short_bytes: u64,
}

/// Watches over the file systems of a server's directories.
pub struct SpaceWatch {
    watched: Vec<Watched>,
}

impl std::fmt::Debug for SpaceWatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let directories = self.watched.iter().map(|one| (&one.directory, one.headroom));
        formatter.debug_map().entries(directories).finish()
    }
}

impl SpaceWatch {
    /// Over those of `directories` (dataDir and dataLogDir), which exist; each file system once.
    pub fn new(directories: &[&Path]) -> io::Result<SpaceWatch> {
        let mut devices = Vec::new();
        let mut watched = Vec::new();
        for directory in directories {
            let device = fs::metadata(directory)?.dev();
            if !devices.contains(&device) {
                devices.push(device);
                watched.push(Watched::new(directory, Box::new(Directory(directory.to_path_buf()))));
            }
        }
        Ok(SpaceWatch { watched })
    }

    /// Looks at all, keeps or gives up the reserves, and decides. Once before the stores are opened, so that a start upon a
    /// full disk has the reserve; then every now and then. May wait as long as a disk makes it wait. `None`: nothing is watched.
    pub fn look(&mut self) -> io::Result<Option<Look>> {
        let mut worst: Option<Look> = None;
        for watched in &mut self.watched {
            let look = watched.look()?;
            if worst.as_ref().is_none_or(|worst| look.headroom < worst.headroom) {
                worst = Some(look);
            }
        }
        Ok(worst)
    }
}

impl Watched {
    fn new(directory: &Path, volume: Box<dyn Volume>) -> Watched {
        Watched {
            directory: directory.to_path_buf(),
            volume,
            headroom: Headroom::Ample,
            told: false,
        }
    }

    fn look(&mut self) -> io::Result<Look> {
        let space = self.volume.space()?;
        let thresholds = Thresholds::of(space.total_bytes);
        let reserved = self.volume.reserved_bytes()?;
        let missing = thresholds.reserve_bytes.saturating_sub(reserved);
        let free_bytes = space.free_bytes.saturating_sub(missing);
        self.headroom = thresholds.judge(self.headroom, free_bytes);
        if reserved > 0 && space.free_bytes < thresholds.critical_bytes() {
            self.volume.give_reserve_up()?;
            tracing::error!(
                directory = %self.directory.display(), reserved, free = space.free_bytes,
                "the disk is all but full: the file that was kept in reserve is given up. Make room now; what writes there \
                 besides this server?"
            );
        } else if missing > 0 && self.headroom > Headroom::Short {
            self.keep_reserve(thresholds.reserve_bytes);
        }
        Ok(Look {
            headroom: self.headroom,
            directory: self.directory.clone(),
            free_bytes,
            total_bytes: space.total_bytes,
            short_bytes: thresholds.short_bytes,
        })
    }

    fn keep_reserve(&mut self, bytes: u64) {
        let Err(error) = self.volume.set_reserve(bytes) else {
            self.told = false;
            return;
        };
        // Half of one would only look like one.
        let _ = self.volume.give_reserve_up();
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                directory = %self.directory.display(), bytes, %error,
                "no room can be kept in reserve: on a full disk this server may not be able to start"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    /// A disk of 40 GiB: short below 1 GiB, low below 2, 128 MiB in reserve.
    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<(u64, u64)>>);

    impl Fake {
        /// What others use, and the reserve.
        fn of_others(&self, free_without_us: u64) {
            self.0.lock().0 = 40 * GIB - free_without_us;
        }

        fn reserved(&self) -> u64 {
            self.0.lock().1
        }
    }

    impl Volume for Fake {
        fn space(&self) -> io::Result<DiskSpace> {
            let (others, reserved) = *self.0.lock();
            Ok(DiskSpace {
                total_bytes: 40 * GIB,
                free_bytes: 40 * GIB - others - reserved,
            })
        }
        fn reserved_bytes(&self) -> io::Result<u64> {
            Ok(self.reserved())
        }
        fn set_reserve(&self, bytes: u64) -> io::Result<()> {
            if self.space()?.free_bytes < bytes {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.lock().1 = bytes;
            Ok(())
        }
        fn give_reserve_up(&self) -> io::Result<()> {
            self.0.lock().1 = 0;
            Ok(())
        }
    }

    #[test]
    fn growth_is_refused_before_the_disk_is_full_and_allowed_again_when_there_is_room() {
        let disk = Fake::default();
        let mut watch = SpaceWatch {
            watched: vec![Watched::new(Path::new("/data"), Box::new(disk.clone()))],
        };
        // MiB that are free but for the reserve; then the decision, and MiB in reserve.
        let script = [
            (20_000, Headroom::Ample, 128),
            (2100, Headroom::Low, 128),
            (2500, Headroom::Low, 128),
            (2700, Headroom::Ample, 128),
            (1200, Headroom::Low, 128),
            (1100, Headroom::Short, 128),
            // Room for a moment is not enough.
            (1600, Headroom::Short, 128),
            // Others fill it to the end: the reserve is room for us, and does not look like it.
            (150, Headroom::Short, 0),
            (1500, Headroom::Short, 0),
            (1800, Headroom::Low, 128),
            (30_000, Headroom::Ample, 128),
        ];
        for (free, headroom, reserved) in script {
            disk.of_others(free * MIB);
            let look = watch.look().expect("looks").expect("watched");
            assert_eq!(
                (look.headroom, disk.reserved() / MIB),
                (headroom, reserved),
                "{free} MiB"
            );
        }
    }

    #[test]
    fn the_worst_file_system_decides() {
        let (first, second) = (Fake::default(), Fake::default());
        second.of_others(500 * MIB);
        let mut watch = SpaceWatch {
            watched: vec![
                Watched::new(Path::new("/data"), Box::new(first)),
                Watched::new(Path::new("/log"), Box::new(second)),
            ],
        };
        let look = watch.look().expect("looks").expect("watched");
        assert_eq!((look.headroom, look.directory), (Headroom::Short, "/log".into()));
    }

    #[test]
    fn the_reserve_takes_room_on_a_real_disk_and_one_file_system_is_watched_once() {
        let place = tempfile::tempdir().expect("temporary directory");
        let mut watch = SpaceWatch::new(&[place.path(), place.path()]).expect("directories");
        assert_eq!(watch.watched.len(), 1);
        watch.look().expect("looks").expect("watched");
        let directory = Directory(place.path().to_path_buf());
        directory.set_reserve(3 * MIB).expect("set");
        assert!((3 * MIB..4 * MIB).contains(&directory.reserved_bytes().expect("reserved")));
        directory.give_reserve_up().expect("given up");
        assert_eq!(directory.reserved_bytes().expect("none"), 0);
        let file = fs::File::create(place.path().join("zeros")).expect("create");
        write_zeros(&file, MIB * 2 + 5).expect("written");
        assert_eq!(file.metadata().expect("metadata").len(), MIB * 2 + 5);
    }

    proptest! {
        #[test]
        fn less_room_is_never_judged_better(total in 0..100 * GIB, before in 0..3, free in any::<u64>(), less in any::<u64>()) {
            let before = [Headroom::Short, Headroom::Low, Headroom::Ample][before as usize];
            let thresholds = Thresholds::of(total);
            let (more, less) = (free.max(less), free.min(less));
            prop_assert!(thresholds.judge(before, less) <= thresholds.judge(before, more));
            prop_assert!(thresholds.short_bytes <= total / 4 && thresholds.reserve_bytes <= total / 16);
        }

        #[test]
        fn a_decision_stays_while_the_room_does(total in GIB..100 * GIB, before in 0..3, free in any::<u64>()) {
            let before = [Headroom::Short, Headroom::Low, Headroom::Ample][before as usize];
            let thresholds = Thresholds::of(total);
            let decided = thresholds.judge(before, free);
            prop_assert_eq!(thresholds.judge(decided, free), decided);
        }
    }
}
