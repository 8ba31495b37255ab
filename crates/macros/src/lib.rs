//! The attribute macro of `kapsel-testdb`. It only parses and quotes; the behavior is in `kapsel_testdb::testing::run`.

mod arguments;
mod fixtures;
mod function;
mod migrations;

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{Error, ItemFn};

use arguments::AttributeArguments;
use function::Function;

/// Runs a test with its own database, or several. Accepts everything that `#[sqlx::test]` accepts, with the same meaning.
///
/// ```ignore
/// #[kapsel_testdb::test]                          // a clone of the template for this test alone
/// async fn on_a_clone(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test(isolation = "shared")]    // the run's shared clone, as it is
/// async fn on_the_shared_clone(pool: sqlx::PgPool) -> sqlx::Result<()> { Ok(()) }
///
/// #[kapsel_testdb::test(isolation = "shared", own_keys = true)]  // commits only under keys of its own: not reported at the end of the run
/// async fn beside_other_tests(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test(isolation = "transaction")]  // a sandbox: one connection, in a transaction that is never committed
/// async fn in_a_sandbox(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test(connections = 10)]        // up to 10 connections at once
/// async fn with_many_connections(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test(leaks = "fail")]          // fails if it leaves connections open; also "warn", "off"
/// async fn that_closes_its_pools(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test]                          // not async; with options for its own pool
/// fn without_async(pool: sqlx::postgres::PgPoolOptions, connect: sqlx::postgres::PgConnectOptions) {}
///
/// #[kapsel_testdb::test(databases = 2)]           // several databases; the number is a check, and optional
/// async fn on_two([one, other]: [sqlx::PgPool; 2]) {}
///
/// #[kapsel_testdb::test(migrations = "other")]    // of another directory, relative to the package
/// #[kapsel_testdb::test(migrations = false)]      // none
/// #[kapsel_testdb::test(migrator = "app::MIGRATOR")]
///
/// #[kapsel_testdb::test(fixtures("users"))]       // fixtures/users.sql beside this file, read when the test runs
/// #[kapsel_testdb::test(fixtures("../a.sql"), fixtures(path = "data", scripts("b", "c")))]
/// async fn with_fixtures(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test(flavor = "multi_thread", worker_threads = 2)]  // as in `#[tokio::test]`
/// async fn on_several_threads(pool: sqlx::PgPool) {}
///
/// #[tdb::test(crate = "tdb")]                     // another name of the dependency, or the path where another crate exports `kapsel_testdb`
/// async fn renamed(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test]                          // no database, like `#[tokio::test]`
/// async fn without_a_database() {}
/// ```
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments.into(), item.into())
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

fn expand(arguments: Tokens, item: Tokens) -> Result<Tokens, Error> {
    let arguments = AttributeArguments::parse(arguments)?;
    let function = Function::new(syn::parse2::<ItemFn>(item)?)?;
    if !function.has_parameters() {
        arguments.reject_databases()?;
    }
    if !function.is_async() {
        arguments.reject_runtime()?;
    }
    let krate = &arguments.krate;
    let call = function.call(krate, arguments.is_sandbox());
    let (run, error, output) = (
        function.run(krate),
        function.error(krate),
        function.output(),
    );
    let Function { item, .. } = &function;
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = item;
    let (name, inputs, returned, awaited) = (&sig.ident, &sig.inputs, &sig.output, &sig.asyncness);
    let (plan, check) = (&arguments.plan, arguments.database_count_check(&function));
    // With `#[should_panic]` a panic is the success of the test: its database is not kept.
    let panics = attrs.iter().any(|a| a.path().is_ident("should_panic"));
    let panics = panics.then(|| quote!(.should_panic()));
    let end = output.is_none().then(|| quote!(;));
    Ok(quote! {
        #[::core::prelude::v1::test]
        #(#attrs)*
        // The closure carries the span of the parameter's type. The type that the test returns decides which trait and how many borrows are used.
        #[allow(clippy::redundant_closure, clippy::needless_borrow, unused_imports)]
        #vis fn #name() #output {
            #awaited fn #name(#inputs) #returned #block
            #check
            let plan = #krate::testing::TestPlan::new(::core::env!("CARGO_MANIFEST_DIR"))
                #panics
                #(#plan)*;
            #run(plan, #call, #error) #end
        }
    })
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::expand;

    #[::core::prelude::v1::test]
    fn the_code_names_the_crate_only_by_the_path_that_is_given() {
        let arguments = quote!(
            isolation = "transaction",
            leaks = "fail",
            databases = 1,
            crate = "my::tdb",
            flavor = "multi_thread",
            worker_threads = 2
        );
        let functions = [
            quote!(
                async fn test(pool: PgPool) {}
            ),
            quote!(
                async fn test(options: PgPoolOptions, connect: PgConnectOptions) -> Result<(), E> {}
            ),
        ];
        for function in functions {
            let code = expand(arguments.clone(), function).expect("code");
            let code = code.to_string();
            assert!(code.contains("my :: tdb :: testing :: TestPlan"), "{code}");
            assert!(!code.contains("kapsel_testdb"), "{code}");
        }
        let blocking = quote!(
            fn test(pool: PgPool) {}
        );
        let code = expand(quote!(crate = "tdb", isolation = "shared"), blocking).expect("code");
        assert!(!code.to_string().contains("kapsel_testdb"), "{code}");
    }
}
