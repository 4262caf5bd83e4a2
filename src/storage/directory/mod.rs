//! Who the stored data belongs to, and what a server may not be started upon.
//!
//! ```text
//!   <dataDir>/menagerie/IDENTITY         which ensemble, which member, which life of it
//!   <dataDir>/menagerie/LOCK             held while a server runs
//!   <dataDir>/menagerie/BOOT             a number that grew with every start
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
//! A member of an ensemble whose data is damaged begins a new life: `aside` moves what is there out of the way.
//!
//! Left out on purpose: importing Apache's files, and drawing the random numbers, which come in as arguments.

mod aside;
mod error;
mod identity;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use super::file::{File, Files, directory_size_bytes, replace_file};
use super::sealed::{read_small, seal, unseal};

pub use aside::Aside;
pub use error::DirectoryError;
pub use identity::Identity;

use identity::IdentityFault;

const IDENTITY: &str = "IDENTITY";
const LOCK: &str = "LOCK";
const BOOT: &str = "BOOT";
const TREE: &str = "tree";

/// Numbers of starts are used in the upper half of others.
const MAX_BOOT: u64 = u32::MAX as u64;

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
    files: Files,
    layout: Layout,
    identity: Identity,
    is_new: bool,
    _locks: [Box<dyn File>; 2],
}

impl DataDirectory {
    /// Locks and checks the directories. New ones get the identity `fresh`; existing ones keep theirs, of which only the
    /// server id must be that of `fresh`. Finishes a setting aside that was interrupted.
    pub fn open(files: &Files, layout: Layout, fresh: Identity) -> Result<DataDirectory, DirectoryError> {
        let interrupted = aside::finish_interrupted(files, &layout)?;
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
                let joined = Identity {
                    cluster_id: log_identity.cluster_id,
                    ..data_identity
                };
                if data_identity.cluster_id != 0 || joined != log_identity {
                    return Err(DirectoryError::Mismatch {
                        data,
                        data_identity,
                        log,
                        log_identity,
                    });
                }
                // Joining was interrupted between the two files.
                opening.write_identity(&data, &joined)?;
                (joined, false)
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
            files: files.clone(),
            layout,
            identity,
            is_new: is_new || interrupted,
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

    /// Whether it was created by this start, or set aside by it.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// From now on this member is of that ensemble; durable when this returns. It must be of none yet, or of this one.
    pub fn join(&mut self, cluster_id: u64) -> Result<(), DirectoryError> {
        if self.identity.cluster_id == cluster_id {
            return Ok(());
        }
        if self.identity.cluster_id != 0 {
            return Err(DirectoryError::OtherEnsemble {
                path: self.layout.own_data(),
                identity: self.identity,
                other: cluster_id,
            });
        }
        let joined = Identity {
            cluster_id,
            ..self.identity
        };
        // The log's half first: data that has joined beside a log that has not is an old copy of the log.
        self.opening().write_identity(&self.layout.log(), &joined)?;
        self.opening().write_identity(&self.layout.own_data(), &joined)?;
        self.identity = joined;
        Ok(())
    }

    /// A number that is larger than that of any start before, and durable when this returns: the wall clock's seconds
    /// since 1970, or one more than the last if the clock has gone back. At most 32 bits. Once for each start.
    pub fn boot(&self, wall_seconds: u64) -> Result<u64, DirectoryError> {
        let last = self.opening().last_boot()?;
        // A clock that shows a time after 2106 is wrong, and must not use up the numbers.
        let wall = if wall_seconds < MAX_BOOT { wall_seconds } else { 0 };
        let boot = wall.max(last.saturating_add(1));
        self.opening().write_boot(boot)?;
        Ok(boot)
    }

    fn opening(&self) -> Opening<'_> {
        Opening {
            files: &self.files,
            layout: &self.layout,
        }
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
        let Some(text) = self.read(&path)? else {
            return Ok(None);
        };
        match Identity::decode(&text) {
            Ok(identity) => Ok(Some(identity)),
            Err(IdentityFault::Unreadable) => Err(DirectoryError::UnreadableIdentity { path }),
            Err(IdentityFault::Format(found)) => Err(DirectoryError::FormatVersion { path, found }),
        }
    }

    fn read(&self, path: &Path) -> Result<Option<String>, DirectoryError> {
        read_small(self.files.as_ref(), path).map_err(|source| DirectoryError::Io {
            action: "read",
            path: path.to_path_buf(),
            source,
        })
    }

    /// The number of the last start; 0 before the first.
    fn last_boot(&self) -> Result<u64, DirectoryError> {
        let path = self.layout.own_data().join(BOOT);
        let Some(text) = self.read(&path)? else { return Ok(0) };
        let number = unseal(&text).and_then(|body| body.strip_prefix("boot=")?.trim_end().parse().ok());
        number.ok_or(DirectoryError::UnreadableBoot { path })
    }

    fn write_boot(&self, boot: u64) -> Result<(), DirectoryError> {
        let directory = self.layout.own_data();
        let text = seal(&format!("boot={boot}\n"));
        replace_file(self.files.as_ref(), &directory, BOOT, text.as_bytes()).map_err(|source| DirectoryError::Io {
            action: "write the number of this start in",
            path: directory,
            source,
        })
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
