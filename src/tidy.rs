//! A test that guards the form of the house: which room may use which, what the pure rooms may not touch, and how long a
//! file may be.
//!
//! Reads the sources as text. Test code (`#[cfg(test)]` at the end of a file, `tests.rs`, `model.rs`) is free.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of production code that a file may have.
const MOST_LINES: usize = 600;

/// Which rooms a room may use besides itself. A room that is not named here may not be used by any.
const MAY_USE: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("membership", &[]),
    ("state_machine", &["proto", "membership"]),
    ("watch", &["proto"]),
    ("config", &["membership"]),
    ("replica", &["proto", "state_machine", "membership"]),
    ("storage", &["proto", "state_machine"]),
    ("net", &["proto"]),
    (
        "server",
        &[
            "proto",
            "state_machine",
            "membership",
            "watch",
            "replica",
            "storage",
            "net",
        ],
    ),
    (
        "admin",
        &[
            "proto",
            "state_machine",
            "membership",
            "watch",
            "config",
            "server",
            "storage",
        ],
    ),
    (
        "cli",
        &[
            "proto",
            "state_machine",
            "membership",
            "watch",
            "config",
            "replica",
            "storage",
            "net",
            "server",
            "admin",
        ],
    ),
    // Test builds only. Nobody may use it; production code asks for planted bugs by the macro `planted!`.
    (
        "testing",
        &[
            "proto",
            "state_machine",
            "membership",
            "watch",
            "replica",
            "storage",
            "net",
            "server",
        ],
    ),
];

/// Rooms, and single files of others, that have no sockets, files, threads, clocks or randomness.
const PURE: &[&str] = &[
    "proto/",
    "membership/",
    "state_machine/",
    "watch/",
    "config/",
    "replica/",
    "server/pipeline.rs",
    "server/outbound.rs",
    "server/admission.rs",
    "server/parking.rs",
    "server/local.rs",
    "server/handshake.rs",
    "server/authentication.rs",
    "server/sasl.rs",
    "server/digest_md5.rs",
    "server/applier.rs",
    "server/stall.rs",
    "server/storm.rs",
];

/// What a pure room may not name.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::env",
    "tokio::",
    "rand::",
    "fjall::",
    "rustix::",
    "Instant::now",
    "SystemTime::now",
];

struct Source {
    /// Below `src`, with `/` between.
    path: String,
    /// Its production part, without comment lines, as numbered lines.
    lines: Vec<(usize, String)>,
    /// Lines of the production part, comments included.
    length: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 20, "the sources were not found at {}", root.display());
    files.iter().map(|file| read(&root, file)).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(root: &Path, file: &Path) -> Source {
    let path = file.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
    let text = fs::read_to_string(file).unwrap();
    let is_test =
        path.ends_with("tests.rs") || path.ends_with("model.rs") || path.contains("/tests/") || path == "tidy.rs";
    let production: Vec<&str> = if is_test {
        Vec::new()
    } else {
        text.lines()
            .take_while(|line| !line.starts_with("#[cfg(test)]"))
            .collect()
    };
    let lines = production
        .iter()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"));
    Source {
        length: production.len(),
        lines: lines.map(|(number, line)| (number + 1, (*line).to_owned())).collect(),
        path,
    }
}

#[test]
fn rooms_use_only_what_stands_in_their_row() {
    let rows: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some((room, _)) = source.path.split_once('/') else {
            continue;
        };
        let Some(allowed) = rows.get(room) else {
            wrong.push(format!("{}: the room {room} has no row", source.path));
            continue;
        };
        for (number, line) in &source.lines {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if rows.contains_key(used.as_str()) && used != room && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{}:{number}: {room} may not use {used}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_touch_no_world() {
    let mut wrong = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| PURE.iter().any(|pure| source.path.starts_with(pure)))
    {
        for (number, line) in &source.lines {
            for impure in IMPURE.iter().filter(|impure| line.contains(**impure)) {
                wrong.push(format!("{}:{number}: {impure} in a pure room", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_fits_in_a_head() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|source| source.length > MOST_LINES)
        .map(|source| format!("{}: {} lines, at most {MOST_LINES}", source.path, source.length))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let is_tests = file.file_name().is_some_and(|name| name == "tests.rs");
        assert!(is_tests || text.starts_with("//!"), "{} has no header", file.display());
    }
}
