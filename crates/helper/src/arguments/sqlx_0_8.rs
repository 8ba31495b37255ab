//! The parameters of a test, of sqlx 0.8.

#![allow(
    clippy::duplicate_mod,
    reason = "`version.rs` is compiled once for each version"
)]

use ::sqlx_0_8 as sqlx;

use crate::sqlx_compat::sqlx_0_8::{Sqlx0_8 as This, to_internal_error};

#[path = "version.rs"]
mod version;
