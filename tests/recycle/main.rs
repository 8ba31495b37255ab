//! Recycled clones equal fresh ones: random programs are run on clones of a rich template, the clones are cleaned and renamed as the product does
//! it, and those that it would use again are compared with a fresh clone. Where a new test goes:
//!
//! | file | what is there |
//! |---|---|
//! | `schema.sql`, `tables` | the template |
//! | `lab` | the server, the template's build, clones, their cleaning and rename |
//! | `program` | what a program is, and how it runs |
//! | `strategies` | random programs |
//! | `oracle` | the comparison with a fresh clone |
//! | `random` | runs random programs; `RECYCLE_PROGRAMS` and `RECYCLE_SEED` say how many and which (`scripts/recycle-programs`) |
//! | `regressions` | fixed programs that once were not undone |
//! | `flaws` | flaws of the product, injected, each of which a program finds |

mod flaws;
mod lab;
mod oracle;
mod program;
mod random;
mod regressions;
mod strategies;
mod tables;

#[allow(dead_code, unused_imports)]
mod support;
