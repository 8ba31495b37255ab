//! Parses the arguments of the attribute. Each argument becomes a method call on `kapsel_testdb::testing::TestPlan`.

use proc_macro2::{Span, TokenStream as Tokens};
use quote::{quote, quote_spanned};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Error, Expr, ExprGroup, ExprLit, Lit, LitInt, LitStr, Meta, MetaNameValue, Path, Token,
    parse_quote,
};

use crate::function::Function;
use crate::{fixtures, migrations};

const UNKNOWN: &str = "unknown argument; expected `isolation`, `connections`, `databases`, `leaks`, `own_keys`, `template`, `migrations`, `migrator`, `fixtures`, `flavor`, `worker_threads` or `crate`";
/// Arguments that a test without a database may have.
const WITHOUT_DATABASE: [&str; 3] = ["crate", "flavor", "worker_threads"];

/// The parsed arguments. Each is valid, and they do not conflict.
pub struct AttributeArguments {
    /// The path of the crate `kapsel_testdb`.
    pub krate: Path,
    /// Method calls that build the plan, such as `.connections(10)`.
    pub plan: Vec<Tokens>,
    is_multi_thread: bool,
    databases: Option<LitInt>,
    /// Name and position of each argument.
    given: Vec<(&'static str, Span)>,
    isolation: Option<String>,
}

impl AttributeArguments {
    pub fn parse(arguments: Tokens) -> Result<Self, Error> {
        let parser = Punctuated::<Meta, Token![,]>::parse_terminated;
        let arguments = parser.parse2(arguments)?;
        let mut parsed = Self {
            krate: parse_quote!(::kapsel_testdb),
            plan: Vec::new(),
            is_multi_thread: false,
            databases: None,
            given: Vec::new(),
            isolation: None,
        };
        // The other arguments become code with this path.
        let (crates, others): (Vec<_>, Vec<_>) =
            arguments.iter().partition(|a| a.path().is_ident("crate"));
        for argument in crates.into_iter().chain(others) {
            parsed.add(argument)?;
        }
        parsed.check_conflicts()?;
        Ok(parsed)
    }

    fn add(&mut self, argument: &Meta) -> Result<(), Error> {
        let name = argument.path().get_ident().map(ToString::to_string);
        let krate = self.krate.clone();
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
                    .push(quote!(.isolation(#krate::testing::Isolation::#variant)));
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
                self.plan.push(quote!(.leaks(#krate::Leaks::#variant)));
            }
            (Some("own_keys"), Meta::NameValue(pair)) => {
                self.record_once("own_keys", pair)?;
                if boolean(&pair.value)? {
                    self.plan.push(quote!(.own_keys()));
                }
            }
            (Some("template"), Meta::NameValue(pair)) => {
                self.record_once("template", pair)?;
                let name = template(&pair.value)?;
                self.plan.push(quote!(.template(#name)));
            }
            (Some("migrations"), Meta::NameValue(pair)) => {
                self.record_once("migrations", pair)?;
                self.plan.push(migrations::directory(&pair.value)?);
            }
            (Some("migrator"), Meta::NameValue(pair)) => {
                self.record_once("migrator", pair)?;
                self.plan.push(migrations::migrator(&pair.value)?);
            }
            (Some("crate"), Meta::NameValue(pair)) => {
                self.record_once("crate", pair)?;
                self.krate = path(&pair.value)?;
            }
            (Some("flavor"), Meta::NameValue(pair)) => {
                self.record_once("flavor", pair)?;
                self.is_multi_thread = is_multi_thread(&pair.value)?;
                if self.is_multi_thread {
                    self.plan.push(quote!(.multi_thread()));
                }
            }
            (Some("worker_threads"), Meta::NameValue(pair)) => {
                self.record_once("worker_threads", pair)?;
                let expected = "expected a number of threads, at least 1";
                let number = number(&pair.value, expected)?;
                self.plan.push(quote!(.worker_threads(#number)));
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
        if !self.is_multi_thread
            && let Some((name, span)) = self.find_given(&["worker_threads"])
        {
            let message = format!(
                "`{name}` requires the runtime flavor `multi_thread`: set `flavor = \"multi_thread\"`"
            );
            return Err(Error::new(span, message));
        }
        if self.find_given(&["migrations"]).is_some()
            && let Some((name, span)) = self.find_given(&["migrator"])
        {
            let message =
                format!("`{name}` and `migrations` cannot be combined: remove one of them");
            return Err(Error::new(span, message));
        }
        if self.find_given(&["template"]).is_some()
            && let Some((name, span)) = self.find_given(&["migrations", "migrator"])
        {
            let message = format!(
                "`{name}` and `template` cannot be combined, because a template has migrations of its own: remove one of them"
            );
            return Err(Error::new(span, message));
        }
        if self.isolation.as_deref() != Some("shared")
            && let Some((name, span)) = self.find_given(&["own_keys"])
        {
            let message = format!(
                "`{name}` is about commits into the run's shared clone: set `isolation = \"shared\"`, or remove `{name}`"
            );
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

    /// Rejects arguments about the runtime: a test that is not async has none of its own.
    pub fn reject_runtime(&self) -> Result<(), Error> {
        let Some((name, span)) = self.find_given(&["flavor", "worker_threads"]) else {
            return Ok(());
        };
        let message = format!("`{name}` needs an async test: add `async`, or remove `{name}`");
        Err(Error::new(span, message))
    }

    /// Rejects arguments about databases: a test without parameters has none.
    pub fn reject_databases(&self) -> Result<(), Error> {
        let mut given = self.given.iter();
        let Some((name, span)) = given.find(|(name, _)| !WITHOUT_DATABASE.contains(name)) else {
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
        let (krate, parameters) = (&self.krate, function.parameter_type());
        let message = format!(
            "`databases = {number}` is not the number of databases of the test's parameters"
        );
        Some(quote_spanned! {number.span()=>
            const _: () = ::core::assert!(<#parameters as #krate::testing::Arguments>::DATABASES == #number, #message);
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

fn template(value: &Expr) -> Result<LitStr, Error> {
    match literal(value) {
        Some(Lit::Str(text)) if !text.value().is_empty() => Ok(text.clone()),
        _ => {
            let message = "expected the name of a template, in quotes";
            Err(Error::new(value.span(), message))
        }
    }
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

/// `crate = "path"`, as in serde and tokio.
fn path(value: &Expr) -> Result<Path, Error> {
    let expected = "expected the path of the crate `kapsel_testdb`, in quotes";
    let Some(Lit::Str(text)) = literal(value) else {
        return Err(Error::new(value.span(), expected));
    };
    let parsed = text.parse_with(Path::parse_mod_style);
    parsed.map_err(|_| Error::new(text.span(), expected))
}

fn is_multi_thread(value: &Expr) -> Result<bool, Error> {
    let expected = "expected \"current_thread\" or \"multi_thread\"";
    let Some(Lit::Str(text)) = literal(value) else {
        return Err(Error::new(value.span(), expected));
    };
    match &*text.value() {
        "current_thread" => Ok(false),
        "multi_thread" => Ok(true),
        _ => {
            let message = format!("unknown runtime flavor; {expected}");
            Err(Error::new(text.span(), message))
        }
    }
}

fn boolean(value: &Expr) -> Result<bool, Error> {
    match literal(value) {
        Some(Lit::Bool(boolean)) => Ok(boolean.value),
        _ => Err(Error::new(value.span(), "expected `true` or `false`")),
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
