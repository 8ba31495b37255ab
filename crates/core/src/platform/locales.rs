//! The locales of this machine.

use std::process::Command;

/// The names of the locales, as `initdb` asks for them, and the version of the C library, which is the version of their sort orders. Parts that the
/// machine cannot report are empty.
pub fn locales() -> String {
    let output = |program: &str, argument: &str| {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C");
        let output = command.arg(argument).output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    output("getconf", "GNU_LIBC_VERSION") + &output("locale", "-a")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locales_are_listed_where_the_machine_can() {
        if Command::new("locale").arg("-a").output().is_ok() {
            assert!(
                locales().lines().any(|line| line == "POSIX"),
                "{}",
                locales()
            );
        }
    }
}
