//! `fixtures(…)`: which files those are. They are looked for here, so that a wrong name is an error where it stands, and read when the
//! test runs, so that nothing is compiled again when one changes. Their paths are relative to the package, whose folder may be another
//! one by then.

use std::path::{Component, Path, PathBuf};

use proc_macro2::{Span, TokenStream as Tokens, TokenTree};
use quote::quote;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Error, LitStr, MetaList, Token, parenthesized};

pub const EXPECTED: &str = "expected `fixtures(\"name\", …)`, `fixtures(\"../path.sql\", …)` or `fixtures(path = \"folder\", scripts(\"name\", …))`";

/// The package's folder.
pub fn package() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from)
}

/// `fixtures("users", …)`: names are of files in `fixtures` beside the test's file, paths relative to the test's file. Or
/// `fixtures(path = "folder", scripts("users", …))`.
pub fn plan(list: &MetaList) -> Result<Tokens, Error> {
    let names = Punctuated::<LitStr, Token![,]>::parse_terminated;
    let fixtures = match list.tokens.clone().into_iter().next() {
        Some(TokenTree::Ident(_)) => in_folder(list)?,
        _ => {
            let names = names.parse2(list.tokens.clone());
            let names = names.map_err(|error| Error::new(error.span(), EXPECTED))?;
            names.iter().map(named).collect::<Result<Vec<_>, _>>()?
        }
    };
    Ok(quote!(.fixtures(&[#(#fixtures),*])))
}

fn named(name: &LitStr) -> Result<String, Error> {
    let path = PathBuf::from(name.value());
    match path.components().count() {
        // As sqlx tells the one from the other.
        0 | 1 => find(name, &Path::new("fixtures").join(path)),
        _ => find(name, &path),
    }
}

fn in_folder(list: &MetaList) -> Result<Vec<String>, Error> {
    let (mut folder, mut found) = (None::<LitStr>, Vec::new());
    list.parse_nested_meta(|meta| {
        let refuse = |message| Err(Error::new_spanned(&meta.path, message));
        if meta.path.is_ident("path") {
            if folder.is_some() {
                return refuse("`path` is given twice; use another `fixtures(…)`");
            }
            folder = Some(meta.value()?.parse()?);
        } else if meta.path.is_ident("scripts") {
            let Some(folder) = &folder else {
                return refuse("`path = \"folder\"` comes before `scripts(…)`");
            };
            let names;
            parenthesized!(names in meta.input);
            for name in names.parse_terminated(<LitStr as syn::parse::Parse>::parse, Token![,])? {
                let path = Path::new(&folder.value()).join(name.value());
                found.push(find(&name, &path)?);
            }
        } else {
            return refuse(EXPECTED);
        }
        Ok(())
    })?;
    match folder {
        Some(folder) if found.is_empty() => {
            let message = "which files of it? add `scripts(\"name\", …)`";
            Err(Error::new(folder.span(), message))
        }
        _ => Ok(found),
    }
}

/// The path that the test will use, of a file that is there. `.sql` is added where there is no extension.
fn find(at: &LitStr, path: &Path) -> Result<String, Error> {
    let beside = Span::call_site().unwrap().local_file();
    let Some(folder) = beside.as_deref().and_then(Path::parent) else {
        // Who expands us is not the compiler, or has hidden where the file is: the test will look.
        return text(at, path);
    };
    let folder = std::env::current_dir().unwrap_or_default().join(folder);
    let mut path = path.to_path_buf();
    if !folder.join(&path).is_file() && path.extension().is_none() {
        path.set_extension("sql");
    }
    let file = folder.join(&path);
    if !file.is_file() {
        let message = format!(
            "there is no file `{}` (relative to this one)",
            path.display()
        );
        return Err(Error::new(at.span(), message));
    }
    if path.is_absolute() {
        return text(at, &file);
    }
    text(at, &relative(&clean(&file), &clean(&package())))
}

fn text(at: &LitStr, path: &Path) -> Result<String, Error> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::new(at.span(), "its path is not UTF-8"))
}

/// Without `.` and, where there is something to take back, without `..`.
fn clean(path: &Path) -> PathBuf {
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

/// How to get from a folder to a file.
fn relative(file: &Path, folder: &Path) -> PathBuf {
    let common = file
        .components()
        .zip(folder.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = folder
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
        let of = |file: &str, folder: &str| relative(&clean(Path::new(file)), Path::new(folder));
        assert_eq!(of("/a/b/tests/./x.sql", "/a/b"), Path::new("tests/x.sql"));
        assert_eq!(of("/a/b/tests/../../x.sql", "/a/b"), Path::new("../x.sql"));
        assert_eq!(of("/x.sql", "/a/b"), Path::new("../../x.sql"));
    }
}
