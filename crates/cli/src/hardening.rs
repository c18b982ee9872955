//! Protects the process's memory: no core dumps, and no debugger or `/proc/PID/mem` of the same user.
//!
//! Every command does so, since `seal` holds a value as `run` holds many.

use super::CliError;

/// Turns core dumps off and makes the process not dumpable, for as long as it lives.
pub(crate) fn harden_process() -> Result<(), CliError> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| CliError::failed("cannot turn core dumps off", &error))?;
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(|error| CliError::failed("cannot make the process not dumpable", &error))?;
    }
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    #[test]
    fn the_process_leaves_no_dump() {
        super::harden_process().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
    }
}
