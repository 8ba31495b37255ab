//! Parses the arguments of the attribute. Each argument becomes a method call on `kapsel_testdb::testing::TestPlan`.

use proc_macro2::{Span, TokenStream as Tokens};
use quote::{quote, quote_spanned};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprGroup, ExprLit, Lit, LitInt, Meta, MetaNameValue, Token};

use crate::function::Function;
use crate::{fixtures, migrations};

const UNKNOWN: &str = "unknown argument; expected `isolation`, `connections`, `databases`, `leaks`, `migrations`, `migrator` or `fixtures`";

/// The parsed arguments. Each is valid, and they do not conflict.
#[derive(Default)]
pub struct AttributeArguments {
    /// Method calls that build the plan, such as `.connections(10)`.
    pub plan: Vec<Tokens>,
    databases: Option<LitInt>,
    /// Name and position of each argument.
    given: Vec<(&'static str, Span)>,
    isolation: Option<String>,
}

impl AttributeArguments {
    pub fn parse(arguments: Tokens) -> Result<Self, Error> {
        let parser = Punctuated::<Meta, Token![,]>::parse_terminated;
        let mut parsed = Self::default();
        for argument in parser.parse2(arguments)? {
            parsed.add(&argument)?;
        }
        parsed.check_conflicts()?;
        Ok(parsed)
    }

    fn add(&mut self, argument: &Meta) -> Result<(), Error> {
        let name = argument.path().get_ident().map(ToString::to_string);
        match (name.as_deref(), argument) {
            (Some("fixtures"), Meta::List(list)) => {
                // May be given more than once: the lists are concatenated.
                self.given.push(("fixtures", list.path.span()));
                self.plan.push(fixtures::plan(list)?);
            }
            (Some("isolation"), Meta::NameValue(pair)) => {
                self.record_once("isolation", pair)?;
                let (name, variant) = isolation(&pair.value)?;
                self.isolation = Some(name);
                self.plan
                    .push(quote!(.isolation(::kapsel_testdb::testing::Isolation::#variant)));
            }
            (Some("connections"), Meta::NameValue(pair)) => {
                self.record_once("connections", pair)?;
                let expected = "expected a number of connections, at least 1";
                let number = number(&pair.value, expected)?;
                self.plan.push(quote!(.connections(#number)));
            }
            (Some("databases"), Meta::NameValue(pair)) => {
                self.record_once("databases", pair)?;
                let expected = "expected a number of databases, at least 1";
                self.databases = Some(number(&pair.value, expected)?);
            }
            (Some("leaks"), Meta::NameValue(pair)) => {
                self.record_once("leaks", pair)?;
                let variant = leaks(&pair.value)?;
                self.plan
                    .push(quote!(.leaks(::kapsel_testdb::Leaks::#variant)));
            }
            (Some("migrations"), Meta::NameValue(pair)) => {
                self.record_once("migrations", pair)?;
                self.plan.push(migrations::directory(&pair.value)?);
            }
            (Some("migrator"), Meta::NameValue(pair)) => {
                self.record_once("migrator", pair)?;
                self.plan.push(migrations::migrator(&pair.value)?);
            }
            (Some("fixtures"), _) => return Err(Error::new(argument.span(), fixtures::EXPECTED)),
            _ => return Err(Error::new(argument.span(), UNKNOWN)),
        }
        Ok(())
    }

    fn record_once(&mut self, name: &'static str, pair: &MetaNameValue) -> Result<(), Error> {
        if self.find_given(&[name]).is_some() {
            let message = format!("`{name}` is given twice");
            return Err(Error::new(pair.path.span(), message));
        }
        self.given.push((name, pair.path.span()));
        Ok(())
    }

    fn find_given(&self, names: &[&str]) -> Option<(&'static str, Span)> {
        let mut given = self.given.iter();
        given.find(|(name, _)| names.contains(name)).copied()
    }

    fn check_conflicts(&self) -> Result<(), Error> {
        if self.find_given(&["migrations"]).is_some()
            && let Some((name, span)) = self.find_given(&["migrator"])
        {
            let message =
                format!("`{name}` and `migrations` cannot be combined: remove one of them");
            return Err(Error::new(span, message));
        }
        if self.isolation.as_deref() == Some("shared")
            && let Some((name, span)) = self.find_given(&["fixtures", "migrations", "migrator"])
        {
            let message = format!(
                "`{name}` needs the test's own database, but isolation `shared` uses the run's shared clone: remove `isolation`"
            );
            return Err(Error::new(span, message));
        }
        if self.is_sandbox()
            && let Some((name, span)) =
                self.find_given(&["connections", "fixtures", "migrations", "migrator"])
        {
            let message = format!(
                "`{name}` cannot be combined with isolation `transaction`, which is one connection in a transaction on the run's shared clone: \
                 remove one of them"
            );
            return Err(Error::new(span, message));
        }
        Ok(())
    }

    /// Whether the isolation is `transaction`.
    pub fn is_sandbox(&self) -> bool {
        self.isolation.as_deref() == Some("transaction")
    }

    /// Rejects every argument: a test without parameters has no database.
    pub fn reject_all(&self) -> Result<(), Error> {
        let Some((name, span)) = self.given.first() else {
            return Ok(());
        };
        let message = format!(
            "`{name}` needs a database, but this test has no parameter: add one, such as `pool: sqlx::PgPool`"
        );
        Err(Error::new(*span, message))
    }

    /// A compile-time check that `databases` is the number of databases of the test's parameters.
    pub fn database_count_check(&self, function: &Function) -> Option<Tokens> {
        let number = self.databases.as_ref()?;
        let parameters = function.parameter_type();
        let message = format!(
            "`databases = {number}` is not the number of databases of the test's parameters"
        );
        Some(quote_spanned! {number.span()=>
            const _: () = ::core::assert!(<#parameters as ::kapsel_testdb::testing::Arguments>::DATABASES == #number, #message);
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

/// The literal, if the expression is one. A literal that a `macro_rules!` macro passed on is inside an invisible group.
pub fn literal(value: &Expr) -> Option<&Lit> {
    match value {
        Expr::Lit(ExprLit { lit, .. }) => Some(lit),
        Expr::Group(ExprGroup { expr, .. }) => literal(expr),
        _ => None,
    }
}
