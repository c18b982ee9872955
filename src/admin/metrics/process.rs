//! What the system says about this process. The names are those that every Prometheus client library uses.

/// Figures of the process; absent where the system does not have them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    /// CPU time in seconds.
    pub(super) cpu: Option<f64>,
    /// Resident memory in bytes.
    pub(super) resident: Option<u64>,
    /// Virtual memory in bytes.
    pub(super) memory: Option<u64>,
    /// Open file descriptors.
    pub(super) fds: Option<u64>,
    /// How many may be open; infinite if there is no limit.
    pub(super) max_fds: Option<f64>,
    /// Memory limit of the control group in bytes; infinite if there is none.
    pub(super) memory_limit: Option<f64>,
    /// Start of the process, in seconds since 1970.
    pub(super) started: Option<f64>,
}

impl Process {
    /// Reads them from `/proc` and `/sys/fs/cgroup`.
    #[cfg(target_os = "linux")]
    #[allow(clippy::cast_precision_loss, reason = "no process lives for 2^53 ticks or has 2^53 descriptors")]
    pub(super) fn read() -> Self {
        use procfs::process::LimitValue;

        let Ok(this) = procfs::process::Process::myself() else { return Self::default() };
        let (stat, ticks) = (this.stat().ok(), procfs::ticks_per_second() as f64);
        let seconds = |in_ticks: u64| in_ticks as f64 / ticks;
        let stat = stat.as_ref();
        Self {
            cpu: stat.map(|stat| seconds(stat.utime + stat.stime)),
            resident: stat.map(|stat| stat.rss * procfs::page_size()),
            memory: stat.map(|stat| stat.vsize),
            fds: this.fd_count().ok().and_then(|count| count.try_into().ok()),
            max_fds: this.limits().ok().map(|limits| match limits.max_open_files.soft_limit {
                LimitValue::Value(limit) => limit as f64,
                LimitValue::Unlimited => f64::INFINITY,
            }),
            memory_limit: this.cgroups().ok().map(|groups| memory_limit(&groups)),
            started: stat.and_then(|stat| Some(procfs::boot_time_secs().ok()? as f64 + seconds(stat.starttime))),
        }
    }

    /// Other systems have no `/proc`.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read() -> Self {
        Self::default()
    }
}

/// Where control groups are mounted.
#[cfg(target_os = "linux")]
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
/// Version 1 of control groups has no word for "no limit", but the largest number of whole pages.
#[cfg(target_os = "linux")]
const NO_LIMIT: u64 = 1 << 60;

/// The lowest limit of the process's control group and those above it.
#[cfg(target_os = "linux")]
#[allow(clippy::cast_precision_loss, reason = "no machine has 2^53 bytes of memory")]
fn memory_limit(groups: &procfs::ProcessCGroups) -> f64 {
    let files = groups.into_iter().flat_map(|group| limit_files(&group.controllers, &group.pathname));
    let limits = files.filter_map(|file| limit(&std::fs::read_to_string(file).ok()?));
    limits.min().map_or(f64::INFINITY, |bytes| bytes as f64)
}

/// The files that can hold a limit. In a container, the group's path may be the node's, which does not exist there; the root
/// is then the container's own group.
#[cfg(target_os = "linux")]
fn limit_files(controllers: &[String], path: &str) -> Vec<std::path::PathBuf> {
    let is_second_version = controllers.iter().all(String::is_empty);
    let (mount, file) = if is_second_version {
        (CONTROL_GROUPS.to_owned(), "memory.max")
    } else if controllers.iter().any(|controller| controller == "memory") {
        (format!("{CONTROL_GROUPS}/memory"), "memory.limit_in_bytes")
    } else {
        return Vec::new();
    };
    let path = std::path::Path::new(path.trim_start_matches('/'));
    path.ancestors().map(|group| std::path::Path::new(&mount).join(group).join(file)).collect()
}

/// Reads a limit in bytes; `None` if there is none.
#[cfg(target_os = "linux")]
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < NO_LIMIT)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_of_bytes_or_none() {
        assert_eq!(limit("268435456\n"), Some(268_435_456));
        assert_eq!((limit("max\n"), limit("9223372036854771712\n"), limit("")), (None, None, None));
    }

    #[test]
    fn the_groups_above_count_too() {
        let files = |controllers: &[&str], path: &str| -> Vec<String> {
            let controllers: Vec<String> = controllers.iter().map(ToString::to_string).collect();
            limit_files(&controllers, path).iter().map(|file| file.display().to_string()).collect()
        };
        let second = ["/sys/fs/cgroup/pod/a/memory.max", "/sys/fs/cgroup/pod/memory.max", "/sys/fs/cgroup/memory.max"];
        assert_eq!(files(&[""], "/pod/a"), second);
        assert_eq!(files(&[], "/"), second[2..]);
        assert_eq!(
            files(&["memory"], "/pod"),
            ["/sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
        assert!(files(&["cpu", "cpuacct"], "/pod").is_empty());
    }
}
