//! How many files, and so sockets, the process may have open.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files (RLIMIT_NOFILE) to `wanted`, or to the hard limit where that is lower.
///
/// Returns what is allowed then. It is never lowered. Many systems begin with 1024, for the sake of programs that use
/// select(2); nothing here does.
///
/// # Errors
/// The system does not say, or does not allow what its hard limit does.
pub fn allow_open_files(wanted: u64) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let allowed = wanted.min(hard).max(soft);
    if allowed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, allowed, hard)?;
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_the_system_lets_and_never_lowered() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(allow_open_files(0).unwrap(), soft);
        let wanted = soft.saturating_add(1).min(hard);
        assert_eq!(allow_open_files(wanted).unwrap(), wanted);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (wanted, hard));
        assert_eq!(allow_open_files(u64::MAX).unwrap(), hard);
    }
}
