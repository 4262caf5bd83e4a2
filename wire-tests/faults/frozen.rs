//! One thread of another process that stands still where it works on a file, and all others go on.

use super::members::PATIENCE;
use nix::errno::Errno;
use nix::libc::c_long;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time between two looks at the threads that are followed.
const LOOK: Duration = Duration::from_micros(100);

/// It stands still until this is dropped, on the same thread of ours.
pub(crate) struct Frozen {
    process: u32,
    thread: Pid,
}

impl Frozen {
    /// The first thread of these names that makes one of these calls on a file below `folder`: elsewhere it may hold a lock for
    /// which others wait.
    pub(crate) fn at_a_call(process: u32, names: &[&str], calls: &[c_long], folder: &Path) -> Result<Frozen, String> {
        let mut followed = Followed(Vec::new());
        for thread in threads(process, names)? {
            ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD).map_err(told)?;
            followed.0.push(thread);
            ptrace::interrupt(thread).map_err(told)?;
        }
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            for position in 0..followed.0.len() {
                let thread = followed.0[position];
                let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
                if waitpid(thread, Some(flags)).map_err(told)? == WaitStatus::StillAlive {
                    continue;
                }
                if is_at(process, thread, calls, folder)? {
                    let thread = followed.0.swap_remove(position);
                    return Ok(Frozen { process, thread });
                }
                ptrace::syscall(thread, None).map_err(told)?;
            }
            std::thread::sleep(LOOK);
        }
        Err(format!(
            "no thread of {names:?} makes the call for {} s",
            PATIENCE.as_secs()
        ))
    }

    /// The same thread goes on until it makes one of these calls, other ones, on a file below `folder`.
    pub(crate) fn goes_on_until(self, calls: &[c_long], folder: &Path) -> Result<Frozen, String> {
        let started = Instant::now();
        ptrace::syscall(self.thread, None).map_err(told)?;
        while started.elapsed() < PATIENCE {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
            if waitpid(self.thread, Some(flags)).map_err(told)? == WaitStatus::StillAlive {
                std::thread::sleep(LOOK);
                continue;
            }
            if is_at(self.process, self.thread, calls, folder)? {
                return Ok(self);
            }
            ptrace::syscall(self.thread, None).map_err(told)?;
        }
        // Only one that stands still can be let go.
        let _ = ptrace::interrupt(self.thread);
        let _ = waitpid(self.thread, Some(WaitPidFlag::__WALL));
        Err(format!(
            "the thread does not make the call for {} s",
            PATIENCE.as_secs()
        ))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Else the process could not even end. It may have ended, though.
        let _ = ptrace::detach(self.thread, None);
    }
}

/// Threads that are let go when this is dropped.
struct Followed(Vec<Pid>);

impl Drop for Followed {
    fn drop(&mut self) {
        for thread in &self.0 {
            // Only one that stands still can be let go; it may have ended, though.
            let _ = ptrace::interrupt(*thread);
            let _ = waitpid(*thread, Some(WaitPidFlag::__WALL));
            let _ = ptrace::detach(*thread, None);
        }
    }
}

fn threads(process: u32, names: &[&str]) -> Result<Vec<Pid>, String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).map_err(|error| error.to_string())?;
    let numbers = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_called_so = |thread: &i32| {
        let called = fs::read_to_string(format!("/proc/{process}/task/{thread}/comm"));
        called.is_ok_and(|called| names.contains(&called.trim_end()))
    };
    let threads: Vec<Pid> = numbers.filter(is_called_so).map(Pid::from_raw).collect();
    match threads.is_empty() {
        true => Err(format!("no thread is called one of {names:?}")),
        false => Ok(threads),
    }
}

/// Whether a thread that stands still is at one of these calls.
fn is_at(process: u32, thread: Pid, calls: &[c_long], folder: &Path) -> Result<bool, String> {
    let called =
        fs::read_to_string(format!("/proc/{process}/task/{thread}/syscall")).map_err(|error| error.to_string())?;
    // Its number, and its arguments: the first is the descriptor.
    let mut words = called.split(' ');
    let number: Option<c_long> = words.next().and_then(|number| number.parse().ok());
    if !number.is_some_and(|number| calls.contains(&number)) {
        return Ok(false);
    }
    let descriptor = words.next().and_then(|word| word.strip_prefix("0x"));
    let descriptor = descriptor.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let file = descriptor.and_then(|fd| fs::read_link(format!("/proc/{process}/fd/{fd}")).ok());
    Ok(file.is_some_and(|file| file.starts_with(folder)))
}

fn told(errno: Errno) -> String {
    format!("a thread cannot be stopped: {errno}")
}
