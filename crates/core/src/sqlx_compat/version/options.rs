//! Complete connect options for a database, from an address.

use super::sqlx::postgres::{PgConnectOptions, PgSslMode};
use crate::address::tls::{SYSTEM, Tls};
use crate::address::{Address, Host};

/// See [`Address::options`].
pub fn of(address: &Address, database: &str) -> PgConnectOptions {
    // Parsed from the URL, so that sqlx searches the user's passfile for this server.
    let parsed: Result<PgConnectOptions, _> = address.url(database).parse();
    let mut options = parsed.unwrap_or_else(|_| at_unusual_host(address, database));
    // Poolers reject sqlx's default, 2, and it has no effect: since PostgreSQL 12 the server's default is exact.
    options = options.extra_float_digits(None);
    options = match &address.host {
        Host::Tcp(_) => with_tls(&address.tls, options),
        // As with libpq; a request for TLS would cost a round trip.
        Host::Socket(_) => options.ssl_mode(PgSslMode::Disable),
    };
    match &address.password {
        Some(password) => options.password(password),
        None => options,
    }
}

/// For a host that a URL cannot contain: everything but the host, and the password of another host, comes from a URL.
fn at_unusual_host(address: &Address, database: &str) -> PgConnectOptions {
    let elsewhere = Address {
        host: Host::Tcp("localhost".to_owned()),
        ..address.clone()
    };
    let parsed: Result<PgConnectOptions, _> = elsewhere.url(database).parse();
    let options = parsed.unwrap_or_else(|_| PgConnectOptions::new_without_pgpass());
    let options = options.password("");
    match &address.host {
        Host::Tcp(host) => options.host(host),
        Host::Socket(directory) => options.socket(directory),
    }
}

fn with_tls(tls: &Tls, mut options: PgConnectOptions) -> PgConnectOptions {
    if let Some(Ok(mode)) = tls.mode.as_deref().map(str::parse) {
        options = options.ssl_mode(mode);
    }
    if let Some(path) = tls.root_cert.as_ref().filter(|p| p.as_os_str() != SYSTEM) {
        options = options.ssl_root_cert(path);
    }
    if let Some(path) = &tls.client_cert {
        options = options.ssl_client_cert(path);
    }
    match &tls.client_key {
        Some(path) => options.ssl_client_key(path),
        None => options,
    }
}
