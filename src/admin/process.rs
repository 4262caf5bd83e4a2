//! What the operating system says of this process and its host. Linux's `/proc`; where that is not there, numbers are
//! `None` and texts empty.

use std::fs;
use std::path::Path;

/// Clock ticks per second in `/proc`: 100 on every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Numbers of this process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    pub(super) open_files: Option<u64>,
    pub(super) max_files: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    /// Since 1970.
    pub(super) start_seconds: Option<f64>,
    /// What it may take: its control group's limit, else the machine's memory.
    pub(super) max_memory_bytes: Option<u64>,
    pub(super) available_memory_bytes: Option<u64>,
}

impl Process {
    pub(super) fn look() -> Process {
        let status = read("/proc/self/status");
        let memory = read("/proc/meminfo");
        let kilobytes = |text: &str, key: &str| Some(field(text, key)?.parse::<u64>().ok()? << 10);
        let machine = kilobytes(&memory, "MemTotal:");
        let group = read("/sys/fs/cgroup/memory.max").trim().parse::<u64>().ok();
        let stat = read("/proc/self/stat");
        // The program's name may hold anything, but the last ')' ends it; the fields behind it begin with the third.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let boot = field(&read("/proc/stat"), "btime").and_then(|text| text.parse::<f64>().ok());
        Process {
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                // Reading the directory takes a descriptor itself.
                .map(|entries| (entries.count() as u64).saturating_sub(1)),
            max_files: read("/proc/self/limits")
                .lines()
                .find_map(|line| line.strip_prefix("Max open files"))
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok()),
            resident_bytes: kilobytes(&status, "VmRSS:"),
            virtual_bytes: kilobytes(&status, "VmSize:"),
            cpu_seconds: ticks(14)
                .zip(ticks(15))
                .map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            start_seconds: boot.zip(ticks(22)).map(|(boot, start)| boot + start / TICKS_PER_SECOND),
            max_memory_bytes: machine.map(|machine| group.map_or(machine, |group| group.min(machine))),
            available_memory_bytes: kilobytes(&memory, "MemAvailable:"),
        }
    }
}

/// The first word behind `key` at the beginning of a line.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(key))?
        .split_whitespace()
        .next()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What `envi` shows: ZooKeeper's keys, in its order. Those of the JVM say that there is none.
pub(super) fn environment(version: &str) -> Vec<(&'static str, String)> {
    let process = Process::look();
    let megabytes = |bytes: Option<u64>| format!("{}MB", bytes.unwrap_or(0) >> 20);
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let directory = std::env::current_dir().unwrap_or_default();
    vec![
        ("zookeeper.version", version.to_owned()),
        ("host.name", read("/proc/sys/kernel/hostname").trim().to_owned()),
        ("java.version", "none (native)".to_owned()),
        ("java.vendor", "none (native)".to_owned()),
        ("java.home", String::new()),
        ("java.class.path", String::new()),
        ("java.library.path", String::new()),
        ("java.io.tmpdir", std::env::temp_dir().display().to_string()),
        ("java.compiler", "<NA>".to_owned()),
        ("os.name", "Linux".to_owned()),
        ("os.arch", architecture().to_owned()),
        ("os.version", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("user.name", variable("USER")),
        ("user.home", variable("HOME")),
        ("user.dir", directory.display().to_string()),
        ("os.memory.free", megabytes(process.available_memory_bytes)),
        ("os.memory.max", megabytes(process.max_memory_bytes)),
        ("os.memory.total", megabytes(process.resident_bytes)),
    ]
}

/// The processor, as Java calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        other => other,
    }
}

/// Bytes of all files in a directory and below it. What cannot be read counts nothing.
pub(super) fn directory_bytes(directory: &Path) -> u64 {
    let mut bytes = 0;
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => waiting.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself() {
        let process = Process::look();
        assert!(process.open_files.is_some_and(|files| files > 2));
        assert!(process.max_files.is_some_and(|files| files > 2));
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert!(process.start_seconds.is_some_and(|start| start > 1.5e9));
        assert!(process.cpu_seconds.is_some());
    }

    #[test]
    fn the_environment_has_the_keys_that_scripts_look_for() {
        let environment = environment("v");
        for key in ["zookeeper.version", "java.version", "os.name", "user.dir"] {
            assert!(
                environment
                    .iter()
                    .any(|(name, value)| *name == key && !value.is_empty())
            );
        }
    }
}
