//! Processes in a folder, both of which end with their parent, however it ends.
//!
//! `supervisor.sh` does it: a shell that holds the read end of a pipe from this process. See there for the protocol.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::{Context, Error, Result};

const SCRIPT: &str = include_str!("supervisor.sh");

/// How long a program may take to end: longer than the operator's own grace, after which that gives up by itself.
const GRACE: Duration = Duration::from_secs(40);

/// A folder and the processes that run in it.
#[derive(Debug)]
pub struct Supervisor {
    folder: PathBuf,
    shell: Mutex<Shell>,
}

#[derive(Debug)]
struct Shell {
    process: Child,
    /// Absent once the shell was told to end.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    left_running: bool,
}

/// A signal that changes whether a process runs.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// Pauses it.
    Stop,
    /// Lets it go on.
    Continue,
    /// Asks it to end.
    Terminate,
    /// Ends it at once.
    Kill,
}

impl Supervisor {
    /// Makes a folder of its own, readable by this user only, below the system's folder for temporary files.
    pub fn start(purpose: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("managed-secrets-{purpose}-{}", uuid::Uuid::new_v4().simple()));
        fs::DirBuilder::new().mode(0o700).create(&folder).context("create", &folder)?;
        // Not our own standard error: a reader of it would wait until every process that is left has ended.
        let log = folder.join("supervisor.log");
        let errors = fs::File::create(&log).context("create", &log)?;
        let script = folder.join("supervisor.sh");
        fs::write(&script, SCRIPT).context("write", &script)?;
        let mut process = Command::new("sh")
            .arg(script)
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            // A group of its own: Ctrl-C in a terminal ends the parent, and the supervisor then cleans up in peace.
            .process_group(0)
            .spawn()
            .context("start", Path::new("sh"))?;
        let (Some(requests), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Error::SupervisorGone);
        };
        let answers = BufReader::new(answers);
        let shell = Shell { process, requests: Some(requests), answers, left_running: false };
        Ok(Self { folder, shell: Mutex::new(shell) })
    }

    /// The folder in which the processes run; `NAME.log` in it is the output of each.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a program, which inherits our environment.
    pub fn run(&self, name: &str, command: &Process) -> Result<()> {
        let mut script = format!("echo $$ >{name}.pid\n").into_bytes();
        for (key, value) in &command.environment {
            script.extend_from_slice(format!("export {key}=").as_bytes());
            quote(&mut script, value);
            script.push(b'\n');
        }
        script.extend_from_slice(b"exec");
        for word in &command.words {
            script.push(b' ');
            quote(&mut script, word);
        }
        script.push(b'\n');
        let path = self.folder.join(format!("{name}.sh"));
        fs::write(&path, script).context("write", &path)?;
        self.run_again(name)
    }

    /// Starts a program that ended, as it was started before.
    pub fn run_again(&self, name: &str) -> Result<()> {
        self.ask(&format!("start {name}")).map(drop)
    }

    /// Pauses, resumes or ends a process.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let signal = match signal {
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
            Signal::Terminate => "TERM",
            Signal::Kill => "KILL",
        };
        self.ask(&format!("signal {name} {signal}")).map(drop)
    }

    /// Ends a process, gracefully if it does so within [`GRACE`], and waits until it is gone.
    pub fn stop(&self, name: &str) -> Result<()> {
        self.end(name, &[Signal::Terminate, Signal::Kill])
    }

    /// Ends a process at once, and waits until it is gone.
    pub fn kill(&self, name: &str) -> Result<()> {
        self.end(name, &[Signal::Kill])
    }

    fn end(&self, name: &str, signals: &[Signal]) -> Result<()> {
        for signal in signals {
            self.signal(name, *signal)?;
            let began = Instant::now();
            while self.is_running(name)? {
                if began.elapsed() > GRACE {
                    break;
                }
                std::thread::sleep(Duration::from_millis(25));
            }
        }
        if self.is_running(name)? {
            return Err(Error::Deadline { what: format!("{name} to end"), seconds: GRACE.as_secs() });
        }
        Ok(())
    }

    /// Whether a process is running (also when it is paused).
    pub fn is_running(&self, name: &str) -> Result<bool> {
        Ok(self.ask(&format!("status {name}"))?.starts_with("running"))
    }

    /// The status of a process that has ended.
    pub fn exit_code(&self, name: &str) -> Option<i32> {
        fs::read_to_string(self.folder.join(format!("{name}.exit"))).ok()?.trim().parse().ok()
    }

    /// The last lines that a process wrote.
    pub fn log_end(&self, name: &str) -> String {
        let log = fs::read(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].iter().fold(String::new(), |mut end, line| {
            let _ = writeln!(end, "  {line}");
            end
        })
    }

    /// Hands the pipe over to a process that does nothing: when that is killed, or the machine ends, so does the rest.
    /// Returns its id.
    pub fn leave_running(&self) -> Result<u32> {
        let mut shell = self.shell.lock();
        let requests = shell.requests.take().ok_or(Error::SupervisorGone)?;
        shell.left_running = true;
        let holder = Command::new("sleep")
            .arg("2147483647")
            .stdin(Stdio::from(requests))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start", Path::new("sleep"))?;
        Ok(holder.id())
    }

    fn ask(&self, request: &str) -> Result<String> {
        let mut shell = self.shell.lock();
        let mut answer = String::new();
        let requests = shell.requests.as_mut().ok_or(Error::SupervisorGone)?;
        writeln!(requests, "{request}").map_err(|_| Error::SupervisorGone)?;
        match shell.answers.read_line(&mut answer) {
            Ok(length) if length > 0 => Ok(answer),
            _ => Err(Error::SupervisorGone),
        }
    }
}

impl Drop for Supervisor {
    /// Waits until the processes and the folder are gone. Where no destructor runs (a static, a kill), the closed pipe
    /// does the same a moment later.
    fn drop(&mut self) {
        let shell = self.shell.get_mut();
        if !shell.left_running {
            shell.requests = None;
            let _ = shell.process.wait();
        }
    }
}

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Process {
    words: Vec<OsString>,
    environment: Vec<(String, OsString)>,
}

impl Process {
    /// Runs `program`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { words: vec![program.as_ref().to_owned()], environment: Vec::new() }
    }

    /// Runs a command: a program and its first arguments.
    pub fn of<A: AsRef<OsStr>>(command: impl IntoIterator<Item = A>) -> Self {
        Self { words: Vec::new(), environment: Vec::new() }.args(command)
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.words.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Adds `--name=value`.
    #[must_use]
    pub fn flag(self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let mut argument = OsString::from(format!("--{name}="));
        argument.push(value);
        self.arg(argument)
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }
}

/// Appends `word` so that a shell reads exactly it.
fn quote(script: &mut Vec<u8>, word: &OsStr) {
    script.push(b'\'');
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => script.extend_from_slice(b"'\\''"),
            _ => script.push(byte),
        }
    }
    script.push(b'\'');
}
