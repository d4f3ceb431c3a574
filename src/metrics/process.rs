//! What the operating system says of this process: memory and open files, from `/proc` where there is one.

use std::fs;

/// This process, as the kernel sees it; none where it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Process {
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
}

impl Process {
    /// Asks now (`man 5 proc`: `VmRSS` in `status`, entries of `fd`).
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").ok();
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
        // Reading the folder holds one open itself.
        Self { resident_bytes: status.as_deref().and_then(resident), open_fds: open_fds.map(|n| n.saturating_sub(1)) }
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kb: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kb.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1234 kB\nThreads:\t1\n"), Some(1_263_616));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_memory_and_files() {
        let process = Process::now();
        assert!(process.resident_bytes > Some(0));
        assert!(process.open_fds > Some(0));
    }
}
