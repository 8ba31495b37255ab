//! `fixtures(…)`: resolves the names to files. The macro checks that the files exist, so a wrong name is a compile error at its
//! position. The test reads them when it runs, so a changed fixture needs no compilation. The paths are relative to the package, because
//! the package's directory may be a different one when the test runs.

use std::path::{Component, Path, PathBuf};

use proc_macro2::{Span, TokenStream as Tokens, TokenTree};
use quote::quote;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Error, LitStr, MetaList, Token, parenthesized};

pub const EXPECTED: &str = "expected `fixtures(\"name\", …)`, `fixtures(\"../path.sql\", …)` or `fixtures(path = \"directory\", scripts(\"name\", …))`";

/// The directory of the package that is being compiled.
pub fn package_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from)
}

/// Accepts two forms:
///
/// - `fixtures("users", "../a.sql", …)`: a name is a file in the directory `fixtures` beside the source file; a path is relative to the
///   source file.
/// - `fixtures(path = "directory", scripts("users", …))`.
pub fn plan(list: &MetaList) -> Result<Tokens, Error> {
    let names = Punctuated::<LitStr, Token![,]>::parse_terminated;
    let fixtures = match list.tokens.clone().into_iter().next() {
        Some(TokenTree::Ident(_)) => in_directory(list)?,
        _ => {
            let names = names.parse2(list.tokens.clone());
            let names = names.map_err(|error| Error::new(error.span(), EXPECTED))?;
            names
                .iter()
                .map(find_named)
                .collect::<Result<Vec<_>, _>>()?
        }
    };
    Ok(quote!(.fixtures(&[#(#fixtures),*])))
}

fn find_named(name: &LitStr) -> Result<String, Error> {
    let path = PathBuf::from(name.value());
    match path.components().count() {
        // The same distinction as sqlx makes.
        0 | 1 => find(name, &Path::new("fixtures").join(path)),
        _ => find(name, &path),
    }
}

fn in_directory(list: &MetaList) -> Result<Vec<String>, Error> {
    let (mut directory, mut found) = (None::<LitStr>, Vec::new());
    list.parse_nested_meta(|meta| {
        let reject = |message| Err(Error::new_spanned(&meta.path, message));
        if meta.path.is_ident("path") {
            if directory.is_some() {
                return reject("`path` is given twice: use a second `fixtures(…)`");
            }
            directory = Some(meta.value()?.parse()?);
        } else if meta.path.is_ident("scripts") {
            let Some(directory) = &directory else {
                return reject("`path = \"directory\"` must come before `scripts(…)`");
            };
            let names;
            parenthesized!(names in meta.input);
            for name in names.parse_terminated(<LitStr as syn::parse::Parse>::parse, Token![,])? {
                let path = Path::new(&directory.value()).join(name.value());
                found.push(find(&name, &path)?);
            }
        } else {
            return reject(EXPECTED);
        }
        Ok(())
    })?;
    match directory {
        Some(directory) if found.is_empty() => {
            let message = "`path` needs the names of the files: add `scripts(\"name\", …)`";
            Err(Error::new(directory.span(), message))
        }
        _ => Ok(found),
    }
}

/// The path of an existing file, as the test will use it. Adds `.sql` if the path has no extension and no such file exists.
fn find(at: &LitStr, path: &Path) -> Result<String, Error> {
    let source_file = Span::call_site().unwrap().local_file();
    let Some(directory) = source_file.as_deref().and_then(Path::parent) else {
        // Expanded by a tool other than the compiler, or the source path is hidden: only the test can check the file.
        return to_text(at, path);
    };
    let directory = std::env::current_dir().unwrap_or_default().join(directory);
    let mut path = path.to_path_buf();
    if !directory.join(&path).is_file() && path.extension().is_none() {
        path.set_extension("sql");
    }
    let file = directory.join(&path);
    if !file.is_file() {
        let message = format!(
            "found no file `{}` (relative to this source file)",
            path.display()
        );
        return Err(Error::new(at.span(), message));
    }
    if path.is_absolute() {
        return to_text(at, &file);
    }
    to_text(at, &relative(&normalize(&file), &normalize(&package_dir())))
}

fn to_text(at: &LitStr, path: &Path) -> Result<String, Error> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::new(at.span(), "the path of the fixture is not UTF-8"))
}

/// Removes `.`, and `..` together with the component before it.
fn normalize(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if cleaned.file_name().is_some() => {
                cleaned.pop();
            }
            component => cleaned.push(component),
        }
    }
    cleaned
}

/// The path of the file relative to the directory.
fn relative(file: &Path, directory: &Path) -> PathBuf {
    let common = file
        .components()
        .zip(directory.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = directory
        .components()
        .skip(common)
        .map(|_| Component::ParentDir);
    up.chain(file.components().skip(common)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_relative_to_the_package() {
        let of = |file: &str, directory: &str| {
            relative(&normalize(Path::new(file)), Path::new(directory))
        };
        assert_eq!(of("/a/b/tests/./x.sql", "/a/b"), Path::new("tests/x.sql"));
        assert_eq!(of("/a/b/tests/../../x.sql", "/a/b"), Path::new("../x.sql"));
        assert_eq!(of("/x.sql", "/a/b"), Path::new("../../x.sql"));
    }
}
