//! Tells what runs committed into their shared clones: each report once, by the first command that comes by.

use super::output::Printer;
use crate::name::{Namespace, RunId};
use crate::pollution::Report;
use crate::run_dir::Runtime;

/// Prints the reports of a namespace, or of one of its runs, that nobody has printed yet, and says whether one of them is a failure.
pub fn tell(
    runtime: &Runtime,
    namespace: &Namespace,
    run: Option<&RunId>,
    printer: &Printer,
) -> bool {
    let mut fails = false;
    for untold in Report::untold(runtime, namespace, run) {
        if let Some((report, path)) = untold.take() {
            printer.problem(&format!(
                "warning: {report}\nthis stays in {}",
                path.display()
            ));
            fails |= report.fails;
        }
    }
    fails
}
