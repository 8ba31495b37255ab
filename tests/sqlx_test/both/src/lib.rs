//! A package needs more than tests.
