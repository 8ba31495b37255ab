//! TLS parameters from a URL or libpq's variables, and remedies for TLS failures.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sqlx::Error as Sqlx;
use sqlx::postgres::PgSslMode;

use crate::address::AddressError;

/// TLS parameters of a connection. Connections over a unix socket ignore them, as with libpq.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// `sslmode`; by default, TLS is used if both sides support it.
    #[serde(rename = "ssl_mode", default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `sslrootcert`: file with the certificate authorities, or [`SYSTEM`].
    #[serde(
        rename = "ssl_root_cert",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub root_cert: Option<PathBuf>,
    /// `sslcert`: file with the client certificate.
    #[serde(
        rename = "ssl_client_cert",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub client_cert: Option<PathBuf>,
    /// `sslkey`: file with the key of the client certificate.
    #[serde(
        rename = "ssl_client_key",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub client_key: Option<PathBuf>,
}

/// Value of `sslrootcert` with which libpq uses the system's certificate authorities.
pub const SYSTEM: &str = "system";

/// The values of `sslmode`.
pub(super) const MODES: &str =
    "`disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`";

impl Tls {
    /// Takes the parameters that are not set from libpq's environment variables.
    ///
    /// # Errors
    /// [`AddressError::Variable`] for an unknown mode: without it, the connection could be unencrypted.
    pub fn complete_from_environment(&mut self) -> Result<(), AddressError> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name: &str| var(name).map(PathBuf::from);
        if let (None, Some(mode)) = (&self.mode, var("PGSSLMODE")) {
            if mode.parse::<PgSslMode>().is_err() {
                return Err(AddressError::Variable("PGSSLMODE", MODES));
            }
            self.mode = Some(mode);
        }
        self.root_cert = self.root_cert.take().or_else(|| path("PGSSLROOTCERT"));
        self.client_cert = self.client_cert.take().or_else(|| path("PGSSLCERT"));
        self.client_key = self.client_key.take().or_else(|| path("PGSSLKEY"));
        Ok(())
    }

    /// Sets a parameter of a URL, by libpq's name or one of sqlx's. Returns `false` if it is not a TLS parameter.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, AddressError> {
        match key {
            "sslmode" | "ssl-mode" => {
                let known = value.parse::<PgSslMode>();
                known.map_err(|_| AddressError::SslMode(value.to_owned()))?;
                self.mode = Some(value.to_owned());
            }
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => self.root_cert = Some(value.into()),
            "sslcert" | "ssl-cert" => self.client_cert = Some(value.into()),
            "sslkey" | "ssl-key" => self.client_key = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Resolves relative paths against `root`, because test processes have other working directories.
    pub fn resolve_paths(&mut self, root: &Path) {
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

    /// The parameters that are set: URL parameter, libpq variable, value.
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

    /// The parameters as those of a URL.
    pub fn parameters(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.parts().map(|(key, _, value)| (key, value))
    }

    /// The parameters as libpq variables.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.parts().map(|(_, variable, value)| (variable, value))
    }

    /// An error message if a file cannot be read. sqlx would report it like an unreachable server.
    pub fn unreadable_file(&self) -> Option<String> {
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

/// The message of a TLS failure, if the attempt to connect failed because of TLS.
pub fn failure(error: &Sqlx) -> Option<String> {
    match error {
        Sqlx::Tls(source) => Some(source.to_string()),
        // rustls reports through the socket.
        Sqlx::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => Some(io.to_string()),
        _ => None,
    }
}

/// The remedy for a message from [`failure`].
pub fn remedy(message: &str) -> &'static str {
    const REMEDIES: &[(&str, &str)] = &[
        ("built without TLS", BUILT_WITHOUT),
        (
            "does not support TLS",
            "enable `ssl` on the server, or require less in the URL (`sslmode=prefer`)",
        ),
        (
            "cannot read",
            "correct the path; relative paths start at the workspace root",
        ),
        (
            "UnknownIssuer",
            "set `sslrootcert` in the URL to the CA certificate that signed the server's certificate",
        ),
        (
            "BadSignature",
            "the certificate in `sslrootcert` did not sign the server's certificate: correct `sslrootcert`",
        ),
        (
            "CaUsedAsEndEntity",
            "the server's certificate is its own CA, which rustls rejects: use a certificate signed by a CA, or `sslmode=require`",
        ),
        (
            "not valid for name",
            "connect by a host name that the certificate contains, or use `sslmode=verify-ca`",
        ),
        (
            "NotValidForName",
            "connect by a host name that the certificate contains, or use `sslmode=verify-ca`",
        ),
        (
            "xpired",
            "renew the server's certificate, or correct the clock",
        ),
        (
            "CertificateRequired",
            "set `sslcert` and `sslkey` in the URL to a client certificate and its key",
        ),
    ];
    let found = REMEDIES.iter().find(|(part, _)| message.contains(part));
    found.map_or("check `sslmode` in the URL", |(_, remedy)| remedy)
}

const BUILT_WITHOUT: &str = "in the tests' Cargo.toml, enable the feature `sqlx-0_9-tls-rustls` or `sqlx-0_8-tls-rustls` of `kapsel-testdb` (or a TLS feature of \
    your own sqlx); the command `kapsel-testdb` has TLS by default";

/// The remedy to append to sqlx's message; empty if the error is not about TLS.
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
    fn relative_paths_start_at_the_root() {
        let mut tls = Tls::default();
        for (value, wanted) in [
            ("ca.pem", "/w/ca.pem"),
            ("/etc/ca.pem", "/etc/ca.pem"),
            ("system", "system"),
        ] {
            assert_eq!(tls.set("sslrootcert", value).ok(), Some(true));
            tls.resolve_paths(Path::new("/w"));
            assert_eq!(tls.root_cert, Some(PathBuf::from(wanted)));
        }
        assert_eq!(tls.set("connect_timeout", "3").ok(), Some(false));
    }

    #[test]
    fn parameters_are_in_the_url_and_in_the_variables() {
        let tls = Tls {
            mode: Some("verify-full".to_owned()),
            root_cert: Some("/a b/ca.pem".into()),
            ..Tls::default()
        };
        let names: Vec<_> = tls.parameters().map(|(name, _)| name).collect();
        assert_eq!(names, ["sslmode", "sslrootcert"]);
        let names: Vec<_> = tls.variables().map(|(name, _)| name).collect();
        assert_eq!(names, ["PGSSLMODE", "PGSSLROOTCERT"]);
        assert_eq!(Tls::default().parameters().count(), 0);
    }

    #[test]
    fn a_missing_file_is_named() {
        let tls = Tls {
            root_cert: Some("/nowhere/ca.pem".into()),
            ..Tls::default()
        };
        let message = tls.unreadable_file().expect("no such file");
        assert!(message.contains("sslrootcert=/nowhere/ca.pem"), "{message}");
        assert!(remedy(&message).contains("correct the path"));
    }

    #[test]
    fn a_build_without_tls_names_the_feature() {
        let error = Sqlx::Tls("SQLx was built without TLS support enabled".into());
        assert!(
            hint(&error).contains("`sqlx-0_9-tls-rustls`"),
            "{}",
            hint(&error)
        );
        assert_eq!(hint(&Sqlx::PoolTimedOut), "");
    }
}
