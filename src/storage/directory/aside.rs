//! Setting aside what a member of an ensemble cannot use any more, so that it can come back empty, as a new member.
//!
//! ```text
//!   1  <dataDir>/menagerie.rejoin        the note: what is to be done
//!   2  menagerie     ─▶ menagerie.aside-N         everything stays as it was, for the operator
//!      menagerie-log ─▶ menagerie-log.aside-N
//!   3  new halves with a new incarnation of the same ensemble, the log's first
//!   4  the note is removed
//! ```
//!
//! A start that finds the note does again what may not have been done. A half is the new one if it has the note's identity,
//! or none and nothing else; it is moved otherwise.
//!
//! Invariants: the new incarnation differs from all before, so that nobody counts the promises of the former life as kept
//! (DESIGN §3.14). Nothing is deleted. After [`MAX_ASIDES`] the operator must look first.

use std::io;
use std::path::{Path, PathBuf};

use super::{DataDirectory, DirectoryError, Identity, Layout, Opening};
use crate::storage::file::{Files, replace_file};
use crate::storage::sealed::{read_small, seal, unseal};

/// So many times a server sets its data aside; then its operator must remove the former ones first.
const MAX_ASIDES: usize = 3;

/// The note's name in dataDir.
const NOTE: &str = "menagerie.rejoin";

/// Where the former data is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// What was ours below dataDir.
    pub data: PathBuf,
    /// What was ours below dataLogDir.
    pub log: PathBuf,
}

impl DataDirectory {
    /// Writes down that this is to be done: the next start does it before anything else. For a server whose stores are
    /// open.
    pub fn order_aside(&mut self, incarnation: u64, reason: &str) -> Result<Note, DirectoryError> {
        let number = free_number(&self.files, &self.layout)?;
        // Its number goes on growing in the new life, even if the clock has gone back; a damaged one need not stop this.
        let last_boot = self.opening().last_boot().unwrap_or(0);
        let note = Note {
            number,
            identity: Identity {
                incarnation,
                ..self.identity
            },
            last_boot,
        };
        let moved = note.paths(&self.layout);
        tracing::warn!(
            reason, data = %moved.data.display(), log = %moved.log.display(),
            "this server's data is set aside, and it joins its ensemble again empty. Keep the former data until it has got the \
             ensemble's from a leader and serves it; then it may be removed"
        );
        let written = replace_file(
            self.files.as_ref(),
            &self.layout.data_directory,
            NOTE,
            note.encode().as_bytes(),
        );
        written.map_err(failed("write a note in", &self.layout.data_directory))?;
        Ok(note)
    }

    /// Moves tree and log out of the way and begins anew with another `incarnation`, which must be a new random number, in
    /// the same ensemble. No store and no log in it may be open. For members of an ensemble alone: what only this server has
    /// is not served any more after this.
    pub fn set_aside(&mut self, incarnation: u64, reason: &str) -> Result<Aside, DirectoryError> {
        let note = self.order_aside(incarnation, reason)?;
        let layout = self.layout.clone();
        let moved = note.paths(&layout);
        note.carry_out(&self.files, &layout)?;
        // The former locks are held until the new ones are.
        let renewed = DataDirectory::open(&self.files, layout, note.identity)?;
        *self = DataDirectory {
            is_new: true,
            ..renewed
        };
        Ok(moved)
    }
}

/// Does what an interrupted setting aside has left to do. Whether there was one.
pub(super) fn finish_interrupted(files: &Files, layout: &Layout) -> Result<bool, DirectoryError> {
    let path = layout.data_directory.join(NOTE);
    let text = read_small(files.as_ref(), &path).map_err(failed("read", &path))?;
    let Some(text) = text else { return Ok(false) };
    let note = Note::decode(&text).ok_or(DirectoryError::UnreadableNote { path })?;
    tracing::warn!("this server was stopped while its data was being set aside: that is finished now");
    let opening = Opening { files, layout };
    // Another process may be at it.
    let _locks = [opening.lock(&layout.own_data())?, opening.lock(&layout.log())?];
    note.carry_out(files, layout)?;
    Ok(true)
}

/// A number whose names are not taken in either directory.
fn free_number(files: &Files, layout: &Layout) -> Result<u64, DirectoryError> {
    let mut taken = Vec::new();
    for half in [layout.own_data(), layout.log()] {
        let Some(parent) = half.parent() else { continue };
        let prefix = format!("{}.aside-", half.file_name().unwrap_or_default().to_string_lossy());
        let entries = files.list(parent).map_err(failed("list", parent))?;
        let numbers = entries
            .iter()
            .filter_map(|entry| entry.name.strip_prefix(&prefix)?.parse::<u64>().ok());
        taken.extend(numbers);
    }
    taken.sort_unstable();
    taken.dedup();
    let last = taken.last().copied().unwrap_or(0);
    if taken.len() < MAX_ASIDES {
        return Ok(last + 1);
    }
    Err(DirectoryError::TooManyAsides {
        count: taken.len(),
        example: aside_path(&layout.own_data(), last),
    })
}

fn aside_path(half: &Path, number: u64) -> PathBuf {
    let mut name = half.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".aside-{number}"));
    half.with_file_name(name)
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The names that the former halves get.
    number: u64,
    /// Who the new halves belong to.
    identity: Identity,
    /// The number of the last start.
    last_boot: u64,
}

impl Note {
    fn encode(&self) -> String {
        let Identity {
            cluster_id,
            server_id,
            incarnation,
        } = self.identity;
        seal(&format!(
            "number={}\ncluster={cluster_id:016x}\nserver={server_id}\nincarnation={incarnation:016x}\nboot={}\n",
            self.number, self.last_boot
        ))
    }

    fn decode(text: &str) -> Option<Note> {
        let mut lines = unseal(text)?.lines();
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        let hexadecimal = |text: String| u64::from_str_radix(&text, 16).ok();
        let decimal = |text: String| text.parse().ok();
        Some(Note {
            number: decimal(value("number")?)?,
            identity: Identity {
                cluster_id: hexadecimal(value("cluster")?)?,
                server_id: decimal(value("server")?)?,
                incarnation: hexadecimal(value("incarnation")?)?,
            },
            last_boot: decimal(value("boot")?)?,
        })
    }

    fn paths(&self, layout: &Layout) -> Aside {
        Aside {
            data: aside_path(&layout.own_data(), self.number),
            log: aside_path(&layout.log(), self.number),
        }
    }

    /// Steps 2 to 4, as far as they are not done.
    fn carry_out(&self, files: &Files, layout: &Layout) -> Result<(), DirectoryError> {
        let opening = Opening { files, layout };
        let aside = self.paths(layout);
        let (data, log) = (layout.own_data(), layout.log());
        for (half, moved) in [(&data, aside.data), (&log, aside.log)] {
            if self.is_former(&opening, half)? {
                files.rename(half, &moved).map_err(failed("set aside", half))?;
            }
            if let Some(parent) = half.parent() {
                files.sync_directory(parent).map_err(failed("sync", parent))?;
            }
        }
        for half in [&data, &log] {
            files.create_directories(half).map_err(failed("create", half))?;
        }
        opening.write_identity(&log, &self.identity)?;
        opening.write_identity(&data, &self.identity)?;
        opening.write_boot(self.last_boot)?;
        let note = layout.data_directory.join(NOTE);
        match files.remove(&note) {
            // Another process was faster, and has the directories now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed("remove", &note))?,
        }
        let directory = &layout.data_directory;
        files.sync_directory(directory).map_err(failed("sync", directory))
    }

    fn is_former(&self, opening: &Opening<'_>, half: &Path) -> Result<bool, DirectoryError> {
        match opening.identity(half) {
            Ok(Some(identity)) => Ok(identity != self.identity),
            Ok(None) => opening.holds_more(half),
            // Whatever it is, it is not the new one.
            Err(DirectoryError::UnreadableIdentity { .. } | DirectoryError::FormatVersion { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError + use<> {
    let path = path.to_path_buf();
    move |source| DirectoryError::Io { action, path, source }
}
