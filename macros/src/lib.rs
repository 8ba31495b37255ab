//! The attribute macro of `kapsel-testdb`: parses and quotes, nothing else. The behaviour is in `kapsel_testdb::testing::run`.

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::{quote, quote_spanned};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, FnArg, ItemFn, Lit, Meta, Token};

/// Runs an async test with a database of its own.
///
/// ```ignore
/// #[kapsel_testdb::test]                          // a clone of the template for this test alone
/// async fn on_a_clone(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test(isolation = "shared")]    // the run's shared clone, as it is
/// async fn on_the_shared_one(pool: sqlx::PgPool) -> sqlx::Result<()> { Ok(()) }
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
    let parameter = parameter(&function)?;
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = function;
    let (name, inputs, output) = (&sig.ident, &sig.inputs, &sig.output);
    // A panic that is the test's success leaves nothing to look at.
    let panics = attrs.iter().any(|a| a.path().is_ident("should_panic"));
    // A type that does not fit is reported where the parameter's type stands.
    let call = quote_spanned!(parameter=> |pool| #name(pool));
    Ok(quote! {
        #[::core::prelude::v1::test]
        #(#attrs)*
        // The closure is there for its span.
        #[allow(clippy::redundant_closure)]
        #vis fn #name() #output {
            async fn #name(#inputs) #output #block
            ::kapsel_testdb::testing::run(#isolation, #panics, #call)
        }
    })
}

fn isolation(arguments: Tokens) -> Result<Tokens, Error> {
    let parser = Punctuated::<Meta, Token![,]>::parse_terminated;
    let mut isolation = None;
    for argument in parser.parse2(arguments)? {
        let argument = match argument {
            Meta::NameValue(argument) if argument.path.is_ident("isolation") => argument,
            other => {
                let message = "unknown argument; expected `isolation = \"database\"` or `isolation = \"shared\"`";
                return Err(Error::new(other.span(), message));
            }
        };
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
        _ => {
            return Err(Error::new(
                value.span(),
                "expected \"database\" or \"shared\"",
            ));
        }
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

const PARAMETER: &str = "expected exactly one parameter, of type `sqlx::PgPool`";

/// Where the type of the one parameter stands.
fn parameter(function: &ItemFn) -> Result<Span, Error> {
    let signature = &function.sig;
    let refuse = |span: Span, message| Err(Error::new(span, message));
    if signature.asyncness.is_none() {
        return refuse(signature.fn_token.span(), "expected an `async fn`");
    }
    if !signature.generics.params.is_empty() {
        return refuse(signature.generics.span(), "a test cannot be generic");
    }
    if let Some(clause) = &signature.generics.where_clause {
        return refuse(clause.span(), "a test cannot be generic");
    }
    let mut parameters = signature.inputs.iter();
    match (parameters.next(), parameters.next()) {
        (Some(FnArg::Typed(parameter)), None) => Ok(parameter.ty.span()),
        (Some(FnArg::Receiver(receiver)), _) => {
            refuse(receiver.span(), "a test is a free function, not a method")
        }
        (None, _) => refuse(signature.paren_token.span.join(), PARAMETER),
        (_, Some(second)) => refuse(second.span(), PARAMETER),
    }
}
