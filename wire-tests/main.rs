//! Byte scripts against a running server.
//!
//! Each file in `scripts/` is one test: a conversation on the wire, written in the small language of `script.rs`,
//! which knows jute's primitives and nothing of our codec, so that an error in the codec cannot hide here.
//! `WIRE_TARGET=apache` runs the same scripts against a real ZooKeeper: that proves the scripts themselves.
//! README.md describes the language; TRAPS.md says which script covers which trap of the specification.
//!
//! Left out on purpose: load, crashes and random sequences; benches, the crash test and the differential test do those.

mod pattern;
mod play;
mod reader;
mod script;
mod target;
mod text;
mod tokens;
mod traps;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::script::Script;
use crate::target::Target;

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    let target = match Target::from_environment() {
        Ok(target) => Arc::new(target),
        Err(message) => {
            eprintln!("{message}");
            return std::process::ExitCode::FAILURE;
        }
    };
    if target.is_shared() {
        // One server for all: the scripts count its zxids and connections, so they take turns.
        arguments.test_threads = Some(1);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("wire-tests");
    let (trials, scripts) = trials_of_scripts(&folder.join("scripts"), &target);
    let mut trials = trials;
    let table = folder.join("TRAPS.md");
    if !arguments.list {
        eprintln!(
            "traps of zookeeper-3.9 §2 named by scripts: {}",
            traps::summary(&scripts)
        );
    }
    trials.push(Trial::test("trap_table_and_scripts_agree", move || {
        traps::check(&table, &scripts).map_err(Failed::from)
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// One trial per script file, in alphabetical order. A script that cannot be parsed is a failing trial of that name.
fn trials_of_scripts(folder: &Path, target: &Arc<Target>) -> (Vec<Trial>, Vec<Arc<Script>>) {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) => {
            return (
                vec![failing("scripts", format!("{}: {error}", folder.display()))],
                Vec::new(),
            );
        }
    };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wire"));
    files.sort();

    let mut trials = Vec::new();
    let mut scripts = Vec::new();
    for file in files {
        match Script::load(&file) {
            Ok(script) => {
                let script = Arc::new(script);
                scripts.push(Arc::clone(&script));
                let unfit = target.is_shared() && script.needs_own_server();
                let (name, target) = (script.name.clone(), Arc::clone(target));
                let run = move || play::run(&script, &target).map_err(Failed::from);
                trials.push(Trial::test(name, run).with_ignored_flag(unfit));
            }
            Err(message) => trials.push(failing(&file.display().to_string(), message)),
        }
    }
    (trials, scripts)
}

fn failing(name: &str, message: String) -> Trial {
    Trial::test(name, move || Err(Failed::from(message)))
}
