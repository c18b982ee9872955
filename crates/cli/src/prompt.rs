//! Asks for a value on the terminal, without showing it.
//!
//! ```text
//! keys, pastes ──▶ terminal without echo ──bytes──▶ line (pure) ──▶ the value, or why it is refused
//!                        ▲
//!     signals ───────────┴─ the terminal is put back, before the process ends or stops
//! ```
//!
//! Guarantees: what is returned is what was typed, byte for byte, or an error. Of several lines nothing is taken, and
//! nothing of them is left for the shell to run. However the prompt ends (Enter, an error, a signal, Ctrl-Z), the
//! terminal is left as it was. Two signals cannot be answered. After SIGKILL nothing more is done. While SIGSTOP holds
//! the process, the terminal is as the shell makes it; when the process goes on, it hides again what is typed, and asks
//! again.
//!
//! This is a module of its own because the crates for it do not give these guarantees: rpassword 7.5 drops tabs and
//! control characters, replaces what is not UTF-8, takes the first of several lines, and leaves the terminal without
//! echo when a signal ends the process. rustix and signal-hook do the system calls.
//!
//! A paste of several lines is recognised by the terminal's marks. If the terminal does not mark pastes, it is recognised
//! by its pace ([`pace`]). This has a limit: if a connection delivers the lines of an unmarked paste more than
//! [`PASTE_PAUSE`] apart, they cannot be told from a line and what a user types afterwards.
//!
//! The line is edited here and not by the terminal: a line that the kernel edits ends after 4095 bytes without a word
//! (`man 3 termios`, canonical mode), and a value may have more.

mod line;
mod pace;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpgrp, getsid, kill_current_process_group};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios, tcflush, tcgetattr, tcgetpgrp,
    tcsetattr,
};
use signal_hook::consts::{SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2};
use signal_hook::{SigId, flag, low_level};
use zeroize::Zeroizing;

pub(super) use self::line::Refused;
use self::line::{EditingKeys, Line};
use self::pace::{PASTE_PAUSE, Pace};

/// Signals that end a process which does not answer them.
const ENDING: [i32; 7] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2];
/// How long one wait for input takes, and so how long at least no byte must arrive behind a line before it counts as one
/// line. Also how often the prompt looks whether the terminal is still there.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Limit on the bytes of a paste that are read past: more are no paste, but a key that is held down.
const SKIPPED_MAX: usize = 1024 * 1024;
/// Asks the terminal to mark what is pasted, and no longer (xterm's control sequences, "bracketed paste mode").
const MARK_PASTES: (&str, &str) = ("\x1b[?2004h", "\x1b[?2004l");

/// Why no value was read.
#[derive(Debug)]
pub(super) enum PromptError {
    /// What was typed is not taken.
    Refused(Refused),
    /// The terminal cannot be used.
    Terminal(io::Error),
}

impl From<io::Error> for PromptError {
    fn from(error: io::Error) -> Self {
        Self::Terminal(error)
    }
}

/// Shows `prompt`, and reads a line of at most `max` bytes, which is not shown. The line break is not part of it.
pub(super) fn hidden(prompt: &str, max: usize) -> Result<Zeroizing<Vec<u8>>, PromptError> {
    // Dropped in the reverse order: the terminal is put back before a late signal is obeyed.
    let signals = Signals::watch()?;
    let mut terminal = Terminal::open()?;
    signals.wait_for_foreground(&terminal)?;
    terminal.remember_modes()?;
    let mut line = Line::new(max, terminal.keys());
    terminal.hide()?;
    let read = if terminal.has_input()? {
        // Part of a value that was pasted too early is not to be taken for the whole.
        Err(PromptError::Refused(Refused::TypedAhead))
    } else {
        terminal.show(prompt).map_err(PromptError::from).and_then(|()| read(&terminal, &signals, prompt, &mut line))
    };
    if read.is_err() {
        terminal.skip_paste();
        terminal.discard_input();
    }
    terminal.leave_line();
    read.and_then(|()| line.take().map_err(PromptError::Refused))
}

/// Reads until the line is over, and nothing more arrives.
fn read(terminal: &Terminal, signals: &Signals, prompt: &str, line: &mut Line) -> Result<(), PromptError> {
    let mut buffer = Zeroizing::new([0; 256]);
    let mut pace = Pace::default();
    loop {
        signals.obey(terminal, prompt)?;
        match terminal.wait_for_input()? {
            Waited::Interrupted => continue,
            Waited::InVain if line.is_over() && pace.is_silent(Instant::now()) => return Ok(()),
            Waited::InVain => {
                terminal.is_there()?;
                continue;
            }
            Waited::Input => {}
        }
        match (&terminal.input).read(&mut *buffer) {
            // A closed terminal has no modes.
            Ok(0) => terminal.is_there()?,
            Ok(length) => {
                let characters = buffer[..length].iter().filter(|byte| line.feed(**byte)).count();
                pace.arrived(characters, Instant::now());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a wait for input ended with.
#[derive(Eq, PartialEq)]
enum Waited {
    /// A signal arrived: it may have stopped the process, and then the terminal has other modes now.
    Interrupted,
    /// Nothing has arrived within the time.
    InVain,
    /// A read does not wait.
    Input,
}

/// The terminal that the user sits at, and the modes that it had.
struct Terminal {
    input: File,
    output: File,
    before: Termios,
    marks_pastes: bool,
}

impl Terminal {
    /// The controlling terminal. A process without one uses standard input, which is a terminal, and standard error.
    fn open() -> io::Result<Self> {
        let (input, output) = match File::options().read(true).write(true).open("/dev/tty") {
            Ok(terminal) => (terminal.try_clone()?, terminal),
            Err(_) => (
                File::from(io::stdin().as_fd().try_clone_to_owned()?),
                File::from(io::stderr().as_fd().try_clone_to_owned()?),
            ),
        };
        let before = tcgetattr(&input)?;
        // Others would show the control sequence as text.
        let marks_pastes = std::env::var_os("TERM").is_some_and(|name| !name.is_empty() && name != "dumb");
        Ok(Self { input, output, before, marks_pastes })
    }

    /// Another program, such as the shell, may have had the terminal until now.
    fn remember_modes(&mut self) -> io::Result<()> {
        self.before = tcgetattr(&self.input)?;
        Ok(())
    }

    /// Whether the terminal belongs to another process group. A process that changes its modes, reads it or empties it
    /// is stopped then, and again when it goes on.
    fn is_elsewhere(&self) -> bool {
        tcgetpgrp(&self.input).is_ok_and(|foreground| foreground != getpgrp())
    }

    /// The keys that edit a line here.
    fn keys(&self) -> EditingKeys {
        let key = |index| self.before.special_codes[index];
        EditingKeys {
            erase: key(SpecialCodeIndex::VERASE),
            erase_word: key(SpecialCodeIndex::VWERASE),
            erase_line: key(SpecialCodeIndex::VKILL),
            end: key(SpecialCodeIndex::VEOF),
        }
    }

    /// Each byte as it is typed, without showing it. Keys that send a signal still do, and take no input away with
    /// them.
    fn hide(&self) -> io::Result<()> {
        let mut modes = self.before.clone();
        modes.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN;
        modes.local_modes |= LocalModes::NOFLSH;
        // Modes that change or drop a byte of the input.
        modes.input_modes -= InputModes::ISTRIP
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::ICRNL
            | InputModes::IXON
            | InputModes::PARMRK;
        modes.special_codes[SpecialCodeIndex::VMIN] = 0;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        // What was typed before stays, so that it is seen.
        Ok(tcsetattr(&self.input, OptionalActions::Now, &modes)?)
    }

    /// Waits for input, or for a signal. A read would go on after a signal (`SA_RESTART`), but poll(2) always ends.
    /// This matters after SIGSTOP, which no process can answer: the shell has given the terminal its own modes
    /// meanwhile, in which a read waits for a whole line, and the line is shown.
    fn wait_for_input(&self) -> io::Result<Waited> {
        match poll(&mut [PollFd::new(&self.input, PollFlags::IN)], Some(&PAUSE)) {
            Ok(0) => Ok(Waited::InVain),
            Ok(_) => Ok(Waited::Input),
            Err(Errno::INTR) => Ok(Waited::Interrupted),
            Err(error) => Err(error.into()),
        }
    }

    fn is_there(&self) -> io::Result<()> {
        tcgetattr(&self.input)?;
        Ok(())
    }

    /// Reads past the rest of a paste that is on its way.
    fn skip_paste(&self) {
        let mut buffer = Zeroizing::new([0; 256]);
        let (mut skipped, mut last) = (0, Instant::now());
        while skipped < SKIPPED_MAX {
            match self.wait_for_input() {
                Ok(Waited::Input) => {}
                Ok(Waited::InVain) if last.elapsed() < PASTE_PAUSE => continue,
                _ => return,
            }
            let Ok(length @ 1..) = (&self.input).read(&mut *buffer) else { return };
            skipped += length;
            last = Instant::now();
        }
    }

    fn show(&self, prompt: &str) -> io::Result<()> {
        let marks = if self.marks_pastes { MARK_PASTES.0 } else { "" };
        (&self.output).write_all(format!("{marks}{prompt}").as_bytes())
    }

    /// Ends what [`Terminal::show`] began.
    fn leave_line(&self) {
        let marks = if self.marks_pastes { MARK_PASTES.1 } else { "" };
        // It fails only if the terminal is closed.
        let _ = (&self.output).write_all(format!("{marks}\n").as_bytes());
    }

    fn has_input(&self) -> io::Result<bool> {
        Ok(rustix::io::ioctl_fionread(&self.input)? > 0)
    }

    /// Forgets what was typed and not read: a shell would run it.
    fn discard_input(&self) {
        if self.is_elsewhere() {
            return;
        }
        // Best effort: the error or signal that led here is the one to tell.
        let _ = tcflush(&self.input, QueueSelector::IFlush);
    }

    /// Gives the terminal the modes that it had. A process in the background would be stopped for it, and the shell has
    /// done it then.
    fn put_back(&self) {
        if self.is_elsewhere() {
            return;
        }
        // If the terminal is closed, there is nothing to restore.
        let _ = tcsetattr(&self.input, OptionalActions::Now, &self.before);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.put_back();
    }
}

/// Whether no prompt is shown: then signals do what they do by default. A handler that was installed stays for the life
/// of the process.
static IDLE: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Signals that arrive while a prompt is shown.
struct Signals {
    idle: Arc<AtomicBool>,
    /// The last one that ends the process; 0 for none.
    ending: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    resumed: Arc<AtomicBool>,
    registered: Vec<SigId>,
}

impl Signals {
    fn watch() -> io::Result<Self> {
        let is_first = IDLE.get().is_none();
        let idle = Arc::clone(IDLE.get_or_init(Arc::default));
        idle.store(false, Ordering::SeqCst);
        let mut this = Self {
            idle,
            ending: Arc::default(),
            stop: Arc::default(),
            resumed: Arc::default(),
            registered: Vec::new(),
        };
        for signal in ENDING {
            if is_first {
                flag::register_conditional_default(signal, Arc::clone(&this.idle))?;
            }
            let number = usize::try_from(signal).unwrap_or_default();
            this.registered.push(flag::register_usize(signal, Arc::clone(&this.ending), number)?);
        }
        if is_first {
            flag::register_conditional_default(SIGTSTP, Arc::clone(&this.idle))?;
        }
        this.registered.push(flag::register(SIGTSTP, Arc::clone(&this.stop))?);
        this.registered.push(flag::register(SIGCONT, Arc::clone(&this.resumed))?);
        Ok(this)
    }

    /// Waits, stopped, until the terminal belongs to this process group, as the kernel would have it. But there, a
    /// signal that ends the process is obeyed: a system call that the kernel stops begins again after the signal.
    fn wait_for_foreground(&self, terminal: &Terminal) -> io::Result<()> {
        loop {
            // First: a signal that arrives after the check below is a reason to check again.
            self.resumed.store(false, Ordering::SeqCst);
            if !terminal.is_elsewhere() {
                return Ok(());
            }
            let ending = self.ending.swap(0, Ordering::SeqCst);
            if ending != 0 {
                // Another process group has the terminal, so it is not changed.
                low_level::emulate_default_handler(i32::try_from(ending).unwrap_or(SIGTERM))?;
            }
            kill_current_process_group(Signal::TTIN)?;
            // An orphaned group is not stopped, for no shell could continue it.
            if !self.resumed.load(Ordering::SeqCst) {
                return Err(io::Error::other("this process is in the background"));
            }
        }
    }

    /// Does what the signals that have arrived ask for, with the terminal as it was.
    fn obey(&self, terminal: &Terminal, prompt: &str) -> io::Result<()> {
        let ending = self.ending.swap(0, Ordering::SeqCst);
        if ending != 0 {
            terminal.discard_input();
            terminal.leave_line();
            terminal.put_back();
            low_level::emulate_default_handler(i32::try_from(ending).unwrap_or(SIGTERM))?;
        }
        // No shell could continue a session leader's group: POSIX ignores the key there.
        if self.stop.swap(false, Ordering::SeqCst) && getsid(None)? != getpgrp() {
            terminal.leave_line();
            terminal.put_back();
            low_level::emulate_default_handler(SIGTSTP)?;
            self.resumed.store(true, Ordering::SeqCst);
        }
        if self.resumed.swap(false, Ordering::SeqCst) {
            // The shell had the terminal meanwhile.
            self.wait_for_foreground(terminal)?;
            terminal.hide()?;
            terminal.show(prompt)?;
        }
        Ok(())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.idle.store(true, Ordering::SeqCst);
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
        // One that has arrived since the last look. The terminal is put back already.
        let ending = self.ending.load(Ordering::SeqCst);
        if let Some(signal) = i32::try_from(ending).ok().filter(|signal| *signal != 0) {
            let _ = low_level::emulate_default_handler(signal);
        }
    }
}
