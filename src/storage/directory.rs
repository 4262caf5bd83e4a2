//! Who the stored data belongs to, and what a server may not be started upon.
//!
//! ```text
//!   <dataDir>/menagerie/IDENTITY         which ensemble, which member, which life of it
//!   <dataDir>/menagerie/LOCK             held while a server runs
//!   <dataDir>/menagerie/tree/            the tree's keyspace; after the first snapshot from a peer another one that
//!   <dataDir>/menagerie/CURRENT          names: see `generations`
//!   <dataLogDir>/menagerie-log/IDENTITY  the same identity: the two belong together
//!   <dataLogDir>/menagerie-log/LOCK      two servers might share this one only
//!   <dataLogDir>/menagerie-log/          the raft log's segments
//! ```
//!
//! Invariants: the log's identity is stored before the data's, and both before anything else; so the data's without the
//! log's means that a log was lost, and with it promises (votes, entries) that must not be forgotten (Durable). A
//! directory that lacks its other half is refused, never filled up.
//!
//! Left out on purpose: importing Apache's files, and drawing the random numbers, which come in as arguments.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::file::{File, Files, directory_size_bytes, read_up_to, replace_file};

/// The version of the layout and of the identity's file.
const FORMAT_VERSION: u32 = 1;

const IDENTITY: &str = "IDENTITY";
const LOCK: &str = "LOCK";
const TREE: &str = "tree";
const FIRST_LINE: &str = "Menagerie: do not edit, do not copy into another server's directory";

/// Bytes of an identity's file that are looked at; the real ones have about 150.
const MAX_IDENTITY_BYTES: usize = 4096;

/// Who a data directory belongs to. Peers exchange it before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The ensemble: a random number, drawn when its first member was created.
    pub cluster_id: u64,
    /// The member: ZooKeeper's myid.
    pub server_id: u64,
    /// The member's life: a random number, drawn when this directory was created. A member that comes back with another
    /// one has lost what it had promised.
    pub incarnation: u64,
}

impl Identity {
    fn encode(&self) -> String {
        let Identity {
            cluster_id,
            server_id,
            incarnation,
        } = self;
        let body = format!(
            "{FIRST_LINE}\nformat={FORMAT_VERSION}\ncluster={cluster_id:016x}\nserver={server_id}\nincarnation={incarnation:016x}\n"
        );
        let checksum = crc32c::crc32c(body.as_bytes());
        format!("{body}checksum={checksum:08x}\n")
    }

    fn decode(text: &str) -> Result<Identity, IdentityFault> {
        let mut values = [None; 5];
        for (line, number) in text.lines().zip(0..) {
            let found = match (number, line.split_once('=')) {
                (0, _) if line == FIRST_LINE => continue,
                (1, Some(("format", value))) => value.parse().ok(),
                (2, Some(("cluster", value))) | (4, Some(("incarnation", value))) => {
                    u64::from_str_radix(value, 16).ok()
                }
                (3, Some(("server", value))) => value.parse().ok(),
                (5, Some(("checksum", value))) => u64::from_str_radix(value, 16).ok(),
                _ => None,
            };
            let Some(found) = found else {
                return Err(IdentityFault::Unreadable);
            };
            if number == 1 && found != u64::from(FORMAT_VERSION) {
                return Err(IdentityFault::Format(found));
            }
            values[number - 1] = Some(found);
        }
        let [Some(_), Some(cluster_id), Some(server_id), Some(incarnation), Some(_)] = values else {
            return Err(IdentityFault::Unreadable);
        };
        let identity = Identity {
            cluster_id,
            server_id,
            incarnation,
        };
        if identity.encode() == text {
            Ok(identity)
        } else {
            Err(IdentityFault::Unreadable)
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity {
            cluster_id,
            server_id,
            incarnation,
        } = self;
        write!(
            formatter,
            "server {server_id} of ensemble {cluster_id:016x}, incarnation {incarnation:016x}"
        )
    }
}

enum IdentityFault {
    Unreadable,
    Format(u64),
}

/// Why a server may not be started upon these directories.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process runs on it.
    #[error("{} is in use by another process. Two servers must not share a dataDir or dataLogDir: stop the other one, or give this one directories of its own", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Apache ZooKeeper's files are there, and none of ours.
    #[error("{} holds data of Apache ZooKeeper ({example}); import is not available yet. Starting empty would hide it, so the server does not start: set another dataDir, or move version-2 aside if that data is not needed", path.display())]
    ApacheData {
        /// The version-2 directory.
        path: PathBuf,
        /// One of the files.
        example: String,
    },
    /// An identity's file cannot be read.
    #[error("{} is damaged. It says whose data this is, so nothing is done without it: restore it from a backup, or move the whole directory aside and let this server join its ensemble again empty", path.display())]
    UnreadableIdentity {
        /// The file.
        path: PathBuf,
    },
    /// The file CURRENT cannot be read.
    #[error("{} is damaged. It says which of the tree's directories beside it is in use; a wrong one would bring back an old state, so the server does not start. In an ensemble: move dataDir and dataLogDir aside and let this server join again empty. A lone server: restore both directories from a backup", path.display())]
    UnreadableCurrent {
        /// The file.
        path: PathBuf,
    },
    /// The tree that is in use is not there.
    #[error("the tree's directory {} is missing, but {} says that it is in use. If it was moved, put it back. If it is lost: in an ensemble, move dataDir and dataLogDir aside and let this server join again empty; a lone server must be restored from a backup of both directories", path.display(), current.display())]
    MissingTree {
        /// The directory.
        path: PathBuf,
        /// The file that names it.
        current: PathBuf,
    },
    /// Written by a version with another layout.
    #[error("{} has format version {found}, this server knows version {FORMAT_VERSION}. Start it with the version that wrote it. Nothing was changed", path.display())]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
    },
    /// The tree's directory is there, the log's is not.
    #[error("the raft log is missing: {} holds the data of {identity}, but {} is not its log. If dataLogDir was changed, set it back or move menagerie-log to the new place. If the log is lost, so are promises that this server gave: move {} aside and let it join its ensemble again empty; a lone server must be restored from a backup of both directories", data.display(), log.display(), data.display())]
    MissingLog {
        /// Ours below dataDir.
        data: PathBuf,
        /// Where the log should be.
        log: PathBuf,
        /// Whose data it is.
        identity: Identity,
    },
    /// The log's directory is there, the tree's is not.
    #[error("the data is missing: {} holds the raft log of a server, but {} has no identity. If dataDir was changed, set it back or move the directory menagerie to the new place. If the data is lost, move {} aside and let this server join its ensemble again empty; a lone server must be restored from a backup of both directories", log.display(), data.display(), log.display())]
    MissingData {
        /// Where the data should be.
        data: PathBuf,
        /// Ours below dataLogDir.
        log: PathBuf,
    },
    /// The two halves belong to different servers.
    #[error("{} belongs to {data_identity}, but {} belongs to {log_identity}: dataDir and dataLogDir are of different servers or times. Set both to what they were, or restore both from the same backup", data.display(), log.display())]
    Mismatch {
        /// Ours below dataDir.
        data: PathBuf,
        /// Whose that is.
        data_identity: Identity,
        /// Ours below dataLogDir.
        log: PathBuf,
        /// Whose that is.
        log_identity: Identity,
    },
    /// The directory is of another member than the configuration says.
    #[error("{} holds the data of {identity}, but this server is configured as {configured} (myid). Either the dataDir or the myid is another server's", data.display())]
    OtherServer {
        /// Ours below dataDir.
        data: PathBuf,
        /// Whose it is.
        identity: Identity,
        /// The configured id.
        configured: u64,
    },
}

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// ZooKeeper's dataDir.
    pub data_directory: PathBuf,
    /// ZooKeeper's dataLogDir; the same as `data_directory` unless it is set.
    pub log_directory: PathBuf,
}

impl Layout {
    /// What is ours below dataDir.
    pub fn own_data(&self) -> PathBuf {
        self.data_directory.join("menagerie")
    }

    /// The tree's first keyspace. Which one is in use is known to `Generations`.
    pub fn tree(&self) -> PathBuf {
        self.own_data().join(TREE)
    }

    /// The raft log, and all that is ours below dataLogDir.
    pub fn log(&self) -> PathBuf {
        self.log_directory.join("menagerie-log")
    }
}

/// Bytes on disk, as the `dirs` command tells them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DirectorySizes {
    /// Ours below dataDir, the log not included.
    pub data_bytes: u64,
    /// The raft log.
    pub log_bytes: u64,
}

/// The sizes of what is ours. Walks over a few hundred names.
pub fn sizes(files: &Files, layout: &Layout) -> io::Result<DirectorySizes> {
    Ok(DirectorySizes {
        data_bytes: directory_size_bytes(files.as_ref(), &layout.own_data())?,
        log_bytes: directory_size_bytes(files.as_ref(), &layout.log())?,
    })
}

/// The directories of a running server: checked, and locked until this is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    layout: Layout,
    identity: Identity,
    is_new: bool,
    _locks: [Box<dyn File>; 2],
}

impl DataDirectory {
    /// Locks and checks the directories. New ones get the identity `fresh`; existing ones keep theirs, of which only the
    /// server id must be that of `fresh`.
    pub fn open(files: &Files, layout: Layout, fresh: Identity) -> Result<DataDirectory, DirectoryError> {
        let (data, log) = (layout.own_data(), layout.log());
        let opening = Opening { files, layout: &layout };
        // Before anything is created: a refused start leaves no trace that would make the next one pass.
        if !opening.is_ours(&data)? && !opening.is_ours(&log)? {
            opening.refuse_apache_data()?;
        }
        let locks = [opening.lock(&data)?, opening.lock(&log)?];
        let found = (opening.identity(&data)?, opening.identity(&log)?);
        let (identity, is_new) = match found {
            (Some(data_identity), Some(log_identity)) if data_identity != log_identity => {
                return Err(DirectoryError::Mismatch {
                    data,
                    data_identity,
                    log,
                    log_identity,
                });
            }
            (Some(identity), Some(_)) => (identity, false),
            (Some(identity), None) => return Err(DirectoryError::MissingLog { data, log, identity }),
            (None, _) if opening.holds_more(&data)? || opening.holds_more(&log)? => {
                return Err(DirectoryError::MissingData { data, log });
            }
            // New, or its creation was interrupted between the two files.
            (None, _) => {
                opening.write_identity(&log, &fresh)?;
                opening.write_identity(&data, &fresh)?;
                (fresh, true)
            }
        };
        if identity.server_id != fresh.server_id {
            return Err(DirectoryError::OtherServer {
                data,
                identity,
                configured: fresh.server_id,
            });
        }
        Ok(DataDirectory {
            layout,
            identity,
            is_new,
            _locks: locks,
        })
    }

    /// Where things are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whose data this is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether it was created by this start.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

/// The steps of [`DataDirectory::open`].
struct Opening<'a> {
    files: &'a Files,
    layout: &'a Layout,
}

impl Opening<'_> {
    /// The names in a directory; none when it does not exist.
    fn names(&self, directory: &Path) -> Result<Vec<String>, DirectoryError> {
        match self.files.list(directory) {
            Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(DirectoryError::Io {
                action: "list",
                path: directory.to_path_buf(),
                source,
            }),
        }
    }

    /// Whether a server of ours has ever begun to use it.
    fn is_ours(&self, directory: &Path) -> Result<bool, DirectoryError> {
        Ok(self.names(directory)?.iter().any(|name| name == IDENTITY) || self.holds_more(directory)?)
    }

    /// Whether anything but identity and lock stands there.
    fn holds_more(&self, directory: &Path) -> Result<bool, DirectoryError> {
        let is_known = |name: &String| name.starts_with(IDENTITY) || name == LOCK;
        Ok(!self.names(directory)?.iter().all(is_known))
    }

    fn refuse_apache_data(&self) -> Result<(), DirectoryError> {
        for directory in [&self.layout.data_directory, &self.layout.log_directory] {
            let path = directory.join("version-2");
            let names = self.names(&path)?;
            let apache = names
                .into_iter()
                .find(|name| name.starts_with("snapshot.") || name.starts_with("log."));
            if let Some(example) = apache {
                return Err(DirectoryError::ApacheData { path, example });
            }
        }
        Ok(())
    }

    fn lock(&self, directory: &Path) -> Result<Box<dyn File>, DirectoryError> {
        let failed = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| DirectoryError::Io { action, path, source }
        };
        self.files
            .create_directories(directory)
            .map_err(failed("create", directory))?;
        let path = directory.join(LOCK);
        let file = self.files.open_or_create(&path).map_err(failed("open", &path))?;
        if file.try_lock().map_err(failed("lock", &path))? {
            Ok(file)
        } else {
            Err(DirectoryError::Locked {
                path: directory.to_path_buf(),
            })
        }
    }

    fn identity(&self, directory: &Path) -> Result<Option<Identity>, DirectoryError> {
        let path = directory.join(IDENTITY);
        let failed = |source| DirectoryError::Io {
            action: "read",
            path: path.clone(),
            source,
        };
        let file = match self.files.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = vec![0; MAX_IDENTITY_BYTES];
        let filled = read_up_to(file.as_ref(), 0, &mut bytes).map_err(failed)?;
        bytes.truncate(filled);
        let decoded = String::from_utf8(bytes)
            .map_err(|_| IdentityFault::Unreadable)
            .and_then(|text| Identity::decode(&text));
        match decoded {
            Ok(identity) => Ok(Some(identity)),
            Err(IdentityFault::Unreadable) => Err(DirectoryError::UnreadableIdentity { path }),
            Err(IdentityFault::Format(found)) => Err(DirectoryError::FormatVersion { path, found }),
        }
    }

    /// Stores the identity, and the names of the directories that lead to it.
    fn write_identity(&self, directory: &Path, identity: &Identity) -> Result<(), DirectoryError> {
        let failed = |source| DirectoryError::Io {
            action: "write the identity in",
            path: directory.to_path_buf(),
            source,
        };
        replace_file(self.files.as_ref(), directory, IDENTITY, identity.encode().as_bytes()).map_err(failed)?;
        let mut above = directory
            .ancestors()
            .skip(1)
            .filter(|path| !path.as_os_str().is_empty());
        if let Some(given) = above.next() {
            self.files.sync_directory(given).map_err(failed)?;
        }
        if let Some(parent) = above.next() {
            // It matters only if the given directory was created just now, and need not be ours to read.
            let _ = self.files.sync_directory(parent);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::file::memory::{Chance, MemoryFiles};
    use crate::storage::file::{DiskFiles, FileSystem};

    const FRESH: Identity = Identity {
        cluster_id: 7,
        server_id: 1,
        incarnation: 9,
    };

    fn layout() -> Layout {
        Layout {
            data_directory: "/data".into(),
            log_directory: "/log".into(),
        }
    }

    fn open(disk: &MemoryFiles) -> Result<DataDirectory, DirectoryError> {
        DataDirectory::open(&disk.shared(), layout(), FRESH)
    }

    fn touch(disk: &MemoryFiles, path: &str) {
        let path = Path::new(path);
        disk.create_directories(path.parent().expect("parent")).expect("create");
        disk.open_or_create(path).expect("create");
    }

    #[test]
    fn a_new_directory_keeps_its_first_identity() {
        let disk = MemoryFiles::new();
        let first = open(&disk).expect("new");
        assert!(first.is_new() && first.identity() == FRESH);
        drop(first);
        let other = Identity {
            cluster_id: 70,
            incarnation: 90,
            ..FRESH
        };
        let again = DataDirectory::open(&disk.shared(), layout(), other).expect("existing");
        assert!(!again.is_new() && again.identity() == FRESH);
    }

    #[test]
    fn two_servers_cannot_share_either_directory() {
        let disk = MemoryFiles::new();
        let _first = open(&disk).expect("first");
        assert!(matches!(open(&disk), Err(DirectoryError::Locked { .. })));
        let shared_log = Layout {
            data_directory: "/elsewhere".into(),
            ..layout()
        };
        let refused = DataDirectory::open(&disk.shared(), shared_log, FRESH);
        assert!(matches!(refused, Err(DirectoryError::Locked { path }) if path == Path::new("/log/menagerie-log")));
    }

    #[test]
    fn apache_data_is_refused_again_and_again_unless_ours_is_there() {
        for file in ["/data/version-2/snapshot.0", "/log/version-2/log.100000001"] {
            let disk = MemoryFiles::new();
            touch(&disk, file);
            for _ in 0..2 {
                let error = open(&disk).expect_err("Apache's data");
                assert!(error.to_string().contains("holds data of Apache ZooKeeper"), "{error}");
            }
            disk.remove(Path::new(file)).expect("remove");
            open(&disk).expect("nothing of Apache's");
            touch(&disk, file);
            open(&disk).expect("ours is there already");
        }
        let disk = MemoryFiles::new();
        touch(&disk, "/data/version-2/acceptedEpoch");
        open(&disk).expect("no data in it");
    }

    #[test]
    fn half_of_a_server_is_refused() {
        let without_log = MemoryFiles::new();
        drop(open(&without_log).expect("new"));
        without_log
            .remove(Path::new("/log/menagerie-log/IDENTITY"))
            .expect("remove");
        assert!(matches!(open(&without_log), Err(DirectoryError::MissingLog { .. })));

        let without_data = MemoryFiles::new();
        drop(open(&without_data).expect("new"));
        touch(&without_data, "/log/menagerie-log/segment-0000000000000001.log");
        without_data
            .remove(Path::new("/data/menagerie/IDENTITY"))
            .expect("remove");
        assert!(matches!(open(&without_data), Err(DirectoryError::MissingData { .. })));
    }

    #[test]
    fn halves_of_different_servers_and_a_wrong_id_are_refused() {
        let disk = MemoryFiles::new();
        drop(open(&disk).expect("new"));
        let other_server = DataDirectory::open(&disk.shared(), layout(), Identity { server_id: 2, ..FRESH });
        assert!(matches!(
            other_server,
            Err(DirectoryError::OtherServer { configured: 2, .. })
        ));
        let mine = Layout {
            log_directory: "/second".into(),
            data_directory: "/second".into(),
        };
        drop(
            DataDirectory::open(
                &disk.shared(),
                mine,
                Identity {
                    incarnation: 5,
                    ..FRESH
                },
            )
            .expect("new"),
        );
        let crossed = Layout {
            log_directory: "/second".into(),
            ..layout()
        };
        let refused = DataDirectory::open(&disk.shared(), crossed, FRESH);
        assert!(matches!(refused, Err(DirectoryError::Mismatch { .. })));
    }

    #[test]
    fn a_creation_that_loses_power_is_repeated_and_a_finished_one_is_kept() {
        for seed in 0..50 {
            let disk = MemoryFiles::new();
            drop(open(&disk).expect("new"));
            let kept = open(&disk.crash(&mut Chance(seed))).expect("finished");
            assert!(!kept.is_new());
            // Only the log's half was written.
            disk.remove(Path::new("/data/menagerie/IDENTITY")).expect("remove");
            let again = open(&disk.kill()).expect("repeated");
            assert!(again.is_new());
        }
    }

    #[test]
    fn another_format_and_a_damaged_identity_are_refused() {
        let disk = MemoryFiles::new();
        drop(open(&disk).expect("new"));
        let path = Path::new("/data/menagerie/IDENTITY");
        let text = String::from_utf8(disk.contents(path).expect("contents")).expect("text");
        disk.tamper(path, |bytes| *bytes = text.replace("format=1", "format=2").into());
        assert!(matches!(
            open(&disk),
            Err(DirectoryError::FormatVersion { found: 2, .. })
        ));
        disk.tamper(path, |bytes| *bytes = text.replace("server=1", "server=3").into());
        assert!(matches!(open(&disk), Err(DirectoryError::UnreadableIdentity { .. })));
    }

    #[test]
    fn sizes_are_those_of_the_files_below() {
        let place = tempfile::tempdir().expect("temporary directory");
        let layout = Layout {
            data_directory: place.path().into(),
            log_directory: place.path().into(),
        };
        let files = DiskFiles::shared();
        assert_eq!(
            sizes(&files, &layout).expect("nothing there"),
            DirectorySizes::default()
        );
        let opened = DataDirectory::open(&files, layout.clone(), FRESH).expect("new");
        std::fs::create_dir(layout.tree()).expect("create");
        std::fs::write(layout.tree().join("table"), [0; 1000]).expect("write");
        let identity_bytes = FRESH.encode().len() as u64;
        let expected = DirectorySizes {
            data_bytes: identity_bytes + 1000,
            log_bytes: identity_bytes,
        };
        assert_eq!(sizes(&files, opened.layout()).expect("sizes"), expected);
    }

    proptest! {
        #[test]
        fn an_identity_comes_back_as_it_went(numbers in any::<(u64, u64, u64)>(), at in any::<prop::sample::Index>(), byte in 0u8..128) {
            let (cluster_id, server_id, incarnation) = numbers;
            let identity = Identity { cluster_id, server_id, incarnation };
            let text = identity.encode();
            prop_assert!(matches!(Identity::decode(&text), Ok(decoded) if decoded == identity));
            let mut damaged = text.clone().into_bytes();
            let at = at.index(damaged.len());
            damaged[at] = byte;
            let damaged = String::from_utf8(damaged).expect("ASCII");
            prop_assert!(damaged == text || Identity::decode(&damaged).is_err());
        }
    }
}
