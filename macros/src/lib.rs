//! The attribute macro of `kapsel-testdb`: parses and quotes, nothing else. The behaviour is in `kapsel_testdb::testing::run`.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, ItemFn, Lit, MetaNameValue, Token};

/// Runs an async test with a database of its own.
///
/// ```ignore
/// #[kapsel_testdb::test]                          // a clone of the template for this test alone
/// async fn name(pool: sqlx::PgPool) { … }
///
/// #[kapsel_testdb::test(isolation = "shared")]    // the run's shared clone, as it is
/// async fn name(pool: sqlx::PgPool) -> sqlx::Result<()> { … }
/// ```
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments.into(), item.into())
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

fn expand(arguments: Tokens, item: Tokens) -> Result<Tokens, Error> {
    let isolation = isolation(arguments)?;
    let function: ItemFn = syn::parse2(item)?;
    check(&function)?;
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = function;
    let (name, inputs, output) = (&sig.ident, &sig.inputs, &sig.output);
    Ok(quote! {
        #[::core::prelude::v1::test]
        #(#attrs)*
        #vis fn #name() #output {
            async fn #name(#inputs) #output #block
            ::kapsel_testdb::testing::run(#isolation, #name)
        }
    })
}

fn isolation(arguments: Tokens) -> Result<Tokens, Error> {
    let parser = Punctuated::<MetaNameValue, Token![,]>::parse_terminated;
    let mut isolation = None;
    for argument in parser.parse2(arguments)? {
        if !argument.path.is_ident("isolation") {
            let message =
                "unknown argument; expected `isolation = \"database\"` or `isolation = \"shared\"`";
            return Err(Error::new(argument.path.span(), message));
        }
        if isolation.is_some() {
            return Err(Error::new(
                argument.path.span(),
                "`isolation` is given twice",
            ));
        }
        isolation = Some(isolation_of(&argument.value)?);
    }
    Ok(isolation.unwrap_or_else(|| quote!(::kapsel_testdb::testing::Isolation::Database)))
}

fn isolation_of(value: &Expr) -> Result<Tokens, Error> {
    let text = match value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => text.value(),
        _ => return Err(Error::new(value.span(), "expected a string")),
    };
    match &*text {
        "database" => Ok(quote!(::kapsel_testdb::testing::Isolation::Database)),
        "shared" => Ok(quote!(::kapsel_testdb::testing::Isolation::Shared)),
        "transaction" => Err(Error::new(
            value.span(),
            "for a transaction that rolls back, use `kapsel_testdb::TestDb::begin()` in a `#[tokio::test]`",
        )),
        _ => Err(Error::new(
            value.span(),
            "unknown isolation; expected \"database\" or \"shared\"",
        )),
    }
}

fn check(function: &ItemFn) -> Result<(), Error> {
    let signature = &function.sig;
    if signature.asyncness.is_none() {
        return Err(Error::new(
            signature.fn_token.span(),
            "expected an `async fn`",
        ));
    }
    if signature.inputs.len() != 1 {
        return Err(Error::new(
            signature.ident.span(),
            "expected exactly one parameter, of type `sqlx::PgPool`",
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(
            signature.generics.span(),
            "a test cannot be generic",
        ));
    }
    Ok(())
}
