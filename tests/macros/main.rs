//! `#[kapsel_testdb::test]`: what it accepts, and what the compiler says where it is misused.
//!
//! What it accepts are tests in this binary. The messages are compared with the `.stderr` files; a new compiler may put them
//! differently: look at the difference, then write them anew with `TRYBUILD=overwrite cargo test --test macros misuse`.

mod accepted {
    mod attributes;
    mod isolation;
    mod outcomes;
    mod parameters;
    mod schema;
}

#[test]
fn misuse() {
    // trybuild checks programs. In one, a `#[test]` is taken out before its types are looked at.
    let wrapper = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/macros/rustc-as-test");
    #[expect(
        unsafe_code,
        reason = "trybuild passes its own environment on to cargo; nobody else here reads it meanwhile"
    )]
    unsafe {
        std::env::set_var("RUSTC_WORKSPACE_WRAPPER", wrapper);
    }
    trybuild::TestCases::new().compile_fail("tests/macros/fail/*.rs");
}
