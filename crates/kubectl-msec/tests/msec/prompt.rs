//! The prompt for a value, on real terminals: what is typed is taken byte for byte or refused, and the terminal is left as
//! it was, however the prompt ends.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr},
};
use testkit::operator;

use super::{CANARY, Folder, PLUGIN};

const PROMPT: &str = "Value (not shown): ";
/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PASTE: (&str, &str) = ("\x1b[200~", "\x1b[201~");

/// A terminal, and a command that runs on it.
struct Terminal {
    master: File,
    /// The side of the commands, kept open: with its last user, the kernel forgets the terminal's modes.
    side: File,
    before: String,
    shown: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
    child: Child,
}

/// A new terminal: the user's side, and the commands' side.
fn open() -> (File, File) {
    // Not inherited: a command that held the other side would keep its own terminal from going away.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let side = File::from(ioctl_tiocgptpeer(&master, flags).unwrap());
    (File::from(master), side)
}

/// Runs a command on a terminal, which becomes that of a session of its own, which the command leads. Its standard output
/// is not the terminal.
fn spawn(folder: &Folder, side: &File, command: &[&str]) -> Child {
    let mut setsid = folder.command("setsid", &[&["--ctty"], command].concat());
    let end = || Stdio::from(side.try_clone().unwrap());
    setsid.env("TERM", "xterm").stdin(end()).stderr(end()).stdout(Stdio::piped()).spawn().unwrap()
}

impl Terminal {
    /// Runs a command on a new terminal, behind `typed_ahead`.
    fn run(folder: &Folder, command: &[&str], typed_ahead: &[u8]) -> Self {
        let (mut master, side) = open();
        let before = modes(&side);
        master.write_all(typed_ahead).unwrap();
        let child = spawn(folder, &side, command);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut from, to) = (master.try_clone().unwrap(), Arc::clone(&shown));
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Ends with an error once no process has the terminal any more.
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Self { master, side, before, shown, reader, child }
    }

    /// `seal` of one value for `shop/db`, with the folder's key.
    fn seal(folder: &Folder, program: &str) -> Self {
        Self::run(folder, &seal(program), b"")
    }

    fn text(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Waits until the prompt has been shown so many times.
    #[track_caller]
    fn asks(&self, times: usize) {
        self.until("the prompt", || self.text().matches(PROMPT).count() >= times);
    }

    #[track_caller]
    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "waited in vain for {what}: {}", self.text());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn types(&mut self, bytes: impl AsRef<[u8]>) {
        self.master.write_all(bytes.as_ref()).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end, and requires that the terminal is as it was and holds no input: status, and standard output.
    #[track_caller]
    fn end(mut self) -> (ExitStatus, String, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!("the command does not end: {}", self.text());
            }
            thread::sleep(Duration::from_millis(5));
        };
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert_eq!(modes(&self.side), self.before, "the modes of the terminal: {}", self.text());
        assert_eq!(self.left(), "", "a shell would run what is left");
        let Self { side, shown, reader, .. } = self;
        drop(side);
        reader.join().unwrap();
        let shown = shown.lock().unwrap().clone();
        (status, out, shown)
    }

    /// What was typed and read by no command.
    fn left(&mut self) -> String {
        let mut modes = tcgetattr(&self.side).unwrap();
        modes.local_modes -= LocalModes::ICANON;
        modes.special_codes[SpecialCodeIndex::VMIN] = 0;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&self.side, OptionalActions::Now, &modes).unwrap();
        let mut left = String::new();
        self.side.read_to_string(&mut left).unwrap();
        left
    }
}

fn modes(terminal: &File) -> String {
    format!("{:?}", tcgetattr(terminal).unwrap())
}

fn seal(program: &str) -> [&str; 8] {
    [program, "seal", "--name", "db", "--namespace", "shop", "--public-key", "key.json"]
}

#[test]
fn what_is_typed_is_sealed_byte_for_byte_and_not_shown() {
    let folder = Folder::new();
    // More bytes than a line that the kernel edits can have.
    let long = format!("{CANARY}{}", "ü".repeat(3000));
    for (typed, value) in [
        ("a\tb".to_owned(), "a\tb"),
        (format!("{CANARY}x\x7f"), CANARY),
        (format!("grüße\x15{CANARY}"), CANARY),
        ("天\u{1d11e}\\n $x ".to_owned(), "天\u{1d11e}\\n $x "),
        (format!("{}a\tb{}", PASTE.0, PASTE.1), "a\tb"),
        (long.clone(), &long),
    ] {
        for (program, end) in [(PLUGIN, "\r"), (operator(), "\n")] {
            let mut terminal = Terminal::seal(&folder, program);
            terminal.asks(1);
            terminal.types(format!("{typed}{end}"));
            let (status, out, shown) = terminal.end();
            assert!(status.success(), "{shown}");
            assert_eq!(folder.open(out.trim_end(), "shop", "db"), value);
            assert!(!shown.contains(CANARY) && !shown.contains("a\tb"), "{shown}");
            assert_eq!(shown.contains("ends in white space"), value.ends_with(' '), "{shown}");
        }
    }
    // A line that is copied brings its line break.
    let mut terminal = Terminal::seal(&folder, PLUGIN);
    terminal.asks(1);
    terminal.types(format!("{}{CANARY}\r\n{}", PASTE.0, PASTE.1));
    let (status, out, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert_eq!(folder.open(out.trim_end(), "shop", "db"), CANARY);
}

#[test]
fn what_cannot_be_taken_is_refused_whole_and_nothing_is_left_for_the_shell() {
    let folder = Folder::new();
    let paste = |text: &str| format!("{}{text}{}", PASTE.0, PASTE.1).into_bytes();
    for (typed, says) in [
        (b"gr\xfc\xdfe\n".to_vec(), "the terminal does not send UTF-8"),
        (b"a\x01b\n".to_vec(), "a control character was typed"),
        (b"a\x1b[Db\n".to_vec(), "a control character was typed"),
        (b"a\x13b\n".to_vec(), "a control character was typed"),
        (b"a\x16b\n".to_vec(), "a control character was typed"),
        (format!("-----BEGIN-----\n{CANARY}").into_bytes(), "more than one line"),
        (format!("a\r\n{CANARY}\r\nls\r\n").into_bytes(), "more than one line"),
        ([paste("a\n\nls\n"), b"\n".to_vec()].concat(), "more than one line"),
        ([paste("a\rls\r"), b"\n".to_vec()].concat(), "more than one line"),
        ([paste("a\x15b"), b"\n".to_vec()].concat(), "a control character was typed"),
        (b"\n".to_vec(), "the value must not be empty"),
        (b"\x04".to_vec(), "the value must not be empty"),
        (format!("{}\n", "a".repeat(3501)).into_bytes(), "the value must have at most 3500 characters"),
        (format!("{}\n", "a".repeat(20_000)).into_bytes(), "the value must have at most 3500 characters"),
    ] {
        let mut terminal = Terminal::seal(&folder, PLUGIN);
        terminal.asks(1);
        terminal.types(typed);
        let (status, out, shown) = terminal.end();
        assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{says}: {shown}");
        assert!(shown.contains(&format!("error: {says}")), "{says}: {shown}");
        assert!(!shown.contains(CANARY) && !shown.contains("aaaa"), "{shown}");
    }
}

#[test]
fn a_paste_without_marks_that_arrives_in_parts_is_refused_whole() {
    let folder = Folder::new();
    // The parts arrive this far apart. A busy machine can make it longer than the prompt waits, which shows nothing.
    let (gap, too_long) = (Duration::from_millis(300), Duration::from_millis(800));
    for parts in [
        &["the first half\n", CANARY, "\n"][..],
        &["the first", " half\r", CANARY, "\r", "ls\r"],
        &["the first half", "\n", "ls\n"],
    ] {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the machine is too busy");
            let mut terminal = Terminal::seal(&folder, PLUGIN);
            terminal.asks(1);
            let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
            for part in parts {
                terminal.types(part);
                terminal.until("the part to be read", || rustix::io::ioctl_fionread(&terminal.side).unwrap() == 0);
                longest = longest.max(last.elapsed());
                last = Instant::now();
                // The gap is what is tested, not a wait for something.
                thread::sleep(gap);
            }
            if longest > too_long {
                terminal.child.kill().unwrap();
                continue;
            }
            let (status, out, shown) = terminal.end();
            assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{parts:?}: {shown}");
            assert!(shown.contains("error: more than one line was typed or pasted"), "{parts:?}: {shown}");
            break;
        }
    }
}

#[test]
fn what_is_typed_before_the_prompt_is_not_taken_for_a_part_of_the_value() {
    let folder = Folder::new();
    for typed in [&b"the first half"[..], b"ls\n"] {
        let terminal = Terminal::run(&folder, &seal(PLUGIN), typed);
        let (status, out, shown) = terminal.end();
        assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{shown}");
        assert!(shown.contains("error: text was typed before the prompt was shown"), "{shown}");
        assert!(!shown.contains(PROMPT), "{shown}");
    }
}

#[test]
fn a_signal_ends_the_command_with_the_terminal_as_it_was() {
    let folder = Folder::new();
    let by_key = [(&b"\x03"[..], Signal::INT), (b"\x1c", Signal::QUIT)];
    for program in [PLUGIN, operator()] {
        for (key, signal) in by_key {
            let mut terminal = Terminal::seal(&folder, program);
            terminal.asks(1);
            terminal.types([CANARY.as_bytes(), key].concat());
            let (status, out, shown) = terminal.end();
            assert_eq!((status.signal(), out.as_str()), (Some(signal.as_raw()), ""), "{shown}");
            assert!(!shown.contains(CANARY), "{shown}");
        }
        for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::ALARM, Signal::USR1] {
            let mut terminal = Terminal::seal(&folder, program);
            terminal.asks(1);
            terminal.types("half");
            // Read, and not left in the terminal: the signal itself does not empty it.
            terminal.until("the half to be read", || rustix::io::ioctl_fionread(&terminal.side).unwrap() == 0);
            terminal.signal(signal);
            let (status, _, shown) = terminal.end();
            assert_eq!(status.signal(), Some(signal.as_raw()), "{shown}");
        }
    }
}

#[test]
fn a_prompt_that_was_stopped_goes_on_with_the_terminal_that_it_needs() {
    let folder = Folder::new();
    // As in an interactive shell: the command is a job, and what the terminal is like while it is stopped goes to a file.
    let script = format!(
        "set -m; {} > sealed; stty -a > stopped; fg > /dev/null; stty -a > ended",
        seal(PLUGIN).map(|word| format!("'{word}'")).join(" ")
    );
    let mut terminal = Terminal::run(&folder, &["bash", "--norc", "-c", &script], b"");
    terminal.asks(1);
    terminal.types("the first half, \x1a");
    terminal.asks(2);
    terminal.types("and the second\n");
    let (_, _, shown) = terminal.end();
    for state in ["stopped", "ended"] {
        let modes = folder.read(state);
        assert!(modes.contains(" echo ") && modes.contains(" icanon"), "{state}: {modes}");
    }
    assert_eq!(
        folder.open(folder.read("sealed").trim_end(), "shop", "db"),
        "the first half, and the second",
        "{shown}"
    );

    // Where no shell could continue it, the key does nothing.
    let mut terminal = Terminal::seal(&folder, PLUGIN);
    terminal.asks(1);
    terminal.types("one\x1atwo\n");
    let (status, out, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert_eq!(folder.open(out.trim_end(), "shop", "db"), "onetwo");
}

#[test]
fn a_prompt_in_the_background_waits_for_the_terminal_and_can_be_ended() {
    let folder = Folder::new();
    let command = seal(PLUGIN).map(|word| format!("'{word}'")).join(" ");
    // `timeout` runs the command in a process group of its own, which is not the terminal's.
    for signal in ["TERM", "HUP"] {
        let script = format!("timeout -s {signal} -k 30 1 {command}; echo $? > status");
        let terminal = Terminal::run(&folder, &["bash", "--norc", "-c", &script], b"");
        let (_, out, shown) = terminal.end();
        assert_eq!((folder.read("status").as_str(), out.as_str()), ("124\n", ""), "{shown}");
        assert!(!shown.contains(PROMPT), "{shown}");
    }
    // A job that is put in the foreground asks, once.
    let script = format!(
        "set -m; {command} > sealed & until [ \"$(ps -o stat= -p $! | cut -c 1)\" = T ]; do :; done; fg > /dev/null"
    );
    let mut terminal = Terminal::run(&folder, &["bash", "--norc", "-c", &script], b"");
    terminal.asks(1);
    terminal.types(format!("{CANARY}\n"));
    let (_, _, shown) = terminal.end();
    assert_eq!(shown.matches(PROMPT).count(), 1, "{shown}");
    assert_eq!(folder.open(folder.read("sealed").trim_end(), "shop", "db"), CANARY, "{shown}");
}

#[test]
fn pastes_are_marked_where_the_terminal_knows_how() {
    let folder = Folder::new();
    for (term, marks) in [("xterm", true), ("dumb", false), ("", false)] {
        let variable = format!("TERM={term}");
        let mut terminal = Terminal::run(&folder, &[&["env", &variable][..], &seal(PLUGIN)].concat(), b"");
        terminal.asks(1);
        terminal.types("\x03");
        let (_, _, shown) = terminal.end();
        assert_eq!((shown.contains("\x1b[?2004h"), shown.contains("\x1b[?2004l")), (marks, marks), "{term}: {shown:?}");
    }
}

#[test]
fn a_terminal_that_goes_away_ends_the_prompt() {
    let folder = Folder::new();
    let (mut master, side) = open();
    // Without the signal, only a read shows that the terminal is closed.
    let script = format!("trap '' HUP; exec {}", seal(PLUGIN).map(|word| format!("'{word}'")).join(" "));
    let mut child = spawn(&folder, &side, &["sh", "-c", &script]);
    let (mut shown, mut buffer) = (String::new(), [0; 4096]);
    while !shown.contains(PROMPT) {
        let length = master.read(&mut buffer).unwrap();
        shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    drop((master, side));
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the command goes on without a terminal");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_prompt_that_is_stopped_from_outside_hides_again_what_is_typed() {
    let folder = Folder::new();
    // SIGSTOP cannot be answered, so that an interactive shell puts its own modes back: `stty` does it here.
    let script = format!(
        "set -m; modes=$(stty -g); sh -c 'echo $$ > pid; exec \"$@\"' sh {} > sealed; stty \"$modes\"; \
         CONTINUE; fg > /dev/null; stty -a > ended",
        seal(PLUGIN).map(|word| format!("'{word}'")).join(" ")
    );
    let in_the_background =
        "bg > /dev/null 2>&1; until [ \"$(ps -o stat= -p $(cat pid) | cut -c 1)\" = T ]; do :; done";
    for between in ["true", in_the_background] {
        let script = script.replace("CONTINUE", between);
        let mut terminal = Terminal::run(&folder, &["bash", "--norc", "-c", &script], b"");
        terminal.asks(1);
        terminal.types("the first half, ");
        terminal.until("the half to be read", || rustix::io::ioctl_fionread(&terminal.side).unwrap() == 0);
        let pid = folder.read("pid").trim().parse().ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        terminal.asks(2);
        terminal.types(format!("{CANARY}\n"));
        let (_, _, shown) = terminal.end();
        let modes = folder.read("ended");
        assert!(modes.contains(" echo ") && modes.contains(" icanon"), "{modes}");
        assert!(!shown.contains(CANARY) && !shown.contains("half"), "{shown}");
        let sealed = folder.read("sealed");
        assert_eq!(folder.open(sealed.trim_end(), "shop", "db"), format!("the first half, {CANARY}"), "{shown}");
    }
}
