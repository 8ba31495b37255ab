//! Address of a server and the login for it. A password leaves this type only into a driver's options, a URL for a driver, or a passfile.

pub mod tls;

use std::fmt;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;
use url::Url;

use tls::Tls;

const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Why a database URL was rejected.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The text is not a URL.
    #[error("the database URL is not valid: {0}; expected `postgres://user@host:5432/database`")]
    Syntax(#[from] url::ParseError),
    /// The URL has the scheme of another database system.
    #[error("the database URL begins with `{0}:`; expected `postgres:` or `postgresql:`")]
    Scheme(String),
    /// The value of `sslmode` is unknown.
    #[error(
        "the database URL has an unknown `sslmode={0}`; use `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`"
    )]
    SslMode(String),
    /// A part of the URL is not UTF-8 after percent-decoding.
    #[error("the {0} in the database URL is not UTF-8; percent-encode it as UTF-8")]
    Encoding(&'static str),
}

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
    /// Never serialized: it is stored in a passfile.
    #[serde(skip)]
    pub password: Option<String>,
}

impl Address {
    /// Parses a URL into an address and the name of the database. Parts that the URL does not contain come from `PGHOST`, `PGPORT`, `PGUSER`,
    /// `PGPASSWORD` and the passfile, as with libpq.
    ///
    /// # Errors
    /// [`AddressError`] names the invalid part. It never repeats the URL, which may contain a password.
    pub fn parse(text: &str) -> Result<(Self, Option<String>), AddressError> {
        let url = Url::parse(text)?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(AddressError::Scheme(url.scheme().to_owned()));
        }
        let mut address = Self::from_environment();
        if let Some(host) = url.host_str().filter(|h| !h.is_empty()) {
            address.host = parse_host(&decode(host, "host")?);
        }
        address.port = url.port().unwrap_or(address.port);
        if !url.username().is_empty() {
            address.user = decode(url.username(), "user")?;
        }
        if let Some(password) = url.password() {
            address.password = Some(decode(password, "password")?);
        }
        let mut database = decode(url.path().trim_start_matches('/'), "database")?;
        for (key, value) in url.query_pairs() {
            match &*key {
                "host" | "hostaddr" => address.host = parse_host(&value),
                "port" => address.port = value.parse().unwrap_or(address.port),
                "user" => address.user = value.into_owned(),
                "password" => address.password = Some(value.into_owned()),
                "dbname" => database = value.into_owned(),
                key if address.tls.set(key, &value)? => {}
                key => tracing::debug!(parameter = key, "ignored a parameter of the database URL"),
            }
        }
        Ok((address, Some(database).filter(|d| !d.is_empty())))
    }

    /// The address from libpq's environment variables, with sqlx's defaults.
    fn from_environment() -> Self {
        let options = PgConnectOptions::new_without_pgpass();
        Self {
            host: parse_host(options.get_host()),
            port: options.get_port(),
            user: options.get_username().to_owned(),
            tls: Tls::from_environment(),
            password: std::env::var("PGPASSWORD").ok(),
        }
    }

    /// The address of a server that listens on a unix socket in `directory`, without password.
    pub fn socket(directory: PathBuf, port: u16, user: &str) -> Self {
        Self {
            host: Host::Socket(directory),
            port,
            user: user.to_owned(),
            tls: Tls::default(),
            password: None,
        }
    }

    /// The URL of a database without the password, for output and for drivers that read the passfile.
    pub fn url(&self, database: &str) -> String {
        self.url_with("", database)
    }

    /// The URL of a database with the password, for a driver that cannot read a passfile. Never print it.
    pub fn url_with_password(&self, database: &str) -> String {
        let password = self
            .password
            .as_deref()
            .map(|p| format!(":{}", encode(p)))
            .unwrap_or_default();
        self.url_with(&password, database)
    }

    /// [`Self::url_with_password`] with an `application_name`, which sessions show in `pg_stat_activity`.
    pub fn driver_url(&self, database: &str, application: &str) -> String {
        let url = self.url_with_password(database);
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}application_name={}", encode(application))
    }

    fn url_with(&self, password: &str, database: &str) -> String {
        let user = encode(&self.user);
        let database = encode(database);
        let port = self.port;
        let tls = self.tls.query();
        match &self.host {
            Host::Tcp(host) if host.contains(':') => {
                format!("postgres://{user}{password}@[{host}]:{port}/{database}{tls}")
            }
            Host::Tcp(host) => {
                format!("postgres://{user}{password}@{host}:{port}/{database}{tls}")
            }
            Host::Socket(directory) => {
                let directory = encode(&directory.to_string_lossy());
                format!("postgres://{user}{password}@{directory}:{port}/{database}")
            }
        }
    }

    /// An error message if the connection uses a TLS file that cannot be read.
    pub fn unreadable_tls_file(&self) -> Option<String> {
        match self.host {
            Host::Tcp(_) => self.tls.unreadable_file(),
            Host::Socket(_) => None,
        }
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
        if matches!(self.host, Host::Tcp(_)) {
            variables.extend(self.tls.variables());
        }
        variables
    }

    /// The line of a passfile that holds the password for every database of the server.
    pub fn passfile_line(&self) -> Option<String> {
        let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
        let password = self.password.as_deref()?;
        Some(format!(
            "*:{}:*:{}:{}\n",
            self.port,
            escape(&self.user),
            escape(password)
        ))
    }

    /// Reads the password from a line that [`Self::passfile_line`] wrote.
    pub fn read_passfile_line(line: &str) -> Option<String> {
        let mut password = String::new();
        let (mut field, mut escaped) = (0, false);
        for c in line.trim_end_matches('\n').chars() {
            match c {
                '\\' if !escaped => escaped = true,
                ':' if !escaped && field < 4 => field += 1,
                _ => {
                    escaped = false;
                    if field == 4 {
                        password.push(c);
                    }
                }
            }
        }
        (field == 4).then_some(password)
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

fn parse_host(text: &str) -> Host {
    if text.starts_with('/') {
        Host::Socket(text.into())
    } else {
        Host::Tcp(text.trim_matches(['[', ']']).to_owned())
    }
}

fn decode(text: &str, part: &'static str) -> Result<String, AddressError> {
    percent_decode_str(text)
        .decode_utf8()
        .map(|t| t.into_owned())
        .map_err(|_| AddressError::Encoding(part))
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
    fn bad_urls_name_the_part_and_never_repeat_the_password() {
        for url in [
            "mysql://me:hunter2@h/d",
            "postgres://me:hunter2@h:99999/d",
            "postgres://me:hunter2@h/d?sslmode=maybe",
            "hunter2",
        ] {
            let message = Address::parse(url).expect_err("a bad URL").to_string();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn a_passfile_line_round_trips_the_password() {
        for password in ["plain", "with:colon", "back\\slash", "both\\:", ""] {
            let (mut address, _) = parse("postgres://a%3Ab@h/d");
            address.password = Some(password.to_owned());
            let line = address.passfile_line().expect("there is a password");
            assert_eq!(
                Address::read_passfile_line(&line).as_deref(),
                Some(password)
            );
        }
        assert_eq!(Address::read_passfile_line("garbage"), None);
    }
}
