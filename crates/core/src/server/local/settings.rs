//! Server settings: ours for disposable data, and those of the configuration.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};

use crate::platform::System;
use crate::server::local::{Local, LocalError, PORT};

impl Local {
    /// Settings for the command line, so that no file in the data directory can change where the server listens.
    pub(super) fn command_line_settings(&self) -> Vec<String> {
        let socket_dir = self.socket_dir().to_string_lossy().into_owned();
        let is_ours = |name: &str| {
            // Only with the level `minimal` must there be no WAL senders.
            let is_for_minimal =
                name == "max_wal_senders" && self.settings.contains_key("wal_level");
            !self.settings.contains_key(name) && !is_for_minimal
        };
        let fixed = SETTINGS.iter().filter(|(name, _)| is_ours(name));
        let fixed = fixed.map(|(name, value)| format!("{name}={value}"));
        let mut settings: Vec<String> = fixed.collect();
        settings.push(format!("unix_socket_directories={socket_dir}"));
        settings.push(format!("port={PORT}"));
        let can_check = |major: u32| System::CURRENT.can_check_clients(major);
        if self.major.parse().is_ok_and(can_check) {
            // Ends the query of a killed test instead of letting it finish.
            settings.push("client_connection_check_interval=1s".to_owned());
        }
        // Of several values for a setting, the last one counts.
        let configured = self.settings.iter();
        settings.extend(configured.map(|(name, value)| format!("{name}={value}")));
        settings
    }

    /// The length of the log, in bytes.
    pub(super) fn log_length(&self) -> u64 {
        fs::metadata(self.log()).map_or(0, |log| log.len())
    }

    /// Why a server with settings of the configuration did not start: the setting that its messages, which begin at `from` in the log, are about.
    pub(super) fn setting_error(&self, from: u64) -> Option<LocalError> {
        let mut text = String::new();
        let mut log = fs::File::open(self.log()).ok()?;
        log.seek(SeekFrom::Start(from)).ok()?;
        log.take(64 << 10).read_to_string(&mut text).ok()?;
        let (name, message) = setting_at_fault(&self.settings, &text)?;
        Some(LocalError::Setting {
            name,
            message,
            log: self.log(),
        })
    }
}

/// The setting that the server's messages are about, by its name or else by one of its values, and the message.
fn setting_at_fault(settings: &BTreeMap<String, String>, log: &str) -> Option<(String, String)> {
    let lines = || log.lines().filter(|line| line.contains("FATAL:"));
    let message = |line: &str| {
        line.split_once("FATAL:")
            .map_or("", |(_, text)| text.trim())
            .to_owned()
    };
    let by_name = settings.keys().find_map(|name| {
        let line = lines().find(|line| contains_word(line, name))?;
        Some((name.clone(), message(line)))
    });
    by_name.or_else(|| {
        settings.iter().find_map(|(name, value)| {
            let mut parts = value
                .split(',')
                .map(str::trim)
                .filter(|part| part.len() > 2);
            let line = parts.find_map(|part| lines().find(|line| contains_word(line, part)))?;
            Some((name.clone(), message(line)))
        })
    })
}

fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
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
    // `initdb` writes the time zone of the machine.
    ("timezone", "UTC"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_at_fault_is_found_by_name_or_value() {
        let settings = BTreeMap::from(
            [
                ("wal_leve", "logical"),
                ("work_mem", "much"),
                ("shared_preload_libraries", "auto_explain, pg_nothing"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let at_fault = |line: &str| setting_at_fault(&settings, line).map(|(name, _)| name);
        for (line, name) in [
            (
                "FATAL:  unrecognized configuration parameter \"wal_leve\"",
                "wal_leve",
            ),
            (
                "FATAL:  invalid value for parameter \"work_mem\": \"much\"",
                "work_mem",
            ),
            (
                "x\n2026 [7] FATAL:  could not access file \"pg_nothing\": No such file or directory",
                "shared_preload_libraries",
            ),
        ] {
            assert_eq!(at_fault(line).as_deref(), Some(name), "{line}");
        }
        for line in [
            "LOG:  work_mem",
            "FATAL:  invalid value for parameter \"maintenance_work_mem\": \"1\"",
            "FATAL:  could not map memory",
        ] {
            assert_eq!(at_fault(line), None, "{line}");
        }
    }
}
