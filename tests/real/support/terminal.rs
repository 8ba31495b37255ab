//! A command on a terminal, and what it draws there.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kapsel_testdb_core::platform::{self, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::Tool;

/// A running command whose output and errors are on a terminal.
pub struct Terminal {
    child: Child,
    drawn: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Starts it on a terminal with so many columns and 24 lines.
    pub fn start(tool: Tool, columns: u16) -> Self {
        let (mut screen, terminal) = open(columns);
        let output = || Stdio::from(terminal.try_clone().expect("a descriptor"));
        let mut command = tool.env("TERM", "xterm-256color").into_command();
        let child = command.stdout(output()).stderr(output()).spawn();
        let child = child.expect("the program starts");
        // The command itself holds the terminal's other end.
        drop((command, terminal));
        let drawn = Arc::new(Mutex::new(Vec::new()));
        let reader = std::thread::spawn({
            let drawn = drawn.clone();
            move || {
                let mut chunk = [0; 4096];
                // An error: the last descriptor of the terminal is closed.
                while let Ok(read @ 1..) = screen.read(&mut chunk) {
                    drawn.lock().expect("no panic").extend(&chunk[..read]);
                }
            }
        });
        Self {
            child,
            drawn,
            reader,
        }
    }

    /// Everything that was drawn, with the codes that control the terminal.
    pub fn drawn(&self) -> String {
        let drawn = self.drawn.lock().expect("no panic");
        String::from_utf8_lossy(&drawn).replace("\r\n", "\n")
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        platform::signal(self.child.id(), Signal::INT).expect("a process to signal");
    }

    /// Waits for its end, and returns its exit code and what was drawn.
    pub fn wait(mut self) -> (i32, String) {
        let status = self.child.wait().expect("a child to wait for");
        let reader = std::mem::replace(&mut self.reader, std::thread::spawn(|| {}));
        reader.join().expect("no panic");
        (status.code().unwrap_or(-1), self.drawn())
    }
}

fn open(columns: u16) -> (File, OwnedFd) {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&screen).expect("its other end");
    unlockpt(&screen).expect("its other end");
    let path = ptsname(&screen, Vec::new()).expect("its path");
    let mut options = File::options();
    let options = options.read(true).write(true);
    let terminal = options
        .open(path.to_str().expect("UTF-8"))
        .expect("its other end");
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&terminal, size).expect("its size");
    (File::from(screen), OwnedFd::from(terminal))
}
