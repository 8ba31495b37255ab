//! The address of a test's database, for drivers other than sqlx.

use std::fmt;
use std::path::Path;

use kapsel_testdb_core::address::{Address, Host};

use crate::arguments::Arguments;
use crate::sqlx_compat::{InternalSqlx, Version};
use crate::{TestDb, TestDbError};

/// Everything that another driver needs to connect to a test's database. A test gets it as a parameter, or from [`TestDb::config`].
///
/// ```no_run
/// #[kapsel_testdb::test]
/// fn a_tenant_has_a_name(db: kapsel_testdb::DatabaseConfig) {
///     // tokio-postgres: `db.dsn().parse::<tokio_postgres::Config>()`
///     // diesel: `PgConnection::establish(&db.url())`
///     println!("{db:?}"); // without the password
/// }
/// # fn main() {}
/// ```
///
/// The lease keeps one connection open, which marks the database as in use. The parts are those of the server's URL in the configuration.
/// A password that is only in your passfile is not included, because libpq reads that file itself.
#[derive(Clone)]
pub struct DatabaseConfig {
    address: Address,
    database: String,
    application: String,
}

impl DatabaseConfig {
    /// The host name or IP address, if the server is reached over TCP.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// let host = db.host().unwrap_or("localhost");
    /// # }
    /// ```
    pub fn host(&self) -> Option<&str> {
        match &self.address.host {
            Host::Tcp(host) => Some(host),
            Host::Socket(_) => None,
        }
    }

    /// The directory of the unix socket, if the server is reached through one.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// if let Some(directory) = db.socket_folder() {
    ///     println!("{}/.s.PGSQL.{}", directory.display(), db.port());
    /// }
    /// # }
    /// ```
    pub fn socket_folder(&self) -> Option<&Path> {
        match &self.address.host {
            Host::Tcp(_) => None,
            Host::Socket(directory) => Some(directory),
        }
    }

    /// The TCP port. With a unix socket, the number in the name of the socket file.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// assert_ne!(db.port(), 0);
    /// # }
    /// ```
    pub fn port(&self) -> u16 {
        self.address.port
    }

    /// The role that logs in.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// println!("logs in as {}", db.user());
    /// # }
    /// ```
    pub fn user(&self) -> &str {
        &self.address.user
    }

    /// The role's password, if one is known. Do not print it.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// let variable = db.password().map(|password| ("PGPASSWORD", password.to_owned()));
    /// # }
    /// ```
    pub fn password(&self) -> Option<&str> {
        self.address.password.as_deref()
    }

    /// The database's name.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// println!("psql -d {}", db.database());
    /// # }
    /// ```
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The test's name, at most 63 bytes of printable ASCII. It is the `application_name` of sessions in `pg_stat_activity`.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// let sessions = format!("SELECT * FROM pg_stat_activity WHERE application_name = '{}'", db.application_name());
    /// # }
    /// ```
    pub fn application_name(&self) -> &str {
        &self.application
    }

    /// libpq's `sslmode`. `None` means that TLS is used if both sides support it. A unix socket uses no TLS.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// let verified = matches!(db.ssl_mode(), Some("verify-ca" | "verify-full"));
    /// # }
    /// ```
    pub fn ssl_mode(&self) -> Option<&str> {
        self.address.tls.mode.as_deref()
    }

    /// libpq's `sslrootcert`: the file with the authorities that sign the server's certificate, or `system` for those of the operating
    /// system.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// let authority = db.ssl_root_cert().map(std::fs::read).transpose();
    /// # }
    /// ```
    pub fn ssl_root_cert(&self) -> Option<&Path> {
        self.address.tls.root_cert.as_deref()
    }

    /// libpq's `sslcert`: the file with the client's certificate.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// let identity = db.ssl_client_cert().zip(db.ssl_client_key());
    /// # }
    /// ```
    pub fn ssl_client_cert(&self) -> Option<&Path> {
        self.address.tls.client_cert.as_deref()
    }

    /// libpq's `sslkey`: the file with the private key of the client's certificate.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// let identity = db.ssl_client_cert().zip(db.ssl_client_key());
    /// # }
    /// ```
    pub fn ssl_client_key(&self) -> Option<&Path> {
        self.address.tls.client_key.as_deref()
    }

    /// The settings that every session starts with, as libpq's `options`: those of `PGOPTIONS`, then those of the server's URL.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// let sets_search_path = db.options().is_some_and(|options| options.contains("search_path"));
    /// # }
    /// ```
    pub fn options(&self) -> Option<&str> {
        self.address.options.as_deref()
    }

    /// A URL with all parts, including the password. Do not print it, and do not pass it as an argument.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// std::process::Command::new("my-server").env("DATABASE_URL", db.url());
    /// # }
    /// ```
    pub fn url(&self) -> String {
        self.address.driver_url(&self.database, &self.application)
    }

    /// libpq's keywords and values (`host='…' port='…' …`), including the password. Most drivers accept them. Do not print it, and do not
    /// pass it as an argument: every user of the machine can read the arguments of a process.
    ///
    /// ```no_run
    /// # fn example(db: kapsel_testdb::DatabaseConfig) {
    /// std::process::Command::new("my-server").env("DATABASE_DSN", db.dsn());
    /// # }
    /// ```
    pub fn dsn(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        let mut push = |key: &str, value: &str| {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            words.push(format!("{key}='{value}'"));
        };
        for (variable, value) in self.address.libpq_variables(&self.database) {
            let key = variable.trim_start_matches("PG").to_ascii_lowercase();
            push(if key == "database" { "dbname" } else { &key }, &value);
        }
        if let Some(password) = self.password() {
            push("password", password);
        }
        push("application_name", &self.application);
        words.join(" ")
    }
}

/// Prints the URL without the password.
impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatabaseConfig")
            .field(&self.address.url(&self.database))
            .finish()
    }
}

impl Arguments for DatabaseConfig {
    type Version = InternalSqlx;

    async fn on(databases: &[TestDb]) -> Result<Self, TestDbError> {
        Ok(databases[0].config())
    }
}

impl<V: Version> TestDb<V> {
    /// Everything that another driver needs to connect to the database.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDb::lease().await?;
    /// println!("{:?}: port {}", db.config(), db.config().port());
    /// # Ok(())
    /// # }
    /// ```
    pub fn config(&self) -> DatabaseConfig {
        DatabaseConfig {
            address: self.session.file.server.clone(),
            database: self.name().to_owned(),
            application: super::connect::application_name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> DatabaseConfig {
        DatabaseConfig {
            address: Address::parse(url).expect("a URL").0,
            database: "app_clone_x".to_owned(),
            application: "it's a\\test".to_owned(),
        }
    }

    #[test]
    fn a_url_and_keywords_have_all_parts_quoted() {
        let config = config("postgres://me:p%27w@db.example:6000/?sslmode=require");
        assert_eq!(
            config.url(),
            "postgres://me:p%27w@db.example:6000/app_clone_x?sslmode=require&application_name=it%27s%20a%5Ctest"
        );
        assert_eq!(
            config.dsn(),
            "host='db.example' port='6000' user='me' dbname='app_clone_x' sslmode='require' password='p\\'w' \
             application_name='it\\'s a\\\\test'"
        );
        assert_eq!(config.host(), Some("db.example"));
        assert_eq!(config.ssl_mode(), Some("require"));
    }

    #[test]
    fn a_socket_uses_no_tls() {
        let config = config("postgres://me@%2Frun%2Fpg:6000/?sslmode=require");
        assert_eq!(
            config.url(),
            "postgres://me@%2Frun%2Fpg:6000/app_clone_x?application_name=it%27s%20a%5Ctest"
        );
        assert!(
            config.dsn().starts_with("host='/run/pg' port='6000' "),
            "{}",
            config.dsn()
        );
        assert_eq!(config.socket_folder(), Some(Path::new("/run/pg")));
    }

    #[test]
    fn the_password_is_not_printed() {
        let config = config("postgres://me:hunter2@db.example/");
        assert_eq!(config.password(), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
