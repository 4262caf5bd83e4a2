//! What an operator can do about an error of the disk.

use std::io;

/// Advice for an error of the system, as a sentence.
pub(super) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "The disk is full: make room on it, then start the server again; what it keeps in reserve (menagerie.reserve) it \
             gives up by itself"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "The file system is read-only: most often the kernel made it so after an error of the disk; its log (dmesg) \
             says which. Repair or replace the disk"
        }
        io::ErrorKind::PermissionDenied => {
            "Make sure that the user who runs the server owns dataDir and dataLogDir and everything in them"
        }
        io::ErrorKind::NotFound => {
            "Make sure that the disk is mounted and that nobody removes files below dataDir and dataLogDir"
        }
        _ => {
            "The kernel's log (dmesg) says more about the disk. If the disk is sound, start the server again: it goes on \
             with what is really stored. If not, replace it: a member of an ensemble joins again empty, a lone server is \
             restored from a backup"
        }
    }
}

/// The same for an error of fjall.
pub(super) fn advice_of_store(error: &fjall::Error) -> &'static str {
    match error {
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => advice(source),
        // One of fjall's own threads has failed; its reason was logged.
        fjall::Error::Poisoned => advice(&io::Error::other("unknown")),
        _ => {
            "The store is damaged: a member of an ensemble sets it aside at its next start and gets it anew; a lone server is \
             restored from a backup of both directories"
        }
    }
}
