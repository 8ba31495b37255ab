//! Prints the reports about ended runs (pollution, leaks, what was collected): each once, by the first command that finds it.

use kapsel_testdb_core::protocol::{Namespace, RunId, Runtime};

use crate::commands::leaks;
use crate::pollution::PollutionReport;
use crate::printer::Printer;
use crate::screen::{WARNING, paint};

/// Prints the pending reports of a namespace, or of one of its runs. Returns whether a pollution report is a failure.
pub fn print_pending(
    runtime: &Runtime,
    namespace: &Namespace,
    run: Option<&RunId>,
    printer: &Printer,
) -> bool {
    leaks::print_pending(runtime, namespace, run, printer);
    for line in runtime.take_notices(namespace) {
        printer.line(&format!("kapsel-testdb: {line}"));
    }
    let mut failed = false;
    for pending in PollutionReport::pending(runtime, namespace, run) {
        if let Some((report, path)) = pending.take() {
            printer.problem(&format!(
                "kapsel-testdb: {} {report}this report is stored in {}\n{}",
                paint(WARNING.bold(), "warning:"),
                path.display(),
                report.remedy()
            ));
            failed |= report.is_failure;
        }
    }
    failed
}
