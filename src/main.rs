//! The command `kapsel-testdb`: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    kapsel_testdb_cli::main()
}
