//! Prints pollution reports: each once, by the first command that finds it.

use kapsel_testdb_core::protocol::{Namespace, RunId, Runtime};

use crate::pollution::PollutionReport;
use crate::printer::Printer;

/// Prints the pending reports of a namespace, or of one of its runs. Returns whether one of them is a failure.
pub fn print_pending(
    runtime: &Runtime,
    namespace: &Namespace,
    run: Option<&RunId>,
    printer: &Printer,
) -> bool {
    let mut failed = false;
    for pending in PollutionReport::pending(runtime, namespace, run) {
        if let Some((report, path)) = pending.take() {
            printer.problem(&format!(
                "warning: {report}\nthis report is stored in {}",
                path.display()
            ));
            failed |= report.is_failure;
        }
    }
    failed
}
