//! `migrations = …` and `migrator = …`.

use proc_macro2::TokenStream as Tokens;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Expr, Lit, Path};

use crate::arguments::literal;
use crate::fixtures::package_dir;

const EXPECTED: &str = "expected a directory, relative to the package, or `false`";

/// `migrations = "directory"` or `migrations = false`.
pub fn directory(value: &Expr) -> Result<Tokens, Error> {
    match literal(value) {
        Some(Lit::Bool(flag)) if !flag.value => Ok(quote!(.without_migrations())),
        Some(Lit::Bool(flag)) => Err(Error::new(
            flag.span(),
            "`migrations = true` is the default: remove it",
        )),
        Some(Lit::Str(text)) => {
            if !package_dir().join(text.value()).is_dir() {
                let message = format!("the package has no directory `{}`", text.value());
                return Err(Error::new(text.span(), message));
            }
            Ok(quote!(.migrations(#text)))
        }
        _ => Err(Error::new(value.span(), EXPECTED)),
    }
}

/// `migrator = "path::to::MIGRATOR"`.
pub fn migrator(value: &Expr) -> Result<Tokens, Error> {
    let expected = "expected the path of a `sqlx::migrate::Migrator`, in quotes";
    let Some(Lit::Str(text)) = literal(value) else {
        return Err(Error::new(value.span(), expected));
    };
    let path: Path = text
        .parse()
        .map_err(|_| Error::new(text.span(), expected))?;
    Ok(quote_spanned!(text.span()=> .migrator(&#path)))
}
