//! The protocol between the processes of a run, the keeper, sweeps and template builders, as explicit-state models.
//!
//! Each model is a small, finite machine that Stateright explores completely: faults (deaths, cut connections, server restarts,
//! suspended processes) have budgets, which is the bound. For each model one test shows that every property holds with all
//! safeguards on, and one test per safeguard takes it out and names the properties that then break. A safeguard that breaks
//! nothing when it is taken out is written down as such (`…_is_redundant`): a second line of defence, not a proof obligation.
//!
//! `sometimes` properties guard against vacuity: a model in which nothing is ever swept would keep every promise.
//! "Every leftover can be removed" is an invariant here, not a liveness property (Stateright's `eventually` misses cycles): from
//! each state in which nobody of the run is left, the remover is run to its end on a copy, and nothing may remain.
//!
//! | model | what it is about | implemented in |
//! |---|---|---|
//! | [`lease`] | entries, claim by flock and rename, release, recycling, fallback clones | `src/run_dir.rs`, `src/testing/`, `src/run/` |
//! | [`here`] | run directory and fence: handover, teardown, sweep on the same host | `src/run/`, `src/sweep/`, `src/pg/lock.rs` |
//! | [`afar`] | the fence without a run directory: sightings, cuts, restarts, suspended keepers | `src/sweep/`, `src/run/`, `src/pg/lock.rs` |
//! | [`template`] | one build, published whole; collection of templates in use by nobody | `src/template/`, `src/sweep/` |

mod afar;
mod check;
mod here;
mod lease;
mod template;
