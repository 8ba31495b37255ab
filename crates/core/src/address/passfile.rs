//! The lines of a passfile with the password of an address.
//!
//! A line holds for every server with the same port.

use super::Address;

impl Address {
    /// The lines of a passfile that hold the password for every database of this server.
    pub fn passfile_lines(&self) -> Option<String> {
        let password = escape(self.password.as_deref()?);
        let (port, user) = (self.port, escape(&self.user));
        let line = |host: String| format!("{}:{port}:*:{user}:{password}\n", escape(&host));
        Some(self.passfile_hosts().into_iter().map(line).collect())
    }

    fn passfile_hosts(&self) -> Vec<String> {
        vec!["*".to_owned()]
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
}
