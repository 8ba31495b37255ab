//! Address of a server and the login for it. A password leaves this type only into a driver's options, a URL for a driver, or a passfile.

mod parse;
mod passfile;
pub mod tls;

use std::fmt;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

pub use parse::{AddressError, has_password, unused_variables};
use tls::Tls;

const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A host name or the directory of a unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Host {
    /// Host name or IP address, reached over TCP.
    Tcp(String),
    /// Directory of a unix socket.
    Socket(PathBuf),
}

/// A server's address and the role to log in as.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Host or socket directory.
    pub host: Host,
    /// TCP port, or the number in the socket's name.
    pub port: u16,
    /// Role to log in as.
    pub user: String,
    /// TLS parameters.
    #[serde(flatten)]
    pub tls: Tls,
    /// The settings that every session starts with, as libpq's `options`: those of `PGOPTIONS`, then those of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
    /// How many prepared statements sqlx caches per connection. Only sqlx knows this parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_cache_capacity: Option<usize>,
    /// Never serialized: it is stored in a passfile.
    #[serde(skip)]
    pub password: Option<String>,
}

impl Address {
    /// The address of a server that listens on a unix socket in `directory`, without password.
    pub fn socket(directory: PathBuf, port: u16, user: &str) -> Self {
        Self::at(Host::Socket(directory), port, user)
    }

    /// The address of a server that is reached over TCP, without TLS parameters and password.
    pub fn tcp(host: String, port: u16, user: &str) -> Self {
        Self::at(Host::Tcp(host), port, user)
    }

    fn at(host: Host, port: u16, user: &str) -> Self {
        Self {
            host,
            port,
            user: user.to_owned(),
            tls: Tls::default(),
            options: parse::environment_options(),
            statement_cache_capacity: None,
            password: None,
        }
    }

    /// The URL of a database without the password, for output and for drivers that read the passfile.
    pub fn url(&self, database: &str) -> String {
        let capacity = self.statement_cache_capacity.map(|n| n.to_string());
        let capacity = capacity.map(|n| ("statement-cache-capacity", n));
        self.url_with("", database, capacity)
    }

    /// The URL of a database with the password, for a driver other than sqlx that cannot read a passfile. Never print it.
    pub fn url_with_password(&self, database: &str) -> String {
        self.url_for_driver(database, None)
    }

    /// [`Self::url_with_password`] with an `application_name`, which sessions show in `pg_stat_activity`.
    pub fn driver_url(&self, database: &str, application: &str) -> String {
        let application = ("application_name", application.to_owned());
        self.url_for_driver(database, Some(application))
    }

    fn url_for_driver(
        &self,
        database: &str,
        application: Option<(&'static str, String)>,
    ) -> String {
        let password = self
            .password
            .as_deref()
            .map(|p| format!(":{}", encode(p)))
            .unwrap_or_default();
        self.url_with(&password, database, application)
    }

    fn url_with(
        &self,
        password: &str,
        database: &str,
        more: Option<(&'static str, String)>,
    ) -> String {
        let user = encode(&self.user);
        let host = match &self.host {
            Host::Tcp(host) if host.contains(':') => format!("[{host}]"),
            Host::Tcp(host) => host.clone(),
            Host::Socket(directory) => encode(&directory.to_string_lossy()),
        };
        let (port, database) = (self.port, encode(database));
        let mut url = format!("postgres://{user}{password}@{host}:{port}/{database}");
        let options = self.options.clone().map(|options| ("options", options));
        let parameters = self.tls().into_iter().flat_map(Tls::parameters);
        for (n, (key, value)) in parameters.chain(options).chain(more).enumerate() {
            url.push(if n == 0 { '?' } else { '&' });
            url.push_str(&format!("{key}={}", encode(&value)));
        }
        url
    }

    /// The TLS parameters, if they count.
    fn tls(&self) -> Option<&Tls> {
        match self.host {
            Host::Tcp(_) => Some(&self.tls),
            Host::Socket(_) => None,
        }
    }

    /// An error message if the connection uses a TLS file that cannot be read.
    pub fn unreadable_tls_file(&self) -> Option<String> {
        self.tls()?.unreadable_file()
    }

    /// Whether both addresses have the same [`Self::endpoint`].
    pub fn is_same_server(&self, other: &Self) -> bool {
        self.endpoint() == other.endpoint()
    }

    /// Host and port, without the login. All names of the loopback interface give `localhost`.
    pub fn endpoint(&self) -> String {
        match &self.host {
            Host::Socket(directory) => format!("{}:{}", directory.display(), self.port),
            Host::Tcp(_) if self.is_local() => format!("localhost:{}", self.port),
            Host::Tcp(host) => format!("{host}:{}", self.port),
        }
    }

    /// Whether the server is on this machine: a unix socket or a loopback address.
    pub fn is_local(&self) -> bool {
        match &self.host {
            Host::Socket(_) => true,
            Host::Tcp(host) => {
                host == "localhost"
                    || host
                        .parse::<std::net::IpAddr>()
                        .is_ok_and(|ip| ip.is_loopback())
            }
        }
    }

    /// The `PG*` variables with which libpq programs connect to a database here, without the password.
    pub fn libpq_variables(&self, database: &str) -> Vec<(&'static str, String)> {
        let host = match &self.host {
            Host::Tcp(host) => host.clone(),
            Host::Socket(directory) => directory.to_string_lossy().into_owned(),
        };
        let mut variables = vec![
            ("PGHOST", host),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", self.user.clone()),
            ("PGDATABASE", database.to_owned()),
        ];
        variables.extend(self.tls().into_iter().flat_map(Tls::variables));
        variables.extend(self.options.clone().map(|options| ("PGOPTIONS", options)));
        variables
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(host) => write!(f, "{}@{host}:{}", self.user, self.port),
            Host::Socket(directory) => {
                write!(f, "{}@{}:{}", self.user, directory.display(), self.port)
            }
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Percent-encodes a component of a URL.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, COMPONENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Address, Option<String>) {
        Address::parse(text).expect("a valid URL")
    }

    #[test]
    fn a_full_url_is_parsed_and_printed_without_its_password() {
        let (address, database) =
            parse("postgres://me:s%40crt@db.example:6000/app?sslmode=require");
        assert_eq!(database.as_deref(), Some("app"));
        assert_eq!(address.password.as_deref(), Some("s@crt"));
        assert_eq!(
            address.url("x"),
            "postgres://me@db.example:6000/x?sslmode=require"
        );
        assert_eq!(
            address.url_with_password("x"),
            "postgres://me:s%40crt@db.example:6000/x?sslmode=require"
        );
        assert!(!format!("{address:?} {address}").contains("crt"));
        assert!(!address.is_local());
    }

    #[test]
    fn socket_urls_parse_in_both_forms_and_round_trip() {
        let (one, _) = parse("postgres://me@%2Fvar%2Frun:5433/app");
        let (two, _) = parse("postgresql://me@localhost:5433/app?host=/var/run");
        assert_eq!(one.host, Host::Socket("/var/run".into()));
        assert_eq!(one.host, two.host);
        assert_eq!(parse(&one.url("app")).0.host, one.host);
        assert!(one.is_local());
    }

    #[test]
    fn loopback_is_local_and_a_service_container_is_not() {
        for (url, local) in [
            ("postgres://u@localhost/d", true),
            ("postgres://u@127.0.0.9/d", true),
            ("postgres://u@[::1]/d", true),
            ("postgres://u@postgres/d", false),
            ("postgres://u@10.0.0.1/d", false),
            ("postgres://u@localhost.example.org/d", false),
        ] {
            assert_eq!(parse(url).0.is_local(), local, "{url}");
        }
    }

    #[test]
    fn settings_of_sessions_are_in_urls_and_in_variables() {
        let (address, _) =
            parse("postgres://me@h/d?options[search_path]=a&statement-cache-capacity=0");
        let options = "options=-c%20search_path%3Da";
        let url = format!("postgres://me@h:5432/x?{options}");
        assert_eq!(address.url_with_password("x"), url);
        assert_eq!(
            address.url("x"),
            format!("{url}&statement-cache-capacity=0")
        );
        assert_eq!(parse(&address.url("x")).0, address);
        let variable = ("PGOPTIONS", "-c search_path=a".to_owned());
        assert_eq!(address.libpq_variables("x").last(), Some(&variable));
    }
}
