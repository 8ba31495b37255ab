//! `#[kapsel_testdb::test]`: the forms that it accepts, and the compiler's messages for misuse.
//!
//! The accepted forms are tests in this binary. The messages are compared with the `.stderr` files. If a new compiler prints them
//! differently, check the difference, then rewrite the files with `TRYBUILD=overwrite cargo test --test macros misuse`.

mod accepted {
    mod attributes;
    mod isolation;
    mod outcomes;
    mod parameters;
    mod renamed;
    mod rstest;
    mod runtime;
    mod schema;
}

#[test]
fn misuse() {
    // trybuild compiles programs, and a program drops its `#[test]` functions before their types are checked.
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/macros");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    #[expect(
        unsafe_code,
        reason = "trybuild passes its own environment to cargo; no other thread reads it at the same time"
    )]
    unsafe {
        std::env::set_var(
            "RUSTC_WORKSPACE_WRAPPER",
            format!("{directory}/rustc-as-test"),
        );
        std::env::set_var("REAL_CARGO", cargo);
        std::env::set_var("CARGO", format!("{directory}/cargo-without-flags"));
    }
    trybuild::TestCases::new().compile_fail("tests/macros/fail/*.rs");
}
