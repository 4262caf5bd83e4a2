//! Keeps the files in step with the membership: after every reconfig there is a `zoo.cfg.dynamic.<version>` that names the
//! servers, and zoo.cfg points to it.
//!
//! As ZooKeeper does, only where clients may change the membership (`reconfigEnabled`). The files are for the operator and
//! for a start with an empty data directory; a server that has data goes by `/zookeeper/config`. So a file that cannot be
//! written is a warning, and is tried again, and nothing waits for it.
//!
//! Invariants:
//! - Each file is written beside its place, made durable and renamed: a crash leaves the old one or the new one. zoo.cfg
//!   points to a file only after that file is durable.
//! - zoo.cfg is read anew each time, and keeps its comments, its rights, and what an operator has changed since the start.
//!
//! Left out on purpose: ZooKeeper's `.dynamic.next`, which holds a membership that is proposed; here the log does. Files
//! of older versions stay where they are, as with ZooKeeper.

use crate::config::properties::{self, Encoding};
use crate::config::{Config, DYNAMIC_CONFIG_FILE, Membership, point_to_dynamic_file};
use crate::membership::{Members, ServerId};
use crate::server::Shared;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

/// How often the membership is looked at. A server that ends before it has looked starts with the files of before.
const LOOK: Duration = Duration::from_millis(200);
/// How long after a failure it is tried again: so often the log has a warning, at most.
const RETRY: Duration = Duration::from_secs(60);

/// A file cannot be written or read.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, io::Error),
    #[error("{0} is no file of properties any more: line {1}")]
    Syntax(PathBuf, usize),
}

/// Keeps the files of one server.
#[derive(Debug)]
pub(super) struct DynamicFile {
    zoo_cfg: PathBuf,
    me: ServerId,
}

impl DynamicFile {
    /// The files of this configuration; `None` if there are none to keep.
    pub(super) fn of(config: &Config) -> Option<DynamicFile> {
        match (&config.origin.file, &config.cluster.membership) {
            (Some(zoo_cfg), Membership::Ensemble(ensemble)) if config.cluster.reconfig_enabled => Some(DynamicFile {
                zoo_cfg: zoo_cfg.clone(),
                me: ensemble.me,
            }),
            _ => None,
        }
    }

    /// Writes the files whenever the membership has changed, as long as the server is there.
    pub(super) async fn keep(self, shared: Weak<Shared>) {
        let mut kept = None;
        loop {
            let Some(server) = shared.upgrade() else { return };
            let changed = {
                let state = server.state.read();
                let members = state.membership();
                members.filter(|members| Some(members.version) != kept).cloned()
            };
            drop(server);
            let mut wait = LOOK;
            if let Some(members) = changed {
                match self.write_apart(&members).await {
                    Ok(()) => kept = Some(members.version),
                    Err(error) => {
                        wait = RETRY;
                        warn(&error, &members);
                    }
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// On a thread that may wait for a disk.
    async fn write_apart(&self, members: &Members) -> Result<(), KeepError> {
        let (apart, members) = (
            DynamicFile {
                zoo_cfg: self.zoo_cfg.clone(),
                me: self.me,
            },
            members.clone(),
        );
        let written = tokio::task::spawn_blocking(move || apart.write(&members)).await;
        written.unwrap_or_else(|error| Err(KeepError::Write(self.zoo_cfg.clone(), io::Error::other(error))))
    }

    fn write(&self, members: &Members) -> Result<(), KeepError> {
        // Behind a symbolic link, as in a container's mounted configuration, the file itself is meant.
        let zoo_cfg = self.zoo_cfg.canonicalize();
        let zoo_cfg = zoo_cfg.map_err(|error| KeepError::Read(self.zoo_cfg.clone(), error))?;
        let (text, encoding) = read(&zoo_cfg)?;
        let dynamic = beside(&zoo_cfg, &format!(".dynamic.{:x}", members.version));
        let servers = servers_of(members);
        if fs::read_to_string(&dynamic).ok().as_ref() != Some(&servers) {
            replace(&dynamic, servers.as_bytes(), None)?;
        }
        let mine = members.servers.get(&self.me);
        let erase_client_address = mine.is_some_and(|mine| mine.client.is_some());
        let rewritten = point_to_dynamic_file(&text, &dynamic.to_string_lossy(), erase_client_address);
        let rewritten = rewritten.map_err(|errors| {
            let line = errors.first().map_or(0, |error| error.line);
            KeepError::Syntax(zoo_cfg.clone(), line)
        })?;
        if rewritten == text {
            return Ok(());
        }
        let had_one =
            properties::parse(&text).is_ok_and(|entries| entries.iter().any(|entry| entry.key == DYNAMIC_CONFIG_FILE));
        if !had_one {
            // The last one that a person has written in one piece.
            replace(&beside(&zoo_cfg, ".bak"), &encoding.encode(&text), Some(&zoo_cfg))?;
        }
        replace(&zoo_cfg, &encoding.encode(&rewritten), Some(&zoo_cfg))?;
        tracing::info!(
            version = format_args!("{:x}", members.version),
            file = %dynamic.display(),
            "the membership is written down, and {} points to it",
            zoo_cfg.display()
        );
        Ok(())
    }
}

fn warn(error: &KeepError, members: &Members) {
    tracing::warn!(
        "the membership of version {:x} is in force and could not be written down: {error}. The ensemble goes on without; \
         but if this server's data is ever lost, it will look for the servers of before. Let its user write in the directory \
         of its configuration, or put these lines into the file that dynamicConfigFile names:\n{}",
        members.version,
        servers_of(members)
    );
}

/// The lines as ZooKeeper writes them: the version stands in the file's name.
fn servers_of(members: &Members) -> String {
    let lines: Vec<String> = members
        .servers
        .iter()
        .map(|(id, server)| format!("server.{id}={server}"))
        .collect();
    lines.join("\n")
}

fn read(path: &Path) -> Result<(String, Encoding), KeepError> {
    let bytes = fs::read(path).map_err(|error| KeepError::Read(path.to_owned(), error))?;
    Ok(properties::decode(bytes))
}

/// `path` with something appended to its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Puts a file with these bytes in the place of another, whole or not at all, with the rights of `like`.
fn replace(path: &Path, bytes: &[u8], like: Option<&Path>) -> Result<(), KeepError> {
    let temporary = beside(path, ".tmp");
    let written = write_durably(&temporary, bytes, like).and_then(|()| fs::rename(&temporary, path));
    let written = written.and_then(|()| match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    });
    written.map_err(|error| {
        // What is left of it would be in the way of nobody.
        let _ = fs::remove_file(&temporary);
        KeepError::Write(path.to_owned(), error)
    })
}

fn write_durably(path: &Path, bytes: &[u8], like: Option<&Path>) -> io::Result<()> {
    let mut file = File::create(path)?;
    if let Some(like) = like {
        // There may be passwords in it.
        file.set_permissions(fs::metadata(like)?.permissions())?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const CFG: &str = "# ours\ndataDir=/data\nclientPort=2181\nreconfigEnabled=true\n# all of us\nserver.1=a:1:2;2181\n\
                       server.2=b:1:2\n";

    fn scene() -> (tempfile::TempDir, DynamicFile) {
        let directory = tempfile::tempdir().unwrap();
        let zoo_cfg = directory.path().join("zoo.cfg");
        fs::write(&zoo_cfg, CFG).unwrap();
        fs::set_permissions(&zoo_cfg, fs::Permissions::from_mode(0o600)).unwrap();
        let me = ServerId::FIRST;
        (directory, DynamicFile { zoo_cfg, me })
    }

    fn members(version: u64) -> Members {
        let text = format!("server.1=a:1:2:participant;0.0.0.0:2181\nserver.2=b:1:2:participant\nversion={version:x}");
        Members::parse(&text).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_first_time_the_servers_move_into_a_file_of_their_own() {
        let (directory, files) = scene();
        files.write(&members(0xa0)).unwrap();
        let at = |name: &str| directory.path().canonicalize().unwrap().join(name);
        assert_eq!(
            fs::read_to_string(at("zoo.cfg.dynamic.a0")).unwrap(),
            "server.1=a:1:2:participant;0.0.0.0:2181\nserver.2=b:1:2:participant"
        );
        assert_eq!(
            fs::read_to_string(at("zoo.cfg")).unwrap(),
            format!(
                "# ours\ndataDir=/data\nreconfigEnabled=true\n# all of us\ndynamicConfigFile={}\n",
                at("zoo.cfg.dynamic.a0").display()
            )
        );
        assert_eq!(fs::read_to_string(at("zoo.cfg.bak")).unwrap(), CFG);
        assert_eq!(
            names(directory.path()),
            ["zoo.cfg", "zoo.cfg.bak", "zoo.cfg.dynamic.a0"]
        );
        for name in ["zoo.cfg", "zoo.cfg.bak"] {
            assert_eq!(
                fs::metadata(at(name)).unwrap().permissions().mode() & 0o777,
                0o600,
                "{name}"
            );
        }
    }

    #[test]
    fn later_versions_follow_and_leave_the_rest_alone() {
        let (directory, files) = scene();
        files.write(&members(0xa0)).unwrap();
        let cfg = fs::read_to_string(&files.zoo_cfg).unwrap();
        fs::write(&files.zoo_cfg, cfg.replace("/data", "/elsewhere")).unwrap();
        files.write(&members(0xb1)).unwrap();
        let now = fs::read_to_string(&files.zoo_cfg).unwrap();
        assert_eq!(now, cfg.replace("/data", "/elsewhere").replace(".a0", ".b1"));
        let expected = ["zoo.cfg", "zoo.cfg.bak", "zoo.cfg.dynamic.a0", "zoo.cfg.dynamic.b1"];
        assert_eq!(names(directory.path()), expected);
        assert_eq!(fs::read_to_string(directory.path().join("zoo.cfg.bak")).unwrap(), CFG);
        let written = fs::metadata(&files.zoo_cfg).unwrap().modified().unwrap();
        files.write(&members(0xb1)).unwrap();
        assert_eq!(fs::metadata(&files.zoo_cfg).unwrap().modified().unwrap(), written);
    }

    #[test]
    fn a_file_in_latin_1_keeps_its_bytes() {
        let (directory, files) = scene();
        let cfg = [b"# f\xfcr alle: \xc3\xa4\n", CFG.as_bytes()].concat();
        fs::write(&files.zoo_cfg, &cfg).unwrap();
        files.write(&members(1)).unwrap();
        let now = fs::read(&files.zoo_cfg).unwrap();
        assert!(now.starts_with(b"# f\xfcr alle: \xc3\xa4\n# ours\n"), "{now:?}");
        assert_eq!(fs::read(directory.path().join("zoo.cfg.bak")).unwrap(), cfg);
    }

    #[test]
    fn a_client_port_that_stands_in_zoo_cfg_alone_stays_there() {
        let (directory, files) = scene();
        let second = DynamicFile {
            me: ServerId::new(2).unwrap(),
            ..files
        };
        second.write(&members(1)).unwrap();
        let cfg = fs::read_to_string(directory.path().join("zoo.cfg")).unwrap();
        assert!(cfg.contains("clientPort=2181\n"), "{cfg}");
    }

    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let (directory, files) = scene();
        let link = directory.path().join("link.cfg");
        std::os::unix::fs::symlink(&files.zoo_cfg, &link).unwrap();
        let files = DynamicFile { zoo_cfg: link, ..files };
        files.write(&members(1)).unwrap();
        assert!(fs::symlink_metadata(&files.zoo_cfg).unwrap().is_symlink());
        assert!(directory.path().join("zoo.cfg.dynamic.1").exists());
    }

    #[test]
    fn what_was_written_is_what_the_next_start_reads() {
        let (directory, files) = scene();
        let version = 0x1_0000_0000;
        files.write(&members(version)).unwrap();
        let text = fs::read_to_string(&files.zoo_cfg).unwrap() + "initLimit=5\nsyncLimit=2\n";
        let read = |path: &Path| match path.ends_with("myid") {
            true => Ok(Some("1".to_owned())),
            false => fs::read_to_string(path).map(Some).map_err(|error| error.to_string()),
        };
        let loaded = crate::config::load(&crate::config::Sources {
            base: crate::config::Base::File {
                path: &files.zoo_cfg,
                text: &text,
            },
            environment: &|_| None,
            overrides: &[],
            read: &read,
        });
        let config = loaded.unwrap().config;
        let Membership::Ensemble(ensemble) = &config.cluster.membership else {
            panic!("an ensemble")
        };
        assert_eq!(ensemble.members(), members(version));
        assert_eq!(config.listeners.client.map(|address| address.port), Some(2181));
        drop(directory);
    }

    #[test]
    fn where_a_file_cannot_be_written_the_configuration_stays_as_it_is() {
        let (directory, files) = scene();
        fs::create_dir(directory.path().join("zoo.cfg.dynamic.1")).unwrap();
        let error = files.write(&members(1)).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot write ") && error.contains("zoo.cfg.dynamic.1: "),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&files.zoo_cfg).unwrap(), CFG);
        assert_eq!(names(directory.path()), ["zoo.cfg", "zoo.cfg.dynamic.1"]);
        files.write(&members(2)).unwrap();
        assert!(
            fs::read_to_string(&files.zoo_cfg)
                .unwrap()
                .contains("zoo.cfg.dynamic.2")
        );
    }

    #[test]
    fn a_configuration_that_is_gone_is_an_error_and_leaves_nothing_behind() {
        let (directory, files) = scene();
        fs::remove_file(&files.zoo_cfg).unwrap();
        let error = files.write(&members(1)).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read ") && error.contains("zoo.cfg: "),
            "{error}"
        );
        assert!(names(directory.path()).is_empty());
    }
}
