//! TLS: what a URL or libpq's variables ask for, and what to do when it fails.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sqlx::Error as Sqlx;
use sqlx::postgres::PgSslMode;

use super::address::{AddressError, encode};

/// What is asked for on the way to a server. Over a unix socket none of it counts, as with libpq.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// `sslmode`; without it, TLS where both sides can.
    #[serde(rename = "ssl_mode", default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `sslrootcert`: who signs the server's certificate. `system` is libpq's word for the well-known ones.
    #[serde(
        rename = "ssl_root_cert",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub root_cert: Option<PathBuf>,
    /// `sslcert`: our own certificate.
    #[serde(
        rename = "ssl_client_cert",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub client_cert: Option<PathBuf>,
    /// `sslkey`: its key.
    #[serde(
        rename = "ssl_client_key",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub client_key: Option<PathBuf>,
}

/// libpq's word for the well-known authorities.
pub const SYSTEM: &str = "system";

impl Tls {
    /// What libpq's variables say. An unknown mode there is left to others to complain about.
    pub(super) fn from_environment() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name: &str| var(name).map(PathBuf::from);
        Self {
            mode: var("PGSSLMODE").filter(|mode| mode.parse::<PgSslMode>().is_ok()),
            root_cert: path("PGSSLROOTCERT"),
            client_cert: path("PGSSLCERT"),
            client_key: path("PGSSLKEY"),
        }
    }

    /// Takes a parameter of a URL; `false`: it has nothing to do with TLS.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, AddressError> {
        match key {
            "sslmode" => {
                let known = value.parse::<PgSslMode>();
                known.map_err(|_| AddressError::SslMode(value.to_owned()))?;
                self.mode = Some(value.to_owned());
            }
            "sslrootcert" => self.root_cert = Some(value.into()),
            "sslcert" => self.client_cert = Some(value.into()),
            "sslkey" => self.client_key = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Relative paths start at `root`: test processes have other current folders than who read the configuration.
    pub(crate) fn start_at(&mut self, root: &Path) {
        let files = [
            &mut self.root_cert,
            &mut self.client_cert,
            &mut self.client_key,
        ];
        for path in files.into_iter().flatten() {
            if path.as_os_str() != SYSTEM {
                *path = root.join(&*path);
            }
        }
    }

    /// Parameter of a URL, variable of libpq, value.
    fn parts(&self) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.to_string_lossy().into_owned());
        [
            ("sslmode", "PGSSLMODE", self.mode.clone()),
            ("sslrootcert", "PGSSLROOTCERT", path(&self.root_cert)),
            ("sslcert", "PGSSLCERT", path(&self.client_cert)),
            ("sslkey", "PGSSLKEY", path(&self.client_key)),
        ]
        .into_iter()
        .filter_map(|(key, variable, value)| Some((key, variable, value?)))
    }

    /// As the query of a URL, `?` included.
    pub(super) fn query(&self) -> String {
        let parts: Vec<String> = self
            .parts()
            .map(|(key, _, value)| format!("{key}={}", encode(&value)))
            .collect();
        if parts.is_empty() {
            return String::new();
        }
        format!("?{}", parts.join("&"))
    }

    /// As libpq's variables.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.parts().map(|(_, variable, value)| (variable, value))
    }

    /// A file that is named but cannot be read. sqlx would report it as if the server were not there.
    pub(super) fn unreadable(&self) -> Option<String> {
        let files = [
            ("sslrootcert", &self.root_cert),
            ("sslcert", &self.client_cert),
            ("sslkey", &self.client_key),
        ];
        files.into_iter().find_map(|(key, path)| {
            let path = path.as_ref().filter(|p| p.as_os_str() != SYSTEM)?;
            let error = std::fs::File::open(path).err()?;
            Some(format!("cannot read `{key}={}`: {error}", path.display()))
        })
    }
}

/// What failed, where an attempt to connect failed because of TLS.
pub(super) fn failure(error: &Sqlx) -> Option<String> {
    match error {
        Sqlx::Tls(source) => Some(source.to_string()),
        // rustls reports through the socket.
        Sqlx::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => Some(io.to_string()),
        _ => None,
    }
}

/// What to do about a failure that [`failure`] found.
pub(super) fn remedy(message: &str) -> &'static str {
    const REMEDIES: &[(&str, &str)] = &[
        ("built without TLS", BUILT_WITHOUT),
        (
            "does not support TLS",
            "turn `ssl` on there, or ask for less in the URL (`sslmode=prefer`)",
        ),
        (
            "cannot read",
            "correct the path; a relative one starts at the workspace root",
        ),
        (
            "UnknownIssuer",
            "name the certificate of who signed the server's with `sslrootcert` in the URL",
        ),
        (
            "BadSignature",
            "`sslrootcert` names another certificate than the one that signed the server's",
        ),
        (
            "CaUsedAsEndEntity",
            "the server's certificate is also its own CA, which rustls refuses: sign one with a CA, or use `sslmode=require`",
        ),
        (
            "not valid for name",
            "connect by a name that the certificate has, or use `sslmode=verify-ca`",
        ),
        (
            "NotValidForName",
            "connect by a name that the certificate has, or use `sslmode=verify-ca`",
        ),
        (
            "xpired",
            "renew the server's certificate, or correct the clock",
        ),
        (
            "CertificateRequired",
            "name a certificate of yours with `sslcert` and `sslkey` in the URL",
        ),
    ];
    let found = REMEDIES.iter().find(|(part, _)| message.contains(part));
    found.map_or("see `sslmode` in the URL", |(_, remedy)| remedy)
}

const BUILT_WITHOUT: &str = "in the tests' Cargo.toml, give `kapsel-testdb` the feature `sqlx-0_9-tls-rustls`, or `sqlx-0_8-tls-rustls` (or your own sqlx a TLS \
    feature); the command line tool has it by default";

/// What to add to sqlx's own message where it refuses TLS because nobody enabled it.
pub fn hint(error: &Sqlx) -> String {
    match failure(error) {
        Some(message) => format!("; {}", remedy(&message)),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_at_the_root_unless_they_are_absolute_or_no_path() {
        let mut tls = Tls::default();
        for (value, wanted) in [
            ("ca.pem", "/w/ca.pem"),
            ("/etc/ca.pem", "/etc/ca.pem"),
            ("system", "system"),
        ] {
            assert_eq!(tls.set("sslrootcert", value).ok(), Some(true));
            tls.start_at(Path::new("/w"));
            assert_eq!(tls.root_cert, Some(PathBuf::from(wanted)));
        }
        assert_eq!(tls.set("connect_timeout", "3").ok(), Some(false));
    }

    #[test]
    fn all_that_is_asked_for_is_in_the_url_and_in_the_variables() {
        let tls = Tls {
            mode: Some("verify-full".to_owned()),
            root_cert: Some("/a b/ca.pem".into()),
            ..Tls::default()
        };
        assert_eq!(
            tls.query(),
            "?sslmode=verify-full&sslrootcert=%2Fa%20b%2Fca.pem"
        );
        let names: Vec<_> = tls.variables().map(|(name, _)| name).collect();
        assert_eq!(names, ["PGSSLMODE", "PGSSLROOTCERT"]);
        assert_eq!(Tls::default().query(), "");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let tls = Tls {
            root_cert: Some("/nowhere/ca.pem".into()),
            ..Tls::default()
        };
        let message = tls.unreadable().expect("no such file");
        assert!(message.contains("sslrootcert=/nowhere/ca.pem"), "{message}");
        assert!(remedy(&message).contains("correct the path"));
    }

    #[test]
    fn who_was_built_without_tls_is_told_the_feature() {
        let error = Sqlx::Tls("SQLx was built without TLS support enabled".into());
        assert!(
            hint(&error).contains("`sqlx-0_9-tls-rustls`"),
            "{}",
            hint(&error)
        );
        assert_eq!(hint(&Sqlx::PoolTimedOut), "");
    }
}
