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
    /// How many may be open.
    pub(super) max_fds: Option<u64>,
    /// Start of the process, in seconds since 1970.
    pub(super) started: Option<f64>,
}

impl Process {
    /// Reads them from `/proc`.
    #[cfg(target_os = "linux")]
    #[allow(clippy::cast_precision_loss, reason = "no process lives for 2^53 ticks")]
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
            max_fds: this.limits().ok().and_then(|limits| match limits.max_open_files.soft_limit {
                LimitValue::Value(limit) => Some(limit),
                LimitValue::Unlimited => None,
            }),
            started: stat.and_then(|stat| Some(procfs::boot_time_secs().ok()? as f64 + seconds(stat.starttime))),
        }
    }

    /// Other systems have no `/proc`.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read() -> Self {
        Self::default()
    }
}
