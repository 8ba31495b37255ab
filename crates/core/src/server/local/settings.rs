//! Server settings for disposable data.

use crate::platform::System;
use crate::server::local::{Local, PORT};

impl Local {
    /// Settings for the command line, so that no file in the data directory can change where the server listens.
    pub(super) fn settings(&self) -> Vec<String> {
        let socket_dir = self.socket_dir().to_string_lossy().into_owned();
        let fixed = SETTINGS
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let mut settings: Vec<String> = fixed.collect();
        settings.push(format!("unix_socket_directories={socket_dir}"));
        settings.push(format!("port={PORT}"));
        let can_check = |major: u32| System::CURRENT.can_check_clients(major);
        if self.major.parse().is_ok_and(can_check) {
            // Ends the query of a killed test instead of letting it finish.
            settings.push("client_connection_check_interval=1s".to_owned());
        }
        settings
    }
}

const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("min_wal_size", "32MB"),
    ("max_wal_size", "256MB"),
    ("checkpoint_timeout", "30min"),
    ("shared_buffers", "128MB"),
    // No test waits for a connection. The lock table has `max_locks_per_transaction * max_connections` entries, enough for a
    // transaction that drops every table of a large schema.
    ("max_connections", "1000"),
    ("max_locks_per_transaction", "128"),
    ("jit", "off"),
    // Shows which test was running when something was committed into the shared clone. The cost is not measurable.
    ("track_commit_timestamp", "on"),
    // A client that connects and sends nothing delays the restart after a crash by up to this time.
    ("authentication_timeout", "10s"),
    ("autovacuum_naptime", "5min"),
    ("log_checkpoints", "off"),
    ("log_line_prefix", "%m [%p] %a "),
    // Tests cause errors on purpose; the log is for problems of the server itself.
    ("log_min_messages", "log"),
    ("log_min_error_statement", "fatal"),
];
