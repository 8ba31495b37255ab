//! The function under the attribute.

use proc_macro2::{Span, TokenStream as Tokens, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, ReturnType, Type};

/// What may be a test.
pub struct Function {
    pub item: ItemFn,
    types: Vec<Type>,
}

const PARAMETERS: &str = "expected one parameter, of type `PgPool`, `PoolConnection<Postgres>` or `DatabaseConfig`, or an array of one of them; or two, of types `PgPoolOptions` and `PgConnectOptions`";

impl Function {
    pub fn new(item: ItemFn) -> Result<Self, Error> {
        check(&item)?;
        let types = item.sig.inputs.iter().filter_map(type_of).collect();
        Ok(Self { item, types })
    }

    /// Without any it has no database.
    pub fn has_parameters(&self) -> bool {
        !self.types.is_empty()
    }

    /// What it takes, as one type.
    pub fn taken(&self) -> Tokens {
        match &*self.types {
            [] => quote!(()),
            [one] => quote!(#one),
            [first, ..] => {
                let all = &self.types;
                quote_spanned!(first.span()=> (#(#all),*))
            }
        }
    }

    /// A closure that calls it. A type that does not fit is reported where the parameter's type stands; in a sandbox fewer do.
    pub fn call(&self, is_sandbox: bool) -> Tokens {
        let name = &self.item.sig.ident;
        match &*self.types {
            [] => quote!(|(): ()| #name()),
            [ty] if is_sandbox => {
                quote_spanned!(ty.span()=> |a: #ty| #name(::kapsel_testdb::testing::sandboxed(a)))
            }
            [first, second, ..] if is_sandbox => quote_spanned! {first.span()=>
                |pair: (#first, #second)| {
                    let (a, b) = ::kapsel_testdb::testing::sandboxed(pair);
                    #name(a, b)
                }
            },
            [ty] => quote_spanned!(ty.span()=> |a: #ty| #name(a)),
            [first, second, ..] => {
                quote_spanned!(first.span()=> |(a, b): (#first, #second)| #name(a, b))
            }
        }
    }

    /// What runs it. Its types are said so that what they must not be is reported where they stand.
    pub fn run(&self) -> Tokens {
        let taken = self.taken();
        let returned = match &self.item.sig.output {
            ReturnType::Type(_, ty) if can_be_said(ty) => quote!(#ty),
            _ => quote!(_),
        };
        match self.item.sig.asyncness {
            Some(_) => quote!(::kapsel_testdb::testing::run::<#taken, #returned, _>),
            None => quote!(::kapsel_testdb::testing::run_blocking::<#taken, #returned>),
        }
    }

    /// What the test harness gets: an exit code, or nothing, as it must be with `#[should_panic]`.
    pub fn output(&self) -> Option<Tokens> {
        match &self.item.sig.output {
            ReturnType::Default => None,
            ReturnType::Type(_, ty) if is_unit(ty) => None,
            ReturnType::Type(_, ty) => {
                Some(quote_spanned!(ty.span()=> -> ::std::process::ExitCode))
            }
        }
    }
}

/// Not every type may stand between angle brackets: `impl Trait` and `!` may not.
fn can_be_said(ty: &Type) -> bool {
    fn all(tokens: Tokens) -> bool {
        tokens.into_iter().all(|token| match token {
            TokenTree::Ident(ident) => ident != "impl",
            TokenTree::Punct(punct) => punct.as_char() != '!',
            TokenTree::Group(group) => all(group.stream()),
            TokenTree::Literal(_) => true,
        })
    }
    all(ty.to_token_stream())
}

fn is_unit(ty: &Type) -> bool {
    matches!(ty, Type::Tuple(tuple) if tuple.elems.is_empty())
}

fn type_of(input: &FnArg) -> Option<Type> {
    match input {
        FnArg::Typed(parameter) => Some((*parameter.ty).clone()),
        FnArg::Receiver(_) => None,
    }
}

fn check(function: &ItemFn) -> Result<(), Error> {
    let signature = &function.sig;
    let refuse = |span: Span, message| Err(Error::new(span, message));
    if !signature.generics.params.is_empty() {
        return refuse(signature.generics.span(), "a test cannot be generic");
    }
    if let Some(clause) = &signature.generics.where_clause {
        return refuse(clause.span(), "a test cannot be generic");
    }
    let mut parameters = signature.inputs.iter();
    match (parameters.next(), parameters.nth(1)) {
        (Some(FnArg::Receiver(receiver)), _) => {
            refuse(receiver.span(), "a test is a free function, not a method")
        }
        (_, Some(third)) => refuse(third.span(), PARAMETERS),
        _ => Ok(()),
    }
}
