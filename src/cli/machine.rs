//! What the machine gives this process.

use std::fs;
use std::path::Path;

/// Bytes of memory that this process may use: the machine's, or what its control group allows if that is less. `u64::MAX`
/// if neither can be read.
pub(super) fn memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_bytes(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(group_directory).flat_map(|group| {
        // Each group may set a limit; the least counts. A container may see its own group as the root.
        let path = Path::new("/sys/fs/cgroup").join(group);
        path.ancestors()
            .map(|group| group.join("memory.max"))
            .collect::<Vec<_>>()
    });
    let limits = limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    machine.into_iter().chain(limits).min().unwrap_or(u64::MAX)
}

/// `MemTotal:  24683204 kB`
fn total_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// `0::/system.slice/menagerie.service`, of the second version of control groups.
fn group_directory(line: &str) -> Option<&str> {
    line.strip_prefix("0::/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_some_memory() {
        assert!((1 << 20..u64::MAX).contains(&memory_bytes()));
        assert_eq!(total_bytes("MemFree: 1 kB\nMemTotal:   2048 kB\n"), Some(2 << 20));
        assert_eq!(group_directory("0::/a/b"), Some("a/b"));
        assert_eq!(group_directory("4:memory:/a"), None);
    }
}
