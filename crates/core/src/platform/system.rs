//! What operating systems can do, as pure functions, so that the decisions for each of them are tested on every other one.

/// An operating system, as far as the code distinguishes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Linux.
    Linux,
    /// macOS and similar systems.
    Other,
}

impl System {
    /// The system of this process.
    pub const CURRENT: Self = Self::from_linux(cfg!(target_os = "linux"));

    /// The system, if it is known whether that is Linux.
    pub const fn from_linux(is_linux: bool) -> Self {
        match is_linux {
            true => Self::Linux,
            false => Self::Other,
        }
    }

    /// Whether a server of this major version on this system accepts `client_connection_check_interval`. Version 14 needs `POLLRDHUP`, which only Linux has;
    /// since 15 kqueue does as well.
    pub fn can_check_clients(self, major: u32) -> bool {
        match self {
            Self::Linux => major >= 14,
            Self::Other => major >= 15,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_14_checks_its_clients_only_on_linux() {
        let accepted =
            |system: System| [13, 14, 15, 18].map(|major| system.can_check_clients(major));
        assert_eq!(accepted(System::Linux), [false, true, true, true]);
        assert_eq!(accepted(System::Other), [false, false, true, true]);
    }
}
