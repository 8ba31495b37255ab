//! The attribute macro of `kapsel-testdb`: parses and quotes, nothing else. The behaviour is in `kapsel_testdb::testing::run`.

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::{quote, quote_spanned};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, FnArg, ItemFn, Lit, Meta, MetaNameValue, Token};

/// Runs an async test with a database of its own.
///
/// ```ignore
/// #[kapsel_testdb::test]                          // a clone of the template for this test alone
/// async fn on_a_clone(pool: sqlx::PgPool) {}
///
/// #[kapsel_testdb::test(isolation = "shared")]    // the run's shared clone, as it is
/// async fn on_the_shared_one(pool: sqlx::PgPool) -> sqlx::Result<()> { Ok(()) }
///
/// #[kapsel_testdb::test(connections = 10)]        // a pool of so many, all at once where the test wants them
/// async fn with_many_connections(pool: sqlx::PgPool) {}
/// ```
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments.into(), item.into())
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

fn expand(arguments: Tokens, item: Tokens) -> Result<Tokens, Error> {
    let Arguments {
        isolation,
        connections,
    } = Arguments::parse(arguments)?;
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
            let plan = ::kapsel_testdb::testing::Plan {
                isolation: #isolation,
                connections: #connections,
                should_panic: #panics,
            };
            ::kapsel_testdb::testing::run(plan, #call)
        }
    })
}

/// What stands in the attribute's parentheses, as expressions.
struct Arguments {
    isolation: Tokens,
    connections: Tokens,
}

const UNKNOWN: &str = "unknown argument; expected `isolation = \"database\"`, `isolation = \"shared\"` or `connections = 10`";

impl Arguments {
    fn parse(arguments: Tokens) -> Result<Self, Error> {
        let parser = Punctuated::<Meta, Token![,]>::parse_terminated;
        let (mut isolation, mut connections) = (None, None);
        for argument in parser.parse2(arguments)? {
            let Meta::NameValue(MetaNameValue { path, value, .. }) = &argument else {
                return Err(Error::new(argument.span(), UNKNOWN));
            };
            let twice = if path.is_ident("isolation") {
                isolation.replace(isolation_of(value)?).map(|_| "isolation")
            } else if path.is_ident("connections") {
                connections
                    .replace(connections_of(value)?)
                    .map(|_| "connections")
            } else {
                return Err(Error::new(argument.span(), UNKNOWN));
            };
            if let Some(name) = twice {
                return Err(Error::new(path.span(), format!("`{name}` is given twice")));
            }
        }
        Ok(Self {
            isolation: isolation
                .unwrap_or_else(|| quote!(::kapsel_testdb::testing::Isolation::Database)),
            connections: connections.unwrap_or_else(|| quote!(::core::option::Option::None)),
        })
    }
}

fn connections_of(value: &Expr) -> Result<Tokens, Error> {
    let number = match value {
        Expr::Lit(ExprLit {
            lit: Lit::Int(number),
            ..
        }) => number.base10_parse::<u32>().ok(),
        _ => None,
    };
    match number.filter(|number| *number > 0) {
        Some(number) => Ok(quote!(::core::option::Option::Some(#number))),
        None => Err(Error::new(
            value.span(),
            "expected a number of connections, from 1",
        )),
    }
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
