//! The attribute macro of `kapsel-testdb`: parses and quotes, nothing else. The behaviour is in `kapsel_testdb::testing::run`.

mod arguments;
mod fixtures;
mod function;
mod migrations;

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{Error, ItemFn};

use arguments::Arguments;
use function::Function;

/// Runs a test with a database of its own, or several. Accepts all that `#[sqlx::test]` does, and says the same things with it.
///
/// ```ignore
/// #[kapsel_testdb::test]                          // a clone of the template for this test alone
/// async fn on_a_clone(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test(isolation = "shared")]    // the run's shared clone, as it is
/// async fn on_the_shared_one(pool: sqlx::PgPool) -> sqlx::Result<()> { Ok(()) }
///
/// #[kapsel_testdb::test(isolation = "transaction")]  // a sandbox: one connection, in a transaction that is never committed
/// async fn in_a_sandbox(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test(connections = 10)]        // a pool of so many, all at once where the test wants them
/// async fn with_many_connections(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test(leaks = "fail")]          // connections that it leaves open fail it; also "warn", "off"
/// async fn that_closes_its_pools(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test]                          // a sync test; also on a connection, or options for a pool of its own
/// fn sync(pool: sqlx::postgres::PgPoolOptions, connect: sqlx::postgres::PgConnectOptions) {}
///
/// #[kapsel_testdb::test(databases = 2)]           // several; the number is only a check and may be left out
/// async fn on_two([one, other]: [sqlx::PgPool; 2]) {}
///
/// #[kapsel_testdb::test(migrations = "other")]    // of another folder, relative to the package
/// #[kapsel_testdb::test(migrations = false)]      // none
/// #[kapsel_testdb::test(migrator = "app::MIGRATOR")]
///
/// #[kapsel_testdb::test(fixtures("users"))]       // fixtures/users.sql beside this file, read when the test runs
/// #[kapsel_testdb::test(fixtures("../a.sql"), fixtures(path = "data", scripts("b", "c")))]
/// async fn with_fixtures(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test]                          // no database: as `#[tokio::test]`
/// async fn without() {}
/// ```
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments.into(), item.into())
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

fn expand(arguments: Tokens, item: Tokens) -> Result<Tokens, Error> {
    let arguments = Arguments::parse(arguments)?;
    let function = Function::new(syn::parse2::<ItemFn>(item)?)?;
    if !function.has_parameters() {
        arguments.refuse_all()?;
    }
    let call = function.call(arguments.is_sandbox());
    let (run, output) = (function.run(), function.output());
    let Function { item, .. } = &function;
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = item;
    let (name, inputs, returned, awaited) = (&sig.ident, &sig.inputs, &sig.output, &sig.asyncness);
    let (plan, check) = (&arguments.plan, arguments.check(&function));
    // A panic that is the test's success leaves nothing to look at.
    let panics = attrs.iter().any(|a| a.path().is_ident("should_panic"));
    let panics = panics.then(|| quote!(.should_panic()));
    let end = output.is_none().then(|| quote!(;));
    Ok(quote! {
        #[::core::prelude::v1::test]
        #(#attrs)*
        // The closure is there for its span.
        #[allow(clippy::redundant_closure)]
        #vis fn #name() #output {
            #awaited fn #name(#inputs) #returned #block
            #check
            let plan = ::kapsel_testdb::testing::Plan::new(::core::env!("CARGO_MANIFEST_DIR"))
                #panics
                #(#plan)*;
            #run(plan, #call) #end
        }
    })
}
