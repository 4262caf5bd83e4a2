//! A member whose store stands still, and nothing else of it: it takes no more than it may hold, the others go on, and it
//! catches up.
//!
//! | promise | how it would show |
//! |---|---|
//! | Bounded | the state of the member that cannot store it grows beyond its `memoryBudget`; it refuses nothing |
//! | Durable | a value is missing, on that member too, once it has caught up |

use super::ensemble::{Ensemble, Flavour, Role, Visit};
use super::members::{PATIENCE, until};
use super::wire;
use nix::errno::Errno;
use nix::libc::{SYS_pwrite64, SYS_write, SYS_writev, c_long};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::time::Instant;

const MEMBERS: usize = 3;
/// Small, so that little has to be written.
const BUDGET_MIB: u64 = 32;
const VALUE_BYTES: usize = 40 << 10;
/// 80 MB: more than a member may hold without storing it, and than waits to be applied.
const ZNODES: usize = 2000;

#[test]
fn a_member_whose_store_stands_still_takes_no_more_than_it_may_and_catches_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = format!("memoryBudget={BUDGET_MIB}MiB\n");
    let mut ensemble = Ensemble::with_spare(Flavour::Ours, MEMBERS, 0, &settings, directory.path());
    let outcome = run(&mut ensemble);
    if let Err(reason) = outcome {
        let logs = ensemble.logs();
        drop(ensemble);
        panic!("{reason}{logs}\n  all of it: {}", directory.keep().display());
    }
}

fn path(number: usize) -> String {
    format!("/behind/{number}")
}

fn value(number: usize) -> Vec<u8> {
    let line = format!("znode {number}, ");
    line.bytes().cycle().take(VALUE_BYTES).collect()
}

fn run(ensemble: &mut Ensemble) -> Result<(), String> {
    (0..MEMBERS).for_each(|member| ensemble.start(member));
    ensemble.await_all()?;
    ensemble.await_votes()?;
    let leader = ensemble.leader()?;
    let behind = (leader + 1) % MEMBERS;
    let mut visit = Visit::open(ensemble.clients()[leader])?;
    visit.create("/behind")?;

    // It stores that soon.
    let frozen = Frozen::at_a_write(
        ensemble.process_id(behind),
        "store",
        &ensemble.folder(behind).join("data"),
    )?;
    for number in 0..ZNODES {
        let created = visit.ask(wire::CREATE, |body| body.create(&path(number), &value(number), 0))?;
        if created.0 != 0 {
            return Err(format!("creating znode {number} fails with {}", created.0));
        }
    }
    // Heartbeats make the leader ask again and again.
    until("the member refuses entries", || {
        number(ensemble, behind, "zk_appends_refused").is_some_and(|refused| refused > 0)
    })?;
    let held = number(ensemble, behind, "zk_memory_bytes").ok_or("it does not say what it holds")?;
    if held > BUDGET_MIB << 20 {
        return Err(format!("Bounded: it holds {held} bytes"));
    }
    if ensemble.role(leader) != Role::Leader {
        return Err("the leader is another one: nothing was done to it".to_owned());
    }
    let log = fs::read_to_string(ensemble.folder(behind).join("log")).unwrap_or_default();
    if !log.contains("does not take all that its leader sends") {
        return Err("it does not say so in its log".to_owned());
    }

    drop(frozen);
    until("it has caught up", || {
        number(ensemble, behind, "zk_znode_count") == number(ensemble, leader, "zk_znode_count")
    })?;
    let mut there = Visit::open(ensemble.clients()[behind])?;
    there.sync()?;
    for number in 0..ZNODES {
        let found = there.data(&path(number))?.map(|(data, _)| data);
        if found != Some(value(number)) {
            return Err(format!("Durable: znode {number} is not there as written"));
        }
    }
    there.close()?;
    visit.close()
}

/// One of a member's numbers, as `mntr` has it.
fn number(ensemble: &Ensemble, member: usize, name: &str) -> Option<u64> {
    let answer = ensemble.word(member, "mntr");
    let line = answer
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'))?;
    line.parse().ok()
}

/// One thread of another process, which stands still until this is dropped, on the same thread of ours.
struct Frozen(Pid);

impl Frozen {
    /// As soon as it begins to write to a file below `folder`: elsewhere it may hold a lock for which others wait.
    fn at_a_write(process: u32, name: &str, folder: &Path) -> Result<Frozen, String> {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).map_err(|error| error.to_string())?;
        let mut threads = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let is_it = |thread: &i32| {
            let called = fs::read_to_string(format!("/proc/{process}/task/{thread}/comm"));
            called.is_ok_and(|called| called.trim_end() == name)
        };
        let thread = threads
            .find(is_it)
            .ok_or_else(|| format!("no thread is called {name}"))?;
        let thread = Pid::from_raw(thread);
        let told = |errno: Errno| format!("thread {thread} cannot be stopped: {errno}");
        ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD).map_err(told)?;
        ptrace::interrupt(thread).map_err(told)?;
        waitpid(thread, Some(WaitPidFlag::__WALL)).map_err(told)?;
        let frozen = Frozen(thread);
        let call = format!("/proc/{process}/task/{thread}/syscall");
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            ptrace::syscall(thread, None).map_err(told)?;
            waitpid(thread, Some(WaitPidFlag::__WALL)).map_err(told)?;
            // Its number, and its arguments: the first is the descriptor.
            let called = fs::read_to_string(&call).map_err(|error| error.to_string())?;
            let mut words = called.split(' ');
            let number: Option<c_long> = words.next().and_then(|number| number.parse().ok());
            if !number.is_some_and(|number| [SYS_write, SYS_writev, SYS_pwrite64].contains(&number)) {
                continue;
            }
            let descriptor = words.next().and_then(|word| word.strip_prefix("0x"));
            let descriptor = descriptor.and_then(|digits| u32::from_str_radix(digits, 16).ok());
            let file = descriptor.and_then(|fd| fs::read_link(format!("/proc/{process}/fd/{fd}")).ok());
            if file.is_some_and(|file| file.starts_with(folder)) {
                return Ok(frozen);
            }
        }
        Err(format!("it writes nothing for {} s", PATIENCE.as_secs()))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Else the process could not even end. It may have ended, though.
        let _ = ptrace::detach(self.0, None);
    }
}
