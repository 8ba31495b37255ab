//! The demo suite: a webhook delivery service's schema under test, in all three isolations.
//!
//! A test that needs whole tables, DDL or commits takes a clone of its own; one that commits but keeps to keys of
//! its own takes the shared clone; one that neither commits nor needs a second connection rolls back. On the
//! shared clone other tests commit meanwhile, so nothing there counts a whole table or uses a fixed unique key.

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
