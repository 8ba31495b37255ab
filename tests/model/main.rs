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
//! | [`lease`] | entries, claim by flock and rename, release, recycling, fallback clones | `src/run_dir/`, `src/testing/session.rs`, `src/run/clone.rs`, `src/run/keeper/` |
//! | [`here`] | run directory and fence: handover, teardown, sweep on the same host | `src/run_dir/`, `src/run/{mod,spawn,keeper,teardown}.rs`, `src/sweep/execute.rs` |
//! | [`afar`] | the fence without a run directory: looks, cuts, restarts, suspended keepers | `src/sweep/{plan,execute}.rs`, `src/run/keeper/`, `src/testing/session.rs` |
//! | [`template`] | one build, published whole; collection of templates in use by nobody | `src/template/{mod,build}.rs`, `src/sweep/templates.rs` |
//!
//! Names of databases are in `src/name.rs`, advisory locks in `src/pg/lock.rs`, statements in `src/pg/`. Where a model has
//! more than the code (recycling, a lease watched always, the template's lock in the handover), its documentation says so.

mod afar;
mod check;
mod here;
mod lease;
mod template;
