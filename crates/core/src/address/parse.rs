//! Parses database URLs as libpq and sqlx do, with libpq's environment variables for the parts that a URL leaves out. What a URL asks for is
//! done, passed on to the driver, or refused: a parameter that is dropped silently can lead to another schema, or to a connection without TLS.

use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use sqlx::postgres::PgConnectOptions;
use url::Url;

use super::tls::{MODES, Tls};
use super::{Address, Host};

/// Why a database URL was rejected. No message repeats the URL, which may contain a password.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The text is not a URL.
    #[error("the database URL is not valid: {0}; expected `postgres://user@host:5432/database`")]
    Syntax(#[from] url::ParseError),
    /// The URL has the scheme of another database system.
    #[error("the database URL begins with `{0}:`; expected `postgres:` or `postgresql:`")]
    Scheme(String),
    /// The value of `sslmode` is unknown.
    #[error("the database URL has an unknown `sslmode={0}`; use {MODES}")]
    SslMode(String),
    /// A part of the URL is not UTF-8 after percent-decoding.
    #[error("the {0} in the database URL is not UTF-8; percent-encode it as UTF-8")]
    Encoding(&'static str),
    /// A part contains a character that drivers and passfiles cannot pass on.
    #[error("the {0} of the database URL contains a line break or a NUL character; remove it")]
    Control(&'static str),
    /// The URL has a fragment, which drivers drop.
    #[error("the database URL contains a `#`; write `%23` if it belongs to a name or a password")]
    Fragment,
    /// The URL names several hosts.
    #[error(
        "the database URL, or PGHOST or PGPORT, lists several hosts or ports with commas; kapsel-testdb and sqlx connect to one server: name one"
    )]
    SeveralHosts,
    /// The URL refers to a service file.
    #[error(
        "the database URL has the parameter `{0}`, but kapsel-testdb and sqlx read no service files; write the host, the port and the user into \
         the URL"
    )]
    Service(String),
    /// The URL has a parameter that neither this project nor sqlx knows.
    #[error(
        "the database URL has the parameter `{0}`, which kapsel-testdb and sqlx do not know; remove it (a setting of the server is \
         `options[name]=value`)"
    )]
    Parameter(String),
    /// The value of a parameter or of a part is not valid.
    #[error("the `{0}` in the database URL is not valid; expected {1}")]
    Value(&'static str, &'static str),
    /// The value of a variable that completes the URL is not valid.
    #[error("the value of {0}, which completes the database URL, is not valid; expected {1}")]
    Variable(&'static str, &'static str),
}

const PORT: &str = "a port from 1 to 65535";
const DEFAULT_PORT: u16 = 5432;

/// Variables with which libpq programs find or authenticate a server, and which neither we nor sqlx read.
const UNUSED: &[&str] = &[
    "PGSERVICE",
    "PGCHANNELBINDING",
    "PGREQUIREAUTH",
    "PGSSLCRL",
    "PGSSLCRLDIR",
];

/// The variables that are set and would make libpq connect elsewhere, or more strictly, than we do.
pub fn unused_variables() -> impl Iterator<Item = &'static str> {
    let is_set = |name: &&&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    UNUSED.iter().filter(is_set).copied()
}

/// The settings in `PGOPTIONS`. sqlx gives them to every session.
pub(super) fn environment_options() -> Option<String> {
    variable("PGOPTIONS")
}

/// Whether a URL contains a password. `false` if it is not valid.
pub fn has_password(text: &str) -> bool {
    read(text).is_ok_and(|(url, _)| {
        url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password")
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Address {
    /// Parses a URL into an address and the name of the database. Parts that the URL does not contain come from `PGHOST`, `PGPORT`, `PGUSER`,
    /// `PGPASSWORD`, `PGSSL…`, `PGOPTIONS` and the passfile, as with libpq.
    ///
    /// # Errors
    /// [`AddressError`] names the invalid part. It never repeats the URL, which may contain a password.
    pub fn parse(text: &str) -> Result<(Self, Option<String>), AddressError> {
        let (url, has_host) = read(text)?;
        let mut parts = Parts::of(&url, has_host)?;
        for (key, value) in url.query_pairs() {
            parts.set(&key, &value)?;
        }
        parts.complete()
    }
}

/// Parses a URL, and returns whether it names a host: [`Url`] refuses a user or a port without one, so one is inserted.
fn read(text: &str) -> Result<(Url, bool), AddressError> {
    let text = text.trim();
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    let is_ours = |s: &str| {
        ["postgres", "postgresql"]
            .iter()
            .any(|p| s.eq_ignore_ascii_case(p))
    };
    if !scheme.is_some_and(is_ours) {
        let url = Url::parse(text)?;
        return Err(AddressError::Scheme(url.scheme().to_owned()));
    }
    let start = text.find(':').map_or(0, |at| at + ":".len());
    if !text[start..].starts_with("//") {
        return Err(url::ParseError::EmptyHost.into());
    }
    let start = start + "//".len();
    let end = text[start..].find(['/', '?', '#']);
    let end = end.map_or(text.len(), |at| start + at);
    let host = text[start..end].rfind('@');
    let host = host.map_or(start, |at| start + at + 1);
    if text[host..end].contains(',') {
        return Err(AddressError::SeveralHosts);
    }
    let has_host = host < end && !text[host..end].starts_with(':');
    let url = match has_host || start == end {
        true => Url::parse(text)?,
        false => Url::parse(&format!("{}localhost{}", &text[..host], &text[host..]))?,
    };
    if url.fragment().is_some() {
        return Err(AddressError::Fragment);
    }
    Ok((url, has_host))
}

/// The parts of a URL, before the environment completes them.
#[derive(Default)]
struct Parts {
    host: Option<Host>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    tls: Tls,
    options: Vec<String>,
    statement_cache_capacity: Option<usize>,
}

impl Parts {
    fn of(url: &Url, has_host: bool) -> Result<Self, AddressError> {
        let host = url.host_str().filter(|_| has_host);
        let host = host.map(|host| decode(host, "host")).transpose()?;
        Ok(Self {
            host: host.map(|host| one_host(&host)).transpose()?,
            port: url.port().map(valid_port).transpose()?,
            user: filled(decode(url.username(), "user")?),
            password: url
                .password()
                .map(|password| decode(password, "password"))
                .transpose()?,
            database: filled(decode(url.path().trim_start_matches('/'), "database")?),
            ..Self::default()
        })
    }

    /// Sets a parameter of the query, with the names that sqlx knows.
    fn set(&mut self, key: &str, value: &str) -> Result<(), AddressError> {
        match key {
            "host" if value.is_empty() => {}
            "host" => self.host = Some(one_host(&plain(value, "host")?)?),
            "hostaddr" => {
                let ip: Result<IpAddr, _> = value.parse();
                let ip = ip.map_err(|_| AddressError::Value("hostaddr", "an IP address"))?;
                self.host = Some(Host::Tcp(ip.to_string()));
            }
            "port" if value.contains(',') => return Err(AddressError::SeveralHosts),
            "port" => {
                let port = value.parse();
                let port = port.map_err(|_| AddressError::Value("port", PORT))?;
                self.port = Some(valid_port(port)?);
            }
            "user" => self.user = filled(plain(value, "user")?),
            "password" => self.password = Some(plain(value, "password")?),
            "dbname" => self.database = filled(plain(value, "database")?),
            "options" => self.options.push(plain(value, "options")?),
            // Sessions show the name of their test instead.
            "application_name" => {}
            "statement-cache-capacity" => {
                let capacity = value.parse();
                let invalid = |_| AddressError::Value("statement-cache-capacity", "a whole number");
                self.statement_cache_capacity = Some(capacity.map_err(invalid)?);
            }
            "service" | "servicefile" => return Err(AddressError::Service(key.to_owned())),
            key if self.tls.set(key, &plain(value, "TLS parameter")?)? => {}
            key => match setting_of(key) {
                Some(name) => {
                    let setting = format!("{name}={}", plain(value, "options")?);
                    let escaped = setting.replace('\\', "\\\\").replace(' ', "\\ ");
                    self.options.push(format!("-c {escaped}"));
                }
                None => return Err(AddressError::Parameter(shown(key))),
            },
        }
        Ok(())
    }

    /// Takes what is missing from libpq's environment variables, else sqlx's defaults.
    fn complete(mut self) -> Result<(Address, Option<String>), AddressError> {
        let defaults = PgConnectOptions::new_without_pgpass();
        self.tls.complete_from_environment()?;
        let password = self.password.or_else(|| variable("PGPASSWORD"));
        let options = self.options.join(" ");
        let address = Address {
            host: match self.host {
                Some(host) => host,
                None => match defaults.get_host() {
                    "" => Host::Tcp("localhost".to_owned()),
                    host => one_host(host)?,
                },
            },
            port: match self.port {
                Some(port) => port,
                None => environment_port()?,
            },
            user: self
                .user
                .unwrap_or_else(|| defaults.get_username().to_owned()),
            tls: self.tls,
            options: filled(joined(environment_options(), &options)),
            statement_cache_capacity: self.statement_cache_capacity,
            password: password
                .map(|password| plain(&password, "password"))
                .transpose()?,
        };
        Ok((address, self.database))
    }
}

/// The setting in `options[name]`.
fn setting_of(key: &str) -> Option<&str> {
    let name = key.strip_prefix("options[")?.strip_suffix(']')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (!name.is_empty() && name.chars().all(is_name)).then_some(name)
}

/// The name of an unknown parameter. A URL with a `?` in its password can have a part of the password there.
fn shown(key: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-[]".contains(c);
    match key.chars().all(is_name) {
        true => key.to_owned(),
        false => "…".to_owned(),
    }
}

/// The settings of `PGOPTIONS`, then those of a URL. A URL that we exported begins with the former.
fn joined(environment: Option<String>, url: &str) -> String {
    let Some(environment) = environment else {
        return url.to_owned();
    };
    match url.strip_prefix(&environment) {
        Some(rest) if rest.is_empty() || rest.starts_with(' ') => url.to_owned(),
        _ if url.is_empty() => environment,
        _ => format!("{environment} {url}"),
    }
}

fn environment_port() -> Result<u16, AddressError> {
    let Some(text) = variable("PGPORT") else {
        return Ok(DEFAULT_PORT);
    };
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or(AddressError::Variable("PGPORT", PORT))
}

fn valid_port(port: u16) -> Result<u16, AddressError> {
    match port {
        0 => Err(AddressError::Value("port", PORT)),
        port => Ok(port),
    }
}

fn one_host(text: &str) -> Result<Host, AddressError> {
    if text.starts_with('/') {
        return Ok(Host::Socket(text.into()));
    }
    if text.contains(',') {
        return Err(AddressError::SeveralHosts);
    }
    Ok(Host::Tcp(text.trim_matches(['[', ']']).to_owned()))
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn decode(text: &str, part: &'static str) -> Result<String, AddressError> {
    let decoded = percent_decode_str(text).decode_utf8();
    plain(&decoded.map_err(|_| AddressError::Encoding(part))?, part)
}

fn plain(text: &str, part: &'static str) -> Result<String, AddressError> {
    match text.contains(['\0', '\n', '\r']) {
        true => Err(AddressError::Control(part)),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Address {
        match Address::parse(text) {
            Ok((address, _)) => address,
            Err(error) => panic!("{text}: {error}"),
        }
    }

    fn refused(text: &str) -> String {
        Address::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn bad_urls_name_the_part_and_never_repeat_the_password() {
        for (url, part) in [
            ("mysql://me:hunter2@h/d", "`mysql:`"),
            ("mysql://me:hunter2@a,b/d", "`mysql:`"),
            ("postgres:me:hunter2@h/d", "empty host"),
            ("postgres://me:hunter2@h:99999/d", "port"),
            ("postgres://me:hunter2@h:0/d", "`port`"),
            ("postgres://me:hunter2@h/d?port=x", "`port`"),
            ("postgres://me:hunter2@h/d?port=", "`port`"),
            ("postgres://me:hunter2@h/d?port=70000", "`port`"),
            ("postgres://me:hunter2@h/d?port=1,2", "several hosts"),
            ("postgres://me:hunter2@a,b/d", "several hosts"),
            ("postgres://me:hunter2@a:1,b:2/d", "several hosts"),
            ("postgres://me:hunter2@h/d?host=a,b", "several hosts"),
            ("postgres://me:hunter2@h/d?hostaddr=h", "`hostaddr`"),
            ("postgres://me:hunter2@h/d?sslmode=maybe", "`sslmode=maybe`"),
            (
                "postgres://me:hunter2@h/d?ssl-mode=maybe",
                "`sslmode=maybe`",
            ),
            ("postgres://me:hunter2@h/d?schema=app", "`schema`"),
            ("postgres://me:hunter2@h/d?sslmod=require", "`sslmod`"),
            ("postgres://me:hunter2@h/d?options[a=1", "`options[a`"),
            ("postgres://me:hunter2@h/d?service=x", "`service`"),
            ("postgres://me@h/d?sslpassword=hunter2", "`sslpassword`"),
            (
                "postgres://me:hunter2@h/d?statement-cache-capacity=-1",
                "`statement-cache-capacity`",
            ),
            ("postgres://me:hunter2@h/d#x", "`%23`"),
            ("postgres://me:hunter2%0A@h/d", "password"),
            ("postgres://me:5?hunter2@h/d", "`…`"),
            ("hunter2", "not valid"),
        ] {
            let message = refused(url);
            assert!(message.contains(part), "{url}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn a_url_may_leave_out_its_host() {
        for url in [
            "postgres://me@/d?host=/tmp",
            "postgres:///d?host=/tmp&user=me",
            "postgres://me@other/d?host=/tmp",
        ] {
            let address = parse(url);
            assert_eq!(address.host, Host::Socket("/tmp".into()), "{url}");
            assert_eq!(address.user, "me", "{url}");
        }
        let address = parse("postgres://me:pw@:6000/d");
        assert_eq!((address.port, &*address.user), (6000, "me"));
        assert_eq!(parse("postgres://:6000/d").port, 6000);
        assert_eq!(
            parse("postgres://me@[::1]:6000/d").host,
            Host::Tcp("::1".to_owned())
        );
    }

    #[test]
    fn the_names_of_sqlx_mean_the_same_as_those_of_libpq() {
        let libpq = "sslmode=verify-full&sslrootcert=/a&sslcert=/b&sslkey=/c";
        for sqlx in [
            "ssl-mode=verify-full&ssl-root-cert=/a&ssl-cert=/b&ssl-key=/c",
            "ssl-mode=verify-full&ssl-ca=/a&ssl-cert=/b&ssl-key=/c",
        ] {
            let of = |query: &str| parse(&format!("postgres://me@h/d?{query}"));
            assert_eq!(of(sqlx), of(libpq));
        }
    }

    #[test]
    fn settings_of_sessions_are_collected_in_their_order() {
        let options = |query: &str| parse(&format!("postgres://me@h/d?{query}")).options;
        let expected = r"-c search_path=a,\ b -c work_mem=1MB";
        assert_eq!(
            options("options[search_path]=a,%20b&options=-c%20work_mem%3D1MB").as_deref(),
            Some(expected)
        );
        assert_eq!(options("application_name=x"), None);
    }

    #[test]
    fn settings_of_an_exported_url_are_not_repeated() {
        for (environment, url, expected) in [
            (None, "-c a=1", "-c a=1"),
            (Some("-c a=1"), "", "-c a=1"),
            (Some("-c a=1"), "-c b=2", "-c a=1 -c b=2"),
            (Some("-c a=1"), "-c a=12", "-c a=1 -c a=12"),
            (Some("-c a=1"), "-c a=1 -c b=2", "-c a=1 -c b=2"),
            (Some("-c a=1"), "-c a=1", "-c a=1"),
        ] {
            assert_eq!(joined(environment.map(str::to_owned), url), expected);
        }
    }

    #[test]
    fn a_password_is_found_wherever_a_url_has_it() {
        for (url, found) in [
            ("postgres://me:pw@h/d", true),
            ("postgres://me@h/d?password=pw", true),
            ("postgres://me:pw@/d?host=/tmp", true),
            ("postgres://me@h/d", false),
        ] {
            assert_eq!(has_password(url), found, "{url}");
        }
    }
}
