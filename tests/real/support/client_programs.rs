//! `psql` and `pg_dump`: of the server's version where they are beside its programs, else this machine's.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::server::SUPERUSER;
use super::{PROGRAMS, Server, binaries};

/// The programs, for one server.
pub struct ClientPrograms<'a> {
    server: &'a Server,
}

impl<'a> ClientPrograms<'a> {
    /// For a server that they log in to as superuser.
    pub fn of(server: &'a Server) -> Self {
        Self { server }
    }

    /// Runs a script file with psql, as one transaction.
    pub fn psql(&self, database: &str, file: &Path) {
        let mut command = self.command("psql", database);
        let flags = [
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "--single-transaction",
            "-o",
            "/dev/null",
        ];
        command.args(flags).arg("-f").arg(file);
        output(command);
    }

    /// What pg_dump writes of a database, but for what is different each time.
    pub fn dump(&self, database: &str, arguments: &[&str]) -> String {
        let mut command = self.command("pg_dump", database);
        command.args(arguments);
        let dump = output(command);
        let same_each_time =
            |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
        let lines: Vec<&str> = dump.split_inclusive('\n').filter(same_each_time).collect();
        lines.concat()
    }

    fn command(&self, program: &str, database: &str) -> Command {
        let beside = binaries().program(program);
        let program = if beside.is_file() {
            beside
        } else {
            PathBuf::from(program)
        };
        let mut command = Command::new(program);
        command.env_clear().env("PATH", PROGRAMS);
        command.arg("-h").arg(self.server.folder());
        command.args(["-p", &self.server.socket_port().to_string()]);
        command.args(["-U", SUPERUSER, "-d", database]);
        command
    }
}

#[track_caller]
fn output(mut command: Command) -> String {
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
