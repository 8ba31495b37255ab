//! What stands in the attribute's parentheses. Each argument becomes a call of a method of `kapsel_testdb::testing::Plan`.

use proc_macro2::{Span, TokenStream as Tokens};
use quote::{quote, quote_spanned};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprGroup, ExprLit, Lit, LitInt, Meta, MetaNameValue, Token};

use crate::function::Function;
use crate::{fixtures, migrations};

const UNKNOWN: &str = "unknown argument; expected `isolation`, `connections`, `databases`, `leaks`, `migrations`, `migrator` or `fixtures`";

/// The arguments, checked for themselves and against each other.
#[derive(Default)]
pub struct Arguments {
    /// Calls that make the plan: `.connections(10)`.
    pub plan: Vec<Tokens>,
    databases: Option<LitInt>,
    /// What has been given: the argument's name, and where.
    given: Vec<(&'static str, Span)>,
    isolation: Option<String>,
}

impl Arguments {
    pub fn parse(arguments: Tokens) -> Result<Self, Error> {
        let parser = Punctuated::<Meta, Token![,]>::parse_terminated;
        let mut parsed = Self::default();
        for argument in parser.parse2(arguments)? {
            parsed.add(&argument)?;
        }
        parsed.fit_together()?;
        Ok(parsed)
    }

    fn add(&mut self, argument: &Meta) -> Result<(), Error> {
        let name = argument.path().get_ident().map(ToString::to_string);
        match (name.as_deref(), argument) {
            (Some("fixtures"), Meta::List(list)) => {
                // Several are what one longer list would be.
                self.given.push(("fixtures", list.path.span()));
                self.plan.push(fixtures::plan(list)?);
            }
            (Some("isolation"), Meta::NameValue(pair)) => {
                self.once("isolation", pair)?;
                let (name, variant) = isolation(&pair.value)?;
                self.isolation = Some(name);
                self.plan
                    .push(quote!(.isolation(::kapsel_testdb::testing::Isolation::#variant)));
            }
            (Some("connections"), Meta::NameValue(pair)) => {
                self.once("connections", pair)?;
                let expected = "expected a number of connections, from 1";
                let number = number(&pair.value, expected)?;
                self.plan.push(quote!(.connections(#number)));
            }
            (Some("databases"), Meta::NameValue(pair)) => {
                self.once("databases", pair)?;
                let expected = "expected a number of databases, from 1";
                self.databases = Some(number(&pair.value, expected)?);
            }
            (Some("leaks"), Meta::NameValue(pair)) => {
                self.once("leaks", pair)?;
                let variant = leaks(&pair.value)?;
                self.plan
                    .push(quote!(.leaks(::kapsel_testdb::Leaks::#variant)));
            }
            (Some("migrations"), Meta::NameValue(pair)) => {
                self.once("migrations", pair)?;
                self.plan.push(migrations::folder(&pair.value)?);
            }
            (Some("migrator"), Meta::NameValue(pair)) => {
                self.once("migrator", pair)?;
                self.plan.push(migrations::migrator(&pair.value)?);
            }
            (Some("fixtures"), _) => return Err(Error::new(argument.span(), fixtures::EXPECTED)),
            _ => return Err(Error::new(argument.span(), UNKNOWN)),
        }
        Ok(())
    }

    fn once(&mut self, name: &'static str, pair: &MetaNameValue) -> Result<(), Error> {
        if self.find(&[name]).is_some() {
            let message = format!("`{name}` is given twice");
            return Err(Error::new(pair.path.span(), message));
        }
        self.given.push((name, pair.path.span()));
        Ok(())
    }

    fn find(&self, names: &[&str]) -> Option<(&'static str, Span)> {
        let mut given = self.given.iter();
        given.find(|(name, _)| names.contains(name)).copied()
    }

    fn fit_together(&self) -> Result<(), Error> {
        if self.find(&["migrations"]).is_some()
            && let Some((name, span)) = self.find(&["migrator"])
        {
            let message = format!("`{name}` and `migrations` exclude each other");
            return Err(Error::new(span, message));
        }
        if self.isolation.as_deref() == Some("shared")
            && let Some((name, span)) = self.find(&["fixtures", "migrations", "migrator"])
        {
            let message = format!(
                "`{name}` needs a database of the test's own; the shared one is everybody's: leave out `isolation`"
            );
            return Err(Error::new(span, message));
        }
        if self.is_sandbox()
            && let Some((name, span)) =
                self.find(&["connections", "fixtures", "migrations", "migrator"])
        {
            let message = format!(
                "`{name}` does not go with isolation `transaction`, which is one connection in a transaction on the run's shared database: \
                 leave one of them out"
            );
            return Err(Error::new(span, message));
        }
        Ok(())
    }

    /// Whether the test is in a transaction on the shared clone.
    pub fn is_sandbox(&self) -> bool {
        self.isolation.as_deref() == Some("transaction")
    }

    /// For a test without a database.
    pub fn refuse_all(&self) -> Result<(), Error> {
        let Some((name, span)) = self.given.first() else {
            return Ok(());
        };
        let message = format!(
            "`{name}` is about a database, and this test takes none: add a parameter, `pool: sqlx::PgPool`"
        );
        Err(Error::new(*span, message))
    }

    /// Compares the number of databases with what the test takes.
    pub fn check(&self, function: &Function) -> Option<Tokens> {
        let number = self.databases.as_ref()?;
        let taken = function.taken();
        let message = format!(
            "`databases = {number}`, but the test's parameters are on another number of them"
        );
        Some(quote_spanned! {number.span()=>
            const _: () = ::core::assert!(<#taken as ::kapsel_testdb::testing::Arguments>::DATABASES == #number, #message);
        })
    }
}

fn isolation(value: &Expr) -> Result<(String, Tokens), Error> {
    let expected = "expected \"database\", \"shared\" or \"transaction\"";
    let Some(Lit::Str(text)) = literal(value) else {
        return Err(Error::new(value.span(), expected));
    };
    let variant = match &*text.value() {
        "database" => quote!(Database),
        "shared" => quote!(Shared),
        "transaction" => quote!(Transaction),
        _ => {
            let message = format!("unknown isolation; {expected}");
            return Err(Error::new(text.span(), message));
        }
    };
    Ok((text.value(), variant))
}

fn leaks(value: &Expr) -> Result<Tokens, Error> {
    let text = match literal(value) {
        Some(Lit::Str(text)) => text.value(),
        _ => String::new(),
    };
    match &*text {
        "warn" => Ok(quote!(Warn)),
        "fail" => Ok(quote!(Fail)),
        "off" => Ok(quote!(Off)),
        _ => {
            let message = "expected \"warn\", \"fail\" or \"off\"";
            Err(Error::new(value.span(), message))
        }
    }
}

fn number(value: &Expr, expected: &str) -> Result<LitInt, Error> {
    match literal(value) {
        Some(Lit::Int(number)) if number.base10_parse::<u32>().is_ok_and(|n| n > 0) => {
            Ok(number.clone())
        }
        _ => Err(Error::new(value.span(), expected)),
    }
}

/// The literal that an expression is; one that comes from a macro by example is in an invisible group.
pub fn literal(value: &Expr) -> Option<&Lit> {
    match value {
        Expr::Lit(ExprLit { lit, .. }) => Some(lit),
        Expr::Group(ExprGroup { expr, .. }) => literal(expr),
        _ => None,
    }
}
