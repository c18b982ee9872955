//! Health: named checks, and what they say together.
//!
//! In: checks, which the parts of a process register. Out: a [`Report`] for each [`Probe`]. Pure: a check is a function
//! without arguments, and this module knows no clock, no server and no other part of the engine. A check must be fast and must not wait, because
//! kubelets call it every few seconds.
//!
//! A process that has registered nothing is not ready: [`Health`] begins with a check that fails until
//! [`Health::started`].

use std::fmt::Write as _;

use parking_lot::RwLock;

/// A question that a kubelet asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Does the process work, or must it be restarted?
    Live,
    /// May it receive requests?
    Ready,
    /// Has it started?
    Started,
}

/// What a check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Good.
    Good,
    /// Something is wrong, and the probe passes: failing it would do more harm. The report says what is wrong.
    Degraded(String),
    /// The probe fails, and why.
    Failed(String),
}

type Check = Box<dyn Fn() -> Verdict + Send + Sync>;

struct Entry {
    name: &'static str,
    probes: &'static [Probe],
    check: Check,
}

/// The checks of a process, in the order in which they were registered.
pub struct Health {
    entries: RwLock<Vec<Entry>>,
}

/// The name of the check that fails while the process starts.
const START: &str = "start";
const STARTING: &[Probe] = &[Probe::Ready, Probe::Started];
const READY: &[Probe] = &[Probe::Ready];

impl Default for Health {
    fn default() -> Self {
        let health = Self { entries: RwLock::default() };
        health.starting("the process is starting");
        health
    }
}

impl Health {
    /// Registers a check for these probes. A check of the same name is replaced.
    pub fn check(
        &self,
        name: &'static str,
        probes: &'static [Probe],
        check: impl Fn() -> Verdict + Send + Sync + 'static,
    ) {
        let entry = Entry { name, probes, check: Box::new(check) };
        let mut entries = self.entries.write();
        match entries.iter_mut().find(|present| present.name == name) {
            Some(present) => *present = entry,
            None => entries.push(entry),
        }
    }

    /// Says what the start waits for: until [`started`](Self::started), the process is neither ready nor started.
    pub fn starting(&self, why: impl Into<String>) {
        let why = why.into();
        self.check(START, STARTING, move || Verdict::Failed(why.clone()));
    }

    /// Says what the start waits for, if a restart cannot help: until [`started`](Self::started), the process is not ready.
    /// It counts as started, so that no kubelet restarts it.
    pub fn waiting(&self, why: impl Into<String>) {
        let why = why.into();
        self.check(START, READY, move || Verdict::Failed(why.clone()));
    }

    /// The process has started: from now on, the other checks decide.
    pub fn started(&self) {
        self.entries.write().retain(|entry| entry.name != START);
    }

    /// Returns every check, whatever its probes, and whether it passes.
    #[must_use]
    pub fn checks(&self) -> Vec<(&'static str, bool)> {
        let passes = |entry: &Entry| !matches!((entry.check)(), Verdict::Failed(_));
        self.entries.read().iter().map(|entry| (entry.name, passes(entry))).collect()
    }

    /// Asks all checks of a probe.
    #[must_use]
    pub fn report(&self, probe: Probe) -> Report {
        let entries = self.entries.read();
        let asked = entries.iter().filter(|entry| entry.probes.contains(&probe));
        Report { lines: asked.map(|entry| (entry.name, (entry.check)())).collect() }
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.read().iter().map(|entry| entry.name)).finish()
    }
}

/// What the checks of a probe said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    lines: Vec<(&'static str, Verdict)>,
}

impl Report {
    /// Whether no check failed.
    #[must_use]
    pub fn passes(&self) -> bool {
        !self.lines.iter().any(|(_, verdict)| matches!(verdict, Verdict::Failed(_)))
    }

    /// Describes it, one check a line, as Kubernetes' own components do, and with the reasons: everything if `verbose`
    /// or if a check failed; otherwise `ok`, and what is degraded.
    #[must_use]
    pub fn text(&self, verbose: bool) -> String {
        let passes = self.passes();
        let all = verbose || !passes;
        let mut text = if all { String::new() } else { "ok\n".to_owned() };
        for (name, verdict) in &self.lines {
            // A String takes everything.
            let _ = match verdict {
                Verdict::Good if all => writeln!(text, "[+] {name}: ok"),
                Verdict::Good => Ok(()),
                Verdict::Degraded(why) => writeln!(text, "[!] {name}: {why}"),
                Verdict::Failed(why) => writeln!(text, "[-] {name}: {why}"),
            };
        }
        if all {
            text.push_str(if passes { "the check passed\n" } else { "the check failed\n" });
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: &[Probe] = &[Probe::Live];

    #[test]
    fn a_process_is_live_but_neither_ready_nor_started_until_it_says_so() {
        let health = Health::default();
        let passes = |probe| health.report(probe).passes();
        assert!(passes(Probe::Live) && !passes(Probe::Ready) && !passes(Probe::Started));
        health.starting("waiting for the API server");
        assert_eq!(
            health.report(Probe::Ready).text(false),
            "[-] start: waiting for the API server\nthe check failed\n"
        );
        health.waiting("the keyring is missing");
        assert!(passes(Probe::Live) && !passes(Probe::Ready) && passes(Probe::Started), "a restart cannot help");
        health.started();
        assert!(passes(Probe::Live) && passes(Probe::Ready) && passes(Probe::Started));
        assert_eq!(health.report(Probe::Ready).text(false), "ok\n");
    }

    #[test]
    fn one_failure_fails_its_probes_and_no_other() {
        let health = Health::default();
        health.started();
        health.check("workers", LIVE, || Verdict::Good);
        health.check("watches", LIVE, || Verdict::Failed("silent".to_owned()));
        health.check("keyring", READY, || Verdict::Good);
        assert!(!health.report(Probe::Live).passes() && health.report(Probe::Ready).passes());
        assert_eq!(
            health.report(Probe::Live).text(false),
            "[+] workers: ok\n[-] watches: silent\nthe check failed\n",
            "who fails says everything"
        );
        assert_eq!(health.checks(), [("workers", true), ("watches", false), ("keyring", true)]);
        health.check("watches", LIVE, || Verdict::Good);
        assert!(health.report(Probe::Live).passes(), "a check of the same name is replaced");
    }

    #[test]
    fn what_is_degraded_passes_and_is_said() {
        let health = Health::default();
        health.started();
        health.check("keyring", READY, || Verdict::Good);
        health.check("caches", READY, || Verdict::Degraded("namespace shop".to_owned()));
        let report = health.report(Probe::Ready);
        assert!(report.passes());
        assert_eq!(report.text(false), "ok\n[!] caches: namespace shop\n");
        assert_eq!(health.checks(), [("keyring", true), ("caches", true)]);
        assert_eq!(report.text(true), "[+] keyring: ok\n[!] caches: namespace shop\nthe check passed\n");
    }
}
