//! How much memory this process holds: the only figure that comes from outside of the simulated world.

/// Resident memory in bytes; `None` where the system does not tell (it does on Linux).
pub fn resident() -> Option<u64> {
    told("VmRSS:")
}

/// The most that was resident at any time, in bytes.
pub fn peak() -> Option<u64> {
    told("VmHWM:")
}

fn told(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
