//! The demo suite: a webhook delivery service's schema under test, in all three isolations.
//!
//! A test that needs whole tables or DDL uses its own clone. A test that commits only rows with its own keys uses the
//! shared clone. A test that neither commits nor needs a second connection uses a transaction that rolls back. Other
//! tests commit to the shared clone at the same time, so no test there counts a whole table or uses a fixed unique key.

mod api_keys;
mod attempts;
mod audit;
mod dead_letters;
mod deliveries;
mod endpoints;
mod event_types;
mod events;
mod isolation;
mod migrations;
mod rate_limits;
mod reporting;
mod retry;
mod secrets;
mod support;
mod tenants;
mod workers;
