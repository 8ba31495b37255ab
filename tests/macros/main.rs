//! `#[kapsel_testdb::test]`: the forms that it accepts, and the compiler's messages for misuse.
//!
//! The accepted forms are tests in this binary. The messages are compared with the `.stderr` files. If a new compiler prints them
//! differently, check the difference, then rewrite the files with `TRYBUILD=overwrite cargo test --test macros misuse`.

mod accepted {
    mod attributes;
    mod isolation;
    mod outcomes;
    mod parameters;
    mod schema;
}

#[test]
fn misuse() {
    // trybuild compiles programs, and a program drops its `#[test]` functions before their types are checked.
    let wrapper = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/macros/rustc-as-test");
    #[expect(
        unsafe_code,
        reason = "trybuild passes its own environment to cargo; no other thread reads it at the same time"
    )]
    unsafe {
        std::env::set_var("RUSTC_WORKSPACE_WRAPPER", wrapper);
    }
    trybuild::TestCases::new().compile_fail("tests/macros/fail/*.rs");
}
