//! The lines of a passfile with the password of an address.
//!
//! A line names the server that the password is for. Drivers write that server in different ways, so some servers have two lines.

use std::path::Path;

use super::{Address, Host};

/// Directories that libpq may have as its default for unix sockets. It looks up the password of a server there under `localhost`.
const DEFAULT_DIRECTORIES: &[&str] = &["/run/postgresql", "/var/run/postgresql", "/tmp"];

impl Address {
    /// The lines of a passfile that hold the password for every database of this server, and of no other one.
    pub fn passfile_lines(&self) -> Option<String> {
        let password = escape(self.password.as_deref()?);
        let (port, user) = (self.port, escape(&self.user));
        let line = |host: String| format!("{}:{port}:*:{user}:{password}\n", escape(&host));
        Some(self.passfile_hosts().into_iter().map(line).collect())
    }

    fn passfile_hosts(&self) -> Vec<String> {
        match &self.host {
            // sqlx keeps the brackets.
            Host::Tcp(host) if host.contains(':') => vec![host.clone(), format!("[{host}]")],
            Host::Tcp(host) => vec![host.clone()],
            Host::Socket(directory) => {
                let is_default = DEFAULT_DIRECTORIES
                    .iter()
                    .any(|d| directory == Path::new(d));
                let localhost = is_default.then(|| "localhost".to_owned());
                let directory = directory.to_string_lossy().into_owned();
                [directory].into_iter().chain(localhost).collect()
            }
        }
    }

    /// Reads the password from the first of the lines that [`Self::passfile_lines`] wrote.
    pub fn read_passfile(text: &str) -> Option<String> {
        let mut password = String::new();
        let (mut field, mut escaped) = (0, false);
        for c in text.lines().next()?.chars() {
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

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str, password: &str) -> Address {
        let (mut address, _) = Address::parse(url).expect("a URL");
        address.password = Some(password.to_owned());
        address
    }

    #[test]
    fn the_lines_round_trip_the_password() {
        for password in ["plain", "with:colon", "back\\slash", "both\\:", ""] {
            for url in ["postgres://a%3Ab@h/d", "postgres://me@[::1]/d"] {
                let lines = address(url, password).passfile_lines();
                let lines = lines.expect("there is a password");
                assert_eq!(Address::read_passfile(&lines).as_deref(), Some(password));
            }
        }
        assert_eq!(Address::read_passfile("garbage"), None);
        assert_eq!(Address::read_passfile(""), None);
    }

    #[test]
    fn the_lines_name_the_server_and_no_other_one() {
        for (url, lines) in [
            (
                "postgres://me@db.example:6000/d",
                "db.example:6000:*:me:pw\n",
            ),
            (
                "postgres://me@[::1]/d",
                "\\:\\:1:5432:*:me:pw\n[\\:\\:1]:5432:*:me:pw\n",
            ),
            ("postgres://me@%2Fa%3Ab/d", "/a\\:b:5432:*:me:pw\n"),
            (
                "postgres://me@%2Ftmp/d",
                "/tmp:5432:*:me:pw\nlocalhost:5432:*:me:pw\n",
            ),
        ] {
            let found = address(url, "pw").passfile_lines();
            assert_eq!(found.as_deref(), Some(lines), "{url}");
        }
    }
}
