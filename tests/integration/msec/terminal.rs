//! A terminal of its own for one command: what is shown on it, and what is typed, hidden or not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use rustix::{
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{LocalModes, tcgetattr},
};
use testkit::{control_plane::blocking, poll};

use super::Plugin;
use crate::integration::{operator::PATIENCE, program::clean};

/// A command whose input and output are one terminal, which is its controlling one.
pub(crate) struct Terminal {
    master: File,
    child: Child,
    shown: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// `kubectl msec ARGUMENTS -n NAMESPACE`, on a new terminal.
    pub(crate) fn run(plugin: &Plugin, arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let own = File::from(ioctl_tiocgptpeer(&master, flags).unwrap());
        let side = || Stdio::from(own.try_clone().unwrap());
        // A prompt without echo is read from /dev/tty: the terminal must be the session's.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(&plugin.kubectl).arg("msec").args(arguments);
        command.args(["-n", &plugin.namespace]);
        clean(&mut command);
        command.env("PATH", plugin.path()).env("KUBECONFIG", &plugin.kubeconfig).env("KUBERC", "off");
        // A terminal that can show colours, whatever the person who runs the tests thinks of them.
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm").envs(plugin.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(plugin.folder.path()).stdin(side()).stdout(side()).stderr(side());
        let child = command.spawn().unwrap();
        let master = File::from(master);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut from, to) = (master.try_clone().unwrap(), Arc::clone(&shown));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Ends with an error once no process has the terminal any more.
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Self { master, child, shown, reader }
    }

    /// What was shown so far.
    pub(crate) fn text(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Waits until something is shown.
    pub(crate) async fn shows(&self, text: &str) {
        let waited = poll(text, PATIENCE, || async { Ok(self.text().contains(text).then_some(())) }).await;
        assert!(waited.is_ok(), "{text:?} is not shown: {}", self.text());
    }

    /// Waits until the terminal does not show what is typed.
    pub(crate) async fn hides(&self) {
        let echoes = || tcgetattr(&self.master).unwrap().local_modes.contains(LocalModes::ECHO);
        poll("input to be hidden", PATIENCE, || async { Ok((!echoes()).then_some(())) }).await.unwrap();
    }

    /// Types a line.
    pub(crate) fn types(&mut self, line: &str) {
        self.master.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for the command's end: its exit code, and everything that was shown.
    pub(crate) async fn end(mut self) -> (i32, String) {
        let ended = poll("the command to end", PATIENCE, || {
            let status = self.child.try_wait().unwrap();
            async move { Ok(status) }
        })
        .await;
        if ended.is_err() {
            self.child.kill().unwrap();
        }
        let code = ended.unwrap_or_else(|error| panic!("{error}: {}", self.text())).code().unwrap_or(-1);
        // It reads what was written last, and ends: no process has the other side any more.
        let reader = self.reader;
        let read = blocking(move || Ok(reader.join())).await.unwrap();
        assert!(read.is_ok(), "the terminal could not be read");
        let shown = self.shown.lock().unwrap().clone();
        (code, shown)
    }
}
