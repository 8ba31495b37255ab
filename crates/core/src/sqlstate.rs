//! SQLSTATE codes that the code reacts to.

/// The database does not exist.
pub const INVALID_CATALOG_NAME: &str = "3D000";
/// The database already exists.
pub const DUPLICATE_DATABASE: &str = "42P04";
/// The object, such as a role, already exists.
pub const DUPLICATE_OBJECT: &str = "42710";
/// A row with this key exists already.
pub const UNIQUE_VIOLATION: &str = "23505";
/// The database has a session or a prepared transaction.
pub const OBJECT_IN_USE: &str = "55006";
/// Another transaction changed the same row of a catalog.
pub const INTERNAL_ERROR: &str = "XX000";
/// A lock was not available within `lock_timeout`.
pub const LOCK_NOT_AVAILABLE: &str = "55P03";
/// The role lacks a privilege.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// The table does not exist.
pub const UNDEFINED_TABLE: &str = "42P01";
/// The function does not exist.
pub const UNDEFINED_FUNCTION: &str = "42883";
/// The type, or another object, does not exist.
pub const UNDEFINED_OBJECT: &str = "42704";
/// The disk or the shared memory of the machine is full.
pub const DISK_FULL: &str = "53100";
/// The statement cannot be parsed.
pub const SYNTAX_ERROR: &str = "42601";
/// Too many connections.
pub const TOO_MANY_CONNECTIONS: &str = "53300";
/// The server is starting up, shutting down or in recovery.
pub const CANNOT_CONNECT_NOW: &str = "57P03";
/// An administrator shut down the server or ended the session.
pub const ADMIN_SHUTDOWN: &str = "57P01";
/// A backend crashed and the server is restarting.
pub const CRASH_SHUTDOWN: &str = "57P02";
/// Protocol violation; PgBouncer also uses it for everything that it rejects.
pub const PROTOCOL_VIOLATION: &str = "08P01";
/// Wrong password.
pub const INVALID_PASSWORD: &str = "28P01";
/// pg_hba.conf rejects the login, or the role does not exist.
pub const INVALID_AUTHORIZATION: &str = "28000";
/// The transaction is aborted: statements fail until it is rolled back.
pub const IN_FAILED_SQL_TRANSACTION: &str = "25P02";
/// The database is not in a state for this: not connectable, or left invalid by an interrupted DROP.
pub const NOT_IN_PREREQUISITE_STATE: &str = "55000";
