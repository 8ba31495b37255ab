//! The ways. Each file says whose practice it is, and why this is its best form.

pub mod bare;
pub mod kapsel;
pub mod naive;
pub mod schema_replay;
pub mod sqlx_test;
pub mod template_lock;
