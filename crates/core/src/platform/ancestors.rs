//! Finds nextest above a setup script, through the shells and wrappers between them.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use super::{ProcessId, System};

const NEXTEST: &str = "cargo-nextest";
/// More processes than stand between nextest and a script. A table that was read while processes end may contain a circle.
const MAX_DEPTH: usize = 64;

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// The name of its program, without directories.
    name: String,
}

/// The nearest ancestor process that is nextest, else the parent.
pub fn nextest_ancestor() -> Option<ProcessId> {
    let parent = rustix::process::getppid()?;
    let parent = parent.as_raw_nonzero().get().unsigned_abs();
    let nextest = match System::CURRENT {
        System::Linux => nearest_nextest(parent, from_proc),
        System::Other => {
            let processes = parse_ps(&run_ps());
            nearest_nextest(parent, |pid| processes.get(&pid).cloned())
        }
    };
    let watched = nextest.unwrap_or(parent);
    (watched > 1).then(|| ProcessId::of(watched)).flatten()
}

fn nearest_nextest(start: u32, process: impl Fn(u32) -> Option<Process>) -> Option<u32> {
    let mut pid = start;
    for _ in 0..MAX_DEPTH {
        // Process 1 is no test runner, except in a container.
        let found = process(pid).filter(|_| pid > 0)?;
        if found.name == NEXTEST {
            return Some(pid);
        }
        pid = found.parent;
    }
    None
}

/// A process of Linux.
fn from_proc(pid: u32) -> Option<Process> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Parses `/proc/<pid>/stat`: the name, in parentheses, may contain anything; after the last parenthesis come the state and the parent.
fn parse_stat(stat: &str) -> Option<Process> {
    let (before, after) = stat.rsplit_once(')')?;
    Some(Process {
        parent: after.split_whitespace().nth(1)?.parse().ok()?,
        name: before.split_once('(')?.1.to_owned(),
    })
}

/// The list of all processes where there is no `/proc`; empty if it fails. `-ww`: paths are not cut off.
fn run_ps() -> String {
    let mut command = Command::new("/bin/ps");
    command.args(["-A", "-ww", "-o", "pid=", "-o", "ppid=", "-o", "comm="]);
    match command.stdin(Stdio::null()).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => {
            tracing::warn!(
                "cannot find nextest above this process, because `/bin/ps` fails: {error}"
            );
            String::new()
        }
    }
}

/// Parses lines of pid, parent and program; macOS prints the path of the program, which may contain spaces.
fn parse_ps(list: &str) -> HashMap<u32, Process> {
    let parse = |line: &str| {
        let (pid, rest) = line.trim_start().split_once(char::is_whitespace)?;
        let (parent, program) = rest.trim_start().split_once(char::is_whitespace)?;
        let name = program.trim().rsplit('/').next()?.to_owned();
        let parent = parent.parse().ok()?;
        Some((pid.parse().ok()?, Process { parent, name }))
    };
    list.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACOS: &str = "    1     0 /sbin/launchd\n\
        \x20 501     1 /Applications/Some Terminal.app/Contents/MacOS/Terminal\n\
        \x20 502   501 -zsh\n\
        \x20 600   502 /Users/me/My Tools/.cargo/bin/cargo-nextest\n\
        \x20 601   600 /bin/sh\n\
        \x20 602   601 /opt/homebrew/bin/direnv\n\
        99999   602 /Users/me/.cargo/bin/kapsel-testdb\n";

    fn above(list: &str, pid: u32) -> Option<u32> {
        let processes = parse_ps(list);
        nearest_nextest(pid, |pid| processes.get(&pid).cloned())
    }

    #[test]
    fn nextest_is_found_above_wrappers_on_macos() {
        assert_eq!(parse_ps(MACOS).len(), 7);
        assert_eq!(above(MACOS, 602), Some(600));
        assert_eq!(above(MACOS, 600), Some(600));
        assert_eq!(above(MACOS, 502), None);
        assert_eq!(above("", 602), None, "ps fails");
        assert_eq!(above("7 8 a\n8 7 b\n", 7), None, "a circle ends");
        assert_eq!(above("PID PPID COMM\nx y z\n", 1), None);
    }

    #[test]
    fn nextest_is_found_above_wrappers_on_linux() {
        let stat = |pid: u32| match pid {
            10 => Some("10 (sh) S 9 10 10 0 -1 4194304"),
            9 => Some("9 (a (strange) name) S 8 9 9 0 -1 4194304"),
            8 => Some("8 (cargo-nextest) S 1 8 8 0 -1 4194304"),
            1 => Some("1 (systemd) S 0 1 1 0 -1 4194560"),
            _ => None,
        };
        let process = |pid| parse_stat(stat(pid)?);
        assert_eq!(nearest_nextest(10, process), Some(8));
        assert_eq!(nearest_nextest(1, process), None);
        assert_eq!(
            parse_stat(stat(9).expect("a line")).expect("parsed").name,
            "a (strange) name"
        );
        assert!(parse_stat("").is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_of_this_system_is_read() {
        let this = from_proc(std::process::id()).expect("this process");
        let parent = rustix::process::getppid().expect("a parent");
        assert_eq!(this.parent, parent.as_raw_nonzero().get().unsigned_abs());
    }
}
