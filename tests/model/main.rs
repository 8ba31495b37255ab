//! Explicit-state models of the protocol between the processes of a run, the keeper, sweeps and template builders.
//!
//! Each model is a small, finite state machine that Stateright explores completely. Budgets for faults (deaths, lost connections, server restarts,
//! suspended processes) make it finite. For each model, one test shows that every property holds with all safeguards. One test per safeguard removes
//! it and lists the properties that then fail. If none fails, the test's name ends in `_is_redundant`: the safeguard is a second line of defense.
//!
//! `sometimes` properties guard against vacuity: a model that never sweeps anything would satisfy every safety property. "Every leftover can be
//! removed" is an invariant, not a liveness property, because Stateright's `eventually` misses cycles. From each state without live processes of the
//! run, the remover runs to its end on a copy of the state, and nothing may remain.
//!
//! | model | subject | implemented in |
//! |---|---|---|
//! | [`lease`] | entries, claim by `flock` and rename, release, recycling, stragglers, fallback clones | `crates/core/src/protocol/run_dir/`, `crates/helper/src/session.rs`, `crates/core/src/recycle/`, `crates/core/src/run/{clone,renew}.rs`, `src/keeper/` |
//! | [`spares`] | adoption, the end of a run, the sweep of spares, crashes of the server | `crates/core/src/run/spares.rs`, `crates/core/src/run/end.rs`, `crates/core/src/pg/seen.rs`, `src/sweep/spares.rs` |
//! | [`here`] | run directory and fence: handover, teardown, sweep on the same host | `crates/core/src/protocol/run_dir/`, `crates/core/src/run/{mod,end}.rs`, `src/keeper/`, `src/sweep/execute.rs` |
//! | [`afar`] | the fence without a run directory: checks, lost connections, restarts, suspended keepers | `src/sweep/{plan,execute}.rs`, `src/keeper/`, `crates/helper/src/session.rs` |
//! | [`template`] | builds, publishing, and the collection of unused templates | `crates/core/src/template/{mod,build}.rs`, `src/sweep/templates.rs` |
//!
//! Names of databases are in `crates/core/src/protocol/names/`, advisory locks in `crates/core/src/pg/lock.rs`, statements in
//! `crates/core/src/pg/`. If a model has more than the code (a lease that is always watched, the template's lock in the handover), its
//! documentation states that.

mod afar;
mod check;
mod here;
mod lease;
mod spares;
mod template;
