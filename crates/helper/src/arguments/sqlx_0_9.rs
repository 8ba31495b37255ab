//! The parameters of a test, of sqlx 0.9.

use ::sqlx;

use crate::sqlx_compat::sqlx_0_9::{Sqlx0_9 as This, to_internal_error};

#[path = "version.rs"]
mod version;
