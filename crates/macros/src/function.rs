//! The function that the attribute is on.

use proc_macro2::{Span, TokenStream as Tokens, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, Path, ReturnType, Type};

/// A function that can be a test.
pub struct Function {
    pub item: ItemFn,
    types: Vec<Type>,
}

const PARAMETERS: &str = "expected one parameter, of type `PgPool`, `PoolConnection<Postgres>` or `DatabaseConfig`, or an array of one of these types; or two parameters, of types `PgPoolOptions` and `PgConnectOptions`";

impl Function {
    pub fn new(item: ItemFn) -> Result<Self, Error> {
        check(&item)?;
        let types = item.sig.inputs.iter().filter_map(type_of).collect();
        Ok(Self { item, types })
    }

    /// Whether the test has a runtime of its own.
    pub fn is_async(&self) -> bool {
        self.item.sig.asyncness.is_some()
    }

    /// Whether the test has a database: one without parameters has none.
    pub fn has_parameters(&self) -> bool {
        !self.types.is_empty()
    }

    /// The types of the parameters as one type: `()`, the only type, or a tuple.
    pub fn parameter_type(&self) -> Tokens {
        match &*self.types {
            [] => quote!(()),
            [one] => quote!(#one),
            [first, ..] => {
                let all = &self.types;
                quote_spanned!(first.span()=> (#(#all),*))
            }
        }
    }

    /// A closure that calls the function. The spans make the compiler report an unsupported type at the parameter's type. A sandbox
    /// supports fewer types.
    pub fn call(&self, krate: &Path, is_sandbox: bool) -> Tokens {
        let name = &self.item.sig.ident;
        match &*self.types {
            [] => quote!(|(): ()| #name()),
            [ty] if is_sandbox => {
                quote_spanned!(ty.span()=> |a: #ty| #name(#krate::testing::sandboxed(a)))
            }
            [first, second, ..] if is_sandbox => quote_spanned! {first.span()=>
                |pair: (#first, #second)| {
                    let (a, b) = #krate::testing::sandboxed(pair);
                    #name(a, b)
                }
            },
            [ty] => quote_spanned!(ty.span()=> |a: #ty| #name(a)),
            [first, second, ..] => {
                quote_spanned!(first.span()=> |(a, b): (#first, #second)| #name(a, b))
            }
        }
    }

    /// The function that runs the test. Its types are spelled out, so the compiler reports an unsupported type at its position.
    pub fn run(&self, krate: &Path) -> Tokens {
        let parameters = self.parameter_type();
        let returned = match &self.item.sig.output {
            ReturnType::Type(_, ty) if is_nameable(ty) => quote!(#ty),
            _ => quote!(_),
        };
        match self.item.sig.asyncness {
            Some(_) => quote!(#krate::testing::run::<#parameters, #returned, _>),
            None => quote!(#krate::testing::run_blocking::<#parameters, #returned>),
        }
    }

    /// A closure that returns the text of an error that the test returned.
    pub fn error(&self, krate: &Path) -> Tokens {
        match &self.item.sig.output {
            ReturnType::Type(_, ty) if is_nameable(ty) && !is_unit(ty) => quote! {
                |returned| {
                    use #krate::testing::{DebugError as _, DisplayError as _, NoError as _};
                    (&&&#krate::testing::Returned(returned)).error()
                }
            },
            _ => quote!(|_| ::core::option::Option::None),
        }
    }

    /// The return type for the test harness: an exit code, or nothing, which `#[should_panic]` requires.
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

/// Whether the type may be a generic argument: `impl Trait` and `!` may not.
fn is_nameable(ty: &Type) -> bool {
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
    let reject = |span: Span, message| Err(Error::new(span, message));
    if !signature.generics.params.is_empty() {
        return reject(signature.generics.span(), "a test cannot be generic");
    }
    if let Some(clause) = &signature.generics.where_clause {
        return reject(clause.span(), "a test cannot be generic");
    }
    let mut parameters = signature.inputs.iter();
    match (parameters.next(), parameters.nth(1)) {
        (Some(FnArg::Receiver(receiver)), _) => reject(
            receiver.span(),
            "a test must be a free function, not a method",
        ),
        (_, Some(third)) => reject(third.span(), PARAMETERS),
        _ => Ok(()),
    }
}
